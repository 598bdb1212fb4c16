"""Which of the ticks that are due does an entry take, and when is its next one?"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from .crontab import Crontab
from .models.repeating import Missed

# A tick that is this late was missed: no scheduler ran at its time. An earlier one is only late.
MISSED_AFTER = timedelta(seconds=90)
MAX_MISSED = 100
MISSED = "missed: no scheduler ran"


@dataclass(frozen=True, slots=True)
class Due:
    """The ticks to take, the next one after now, and what to note in the history."""

    ticks: list[datetime]
    next: datetime
    note: str = ""


def due(schedule: Crontab, first: datetime, now: datetime, missed: Missed) -> Due:
    """What becomes of the ticks from *first* to *now*: all fire, unless there was a downtime."""
    if now - first < MISSED_AFTER:
        ticks, following = [first], schedule.iterate(first)
        while (tick := next(following)) <= now:
            ticks.append(tick)
        return Due(ticks, tick)
    newest, following_tick = _newest(schedule, first, now), schedule.next_after(now)
    if missed == Missed.ALL:
        cut = newest[0] > first
        note = f"only the last {MAX_MISSED} of the missed ones run" if cut else "missed"
        return Due(newest, following_tick, note)
    if missed == Missed.LATEST:
        return Due(newest[-1:], following_tick, "stands for those that were missed before it")
    return Due(newest[-1:], following_tick, MISSED)


def _newest(schedule: Crontab, first: datetime, now: datetime) -> list[datetime]:
    """The last ticks from *first* to *now*, oldest first; looked for in ever longer spans."""
    last = _last(schedule, first, now)
    span = timedelta(minutes=MAX_MISSED)
    while True:
        start = max(first, last - span)
        found = deque(_between(schedule, start, last), maxlen=MAX_MISSED)
        if start == first and len(found) < MAX_MISSED:
            found.appendleft(first)
        if start == first or len(found) == MAX_MISSED:
            return list(found)
        span *= 2


def _last(schedule: Crontab, first: datetime, now: datetime) -> datetime:
    """The last tick up to *now*: halve the span behind the ticks that are not past it."""
    low, high = first, now
    while high - low > timedelta(minutes=1):
        middle = low + (high - low) / 2
        if schedule.next_after(middle) <= now:
            low = middle
        else:
            high = middle
    return max([first, *_between(schedule, low, now)])


def _between(schedule: Crontab, after: datetime, until: datetime) -> Iterator[datetime]:
    for tick in schedule.iterate(after):
        if tick > until:
            return
        yield tick
