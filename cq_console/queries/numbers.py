"""What did each queue do in the last hour, day or week?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Sum

from cq.folding import HOUR, MINUTE, QUARTER, start_of
from cq.models import Statistic

from .. import store


@dataclass(frozen=True, slots=True)
class Window:
    """A span of time, and the minutes that a point of its picture stands for."""

    name: str
    points: int
    minutes: int
    # The lengths of rows to read, the coarsest first.
    lengths: tuple[int, ...]


WINDOWS: Mapping[str, Window] = {
    window.name: window
    for window in (
        Window("hour", 60, MINUTE, (MINUTE,)),
        Window("day", 96, QUARTER, (QUARTER, MINUTE)),
        Window("week", 168, HOUR, (HOUR, QUARTER, MINUTE)),
    )
}


@dataclass(frozen=True, slots=True)
class Done:
    """What ended on a queue: in all, failed, and of each point both."""

    finished: int
    failed: int
    points: tuple[tuple[int, int], ...]


def done(window: Window, now: datetime) -> dict[str, Done]:
    """Queue → what ended on it in *window* up to *now*.

    What is not folded yet is read from finer rows, each minute once.
    """
    step = timedelta(minutes=window.minutes)
    start = start_at(window, now)
    points: dict[str, dict[int, tuple[int, int]]] = {}
    since = start
    for length in window.lengths:
        rows = (
            store.rows(Statistic)
            .filter(length=length, bucket__gte=since)
            .order_by()
            .values_list("queue", "bucket")
            .annotate(done=Sum("succeeded"), failed=Sum("failed"))
        )
        for queue, bucket, succeeded, failed in rows:
            since = max(since, bucket + timedelta(minutes=length))
            of_queue = points.setdefault(queue, {})
            index = int((bucket - start) / step)
            ended, broken = of_queue.get(index, (0, 0))
            of_queue[index] = (ended + succeeded + failed, broken + failed)
    return {queue: _summed(of_queue, window.points) for queue, of_queue in points.items()}


def start_at(window: Window, now: datetime) -> datetime:
    """When *window* up to *now* began."""
    return start_of(now, window.minutes) - (window.points - 1) * timedelta(minutes=window.minutes)


def _summed(found: Mapping[int, tuple[int, int]], points: int) -> Done:
    return Done(
        sum(finished for finished, _failed in found.values()),
        sum(failed for _finished, failed in found.values()),
        tuple(found.get(index, (0, 0)) for index in range(points)),
    )
