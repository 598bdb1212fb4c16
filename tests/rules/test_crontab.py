"""Do CRON entries fire when they should, through every change of the clock?"""

from __future__ import annotations

import calendar
import random
import re
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import FrozenInstanceError
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cq.crontab import Crontab, parse
from cq.exceptions import InvalidCrontab
from engine.crontab_oracle import MINUTE, NAMED_ZONES, ZONES, Window, changes, expressions, is_day


def fired(crontab: Crontab, window: Window) -> list[datetime]:
    found = [window.start]
    while found[-1] <= window.minutes[-1][0]:
        found += crontab.upcoming(20, found[-1])
    return [moment for moment in found[1:] if moment <= window.minutes[-1][0]]


def cases(zone: str) -> Iterator[tuple[Window, str]]:
    """Every change with some of the expressions; the first two of the named zones with more."""
    chosen = random.Random(zone)
    moments = changes(zone) or [datetime(2027, 3, 28, 1, tzinfo=UTC)]
    for position, change in enumerate(moments):
        window = Window(zone, change, hours=4)
        count = 30 if zone in NAMED_ZONES and position < 2 else 3
        for expression in chosen.sample(expressions(), count):
            yield window, expression


@pytest.mark.parametrize("zone", ZONES)
def test_entries_fire_as_a_walk_over_all_minutes_says(zone: str) -> None:
    wrong = [
        (expression, window.start, actual, expected)
        for window, expression in cases(zone)
        if (actual := fired(parse(expression, zone), window))
        != (expected := window.fires(expression))
    ]

    assert wrong == []


@pytest.mark.parametrize("zone", ["Europe/Berlin", "Australia/Lord_Howe", "Antarctica/Troll"])
def test_the_next_time_is_the_same_from_every_moment_before_it(zone: str) -> None:
    chosen = random.Random(7)
    for change in changes(zone)[:2]:
        window = Window(zone, change, hours=4)
        for expression in chosen.sample(expressions(), 12):
            crontab, times = parse(expression, zone), window.fires(expression)
            for _ in range(8 if times else 0):
                moment = window.start + timedelta(seconds=chosen.uniform(0, 8 * 3600))
                later = [utc for utc in times if utc > moment]
                if later:
                    assert crontab.next_after(moment) == later[0]


@pytest.mark.parametrize(
    ("expression", "day", "expected"),
    [
        ("30 2 * * *", "2026-03-29", ["01:00 gap"]),
        ("0,30 2 * * *", "2026-03-29", ["01:00 gap"]),
        ("0 2,3 * * *", "2026-03-29", ["01:00 gap"]),
        ("30 2 * * *", "2026-10-25", ["00:30 once"]),
        ("*/30 2 * * *", "2026-03-29", []),
        ("30 2-3/1 * * *", "2026-03-29", ["01:00 gap", "01:30"]),
        ("30 */2 * * *", "2026-10-25", ["00:30", "01:30 repeat", "03:30"]),
        ("*/30 2,3 * * *", "2026-03-29", ["01:00 skipped", "01:30"]),
    ],
)
def test_what_the_change_of_the_clock_does_is_noted(
    expression: str, day: str, expected: list[str]
) -> None:
    start = datetime.fromisoformat(f"{day}T00:00+00:00") - MINUTE
    crontab = parse(expression, "Europe/Berlin")

    upcoming = crontab.occurrences(5, start)

    today = [one for one in upcoming if one.utc < start + timedelta(hours=4)]
    assert [f"{one.utc:%H:%M} {one.note}".strip() for one in today] == expected
    assert [one.utc for one in upcoming] == crontab.upcoming(5, start)


def test_an_occurrence_tells_the_time_that_was_meant_and_the_time_it_became() -> None:
    before = datetime(2026, 3, 28, 12, tzinfo=UTC)

    (one,) = parse("30 2 * * *", "Europe/Berlin").occurrences(1, before)

    assert one.wall == datetime(2026, 3, 29, 2, 30)  # noqa: DTZ001
    assert one.local.isoformat() == "2026-03-29T03:00:00+02:00"
    assert one.utc == datetime(2026, 3, 29, 1, tzinfo=UTC)
    assert one.utc.tzinfo is UTC


def test_a_skipped_day_fires_at_its_end() -> None:
    before = datetime(2011, 12, 30, 2, tzinfo=UTC)

    upcoming = parse("0 17 * * *", "Pacific/Apia").occurrences(3, before)

    assert [one.local.isoformat() for one in upcoming] == [
        "2011-12-29T17:00:00-10:00",
        "2011-12-31T00:00:00+14:00",
        "2011-12-31T17:00:00+14:00",
    ]


def nearest_weekday(day: date, wanted: int) -> bool:
    last = calendar.monthrange(day.year, day.month)[1]
    target = day.replace(day=min(wanted, last))
    if target.weekday() == 5:
        target += timedelta(days=-1 if target.day > 1 else 2)
    elif target.weekday() == 6:
        target += timedelta(days=1 if target.day < last else -2)
    return day == target


def is_last(day: date) -> bool:
    return (day + timedelta(days=1)).day == 1


@pytest.mark.parametrize(
    ("expression", "rule"),
    [
        ("0 0 L * *", is_last),
        ("0 0 1,L * *", lambda day: day.day == 1 or is_last(day)),
        ("0 0 2-31,L * *", lambda day: day.day > 1),
        ("0 0 1-30,L * *", lambda day: True),
        ("0 0 L * 5", lambda day: is_last(day) or day.isoweekday() == 5),
        ("0 0 15W * *", lambda day: nearest_weekday(day, 15)),
        ("0 0 1W * *", lambda day: nearest_weekday(day, 1)),
        ("0 0 31W * *", lambda day: nearest_weekday(day, 31)),
        ("0 0 * * fri#2", lambda day: day.isoweekday() == 5 and 8 <= day.day <= 14),
        ("0 0 * * 1#5", lambda day: day.isoweekday() == 1 and day.day > 28),
        ("0 0 * * 7#1", lambda day: day.isoweekday() == 7 and day.day <= 7),
        (
            "0 0 * * 1#1,3#2",
            lambda day: (
                (day.isoweekday() == 1 and day.day <= 7)
                or (day.isoweekday() == 3 and 8 <= day.day <= 14)
            ),
        ),
        ("0 0 * * L5", lambda day: day.isoweekday() == 5 and (day + timedelta(7)).day <= 7),
        ("0 0 * * 5L", lambda day: day.isoweekday() == 5 and (day + timedelta(7)).day <= 7),
        ("0 0 29 2 *", lambda day: (day.month, day.day) == (2, 29)),
        ("0 0 31 * 1", lambda day: day.day == 31 or day.isoweekday() == 1),
        ("0 0 30 2 1", lambda day: day.month == 2 and day.isoweekday() == 1),
        ("0 0 ? * MON-FRI", lambda day: day.isoweekday() < 6),
        ("0 0 * nov-feb *", lambda day: day.month in (11, 12, 1, 2)),
        ("0 0 * * 5-7", lambda day: day.isoweekday() >= 5),
        ("0 0 * * sat-mon", lambda day: day.isoweekday() in (6, 7, 1)),
        ("0 0 5-5 * *", lambda day: day.day == 5),
        ("0 0 */1 * 1", lambda day: day.isoweekday() == 1),
        ("0 0 */10 * *", lambda day: day.day in (1, 11, 21, 31)),
        ("0 0 20/5 * *", lambda day: day.day in (20, 25, 30)),
        ("@monthly", lambda day: day.day == 1),
        ("@weekly", lambda day: day.isoweekday() == 7),
        ("@YEARLY", lambda day: (day.month, day.day) == (1, 1)),
    ],
)
def test_days_are_those_that_the_entry_names(expression: str, rule: Callable[[date], bool]) -> None:
    start = date(2024, 1, 1)
    days = [start + timedelta(days=number) for number in range(366 * 5)]
    crontab = parse(expression, "UTC")
    moment = datetime(2023, 12, 31, 23, 59, tzinfo=UTC)
    expected = [day for day in days if rule(day)]

    actual = crontab.upcoming(len(expected), moment)

    assert [one.date() for one in actual] == expected


def test_random_entries_name_the_same_days_as_a_simple_reading() -> None:
    chosen = random.Random(99)
    day_parts = ["*", "1", "31", "29-31", "*/7", "5,17", "30-2", "*/2"]
    for _ in range(80):
        of_month = chosen.choice(day_parts)
        month = chosen.choice(["*", "2", "4,6", "11-2", "*/5", "12"])
        of_week = chosen.choice(["*", "0", "1-5", "fri-mon", "*/3", "6"])
        expression = f"{chosen.randrange(60)} {chosen.randrange(24)} {of_month} {month} {of_week}"
        days = [date(2026, 1, 1) + timedelta(days=number) for number in range(1_500)]
        expected = [day for day in days if is_day(expression, day)][:40]
        if not expected:
            continue

        actual = parse(expression, "UTC").upcoming(
            len(expected), datetime(2025, 12, 31, 23, 59, tzinfo=UTC)
        )

        assert [one.date() for one in actual] == expected, expression


@pytest.mark.parametrize(
    ("expression", "column", "said"),
    [
        ("60 * * * *", 0, "minute: '60' is out of range: it takes 0 to 59."),
        ("* 24 * * *", 1, "hour: '24' is out of range"),
        ("* * 0 * *", 2, "day of month: '0' is out of range"),
        ("* * * 13 *", 3, "month: '13' is out of range"),
        ("* * * * 8", 4, "day of week: '8' is out of range"),
        ("*/0 * * * *", 0, "minute: the step of '*/0' is out of range"),
        ("*/61 * * * *", 0, "minute: the step of '*/61' is out of range"),
        ("* -1 * * *", 1, "hour: '-1' is not understood"),
        ("* 1,,2 * * *", 1, "hour: there is nothing between two commas"),
        ("* * * foo *", 3, "month: 'foo' is not understood"),
        ("* * * * mon-foo", 4, "day of week: 'foo' is not understood"),
        ("mon * * * *", 0, "minute: 'mon' is not understood"),
        ("? * * * *", 0, "minute: '?' is not understood"),
        ("H * * * *", 0, "minute: 'h' is not supported"),
        ("* H(0-7) * * *", 1, "hour: 'h(0-7)' is not supported"),
        ("* * R * *", 2, "day of month: 'r' is not supported"),
        ("0 0 30 2 *", 2, "it never fires"),
        ("0 0 31 2,4,6,9,11 *", 2, "it never fires"),
        ("0 0 LW * *", 2, "day of month: 'lw' is not understood"),
        ("0 0 15W,3 * *", 2, "day of month: a nearest weekday (15W) must stand alone"),
        ("0 0 32W * *", 2, "day of month: '32' is out of range"),
        ("0 0 15W * 1", 2, "day of month: a nearest weekday (15W) needs *"),
        ("0 0 * * 1#6", 4, "day of week: '1#6' is out of range"),
        ("0 0 * * 1#2,3", 4, "day of week: weekdays of the month (1#2, L5) cannot be mixed"),
        ("0 0 13 * 5#2", 4, "day of week: weekdays of the month (1#2, L5) need *"),
        ("٣ * * * *", 0, "minute: '٣' is not understood"),
        ("*\u00a0* * * * *", 0, "minute: "),
        ("", None, "it has 0 columns instead of five"),
        ("*", None, "it has 1 column instead of five"),
        ("* * * * * *", None, "it has 6 columns; seconds and years are not supported"),
        ("0 0 1 1 * 0 2030", None, "it has 7 columns; seconds and years are not supported"),
        ("@reboot", None, "there is no such short form; there are @yearly"),
        ("* " * 300, None, "it is longer than 255 characters"),
    ],
)
def test_a_wrong_entry_is_refused_with_its_column_named(
    expression: str, column: int | None, said: str
) -> None:
    with pytest.raises(InvalidCrontab, match=re.escape(said)) as refused:
        parse(expression, "Europe/Berlin")

    assert refused.value.column == column
    assert refused.value.problem.endswith(".")
    assert len(str(refused.value)) < 500


@pytest.mark.parametrize("expression", [None, 5, b"* * * * *", ["*"] * 5, {}])
def test_what_is_no_text_is_refused(expression: object) -> None:
    with pytest.raises(InvalidCrontab, match="it is not a text"):
        parse(expression, "UTC")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "timezone", ["", "Mars/Olympus", "Europe", "../etc/passwd", "a" * 1000, "\0", None, ["UTC"]]
)
def test_an_unknown_time_zone_is_refused(timezone: str) -> None:
    with pytest.raises(InvalidCrontab, match="there is no time zone") as refused:
        parse("0 4 * * *", timezone)

    assert refused.value.column is None


def test_an_entry_is_a_frozen_value() -> None:
    crontab = parse("  5\t4 * * * ", "Asia/Kathmandu")

    assert crontab == parse("5 4 * * *", "Asia/Kathmandu")
    assert crontab != parse("5 4 * * *", "UTC")
    assert (crontab.expression, crontab.timezone) == ("5 4 * * *", "Asia/Kathmandu")
    with pytest.raises(FrozenInstanceError):
        crontab.timezone = "UTC"  # type: ignore[misc]


def test_a_naive_moment_is_refused() -> None:
    with pytest.raises(ValueError, match="aware"):
        parse("0 4 * * *", "UTC").next_after(datetime(2026, 1, 1))  # noqa: DTZ001


def test_the_end_of_time_is_an_error_of_the_entry() -> None:
    with pytest.raises(InvalidCrontab, match="does not fire within 50 years"):
        parse("0 4 * * *", "UTC").upcoming(500, datetime(9999, 12, 1, tzinfo=UTC))


PIECES = st.sampled_from(
    [
        *"0123456789*/-,?LWHR# \t",
        "mon",
        "jan",
        "60",
        "31",
        "30 2",
        "@daily",
        "* * * * ",
        "1-5",
        "\ud800",
    ]
)


@given(st.one_of(st.lists(PIECES, max_size=40).map("".join), st.text(max_size=300)))
def test_any_text_is_answered_at_once(text: str) -> None:
    started = time.process_time()
    upcoming = []

    with suppress(InvalidCrontab):
        upcoming = parse(text, "Europe/Berlin").upcoming(2, datetime(2026, 1, 1, tzinfo=UTC))

    assert time.process_time() - started < 0.1
    assert upcoming == sorted(set(upcoming))


FRAGMENTS = [
    *"0123456789*/-,?LWHR# \t",
    "mon",
    "jan",
    "60",
    "31",
    "30 2",
    "@daily",
    "* * * * ",
    "1-5",
]


def test_ten_thousand_strings_are_each_answered_within_50_ms_and_in_little_memory() -> None:
    chance = random.Random(20261123)
    texts = ["".join(chance.choices(FRAGMENTS, k=chance.randrange(1, 40))) for _ in range(9_000)]
    # Nearly right ones go deepest.
    columns = [*"*0159", "*/2", "*/61", "31", "1-5", "5-1", "l", "15w", "mon", "1#5", "2,29", "30"]
    texts += [" ".join(chance.choices(columns, k=5)) for _ in range(990)]
    texts += ["9" * 10**6, "*/" * 10**5, "1," * 10**5, " " * 10**6, "1-" * 10**5 + " * * * *"]
    texts += ["0-59," * 40 + "1 * * * *", "* " * 10**5, "\x00" * 10**5, "@" * 10**5, "1#" * 10**5]
    assert len(texts) == 10_000
    slowest, most = 0.0, 0

    for number, text in enumerate(texts):
        is_measured = number % 50 == 0 or len(text) > 1000
        if is_measured:
            tracemalloc.start()
        began = time.process_time()
        with suppress(InvalidCrontab):
            parse(text, "Europe/Berlin")
        if is_measured:
            most = max(most, tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
        else:
            slowest = max(slowest, time.process_time() - began)

    assert slowest < 0.05
    assert most < 8_000_000
