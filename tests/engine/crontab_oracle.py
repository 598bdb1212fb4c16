"""When does a CRON entry fire, by a reading of the rule that is written anew, simply?"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

from cq.crontab import ALIASES

MINUTE = timedelta(minutes=1)

ZONES = [
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Pacific/Chatham",
    "Antarctica/Troll",
    "America/Santiago",
    "Pacific/Apia",
    "Asia/Kathmandu",
    "UTC",
    "Europe/London",
    "Europe/Dublin",
    "Europe/Lisbon",
    "Europe/Chisinau",
    "Atlantic/Azores",
    "Africa/Casablanca",
    "Africa/Cairo",
    "Asia/Jerusalem",
    "Asia/Beirut",
    "Asia/Gaza",
    "Asia/Almaty",
    "Asia/Kolkata",
    "Asia/Tokyo",
    "America/Havana",
    "America/St_Johns",
    "America/Nuuk",
    "America/Scoresbysund",
    "America/Asuncion",
    "America/Sao_Paulo",
    "America/Anchorage",
    "America/Adak",
    "America/Miquelon",
    "Pacific/Auckland",
    "Pacific/Norfolk",
    "Pacific/Easter",
    "Australia/Sydney",
    "Australia/Adelaide",
]
NAMED_ZONES = ZONES[:8]

MINUTES = ["0", "30", "15", "59", "5,35", "0,15,30,45", "10-20/5", "50-5/5", "*/15", "*/20", "*"]
HOURS = ["0", "1", "2", "3", "23", "2,3", "1-3", "0-23/2", "22-3", "*/2", "*"]
DAYS = ["* * *", "* * 0", "* * sun,mon", "*/2 * *", "1-7 3,10,11 6", "* 3-4,9-11 *", "25-31 * 0"]


def expressions() -> list[str]:
    chosen = random.Random(20261123)
    every = [f"{minute} {hour} {day}" for minute in MINUTES for hour in HOURS for day in DAYS]
    sample = chosen.sample([one for one in every if not one.startswith(("* ", "*/"))], 85)
    sample += chosen.sample([one for one in every if one.startswith("*/")], 12)
    return [*sample, "* * * * *", "* 2 * * *", "@hourly"]


def columns_of(expression: str) -> list[str]:
    return ALIASES.get(expression, expression).split()


@cache
def numbers(text: str, low: int, high: int) -> frozenset[int]:
    """What a column of plain numbers means: written anew, simply, to check the real one."""
    for position, name in enumerate(["sun", "mon", "tue", "wed", "thu", "fri", "sat"]):
        text = text.replace(name, str(position))
    found: set[int] = set()
    for item in text.split(","):
        span, _, step = item.partition("/")
        first, _, last = ("0", "", "0") if span == "*" else span.partition("-")
        start, end = (low, high) if span == "*" else (int(first), int(last or first))
        values = list(range(start, end + 1))
        if end < start:
            values = [*range(start, high + 1), *range(low, end + 1)]
        found |= set(values[:: int(step or 1)])
    return frozenset(found)


@cache
def is_day(expression: str, day: date) -> bool:
    _, _, of_month, month, of_week = columns_of(expression)
    fits_month = day.day in numbers(of_month, 1, 31)
    fits_week = day.isoweekday() % 7 in numbers(of_week, 0, 6)
    both = of_month != "*" and of_week != "*"
    fits = fits_month or fits_week if both else fits_month and fits_week
    return day.month in numbers(month, 1, 12) and fits


def names(expression: str, wall: datetime) -> bool:
    """Does *expression* name this minute of a wall clock?"""
    minute, hour, *_ = columns_of(expression)
    return (
        wall.minute in numbers(minute, 0, 59)
        and wall.hour in numbers(hour, 0, 23)
        and is_day(expression, wall.date())
    )


class Window:
    """Some hours of UTC minutes around a change of the clock, as the wall clock shows them."""

    def __init__(self, zone: str, change: datetime, hours: int) -> None:
        self.zone = zone
        self.start = change - timedelta(hours=hours)
        self.minutes = []
        before = self.start.astimezone(ZoneInfo(zone)).replace(tzinfo=None)
        for number in range(1, hours * 120 + 1):
            utc = self.start + number * MINUTE
            local = utc.astimezone(ZoneInfo(zone))
            wall = local.replace(tzinfo=None)
            left_out = []
            while wall - before > MINUTE:
                before += MINUTE
                left_out.append(before)
            before = wall
            self.minutes.append((utc, wall, local.fold, left_out))

    def fires(self, expression: str) -> list[datetime]:
        """The rule of the documentation, minute by minute."""
        minute, hour, *_ = columns_of(expression)
        if "*" in minute + hour:
            return [utc for utc, wall, _, _ in self.minutes if names(expression, wall)]
        return [
            utc
            for utc, wall, fold, left_out in self.minutes
            if (fold == 0 and names(expression, wall))
            or any(names(expression, missing) for missing in left_out)
        ]


@cache
def changes(zone: str) -> list[datetime]:
    """The moments from 2024 to 2030 at which the clock of *zone* is changed."""
    found = []
    hour, end = datetime(2024, 1, 1, tzinfo=UTC), datetime(2031, 1, 1, tzinfo=UTC)
    info = ZoneInfo(zone)
    offset = hour.astimezone(info).utcoffset()
    while hour < end:
        following = hour + timedelta(hours=6)
        if following.astimezone(info).utcoffset() != offset:
            minute = hour
            while minute.astimezone(info).utcoffset() == offset:
                minute += MINUTE
            found.append(minute)
            offset = following.astimezone(info).utcoffset()
        hour = following
    return found


@dataclass
class Day:
    """The UTC minutes of a local day: seconds since 1970, minute of the day, fold.

    ``left_out`` are minutes that the wall clock never showed, with the one that came instead.
    """

    shown: list[tuple[int, int, int]] = field(default_factory=list)
    left_out: list[tuple[int, int]] = field(default_factory=list)
    # Of a day on which nothing happens its beginning says it all.
    start: int | None = None

    def simplify(self) -> None:
        if len(self.shown) == 1440 and not self.left_out:
            start = self.shown[0][0]
            if self.shown == [(start + n * 60, n, 0) for n in range(1440)]:
                self.start, self.shown = start, []


class Years:
    """Every UTC minute of some years, as the wall clock of *zone* shows it."""

    def __init__(self, zone: str, first: int, last: int) -> None:
        self.first = datetime(first, 1, 1, tzinfo=UTC)
        self.end = datetime(last + 1, 1, 1, tzinfo=UTC)
        self.days: dict[date, Day] = {}
        info, before, today = ZoneInfo(zone), -1, Day()
        day_before: date | None = None
        for second in range(int(self.first.timestamp()), int(self.end.timestamp()), 60):
            local = datetime.fromtimestamp(second, info)
            wall = local.hour * 60 + local.minute
            if wall != before + 1:
                day = local.date()
                if day_before is not None and not local.fold:
                    self._leave_out(day_before, before, day, wall, second)
                day_before, today = day, self.days.setdefault(day, Day())
            today.shown.append((second, wall, local.fold))
            before = wall
        for one in self.days.values():
            one.simplify()

    def _leave_out(self, day: date, wall: int, until: date, end: int, second: int) -> None:
        while True:
            wall += 1
            if wall == 1440:
                day, wall = day + timedelta(days=1), 0
            if (day, wall) >= (until, end):
                return
            self.days.setdefault(day, Day()).left_out.append((second, wall))

    def fires(self, expression: str, first: datetime, end: datetime) -> list[datetime]:
        """The rule of the documentation, for the times from *first* until before *end*."""
        minute, hour, *_ = columns_of(expression)
        follows = "*" in minute + hour
        named = frozenset(
            at * 60 + of for at in numbers(hour, 0, 23) for of in numbers(minute, 0, 59)
        )
        found: set[int] = set()
        for day in self._days_from(first.date() - timedelta(days=2), end.date()):
            if not is_day(expression, day):
                continue
            known = self.days.get(day, Day())
            if known.start is not None:
                found.update(known.start + 60 * number for number in named)
            found.update(
                second
                for second, number, fold in known.shown
                if number in named and (follows or fold == 0)
            )
            if not follows:
                found.update(second for second, number in known.left_out if number in named)
        low, high = first.timestamp(), end.timestamp()
        return [datetime.fromtimestamp(one, UTC) for one in sorted(found) if low <= one < high]

    def _days_from(self, first: date, last: date) -> Iterator[date]:
        return (first + timedelta(days=n) for n in range((last - first).days + 3))
