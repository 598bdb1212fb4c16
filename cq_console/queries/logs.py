"""Which log lines does a page show, and which have come since?"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from time import monotonic
from uuid import UUID

from django.db.models import Max, QuerySet

from cq.models import Task, TaskLog

from .. import arguments, hostile, store

PAGE = 200
LATE_LIMIT = 50
# Ids are not commit order: a line may come to light behind ones with higher ids.
LATE = timedelta(seconds=10)
COUNT_LIMIT = 10_000
# Of the half second that a page may take: what is around the lines takes the rest on busy cores.
SEARCH_SECONDS = 0.3
FIRST_WINDOW = 10_000
WINDOW = 100_000
CHUNK = 2_000

LEVELS = {
    "debug": logging.NOTSET,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose lines: a whole tree's, or one task's; from which level up; containing what."""

    root_id: UUID
    task_id: UUID | None = None
    level: str = "debug"
    text: str = ""

    def rows(self) -> QuerySet[TaskLog]:
        # Of one task by its root too: warnings are indexed by that alone.
        rows = store.rows(TaskLog).filter(root_id=self.root_id)
        if self.task_id is not None:
            rows = rows.filter(task_id=self.task_id)
        if least := LEVELS.get(self.level, 0):
            rows = rows.filter(level__gte=least)
        return rows.filter(message__icontains=self.text) if self.text else rows


@dataclass(frozen=True, slots=True)
class Line:
    id: int
    created: datetime
    level: int
    word: str
    message: str
    task_id: UUID
    origin: str
    done: int | None
    total: int | None

    @property
    def kind(self) -> str:
        if self.level >= logging.ERROR:
            return "error"
        if self.level >= logging.WARNING:
            return "warning"
        return "info" if self.level >= logging.INFO else "debug"


@dataclass(frozen=True, slots=True)
class Lines:
    """Lines in the order of their ids; how many older or newer ones there are beyond them."""

    lines: tuple[Line, ...]
    has_older: bool = False
    has_newer: bool = False
    # Lines between what the page shows and the first of these, at most one more than the limit.
    passed: int = 0
    # How far back a search came before its time was up; None when it is complete.
    searched_to: int | None = None

    @property
    def first(self) -> int | None:
        return self.lines[0].id if self.lines else None

    @property
    def last(self) -> int | None:
        return self.lines[-1].id if self.lines else None


def tail(scope: Scope, before: int | None = None) -> Lines:
    """The newest page of lines, or the page that ends before the line *before*."""
    if scope.text:
        return _search(scope, before)
    rows = scope.rows() if before is None else scope.rows().filter(id__lt=before)
    found = list(rows.order_by("-id")[: PAGE + 1])
    return Lines(
        _said(found[:PAGE][::-1]), has_older=len(found) > PAGE, has_newer=before is not None
    )


def following(scope: Scope, after: int) -> Lines:
    """The page of lines that begins behind the line *after*."""
    found = list(scope.rows().filter(id__gt=after).order_by("id")[: PAGE + 1])
    return Lines(_said(found[:PAGE]), has_older=True, has_newer=len(found) > PAGE)


def around(scope: Scope, line: int) -> Lines:
    """The line that a link names, amid a page."""
    older = list(scope.rows().filter(id__lte=line).order_by("-id")[: PAGE // 2 + 1])
    newer = list(scope.rows().filter(id__gt=line).order_by("id")[: PAGE // 2 + 1])
    half = PAGE // 2
    return Lines(
        _said([*older[:half][::-1], *newer[:half]]),
        has_older=len(older) > half,
        has_newer=len(newer) > half,
    )


def since(scope: Scope, last: int) -> Lines:
    """What came after the line *last*: the newest page of it, and how many lines that passes."""
    rows = scope.rows().filter(id__gt=last)
    found = list(rows.order_by("-id")[: PAGE + 1])
    passed = 0
    if len(found) > PAGE:
        found = found[:PAGE]
        older = rows.filter(id__lt=found[-1].id).order_by().values("pk")
        passed = older[: COUNT_LIMIT + 1].count()
    return Lines(_said(found[::-1]), passed=passed)


def count_since(scope: Scope, last: int) -> int:
    """How many lines came after the line *last*, at most one more than the limit."""
    rows = scope.rows().filter(id__gt=last).order_by()
    return rows.values("pk")[: COUNT_LIMIT + 1].count()


def late(scope: Scope, known: Sequence[int], now: datetime) -> tuple[Line, ...]:
    """Lines that came to light among those that the page shows, whose ids are *known*."""
    if len(known) < 2:
        return ()
    rows = scope.rows().filter(id__gt=known[0], id__lt=known[-1], created__gte=now - LATE)
    shown = set(known)
    return _said([row for row in rows.order_by("id")[: PAGE * 2] if row.id not in shown])[
        :LATE_LIMIT
    ]


def progress(task_id: UUID) -> Line | None:
    """How far the task itself said it is."""
    rows = store.rows(TaskLog).filter(task_id=task_id).order_by("-id")[:PAGE]
    return next((line for line in _said(list(rows)) if line.total), None)


def stream(scope: Scope) -> Iterator[str]:
    """Exactly the filtered lines, as text, thousands at a time.

    Read page by page: some drivers hold the whole answer to one query in memory.
    """
    last = 0
    while rows := list(scope.rows().filter(id__gt=last).order_by("id")[:CHUNK]):
        last = rows[-1].id
        yield "".join(map(_as_text, rows))


def _as_text(row: TaskLog) -> str:
    level = f" {logging.getLevelName(row.level)}" if row.level >= logging.WARNING else ""
    text = hostile.visible(arguments.safe_text(row.message), hostile.BLOCK)
    return f"{row.created.isoformat(timespec='milliseconds')}{level} {text}\n"


def _search(scope: Scope, before: int | None) -> Lines:
    """Walk back over ids, window by window, until a page is full or the time is up.

    A window that would end too late, at the pace of the last one, is not begun: it takes a
    good part of the time, and would be over it as a whole.
    """
    started = monotonic()
    top = before
    if top is None:
        newest = store.rows(TaskLog).filter(root_id=scope.root_id).aggregate(last=Max("id"))["last"]
        top = (newest or 0) + 1
    found: list[TaskLog] = []
    window = FIRST_WINDOW
    while top > 0 and len(found) <= PAGE:
        began = monotonic()
        bottom = max(top - window, 0)
        rows = scope.rows().filter(id__lt=top, id__gte=bottom).order_by("-id")
        found.extend(rows[: PAGE + 1 - len(found)])
        ended = monotonic()
        wider = min(window * 2, WINDOW)
        expected = (ended - began) * wider / window
        top, window = bottom, wider
        if ended - started + expected > SEARCH_SECONDS:
            break
    is_full = len(found) > PAGE
    return Lines(
        _said(found[:PAGE][::-1]),
        has_older=is_full,
        has_newer=before is not None,
        searched_to=top if top > 0 and not is_full else None,
    )


def _said(rows: Sequence[TaskLog]) -> tuple[Line, ...]:
    ids = {row.task_id for row in rows}
    names = dict(store.rows(Task).filter(id__in=ids).values_list("id", "func_name")) if ids else {}
    return tuple(
        Line(
            id=row.id,
            created=row.created,
            level=row.level,
            word=logging.getLevelName(row.level) if row.level >= logging.WARNING else "",
            message=hostile.visible(arguments.safe_text(row.message)),
            task_id=row.task_id,
            origin=arguments.name_of(names.get(row.task_id, "")).short,
            done=row.done,
            total=row.total,
        )
        for row in rows
    )
