"""How does a task run here and now, without a row?"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

from django.utils import timezone as clock

from . import registry
from .chaining import Chainable
from .exceptions import Discard, DuplicateSubmitError
from .ids import uuid7
from .loops import off_the_loop
from .models import Task
from .registry import Call
from .signature import PREVIOUS
from .states import ACTIVE, DONE, ERROR, Cause, Condition, Status, Verdict, verdict

logger = logging.getLogger("cq")


class SerialTask(Chainable["SerialTask"]):
    """What a stored `Task` shows, for a call that has run already."""

    STATUS_PENDING = Status.PENDING
    STATUS_COMPLETE = STATUS_SUCCESS = Status.SUCCESS
    STATUS_FAILURE = Status.FAILURE
    STATUS_REVOKED = Status.REVOKED
    STATUS_DONE, STATUS_ERROR, STATUS_ACTIVE = DONE, ERROR, ACTIVE

    def __init__(self, call: Call, previous: SerialTask | None = None) -> None:
        self.id: UUID = uuid7()
        self._call = call
        self.func_name = call.definition.name
        self.args, self.kwargs = list(call.args), dict(call.kwargs)
        self.queue, self.priority = call.options.queue, call.options.priority
        self.status: Status = Status.PENDING
        self.parent: SerialTask | None = None
        self.previous = previous
        self.result: Any = None
        self.error = ""
        self.cause: Cause | str = ""
        self.reason = ""
        self.discarded: Discard | None = None
        self.attempts = 0
        self.submitted: datetime = clock.now()
        self.logs: list[str] = []

    @property
    def pk(self) -> UUID:
        return self.id

    @property
    def is_finished(self) -> bool:
        return self.status in DONE

    def wait(self, timeout: float | None = None) -> SerialTask:
        return self

    async def await_(self, timeout: float | None = None) -> SerialTask:
        return self

    def submit(self, *first_args: Any) -> None:
        """Run it now, with *first_args* put before its own; see `Task.submit`."""
        if self.status == Status.REVOKED:
            return
        if self.status != Status.PENDING or self.previous is not None:
            raise DuplicateSubmitError(self.id, self.status.label)
        call = replace(self._call, args=(*first_args, *self._call.args))
        registry.check_call(self.func_name, call.args, call.kwargs)
        self.args = list(call.args)
        execute(call, self)

    def cancel(self) -> None:
        """Revoke what has not run; see `Task.cancel`."""
        if self.status == Status.PENDING:
            self.status, self.cause, self.reason = Status.REVOKED, Cause.CANCELLED, "cancelled"

    revoke = cancel

    def refresh_from_db(self) -> None:
        """Nothing to read: what runs here and now knows how it ended."""

    def format_logs(self) -> str:
        return "\n".join(self.logs)

    def follow(
        self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], condition: Condition
    ) -> SerialTask:
        return _follow(self, func, args, kwargs, condition)


class _Followed(Chainable["SerialFollower"]):
    """Remembers what was asked to run after it."""

    def __init__(self) -> None:
        self._followers: list[SerialFollower] = []

    def follow(
        self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], condition: Condition
    ) -> SerialFollower:
        follower = SerialFollower(func, args, kwargs, condition)
        self._followers.append(follower)
        return follower

    def run_followers(self, task: SerialTask) -> None:
        for follower in self._followers:
            follower.run_after(task)


class SerialFollower(_Followed):
    """A follower that a running call has asked for; it runs when that has ended."""

    def __init__(
        self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], condition: Condition
    ) -> None:
        super().__init__()
        self.id: UUID = uuid7()
        self._call = (func, args, kwargs, condition)

    def run_after(self, previous: SerialTask) -> None:
        self.run_followers(_follow(previous, *self._call, task_id=self.id))


class SerialContext(_Followed):
    """`cqt` of a call that runs here and now; what it makes runs here and now as well."""

    is_cancelled = False
    attempt = 1

    def __init__(self, task: SerialTask, root_id: UUID) -> None:
        super().__init__()
        self.task = task
        self.root_id = root_id

    @property
    def id(self) -> UUID:
        return self.task.id

    @property
    def parent(self) -> SerialTask | None:
        return self.task.parent

    @property
    def previous(self) -> SerialTask | None:
        return self.task.previous

    def subtask(self, func: Any, *args: Any, **kwargs: Any) -> SerialTask:
        return self._child(registry.call(func, args, kwargs))

    def subtask_many(self, func: Any, argument_tuples: Iterable[Sequence[Any]]) -> list[SerialTask]:
        return [self._child(registry.call(func, args, {})) for args in argument_tuples]

    def log(
        self,
        message: object,
        level: int = logging.INFO,
        publish: bool = True,
        limit: int | None = None,
    ) -> None:
        self.task.logs.append(str(message))
        logger.log(level, "%s", message)

    def progress(self, done: int, total: int, message: object = "") -> None:
        """Nobody watches a call that runs here and now."""

    def checkpoint(self) -> None:
        """Nobody can cancel it from elsewhere."""

    def _child(self, call: Call) -> SerialTask:
        child = SerialTask(call)
        child.parent = self.task
        return execute(call, child, self.root_id)


def call_now(call: Call) -> Any:
    """Run *call* in this thread; return its result, or raise its exception."""
    task = execute(call, SerialTask(call))
    if task.discarded is not None:
        raise task.discarded
    return task.result


def execute(call: Call, task: SerialTask, root_id: UUID | None = None) -> SerialTask:
    """Run *call* as *task*; its exception, and those of what it made, propagate.

    `Discard` is no failure, to whoever made it neither: it ends *task* revoked.
    """
    context = SerialContext(task, root_id or task.id)
    task.attempts = 1
    definition = call.definition

    def run() -> Any:
        made = definition.func(context, *call.args, **call.kwargs)
        return asyncio.run(made) if definition.is_async else made

    try:
        # An async task may make subtasks, and async code may call a task.
        result = off_the_loop(run)
    except Discard as discard:
        task.status, task.cause, task.discarded = Status.REVOKED, Cause.DISCARDED, discard
        task.reason = f"discarded: {discard}" if str(discard) else "discarded"
        context.run_followers(task)
        return task
    except Exception as error:
        task.status, task.error = Status.FAILURE, f"{type(error).__name__}: {error}"
        context.run_followers(task)
        raise
    while isinstance(result, (SerialTask, Task)):
        result = result.result
    task.status, task.result = Status.SUCCESS, result
    context.run_followers(task)
    return task


def _follow(
    previous: SerialTask,
    func: Any,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    condition: Condition,
    task_id: UUID | None = None,
) -> SerialTask:
    given, named = _filled(list(args), previous.result), _filled(dict(kwargs), previous.result)
    call = registry.call(func, given, named)
    task = SerialTask(call, previous)
    task.id = task_id or task.id
    task.parent = previous.parent
    if previous.status not in DONE:
        task.status = Status.PENDING
        return task
    match verdict(previous.status, previous.cause, condition):
        case Verdict.RUNS:
            return execute(call, task)
        case Verdict.NOT_NEEDED:
            task.status, task.cause, task.reason = Status.REVOKED, Cause.NOT_NEEDED, "not needed"
        case Verdict.CANCELLED:
            task.status, task.cause = Status.REVOKED, Cause.CANCELLED
            task.reason = "its predecessor was cancelled"
        case Verdict.BLOCKED:
            task.cause = Cause.BLOCKED
    return task


def _filled(value: Any, result: Any) -> Any:
    """*value* with `PREVIOUS` replaced by *result*, at any depth."""
    if value is PREVIOUS:
        return result
    if isinstance(value, (list, tuple)):
        return [_filled(item, result) for item in value]
    if isinstance(value, dict):
        return {key: _filled(item, result) for key, item in value.items()}
    return value
