"""What can go wrong, and what should the reader do about it?"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from difflib import get_close_matches


class CQError(Exception):
    """The base of every error that django-cq raises."""


class ConfigurationError(CQError):
    """A setting is wrong; the message names it and what it takes."""


class TaskNotRegistered(CQError):
    def __init__(self, name: str, known: Iterable[str] = ()) -> None:
        self.name = name
        message = f"No task is registered as {name!r}."
        close = get_close_matches(name, list(known), n=1)
        if close:
            message += f" Did you mean {close[0]!r}?"
        app = name.split(".", 1)[0]
        super().__init__(f"{message} Is {app!r} in INSTALLED_APPS?")


class DuplicateTaskName(CQError):
    def __init__(self, name: str, first: str, second: str) -> None:
        super().__init__(
            f"Two functions are registered as task {name!r}: {first} and {second}. "
            "Give one of them another name: @task('…')."
        )


class InvalidOption(CQError, TypeError):
    """An option of ``@task`` or ``using()`` is unknown or out of range."""


class InvalidArguments(CQError, TypeError):
    """The arguments do not fit the function's signature, or cannot be encoded as JSON."""


class NotEncodable(InvalidArguments):
    def __init__(self, path: str, problem: str) -> None:
        self.path = path
        super().__init__(f"{path} cannot be stored as JSON: {problem}.")


class DuplicateSubmitError(CQError):
    def __init__(self, task_id: object, status: str) -> None:
        super().__init__(
            f"Task {task_id} was submitted already: it is {status}. "
            "Only a task stored with submit=False can be submitted, once."
        )


class InvalidAdoption(CQError):
    """A task returned a task that cannot become its child."""


class WaitInTransaction(CQError):
    def __init__(self, task_id: object) -> None:
        super().__init__(
            f"Task {task_id} cannot be waited for inside transaction.atomic(): it becomes visible "
            "to workers only when this transaction commits. Wait after the block."
        )


class RunInTransaction(CQError):
    def __init__(self) -> None:
        super().__init__(
            "run_pending() cannot run inside transaction.atomic(): a worker sees a task only when "
            "that transaction has committed. Call it after the block."
        )


class InvalidCrontab(CQError, ValueError):
    """A CRON entry is malformed or never fires."""

    def __init__(self, expression: str, problem: str, column: int | None = None) -> None:
        self.expression = expression
        self.problem = problem
        self.column = column
        super().__init__(f"CRON entry {expression!r}: {problem}")


class LeaseLost(CQError):
    """Somebody else owns the task now; this run must leave no trace."""


class Retry(CQError):
    """Raised by a task that wants another attempt, *after* so many seconds."""

    def __init__(self, reason: str = "", *, after: float | timedelta | None = None) -> None:
        seconds = after.total_seconds() if isinstance(after, timedelta) else after
        if seconds is not None and not isinstance(seconds, (int, float)):
            raise TypeError(f"Retry: after is seconds or a timedelta, not {after!r}.")
        self.after = seconds
        super().__init__(reason or "the task asked for another attempt")


class Discard(CQError):
    """Raised by a task whose work is not needed; its parent does not count that as a failure."""

    def __init__(self, reason: str = "") -> None:
        self.reason = reason
        super().__init__(reason)


class TaskCancelled(BaseException):
    """Raised inside a running task when somebody cancelled it.

    It derives from BaseException so that ``except Exception`` in a task does not swallow it.
    """


class TaskTimeout(BaseException):
    """Raised inside a running task that has used up its *timeout*."""
