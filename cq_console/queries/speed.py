"""How long does a function usually run, and which tasks run much longer than that?"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from threading import Lock
from time import monotonic
from uuid import UUID

from django.db.models import QuerySet

from cq.folding import MINUTE, QUARTER
from cq.models import Statistic, Task
from cq.states import Status
from cq.statistics import BOUNDS

from .. import store

# A task runs long past this many times the time within which 95 of 100 end.
TIMES = 3
LEAST = 10.0
# Fewer runs than these say nothing about the next one.
SAMPLES = 20
SINCE = timedelta(hours=24)
ROWS = 5_000
RUNNING = 1_000
REMEMBERED_SECONDS = 60.0

Tasks = QuerySet[Task]


@dataclass(frozen=True, slots=True)
class LongRun:
    """A task that runs longer than its function usually does; times are in seconds."""

    id: UUID
    func_name: str
    ran: float
    usual: float


def long_running(tasks: Tasks, now: datetime) -> list[LongRun]:
    """The running tasks that run much longer than usual, the longest first."""
    started_before = now - timedelta(seconds=LEAST)
    running = tasks.filter(status=Status.RUNNING, started__lt=started_before).order_by("started")
    rows = list(running.values_list("id", "func_name", "started")[:RUNNING])
    usual = _remembered.of({func_name for _id, func_name, _started in rows}, now)
    found = []
    for id, func_name, started in rows:
        if started is None or func_name not in usual:
            continue
        ran = (now - started).total_seconds()
        if ran > max(TIMES * usual[func_name], LEAST):
            found.append(LongRun(id, func_name, ran, usual[func_name]))
    return found


def usual_seconds(functions: Collection[str], now: datetime) -> dict[str, float]:
    """Of each function with enough runs in a day, the time within which 95 of 100 ended."""
    found: dict[str, float] = {}
    for length in (QUARTER, MINUTE):
        missing = [name for name in functions if name not in found]
        if not missing:
            break
        sums: dict[str, list[int]] = {}
        rows = (
            store.rows(Statistic)
            .filter(length=length, bucket__gte=now - SINCE, func_name__in=missing)
            .order_by("-bucket")
        )
        for func_name, runs in rows.values_list("func_name", "runs")[:ROWS]:
            known = sums.setdefault(func_name, [0] * (len(BOUNDS) + 1))
            sums[func_name] = [one + other for one, other in zip(known, runs, strict=True)]
        for func_name, counts in sums.items():
            if sum(counts) >= SAMPLES:
                found[func_name] = percentile(counts, 0.95)
    return found


def percentile(counts: Sequence[int], share: float) -> float:
    """The time below which *share* of the runs in a histogram lie, in seconds, within its bin."""
    wanted = sum(counts) * share
    passed = 0
    lower = 0.0
    for count, upper in zip(counts, (*BOUNDS, 2 * BOUNDS[-1]), strict=True):
        if count and passed + count >= wanted:
            return lower + (upper - lower) * (wanted - passed) / count
        passed += count
        lower = upper
    return lower


class _Remembered:
    """What was usual a minute ago still is: a page asks every second, a day changes slowly."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._known: dict[str, tuple[float, float | None]] = {}

    def of(self, functions: Iterable[str], now: datetime) -> dict[str, float]:
        wanted = set(functions)
        fresh = monotonic() - REMEMBERED_SECONDS
        with self._lock:
            self._known = {name: known for name, known in self._known.items() if known[0] > fresh}
            missing = wanted - self._known.keys()
        if missing:
            usual = usual_seconds(missing, now)
            with self._lock:
                for name in missing:
                    self._known[name] = (monotonic(), usual.get(name))
        with self._lock:
            known = {name: self._known.get(name, (0.0, None))[1] for name in wanted}
        return {name: seconds for name, seconds in known.items() if seconds is not None}

    def forget(self) -> None:
        with self._lock:
            self._known.clear()


_remembered = _Remembered()
forget = _remembered.forget
