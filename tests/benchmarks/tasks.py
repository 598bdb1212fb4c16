"""Which tasks do the benchmarks run?"""

from __future__ import annotations

import time
from typing import Any

from django.db import connection

from cq import task


@task
def noop(cqt: Any, number: int) -> None:
    """Nothing: what remains is the engine's own cost."""


@task
def insert(cqt: Any, number: int) -> None:
    """One effect that must happen exactly once."""
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO bench_effect (number) VALUES (%s)", [number])


@task
def stamp(cqt: Any, sent: float) -> float:
    """Seconds since just before the call."""
    return time.time() - sent


@task
def parent(cqt: Any, children: int) -> None:
    """A tree of one level."""
    cqt.subtask_many(noop, [(number,) for number in range(children)])
