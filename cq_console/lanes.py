"""Where on the time axis of its tree does a task lie, and how full is its roll-up bar?

Everything is in whole units of the picture, so that a cell changes only when it looks different.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from cq.states import DONE, Status

LANE_WIDTH = 220
BAR_WIDTH = 72
FAMILY_WIDTH = 1000

# Spans that an axis may have: while a tree runs, its bars are redrawn only when it grows past one.
_STEPS = (1, 1.5, 2, 3, 5, 7)


@dataclass(frozen=True, slots=True)
class Axis:
    start: datetime
    span: timedelta

    def place(self, moment: datetime) -> int:
        """The unit of *moment*, within the lane."""
        share = (moment - self.start) / self.span
        return round(min(max(share, 0.0), 1.0) * LANE_WIDTH)


@dataclass(frozen=True, slots=True)
class Stretch:
    x: int
    width: int


@dataclass(frozen=True, slots=True)
class Lane:
    wait: Stretch | None
    run: Stretch | None
    ticks: tuple[int, ...]
    kind: str


@dataclass(frozen=True, slots=True)
class Segment:
    kind: str
    x: int
    width: int


def axis(start: datetime, end: datetime | None, now: datetime) -> Axis:
    """The axis of a tree that began at *start* and has ended at *end*, or still runs."""
    if end is not None:
        return Axis(start, max(end - start, timedelta(milliseconds=100)))
    return Axis(start, timedelta(seconds=_next_step((now - start).total_seconds())))


def lane(
    axis: Axis,
    *,
    kind: str,
    submitted: datetime,
    started: datetime | None,
    finished: datetime | None,
    retries: Iterable[datetime],
    now: datetime,
) -> Lane:
    """Wait as a line, run as a bar, each retry as a tick."""
    end = finished or now
    begun = axis.place(submitted)
    ran = axis.place(started) if started else None
    wait_end = ran if ran is not None else axis.place(end)
    wait = Stretch(begun, wait_end - begun) if wait_end > begun else None
    run = None
    if ran is not None:
        ran = min(ran, LANE_WIDTH - 2)
        run = Stretch(ran, max(axis.place(end) - ran, 2))
    return Lane(wait, run, tuple(sorted({axis.place(moment) for moment in retries})), kind)


def segments(counts: Mapping[str, int], order: Iterable[str], width: int) -> tuple[Segment, ...]:
    """A bar of *width* that is divided like *counts*; whatever exists is at least 2 wide."""
    total = sum(counts.values())
    if not total:
        return ()
    present = [status for status in order if counts.get(status)]
    least = {status: max(round(width * counts[status] / total), 2) for status in present}
    widest = max(present, key=lambda status: least[status])
    least[widest] += width - sum(least.values())
    x, found = 0, []
    for status in present:
        found.append(Segment(status, x, least[status]))
        x += least[status]
    return tuple(found)


def folded(counts: Mapping[str, int]) -> dict[str, int]:
    """*counts* as a narrow bar can show them: done, failed, running, still to come."""
    result = {"done": 0, "failed": 0, "running": 0, "open": 0}
    for status, count in counts.items():
        # An incomplete one has no failure of its own: what failed below it is counted itself.
        if status in (Status.FAILURE, Status.LOST):
            result["failed"] += count
        elif status in DONE:
            result["done"] += count
        elif status == Status.RUNNING:
            result["running"] += count
        else:
            result["open"] += count
    return result


def _next_step(seconds: float) -> float:
    power = 1.0
    while True:
        for step in _STEPS:
            if step * power >= seconds:
                return step * power
        power *= 10
