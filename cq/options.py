"""What may ``@task`` and ``using()`` say, and is it said right?"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from difflib import get_close_matches
from math import ceil
from typing import Any

from .exceptions import InvalidOption
from .retry import Backoff, RetryOn

MIN_PRIORITY, MAX_PRIORITY = -100, 100
MOST = 2**31 - 1  # what an integer column of every database holds; in seconds 68 years
QUEUE_NAME_LENGTH = 80  # with its prefix, a channel's name must stay below 100 characters
_QUEUE_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")

Coalesce = bool | str | Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Options:
    """What was said of a task. Times are in seconds; None means: not said."""

    atomic: bool | None = None
    queue: str = "default"
    priority: int = 0
    retries: int = 0
    retry_exceptions: Sequence[RetryOn] = ()
    backoff: Backoff = None
    timeout: float | None = None
    result_ttl: int | None = None
    failure_ttl: int | None = None
    expires: int | None = None
    coalesce: Coalesce = False
    run_at: datetime | None = None
    run_after: float | None = None


PER_CALL = frozenset(
    {
        "queue",
        "priority",
        "run_at",
        "run_after",
        "retries",
        "timeout",
        "result_ttl",
        "expires",
        "coalesce",
    }
)
DECLARED = frozenset(field.name for field in fields(Options)) - {"run_at", "run_after"}


def declared(name: str, given: Mapping[str, Any]) -> Options:
    """The options of a declaration; raises `InvalidOption` naming what is wrong."""
    return Options(**_checked(name, given, DECLARED))


def override(name: str, base: Options, given: Mapping[str, Any]) -> Options:
    """*base* with the options of one call; raises `InvalidOption`."""
    changes = _checked(name, given, PER_CALL)
    if changes.get("run_at") is not None and changes.get("run_after") is not None:
        raise InvalidOption(f"{name}: give run_at or run_after, not both.")
    # The one that is said now takes the place of the other one said before.
    if "run_at" in changes:
        changes.setdefault("run_after", None)
    elif "run_after" in changes:
        changes["run_at"] = None
    return replace(base, **changes)


def _checked(name: str, given: Mapping[str, Any], allowed: Collection[str]) -> dict[str, Any]:
    checked = {}
    for option, value in given.items():
        if option not in allowed:
            raise unknown_option(name, option, allowed)
        try:
            checked[option] = _CHECKS[option](value)
        except _Wrong as wrong:
            raise InvalidOption(f"{name}: {option} {wrong}, not {value!r}.") from None
    return checked


def unknown_option(name: str, option: str, allowed: Collection[str]) -> InvalidOption:
    """What to raise for *option*, which *name* does not take, with the nearest one that it does."""
    close = get_close_matches(option, allowed, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return InvalidOption(f"{name}: {option!r} is not an option here.{hint}")


class _Wrong(Exception):
    """What the value must be instead."""


def _atomic(value: Any) -> bool | None:
    if value is not None and not isinstance(value, bool):
        raise _Wrong("must be True or False")
    return value


def _queue(value: Any) -> str:
    if not isinstance(value, str) or not value or not set(value) <= _QUEUE_CHARACTERS:
        raise _Wrong("must be a name of letters, digits, '-', '_' and '.'")
    if len(value) > QUEUE_NAME_LENGTH:
        raise _Wrong(f"must be at most {QUEUE_NAME_LENGTH} characters long")
    return value


def _priority(value: Any) -> int:
    if not _is_int(value) or not MIN_PRIORITY <= value <= MAX_PRIORITY:
        raise _Wrong(f"must be a whole number from {MIN_PRIORITY} to {MAX_PRIORITY}")
    return int(value)


def _retries(value: Any) -> int:
    if not _is_int(value) or not 0 <= value <= MOST:
        raise _Wrong(f"must be a whole number from 0 to {MOST}")
    return int(value)


def _retry_exceptions(value: Any) -> tuple[RetryOn, ...]:
    wanted = tuple(value) if isinstance(value, (list, tuple, set)) else (value,)
    if not all(callable(one) for one in wanted):
        raise _Wrong("must be exception classes, or callables that take the exception")
    return wanted


def _backoff(value: Any) -> Any:
    if value is None or callable(value) or isinstance(value, timedelta):
        return value
    if not _is_number(value) or value < 0:
        raise _Wrong("must be seconds, a timedelta, or a callable of the attempt number")
    return float(value)


def _seconds(value: Any) -> float | None:
    if value is None:
        return None
    number = value.total_seconds() if isinstance(value, timedelta) else value
    if not _is_number(number) or not 0 <= number <= MOST:
        raise _Wrong("must be seconds or a timedelta, from 0 to 68 years")
    return float(number)


def _whole_seconds(value: Any) -> int | None:
    seconds = _seconds(value)
    # Up: half a second is not nothing.
    return None if seconds is None else ceil(seconds)


def _timeout(value: Any) -> float | None:
    seconds = _seconds(value)
    if seconds == 0:
        raise _Wrong("must be seconds or a timedelta, above 0")
    return seconds


def _run_at(value: Any) -> datetime | None:
    if value is not None and (not isinstance(value, datetime) or value.tzinfo is None):
        raise _Wrong("must be an aware datetime")
    return value


def _coalesce(value: Any) -> Any:
    if not isinstance(value, (bool, str)) and not callable(value):
        raise _Wrong("must be True, a key, or a callable of the arguments")
    return value


_CHECKS: dict[str, Callable[[Any], Any]] = {
    "atomic": _atomic,
    "queue": _queue,
    "priority": _priority,
    "retries": _retries,
    "retry_exceptions": _retry_exceptions,
    "backoff": _backoff,
    "timeout": _timeout,
    "result_ttl": _whole_seconds,
    "failure_ttl": _whole_seconds,
    "expires": _whole_seconds,
    "run_after": _seconds,
    "run_at": _run_at,
    "coalesce": _coalesce,
}


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    # NaN compares with nothing, not even itself.
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value == value
