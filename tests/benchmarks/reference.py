"""How fast is this machine, told by what the others reach on it?

Absolute targets were set on one machine of two cores. The same code does half of that on another,
or on the same one an hour later; what the others do in the same run says which it is.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence

from benchmarks.figures import Figure

# The others, a second, on the machine and in the run by which the targets were set (23 November
# 2026: two cores, Python 3.13, PostgreSQL 15, Redis 7).
_THEN = {
    ("drain", "Taskiq list, 1 process"): 3_269,
    ("drain", "Taskiq list, 2 processes"): 6_735,
    ("drain", "Taskiq stream, 1 process"): 3_811,
    ("drain", "Huey, 10 threads"): 3_086,
    ("drain", "Dramatiq, 2 x 8"): 4_192,
    ("drain", "Dramatiq, 1 x 10"): 2_618,
    ("drain", "Celery, 10 threads"): 1_091,
    ("delay(), autocommit", "Taskiq list, 1 process"): 3_638,
    ("delay(), autocommit", "Taskiq list, 2 processes"): 3_700,
    ("delay(), autocommit", "Taskiq stream, 1 process"): 3_650,
    ("delay(), autocommit", "Huey, 10 threads"): 7_493,
    ("delay(), autocommit", "Dramatiq, 2 x 8"): 6_113,
    ("delay(), autocommit", "Dramatiq, 1 x 10"): 6_086,
    ("delay(), autocommit", "Celery, 10 threads"): 2_242,
    ("delay(), autocommit", "Procrastinate"): 1_077,
    ("delay(), autocommit", "django-ox, 10 threads"): 1_552,
}
# Whose target is a number, and not a share of another figure of the run.
_SCALED = ("drain", "atomic INSERT, two processes", "delay(), autocommit", "delay_many")
_FEWEST = 5


def speed(figures: Sequence[Figure]) -> list[float]:
    """What each of the others reached of what it reached then, smallest first."""
    return sorted(
        one.value / then
        for one in figures
        if (then := _THEN.get((one.measure, one.who))) is not None
    )


def at_the_speed_of_then(figures: Sequence[Figure]) -> Iterator[str]:
    """Say how fast this machine is, and what our rates would be on that one; nothing by few."""
    factors = speed(figures)
    if len(factors) < _FEWEST:
        return
    median = statistics.median(factors)
    yield (
        f"Here the others reach {median:.2f} of what they reached where the targets were set "
        f"(median of {len(factors)} figures, {factors[0]:.2f} to {factors[-1]:.2f}). Our rates, "
        "divided by that:"
    )
    yield "\n".join(
        f"- {one.measure}, {one.who}: {one.value / median:,.0f} {one.unit} ({one.target})"
        for one in figures
        if one.measure in _SCALED and one.target
    )
