"""Do CRON entries fire as a walk over every UTC minute of the years says?

CQ_TEST_FULL=1 walks through 2024 to 2030 in all zones with all expressions; without it one year in
one zone is walked through with some.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from zoneinfo import ZoneInfo

import pytest
from croniter import croniter

from cq.crontab import parse
from engine.crontab_oracle import ZONES, Years, changes, expressions

FULL = bool(os.environ.get("CQ_TEST_FULL"))
# Entries that fire more often are looked at in the days around each change of the clock.
OFTEN = 4
AROUND = timedelta(days=2)

Span = tuple[datetime, datetime]


@pytest.mark.parametrize("zone", ZONES if FULL else ["Australia/Lord_Howe"])
def test_entries_fire_as_a_walk_over_all_minutes_of_the_years_says(zone: str) -> None:
    years = Years(zone, 2024, 2030) if FULL else Years(zone, 2026, 2026)
    tried = expressions() if FULL else random.Random(3).sample(expressions(), 12)
    wrong = [
        (expression, start)
        for expression in tried
        for start, end in spans(years, zone, expression)
        if fired(expression, zone, start, end) != years.fires(expression, start, end)
    ]

    assert len(tried) == (100 if FULL else 12)
    assert wrong == []


def test_croniter_alone_is_found_out_by_the_walk() -> None:
    zone, expression = ZoneInfo("Australia/Lord_Howe"), "45 1 * * *"
    years = Years(zone.key, 2026, 2026)
    start, end = years.first + AROUND, years.end - AROUND
    alone = croniter(expression, start.astimezone(zone), ret_type=datetime)

    moments = takewhile(lambda moment: moment < end, iter(alone.get_next, None))

    # It fires twice in the repeated half hour of 5 April.
    expected = years.fires(expression, start, end)
    assert len([moment.astimezone(UTC) for moment in moments]) == len(expected) + 1


def spans(years: Years, zone: str, expression: str) -> Iterator[Span]:
    """The whole of the years, or what lies around the changes; never their very edges."""
    first, end = years.first + AROUND, years.end - AROUND
    a_week = first + timedelta(days=7)
    if len(years.fires(expression, first, a_week)) <= OFTEN * 7:
        yield first, end
        return
    yield first, a_week
    for change in changes(zone):
        if first <= change < end:
            yield change - AROUND, change + AROUND


def fired(expression: str, zone: str, start: datetime, end: datetime) -> list[datetime]:
    moments = parse(expression, zone).iterate(start - timedelta(seconds=1))
    return list(takewhile(lambda moment: moment < end, moments))
