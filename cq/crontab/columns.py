"""What do the five columns of a CRON entry say, and which one is wrong?"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ..exceptions import InvalidCrontab

DAY_OF_MONTH, DAY_OF_WEEK = 2, 4
LONGEST_EXPRESSION = 255

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")


@dataclass(frozen=True)
class Columns:
    """The columns as numbers that croniter reads without surprises.

    ``plain`` has only stars, lists of numbers, and the marks for last, nth and nearest weekdays.
    """

    expression: str
    plain: str
    has_star_in_time: bool


@dataclass(frozen=True)
class _Column:
    index: int
    name: str
    low: int
    high: int
    names: Mapping[str, int]


_COLUMNS = (
    _Column(0, "minute", 0, 59, {}),
    _Column(1, "hour", 0, 23, {}),
    _Column(2, "day of month", 1, 31, {}),
    _Column(3, "month", 1, 12, {name: number for number, name in enumerate(_MONTHS, start=1)}),
    # 7 is Sunday as well.
    _Column(4, "day of week", 0, 7, {name: number for number, name in enumerate(_WEEKDAYS)}),
)

_ITEM = re.compile(
    r"(?: (?P<star>\*) | (?P<first>[0-9]{1,9}|[a-z]{1,9}) (?:-(?P<last>[0-9]{1,9}|[a-z]{1,9}))? )"
    r"(?: /(?P<step>[0-9]{1,9}) )?",
    re.VERBOSE,
)
_NEAREST_WEEKDAY = re.compile(r"([0-9]{1,2})w|w([0-9]{1,2})")
_NTH_WEEKDAY = re.compile(r"([0-7]|[a-z]{3})#([0-9]{1,9})")
_LAST_WEEKDAY = re.compile(r"l([0-7])|([0-7])l")
_HASHED = re.compile(r"[hr](?:\([^)]*\))?(?:/.*)?")


def read(expression: str, aliases: Mapping[str, str]) -> Columns:
    """Return the columns of *expression*; raises `InvalidCrontab` with the one that is wrong.

    ``5-1`` runs over the end of its column, and ``5-5`` is 5: croniter takes it for everything.
    """
    if len(expression) > LONGEST_EXPRESSION:
        problem = f"it is longer than {LONGEST_EXPRESSION} characters."
        raise InvalidCrontab(expression[:50] + "…", problem)
    expression = re.sub(r"[ \t]+", " ", expression).strip(" ")
    texts = _resolve_alias(expression, aliases).lower().split(" ")
    if len(texts) != len(_COLUMNS):
        raise InvalidCrontab(expression, _wrong_number(len(texts) if expression else 0))
    plain = []
    for column, text in zip(_COLUMNS, texts, strict=True):
        try:
            plain.append(_plain(column, text))
        except ValueError as error:
            problem = f"{column.name}: {error}"
            raise InvalidCrontab(expression, problem, column.index) from None
    _check_days(expression, plain)
    return Columns(expression, " ".join(plain), has_star_in_time="*" in texts[0] + texts[1])


def _resolve_alias(expression: str, aliases: Mapping[str, str]) -> str:
    if not expression.startswith("@"):
        return expression
    try:
        return aliases[expression.lower()]
    except KeyError:
        problem = f"there is no such short form; there are {', '.join(aliases)}."
        raise InvalidCrontab(expression, problem) from None


def _wrong_number(found: int) -> str:
    names = ", ".join(column.name for column in _COLUMNS)
    if found in (6, 7):
        return f"it has {found} columns; seconds and years are not supported, only {names}."
    return f"it has {found} {'column' if found == 1 else 'columns'} instead of five: {names}."


def _plain(column: _Column, text: str) -> str:
    if text == "?" and column.index in (DAY_OF_MONTH, DAY_OF_WEEK):
        return "*"
    numbers: set[int] = set()
    marks: set[str] = set()
    is_all = False
    for item in text.split(","):
        mark = _mark(column, item)
        if mark:
            marks.add(mark)
        elif item in ("*", "*/1"):
            is_all = True
        else:
            numbers |= _numbers(column, item)
    if is_all and not marks:
        return "*"
    if {28, 29, 30, 31} <= numbers:
        # The last day is among them; croniter takes 31 different days for every day.
        marks.discard("l")
    _check_marks(column, marks, has_numbers=is_all or bool(numbers))
    return ",".join([*map(str, sorted(numbers)), *sorted(marks)])


def _mark(column: _Column, item: str) -> str | None:
    """Return a day that depends on the month in croniter's spelling, or None."""
    if column.index == DAY_OF_MONTH:
        if item == "l":
            return item
        if nearest := _NEAREST_WEEKDAY.fullmatch(item):
            return f"{_number(column, nearest[1] or nearest[2])}w"
    if column.index == DAY_OF_WEEK:
        if last := _LAST_WEEKDAY.fullmatch(item):
            return f"l{int(last[1] or last[2]) % 7}"
        if nth := _NTH_WEEKDAY.fullmatch(item):
            if not 1 <= int(nth[2]) <= 5:
                raise ValueError(f"{item!r} is out of range: a month has up to 5 of a weekday.")
            return f"{_number(column, nth[1]) % 7}#{int(nth[2])}"
    return None


def _check_marks(column: _Column, marks: set[str], *, has_numbers: bool) -> None:
    if column.index == DAY_OF_WEEK and marks and has_numbers:
        raise ValueError("weekdays of the month (1#2, L5) cannot be mixed with plain weekdays.")
    if any(mark.endswith("w") for mark in marks) and (has_numbers or len(marks) > 1):
        raise ValueError("a nearest weekday (15W) must stand alone.")


def _numbers(column: _Column, item: str) -> set[int]:
    found = _ITEM.fullmatch(item)
    if found is None:
        raise ValueError(_why_not(column, item))
    step = int(found["step"] or 1)
    span = column.high - column.low
    if not 1 <= step <= span:
        raise ValueError(f"the step of {item!r} is out of range: it takes 1 to {span}.")
    if found["star"]:
        first, last = column.low, 6 if column.index == DAY_OF_WEEK else column.high
    else:
        first = _number(column, found["first"])
        last = first
        if found["last"]:
            last = _number(column, found["last"])
        elif found["step"]:
            last = max(first, 6) if column.index == DAY_OF_WEEK else column.high
    return _range(column, first, last, step)


def _range(column: _Column, first: int, last: int, step: int) -> set[int]:
    cycle = 7 if column.index == DAY_OF_WEEK else column.high - column.low + 1
    if last < first:
        last += cycle
    return {(number - column.low) % cycle + column.low for number in range(first, last + 1, step)}


def _number(column: _Column, text: str) -> int:
    if text.isdigit():
        number = int(text)
        if not column.low <= number <= column.high:
            raise ValueError(f"{text!r} is out of range: it takes {column.low} to {column.high}.")
        return number
    if text not in column.names:
        raise ValueError(_why_not(column, text))
    return column.names[text]


def _why_not(column: _Column, item: str) -> str:
    if not item:
        return "there is nothing between two commas, or at an end of the list."
    if _HASHED.fullmatch(item):
        return f"{item!r} is not supported: write the times that you want."
    example = f"{column.low}, {column.low}-{column.high}, */2"
    names = f", {next(iter(column.names))}" if column.names else ""
    return f"{item[:20]!r} is not understood; {example}{names} would be."


def _check_days(expression: str, plain: list[str]) -> None:
    """Refuse what croniter would fire at other times than it says."""
    day, weekday = plain[DAY_OF_MONTH], plain[DAY_OF_WEEK]
    if day == "*" or weekday == "*":
        return
    if "#" in weekday or "l" in weekday:
        problem = "weekdays of the month (1#2, L5) need * as day of month."
        raise InvalidCrontab(expression, f"day of week: {problem}", DAY_OF_WEEK)
    if "w" in day:
        problem = "a nearest weekday (15W) needs * as day of week."
        raise InvalidCrontab(expression, f"day of month: {problem}", DAY_OF_MONTH)
