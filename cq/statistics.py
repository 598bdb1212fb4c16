"""How do a worker's numbers and failure causes reach tables that outlive the tasks?

Nothing is decided by them, and they never ride in an outcome's transaction: a row that many
transactions share would make them wait for each other. A crash loses at most one flush interval.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from django.db.models import F
from django.db.models.functions import Greatest

from . import conf, hints
from .database import connection, write_transaction
from .models import FailureGroup, Statistic
from .outcomes import Outcome, Problem
from .states import Status

# Upper bounds of the histograms, in seconds; the twelfth bin takes the rest.
BOUNDS = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 300.0, 3600.0)

_Key = tuple[datetime, str, str]


@dataclass(slots=True)
class Totals:
    """What is counted of one function in one queue."""

    started: int = 0
    succeeded: int = 0
    failed: int = 0
    retried: int = 0
    waits: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    runs: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))

    def add(self, row: Statistic) -> None:
        self.started += row.started
        self.succeeded += row.succeeded
        self.failed += row.failed
        self.retried += row.retried
        self.waits = [one + other for one, other in zip(self.waits, row.waits, strict=True)]
        self.runs = [one + other for one, other in zip(self.runs, row.runs, strict=True)]

    def row(
        self, bucket: datetime, length: int, queue: str, func_name: str, worker: int
    ) -> Statistic:
        """The row of a span of *length* minutes; *worker* is 0 for all of them together."""
        return Statistic(
            bucket=bucket,
            length=length,
            queue=queue,
            func_name=func_name,
            worker=worker,
            started=self.started,
            succeeded=self.succeeded,
            failed=self.failed,
            retried=self.retried,
            waits=list(self.waits),
            runs=list(self.runs),
        )


@dataclass(slots=True)
class _Sighting:
    problem: Problem
    first: datetime
    last: datetime


class Tally:
    """Adds up one worker's minutes in memory and writes its own rows; only it writes those."""

    def __init__(self, worker_id: int) -> None:
        self._worker_id = worker_id
        self._lock = threading.Lock()
        self._minutes: dict[_Key, Totals] = {}
        self._changed: set[_Key] = set()
        self._sightings: dict[str, _Sighting] = {}

    def add(self, outcomes: Iterable[Outcome]) -> None:
        with self._lock:
            for outcome in outcomes:
                self._add(outcome)

    def _add(self, outcome: Outcome) -> None:
        claimed = outcome.claimed
        if outcome.status == Status.QUEUED:
            return
        minute = outcome.finished.replace(second=0, microsecond=0)
        key = (minute, claimed.queue, claimed.func_name)
        totals = self._minutes.get(key)
        if totals is None:
            totals = self._minutes[key] = Totals()
        self._changed.add(key)
        totals.started += 1
        if outcome.status == Status.SUCCESS:
            totals.succeeded += 1
        elif outcome.status == Status.RETRY:
            totals.retried += 1
        elif outcome.status in (Status.FAILURE, Status.LOST):
            totals.failed += 1
        waited = (outcome.started - claimed.run_at).total_seconds()
        ran = (outcome.finished - outcome.started).total_seconds()
        totals.waits[bisect_left(BOUNDS, waited)] += 1
        totals.runs[bisect_left(BOUNDS, ran)] += 1
        if outcome.problem is not None and outcome.problem.fingerprint:
            self._see(outcome.problem, outcome.finished)

    def _see(self, problem: Problem, when: datetime) -> None:
        seen = self._sightings.get(problem.fingerprint)
        if seen is None:
            self._sightings[problem.fingerprint] = _Sighting(problem, when, when)
        else:
            seen.last = max(seen.last, when)

    def flush(self) -> None:
        """Write what has changed since the last flush; what cannot be written is kept."""
        with self._lock:
            changed = {key: self._minutes[key] for key in self._changed}
            rows = [
                totals.row(minute, 1, queue, func_name, self._worker_id)
                for (minute, queue, func_name), totals in changed.items()
            ]
            sightings, self._sightings = self._sightings, {}
            self._changed = set()
        if not rows and not sightings:
            return
        try:
            with write_transaction():
                upsert(rows)
                for fingerprint, sighting in sightings.items():
                    _store_group(fingerprint, sighting)
        except Exception:
            with self._lock:
                self._changed |= changed.keys()
                self._sightings = sightings | self._sightings
            raise
        if sightings:
            # Causes come later than the failures: a page that lists them has looked already.
            hints.nudge_overview()
        self._forget_old()

    def _forget_old(self) -> None:
        with self._lock:
            if not self._minutes:
                return
            newest = max(minute for minute, _queue, _func in self._minutes)
            self._minutes = {
                key: totals
                for key, totals in self._minutes.items()
                if key in self._changed or (newest - key[0]).total_seconds() < 300
            }


_KEY = ["length", "bucket", "queue", "func_name", "worker"]
_VALUES = ["started", "succeeded", "failed", "retried", "waits", "runs"]


def upsert(rows: list[Statistic]) -> None:
    """Write *rows*; where there is one of the same span, queue, function and worker, over it."""
    takes_target = connection().features.supports_update_conflicts_with_target
    Statistic.objects.using(conf.get().database).bulk_create(
        rows,
        update_conflicts=True,
        update_fields=_VALUES,
        unique_fields=_KEY if takes_target else None,
    )


def _store_group(fingerprint: str, sighting: _Sighting) -> None:
    groups = FailureGroup.objects.using(conf.get().database)
    changed = groups.filter(pk=fingerprint).update(
        last_seen=Greatest(F("last_seen"), sighting.last)
    )
    if not changed:
        groups.bulk_create(
            [
                FailureGroup(
                    fingerprint=fingerprint,
                    exception=sighting.problem.exception,
                    message=sighting.problem.message,
                    frame=sighting.problem.frame,
                    first_seen=sighting.first,
                    last_seen=sighting.last,
                )
            ],
            ignore_conflicts=True,
        )
