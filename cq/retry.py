"""Shall a failed attempt be followed by another one, and when?"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TypeAlias

Backoff: TypeAlias = "float | timedelta | Callable[[int], float | timedelta] | None"
RetryOn: TypeAlias = "type[BaseException] | Callable[[BaseException], bool]"

CAP = 3600.0
FIRST = 1.0
LONGEST = 10 * 365 * 86_400.0


def is_retryable(error: BaseException, retry_exceptions: Sequence[RetryOn]) -> bool:
    """Does *error* match one of the classes or callables? With none given, every error does."""
    if not retry_exceptions:
        return True
    return any(
        isinstance(error, wanted) if isinstance(wanted, type) else bool(wanted(error))
        for wanted in retry_exceptions
    )


def delay(backoff: Backoff, attempt: int, jitter: Callable[[], float] = random.random) -> float:
    """Seconds to wait after the failure of attempt number *attempt* (1 is the first).

    The default doubles from a second up to an hour; of each wait a half is drawn at random, so
    that tasks which failed together do not come back together.
    """
    if backoff is None:
        # Past 2**12 the cap holds; without the bound 2**attempt grows without end.
        full = min(CAP, FIRST * 2.0 ** min(attempt - 1, 12))
        return full / 2 + full / 2 * jitter()
    wait = backoff(attempt) if callable(backoff) else backoff
    seconds = wait.total_seconds() if isinstance(wait, timedelta) else float(wait)
    return bounded(seconds)


def bounded(seconds: float) -> float:
    """*seconds* as a wait that every database can add to its time."""
    return min(max(0.0, seconds), LONGEST)
