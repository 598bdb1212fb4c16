"""How many repeating tasks fire in each quarter of an hour of the day to come?"""

from __future__ import annotations

import zoneinfo
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from time import monotonic

from cq import crontab
from cq.exceptions import InvalidCrontab
from cq.models import RepeatingTask

from .. import store

QUARTER = 15 * 60
QUARTERS = 96
ENTRIES = 1_000
HEIGHT = 40
SECONDS = 0.1
LEAST = 4  # a single entry is seen, too

Entry = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Bar:
    """A quarter of an hour: where it stands, how many entries fire in it, and what that says."""

    x: int
    y: int
    height: int
    count: int
    at: str
    is_own: bool


@dataclass(frozen=True, slots=True)
class Load:
    bars: tuple[Bar, ...]
    hours: tuple[tuple[int, str], ...]
    entries: int
    left_out: int
    busiest: Bar | None
    # Of the quarters in which the entry in hand fires the one with the most others.
    clash: Bar | None
    pitch: int
    height: int = HEIGHT

    @property
    def width(self) -> int:
        return QUARTERS * self.pitch

    @property
    def bar(self) -> int:
        return self.pitch - 2


def entries() -> list[Entry]:
    """What is enabled, as far as it is looked at."""
    rows = (
        store.rows(RepeatingTask).filter(enabled=True, next_run__isnull=False).order_by("next_run")
    )
    return list(rows.values_list("crontab", "timezone")[:ENTRIES])


def of_day(
    enabled: Iterable[Entry],
    now: datetime,
    mine: zoneinfo.ZoneInfo,
    own: Entry | None = None,
    *,
    pitch: int = 6,
) -> Load:
    """The 24 hours from the full hour on, by the viewer's clock; *own* is the entry in hand.

    A quarter of an hour is *pitch* pixels wide.
    """
    first = int(now.timestamp()) // 3600 * 3600 // QUARTER
    span = range(first, first + QUARTERS)
    known = list(enabled)
    counted: Counter[int] = Counter()
    looked, deadline = 0, monotonic() + SECONDS
    for expression, name in known:
        if monotonic() > deadline:
            # What was looked at is remembered: the next view gets further.
            break
        counted.update(_quarters_in(expression, name, span))
        looked += 1
    own_quarters = _quarters_in(*own, span) if own else frozenset()
    most = max([*counted.values(), 1])
    bars = tuple(
        _bar(
            quarter,
            (quarter - first) * pitch,
            counted[quarter],
            most,
            mine,
            quarter in own_quarters,
        )
        for quarter in span
        if counted[quarter] or quarter in own_quarters
    )
    hours = tuple(
        (index * 4 * pitch, f"{_moment(first + index * 4).astimezone(mine):%H:%M}")
        for index in range(0, 24, 3)
    )
    busiest = max(bars, key=lambda bar: bar.count, default=None)
    shared = (bar for bar in bars if bar.is_own and bar.count)
    clash = max(shared, key=lambda bar: bar.count, default=None)
    return Load(bars, hours, looked, len(known) - looked, busiest, clash, pitch)


def _bar(quarter: int, x: int, count: int, most: int, mine: zoneinfo.ZoneInfo, is_own: bool) -> Bar:
    height = LEAST + round((HEIGHT - LEAST) * (count - 1) / max(most - 1, 1)) if count else LEAST
    at = f"{_moment(quarter).astimezone(mine):%H:%M}"
    return Bar(x, HEIGHT - height, height, count, at, is_own)


def _moment(quarter: int) -> datetime:
    return datetime.fromtimestamp(quarter * QUARTER, UTC)


def _quarters_in(expression: str, name: str, span: range) -> frozenset[int]:
    """The quarters of *span*, counted since 1970, in which an entry fires."""
    start, end = _moment(span[0]), _moment(span[-1] + 1)
    try:
        zone = zoneinfo.ZoneInfo(name)
        day, last = start.astimezone(zone).date(), end.astimezone(zone).date()
        found: set[int] = set()
        while day <= last:
            found |= _quarters_on(expression, name, day)
            day += timedelta(days=1)
    except (InvalidCrontab, zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return frozenset()
    return frozenset(found.intersection(span))


@lru_cache(maxsize=8192)
def _quarters_on(expression: str, name: str, day: date) -> frozenset[int]:
    zone = zoneinfo.ZoneInfo(name)
    midnight = datetime.combine(day, time(), zone)
    walls = {
        (wall.hour, wall.minute // 15): wall
        for wall in crontab.parse(expression, name).named_on(day)
    }.values()
    if midnight.utcoffset() == (midnight + timedelta(days=1)).utcoffset():
        start = int(midnight.timestamp())
        return frozenset((start + wall.hour * 3600 + wall.minute * 60) // QUARTER for wall in walls)
    return frozenset(
        int(datetime.combine(day, wall.replace(fold=fold), zone).timestamp()) // QUARTER
        for wall in walls
        for fold in (0, 1)
    )
