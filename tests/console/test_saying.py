"""Are spans, bars and names said as a person reads them?"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from cq_console import arguments, durations, lanes, words

START = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.04, "0.0 s"),
        (0.44, "0.4 s"),
        (12.34, "12.3 s"),
        (59.96, "1 m 00 s"),
        (252, "4 m 12 s"),
        (3599.6, "1 h 00 m"),
        (11_100, "3 h 05 m"),
        (187_200, "2 d 4 h"),
        (-3, "0.0 s"),
    ],
)
def test_a_span_is_said_shortly(seconds: float, said: str) -> None:
    assert durations.said(seconds) == said


def test_a_bar_is_as_wide_as_it_should_be_and_hides_nothing() -> None:
    found = lanes.segments({"S": 9_998, "F": 1, "R": 1}, "SFR", 72)

    assert sum(segment.width for segment in found) == 72
    assert [(segment.kind, segment.width >= 2) for segment in found] == [
        ("S", True),
        ("F", True),
        ("R", True),
    ]
    assert [segment.x for segment in found] == [0, 68, 70]


def test_an_open_axis_stays_the_same_until_it_is_outgrown() -> None:
    spans = {lanes.axis(START, None, START + timedelta(seconds=s)).span for s in range(21, 30)}

    assert spans == {timedelta(seconds=30)}


def test_a_closed_axis_ends_with_the_tree() -> None:
    axis = lanes.axis(START, START + timedelta(seconds=44), START + timedelta(days=3))

    assert axis.place(START) == 0
    assert axis.place(START + timedelta(seconds=22)) == 110
    assert axis.place(START + timedelta(seconds=44)) == 220
    assert axis.place(START + timedelta(days=1)) == 220


def test_siblings_show_what_tells_them_apart() -> None:
    calls = [("f", {"run": 1, "package": name}) for name in ("json", "email")]

    assert arguments.telling(calls) == [{"package": "json"}, {"package": "email"}]


def test_a_call_that_stands_alone_keeps_its_arguments() -> None:
    assert arguments.telling([("f", {"run": 1}), ("g", {"run": 1})]) == [{"run": 1}, {"run": 1}]


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("30 2 * * *", "At 02:30"),
        ("@hourly", "Every hour"),
        ("*/15 9-17 * * 1-5", "Every 15 minutes, between 09:00 and 17:59, Monday through Friday"),
        ("not an entry", "not an entry"),
        ("", ""),
    ],
)
def test_an_entry_is_said_in_words(entry: str, said: str) -> None:
    assert words.describe(entry) == said


def test_what_was_handed_down_tells_nothing() -> None:
    calls = [("f", {"run": 1, "package": "json", "modules": ["a.py"]})]

    assert arguments.telling(calls, {"run": 1, "package": "json"}) == [{"modules": ["a.py"]}]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"package": "json"}, "json"),
        ({"modules": ["inbox/broken.py"]}, "inbox/broken.py"),
        ({"modules": ["a.py", "b.py"]}, 'modules=["a.py", "b.py"]'),
        ({"name": "two words"}, 'name="two words"'),
        ({"flag": "true"}, 'flag="true"'),
        ({"n": 9071}, "n=9071"),
        ({"n": 1, "to": "ada@example.org"}, "n=1 to=ada@example.org"),
        ({}, ""),
    ],
)
def test_a_row_shows_arguments_in_brief(values: dict[str, object], said: str) -> None:
    assert arguments.brief_telling(values) == said


def test_a_roll_up_counts_what_failed_and_not_what_that_left_incomplete() -> None:
    folded = lanes.folded({"S": 5, "F": 2, "L": 1, "I": 3, "E": 1, "R": 4, "W": 2, "Q": 6})

    assert folded == {"done": 9, "failed": 3, "running": 4, "open": 8}
