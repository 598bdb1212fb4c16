"""When does a CRON entry fire?

croniter finds the next time on the wall clock; the rule for daylight saving time is applied here.
Entries with ``*`` in the minute or hour column (also ``*/n``) follow the wall clock: times that
it leaves out are skipped, times that it shows twice fire twice. All others fire once for each
local time: one that is left out at the end of the gap, one that comes twice the first time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from itertools import islice
from zoneinfo import ZoneInfo

from croniter import CroniterError, croniter

from ..exceptions import InvalidCrontab
from . import columns

ALIASES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}

_MINUTE = timedelta(minutes=1)
_LONGEST_TIMEZONE = 100
# Every combination of leap day and weekday comes within the 50 years that croniter looks ahead.
_SOME_START = datetime(2000, 1, 1)  # noqa: DTZ001 - wall clock time, in no zone


@dataclass(frozen=True)
class Occurrence:
    """One time at which an entry fires.

    ``wall`` is the local time that the entry names; ``local`` differs from it only in a gap.
    ``note`` says what daylight saving time does to it: ``"gap"`` (the wall clock leaves the time
    out: fires at the gap's end), ``"once"`` (shown twice: fires the first time only), ``"repeat"``
    (fires for the second time), ``"skipped"`` (times before it were left out), or nothing.
    """

    utc: datetime
    local: datetime
    wall: datetime
    note: str = ""


@dataclass(frozen=True)
class Crontab:
    """A valid CRON entry in its time zone; made by :func:`parse`."""

    expression: str
    timezone: str
    follows_wall_clock: bool = field(repr=False)
    _plain: str = field(repr=False)

    def next_after(self, moment: datetime) -> datetime:
        """Return the first time after the aware *moment*, in UTC."""
        return self.occurrences(1, moment)[0].utc

    def upcoming(self, n: int, after: datetime) -> list[datetime]:
        """Return the next *n* times after the aware moment *after*, in UTC, soonest first."""
        return [occurrence.utc for occurrence in self.occurrences(n, after)]

    def iterate(self, after: datetime) -> Iterator[datetime]:
        """Yield every time after the aware moment *after*, in UTC, soonest first."""
        for occurrence in self._iterate(after):
            yield occurrence.utc

    def occurrences(self, n: int, after: datetime) -> list[Occurrence]:
        """Return the next *n* times with what daylight saving time does to them."""
        return list(islice(self._iterate(after), n))

    def named_on(self, day: date) -> list[time]:
        """Return the times that the entry names on *day*, earliest first, as the wall clock has it.

        Which of them the clock leaves out or shows twice is not looked at.
        """
        midnight = datetime.combine(day, time())
        try:
            first = _WallClock(self._plain).next(midnight - _MINUTE)
        except (CroniterError, OverflowError):
            return []
        if first.date() != day:
            return []
        minutes, hours, *_days = self._plain.split(" ")
        return [
            time(hour, minute) for hour in _numbers(hours, 24) for minute in _numbers(minutes, 60)
        ]

    def _iterate(self, moment: datetime) -> Iterator[Occurrence]:
        if moment.tzinfo is None:
            raise ValueError("a CRON entry needs an aware moment to look from")
        moment = moment.astimezone(UTC)
        find = _next_shown if self.follows_wall_clock else _next_named
        wall_clock, zone = _WallClock(self._plain), ZoneInfo(self.timezone)
        while True:
            try:
                occurrence = find(wall_clock, zone, moment)
            except (CroniterError, OverflowError) as error:
                problem = f"it does not fire within 50 years after {moment:%Y-%m-%d}."
                raise InvalidCrontab(self.expression, problem) from error
            yield occurrence
            moment = occurrence.utc


def _numbers(column: str, end: int) -> Iterable[int]:
    return range(end) if column == "*" else sorted(map(int, column.split(",")))


def parse(expression: str, timezone: str) -> Crontab:
    """Return the entry; raises `InvalidCrontab`, which names the column that is wrong.

    Accepted are five columns and the aliases from ``@yearly`` to ``@hourly``. Entries that never
    fire are refused like malformed ones. Any input is answered within a few milliseconds.
    """
    if not isinstance(expression, str):
        raise InvalidCrontab(repr(expression)[:50], "it is not a text.")
    _check_timezone(expression, timezone)
    return _parse(expression, timezone)


@lru_cache(maxsize=1024)
def _parse(expression: str, timezone: str) -> Crontab:
    entry = columns.read(expression, ALIASES)
    try:
        _WallClock(entry.plain).next(_SOME_START)
    except (CroniterError, OverflowError) as error:
        problem = "it never fires: no month that it names has such a day of month."
        raise InvalidCrontab(entry.expression, problem, columns.DAY_OF_MONTH) from error
    return Crontab(entry.expression, timezone, entry.has_star_in_time, entry.plain)


def _check_timezone(expression: str, timezone: str) -> None:
    # ZoneInfo remembers the zones that it has read.
    try:
        if len(timezone) <= _LONGEST_TIMEZONE:
            ZoneInfo(timezone)
            return
    except (KeyError, ValueError, TypeError, OSError):
        pass
    problem = f"there is no time zone {repr(timezone)[:50]}. Europe/Berlin would be one."
    raise InvalidCrontab(expression[:50], problem)


class _WallClock:
    """The times that the columns name, on a wall clock that is never changed."""

    def __init__(self, plain: str) -> None:
        self._croniter = croniter(plain, _SOME_START, ret_type=datetime)

    def next(self, wall: datetime) -> datetime:
        found: datetime = self._croniter.get_next(start_time=wall.replace(second=0, microsecond=0))
        return found


def _next_named(wall_clock: _WallClock, zone: ZoneInfo, moment: datetime) -> Occurrence:
    """Return the next time of an entry that fires once for each local time."""
    wall = moment.astimezone(zone).replace(tzinfo=None)
    while True:
        wall = wall_clock.next(wall)
        shown = _instants(wall, zone)
        utc = shown[0] if shown else _end_of_gap(wall, zone)
        # In the second pass of a repeated hour its times lie behind already.
        if utc > moment:
            note = {0: "gap", 1: "", 2: "once"}[len(shown)]
            return Occurrence(utc, utc.astimezone(zone), wall, note)


def _next_shown(wall_clock: _WallClock, zone: ZoneInfo, moment: datetime) -> Occurrence:
    """Return the next time of an entry that fires whenever the wall clock shows its time."""
    local = moment.astimezone(zone)
    found = _first_shown_after(wall_clock, zone, moment, local.replace(tzinfo=None))
    if local.fold == 0 and len(_instants(local.replace(tzinfo=None), zone)) == 2:
        # The wall clock is about to be set back: times behind this one come once more.
        set_back = _transition_after(moment, zone)
        start = set_back.astimezone(zone).replace(tzinfo=None) - _MINUTE
        again = _first_shown_after(wall_clock, zone, set_back - _MINUTE, start)
        return min(found, again, key=lambda occurrence: occurrence.utc)
    return found


def _first_shown_after(
    wall_clock: _WallClock, zone: ZoneInfo, moment: datetime, wall: datetime
) -> Occurrence:
    note = ""
    while True:
        wall = wall_clock.next(wall)
        shown = _instants(wall, zone)
        if not shown:
            note = "skipped"
        for utc in shown:
            if utc > moment:
                if utc != shown[0]:
                    note = "repeat"
                return Occurrence(utc, utc.astimezone(zone), wall, note)


def _instants(wall: datetime, zone: ZoneInfo) -> list[datetime]:
    """Return the moments at which the wall clock shows *wall*: none in a gap, two in a repeat."""
    first, second = (wall.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    if first == second:
        return [first]
    # PEP 495: in a gap fold=0 reads the offset before it, and lies after it.
    return [first, second] if first < second else []


def _end_of_gap(wall: datetime, zone: ZoneInfo) -> datetime:
    before, after = (wall.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (1, 0))
    return _transition_between(before, after, zone)


def _transition_after(moment: datetime, zone: ZoneInfo) -> datetime:
    """Return when the wall clock is set back; *moment* shows a time that will come again."""
    wall = moment.astimezone(zone).replace(tzinfo=None)
    return _transition_between(moment, wall.replace(tzinfo=zone, fold=1).astimezone(UTC), zone)


def _transition_between(before: datetime, after: datetime, zone: ZoneInfo) -> datetime:
    """Return the first second with the offset of *after*."""
    offset = after.astimezone(zone).utcoffset()
    low, high = 0, int((after - before).total_seconds())
    while high - low > 1:
        middle = (low + high) // 2
        if (before + timedelta(seconds=middle)).astimezone(zone).utcoffset() == offset:
            high = middle
        else:
            low = middle
    return (before + timedelta(seconds=high)).replace(microsecond=0)
