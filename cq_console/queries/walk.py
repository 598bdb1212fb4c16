"""How does a search look back over very many tasks without taking longer than a person waits?

It looks at spans of time that double, the newest first, and at the clock between them. The same
code serves every database: none can be asked for "what you find in 400 ms".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from time import monotonic
from uuid import UUID

from django.conf import settings
from django.db.models import Count, Q, QuerySet

from cq.models import Task

from ..search import Search
from .matching import along, id_at, pieces

SECONDS = 0.4
FIRST_SPAN = timedelta(seconds=15)

Tasks = QuerySet[Task]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a page ends: the task's own moment in the order of the list, and its id."""

    moment: datetime
    id: UUID

    def __str__(self) -> str:
        return f"{self.id}@{round(self.moment.timestamp() * 1_000_000)}"


@dataclass(frozen=True, slots=True)
class Order:
    """The newest first, by the time at which tasks were submitted or ended."""

    name: str
    by: tuple[str, ...]
    moment: Callable[[Task], datetime]

    def pieces(self, tasks: Tasks, search: Search) -> list[Tasks]:
        """*tasks* that match *search*, in parts that each lie in this order in an index."""
        if self is SUBMITTED:
            return pieces(tasks, search)
        return [along(tasks, search).filter(finished__isnull=False)]

    def newest_first(self, rows: Tasks) -> Tasks:
        return rows.order_by(*self.by)

    def before(self, rows: Tasks, place: Place) -> Tasks:
        if self is SUBMITTED:
            return rows.filter(id__lt=place.id)
        earlier = Q(finished__lt=place.moment) | Q(finished=place.moment, id__lt=place.id)
        return rows.filter(earlier, finished__lte=place.moment)

    def after(self, rows: Tasks, place: Place) -> Tasks:
        if self is SUBMITTED:
            return rows.filter(id__gt=place.id)
        later = Q(finished__gt=place.moment) | Q(finished=place.moment, id__gt=place.id)
        return rows.filter(later, finished__gte=place.moment)

    def within(self, rows: Tasks, start: datetime | None, end: datetime | None) -> Tasks:
        """*rows* from *start* to before *end*."""
        if self is SUBMITTED:
            rows = rows.filter(id__gte=id_at(start)) if start else rows
            return rows.filter(id__lt=id_at(end)) if end else rows
        rows = rows.filter(finished__gte=start) if start else rows
        return rows.filter(finished__lt=end) if end else rows

    def ends(self, tasks: Tasks) -> tuple[datetime, datetime] | None:
        """The moments of the oldest and the newest of *tasks*; None when there is none."""
        if self is not SUBMITTED:
            tasks = tasks.filter(finished__isnull=False)
        rows = self.newest_first(tasks).only("id", "finished")
        newest, oldest = rows.first(), rows.reverse().first()
        if newest is None or oldest is None:
            return None
        return self.moment(oldest), self.moment(newest)

    def key(self, task: Task) -> tuple[datetime, UUID]:
        """What tasks are sorted by."""
        return self.moment(task), task.id

    def place(self, task: Task) -> Place:
        return Place(self.moment(task), task.id)


def _submitted(task: Task) -> datetime:
    return made_at(task.id)


def _finished(task: Task) -> datetime:
    return task.finished or task.submitted


def made_at(id: UUID) -> datetime:
    """The millisecond in which *id* was made."""
    return datetime.fromtimestamp((id.int >> 80) / 1000, tz=UTC if settings.USE_TZ else None)


SUBMITTED = Order("submitted", ("-id",), _submitted)
FINISHED = Order("finished", ("-finished", "-id"), _finished)
ORDERS = {order.name: order for order in (SUBMITTED, FINISHED)}


def place(text: str) -> Place | None:
    """The place that `str` made *text* of; None when it did not."""
    id, _at, moment = text.partition("@")
    try:
        found = UUID(id)
        if not moment:
            return Place(made_at(found), found)
        micros = int(moment[:20])
        zone = UTC if settings.USE_TZ else None
        return Place(datetime.fromtimestamp(micros / 1_000_000, tz=zone), found)
    except (ValueError, OverflowError, OSError):
        return None


def lowest(moment: datetime) -> Place:
    """The place before everything of *moment* and later."""
    return Place(moment, id_at(moment))


@dataclass(frozen=True, slots=True)
class Span:
    pieces: tuple[Tasks, ...]
    start: datetime


def spans(
    order: Order,
    tasks: Tasks,
    pieces: Sequence[Tasks],
    *,
    before: Place | None = None,
    seconds: float,
    since: datetime | None = None,
) -> Iterator[Span]:
    """*pieces* in spans that double, backwards; `Stopped` once *seconds* are gone.

    *tasks* is the table that they were filtered from. Ends when there is nothing older.
    """
    known = order.ends(tasks)
    if known is None:
        return
    oldest, newest = known
    end = min(before.moment, newest) if before else newest
    length = FIRST_SPAN
    started = began = monotonic()
    top: datetime | None = None
    floor = max(oldest, since) if since else oldest
    if before is not None:
        pieces = [order.before(rows, before) for rows in pieces]
    while True:
        start = end - length
        is_last = start <= floor
        # The last one is open below: clocks of the machines that make ids differ.
        lower = None if is_last else start
        yield Span(tuple(order.within(rows, lower, top) for rows in pieces), start)
        if is_last:
            return
        now = monotonic()
        # The next one looks at twice as much.
        if now - started + 2 * (now - began) > seconds:
            raise Stopped(start)
        began, end, top, length = now, start, start, length * 2


class Stopped(Exception):
    """The time was up; everything from *back_to* on has been looked at."""

    def __init__(self, back_to: datetime) -> None:
        super().__init__(back_to)
        self.back_to = back_to


@dataclass(frozen=True, slots=True)
class Counted:
    """How many of which status; *back_to* says how far the count came when its time was up."""

    by_status: dict[str, int]
    back_to: datetime | None = None

    @property
    def total(self) -> int:
        return sum(self.by_status.values())


def count(
    tasks: Tasks,
    pieces: Sequence[Tasks],
    *,
    order: Order = SUBMITTED,
    seconds: float,
    since: datetime | None = None,
    limit: int = 0,
) -> Counted:
    """How many of *pieces* there are by status, as far as *seconds* (or *limit* rows) reach."""
    found: dict[str, int] = {}
    try:
        for span in spans(order, tasks, pieces, seconds=seconds, since=since):
            for rows in span.pieces:
                left = max(limit + 1 - sum(found.values()), 0)
                for status, n in _by_status(rows, left if limit else None):
                    found[status] = found.get(status, 0) + n
            if limit and sum(found.values()) > limit:
                return Counted(found, span.start)
    except Stopped as stopped:
        return Counted(found, stopped.back_to)
    return Counted(found)


def _by_status(rows: Tasks, limit: int | None) -> Iterable[tuple[str, int]]:
    if limit is not None:
        return Counter(rows.order_by().values_list("status", flat=True)[:limit]).items()
    return list(rows.order_by().values_list("status").annotate(n=Count("id")))
