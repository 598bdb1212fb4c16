"""How many tasks does one caller store a second?"""

from __future__ import annotations

import time
from collections.abc import Iterator

from benchmarks import stage
from benchmarks.figures import Figure


def measure(scale: float) -> Iterator[Figure]:
    from benchmarks import tasks
    from cq.models import Task

    singles, many = max(100, int(5_000 * scale)), max(100, int(50_000 * scale))
    stage.empty()
    tasks.noop.delay(0)
    began = time.perf_counter()
    for number in range(singles):
        tasks.noop.delay(number)
    took = time.perf_counter() - began
    verified = _stored(Task.objects.count(), singles + 1)
    yield Figure("delay(), autocommit", "django-cq", singles / took, "/s", verified, ">= 2250")
    stage.empty()
    arguments = [(number,) for number in range(many)]
    began = time.perf_counter()
    tasks.noop.delay_many(arguments)
    took = time.perf_counter() - began
    verified = _stored(Task.objects.count(), many)
    yield Figure("delay_many", "django-cq", many / took, "/s", verified, ">= 30000")


def _stored(found: int, expected: int) -> str:
    if found != expected:
        raise AssertionError(f"expected {expected} rows, found {found}")
    return f"{found} rows"
