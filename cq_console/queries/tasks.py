"""Which tasks does the list show, and how many are there of each kind?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from time import monotonic
from uuid import UUID

from django.db.models import Count, QuerySet

from cq.models import Task

from .. import arguments
from ..search import Search
from . import numbers, tree, walk
from .matching import few, filtered
from .roots import roots
from .walk import SUBMITTED, Order, Place

PAGE = 50
COUNT_LIMIT = 10_000
NEW_LIMIT = 100
NEW_SECONDS = 0.1
# What one walk along an index, or a few, answers, however far it leads.
AT_ONCE = (
    {"id"},
    {"root"},
    {"cause"},
    {"statuses"},
    {"queue"},
    {"queue", "statuses"},
    {"functions"},
)
# Tasks that the trees of one page may have in all for each to be counted through.
TREES_LIMIT = 20_000

Tasks = QuerySet[Task]

COLUMNS = (*tree.COLUMNS, "worker__host", "worker__pid")


@dataclass(frozen=True, slots=True)
class Listed:
    """A page of tasks, the newest first."""

    nodes: tuple[tree.Node, ...]
    has_more: bool
    order: Order = SUBMITTED
    # A search that ran out of time says how far back it came.
    searched_to: datetime | None = None

    @property
    def first(self) -> Place | None:
        return self.order.place(self.nodes[0].task) if self.nodes else None

    @property
    def last(self) -> Place | None:
        return self.order.place(self.nodes[-1].task) if self.nodes else None


@dataclass(frozen=True, slots=True)
class Finished:
    """Tasks that ended in a span of time, and those that were not removed since."""

    number: int
    kept: walk.Counted


def page(
    tasks: Tasks, search: Search, before: Place | None = None, order: Order = SUBMITTED
) -> Listed:
    """The page of what *search* asks for, in *order*, that ends before the place *before*."""
    if search.problem:
        return Listed((), has_more=False, order=order)
    if order is SUBMITTED and (ids := few(tasks, search)) is not None:
        rows = filtered(tasks.filter(id__in=ids), replace(search, is_scheduled=False))
        return _listed(newest([rows], before, order, PAGE + 1), order)
    if order is SUBMITTED and search.conditions == {"only_roots"} and search.since is None:
        return _listed(_newest_roots(tasks, before), order)
    if order is SUBMITTED and (not search.conditions or search.conditions in AT_ONCE):
        return _listed(newest(order.pieces(tasks, search), before, order, PAGE + 1), order)
    return _search(tasks, search, before, order)


def newest(
    pieces: Iterable[Tasks],
    before: Place | None,
    order: Order,
    limit: int,
    columns: Sequence[str] = COLUMNS,
) -> list[Task]:
    """The *limit* newest tasks of *pieces*, with the *columns* that a list shows."""
    found: list[Task] = []
    for rows in pieces:
        earlier = rows if before is None else order.before(rows, before)
        listed = order.newest_first(earlier).select_related("worker").only(*columns)
        found += tree.with_short_arguments(listed)[:limit]
    return sorted(found, key=order.key, reverse=True)[:limit]


def matching(tasks: Tasks, search: Search, ids: Sequence[UUID]) -> set[UUID]:
    """Which of the tasks *ids* match *search* as they are now."""
    if search.problem:
        return set(ids)
    rows = filtered(tasks.filter(id__in=list(ids)), search)
    return set(rows.values_list("id", flat=True))


def shown(tasks: Tasks, ids: Sequence[UUID]) -> dict[UUID, Task]:
    """The tasks *ids* as they are now."""
    return {
        task.id: task
        for task in tasks.filter(id__in=list(ids)).select_related("worker").only(*COLUMNS)
    }


def roll_ups(tasks: Tasks, roots: Sequence[UUID]) -> dict[UUID, Mapping[str, int]]:
    """Of each tree, how many of its tasks have which status; of large ones, nothing."""
    found: dict[UUID, dict[str, int]] = {}
    rows = tasks.filter(root_id__in=list(roots)).order_by()
    if rows.values("pk")[: TREES_LIMIT + 1].count() > TREES_LIMIT:
        rows = tasks.filter(root_id__in=_small(tasks, roots)).order_by()
    for root, status, n in rows.values_list("root_id", "status").annotate(n=Count("id")):
        found.setdefault(root, {})[status] = n
    return {root: counts for root, counts in found.items() if sum(counts.values()) > 1}


def _small(tasks: Tasks, roots: Sequence[UUID]) -> list[UUID]:
    """Those trees that together stay within the limit."""
    least = TREES_LIMIT // PAGE
    return [
        root
        for root in roots
        if tasks.filter(root_id=root).order_by().values("pk")[: least + 1].count() <= least
    ]


def count(tasks: Tasks, search: Search) -> int:
    """How many match one of the ready-made *search*es, at most one more than the limit."""
    ids = few(tasks, search)
    if ids is not None:
        return filtered(tasks.filter(id__in=ids), replace(search, is_scheduled=False)).count()
    return filtered(tasks, search).order_by().values("pk")[: COUNT_LIMIT + 1].count()


def count_all(tasks: Tasks, search: Search) -> walk.Counted:
    """How many match *search*, as far as a person waits, at most one more than the limit."""
    pieces = SUBMITTED.pieces(tasks, search)
    return walk.count(tasks, pieces, seconds=walk.SECONDS, since=search.since, limit=COUNT_LIMIT)


def finished(
    tasks: Tasks, search: Search, window: numbers.Window, now: datetime
) -> Finished | None:
    """How many ended on the queue that *search* shows in *window*, and how many of them are kept.

    None when more is asked for than a queue: nothing is known of those that were removed.
    """
    if search.conditions != {"queue"} or search.since is not None:
        return None
    done = numbers.done(window, now).get(search.queue)
    if done is None:
        return None
    since = numbers.start_at(window, now)
    pieces = [rows.filter(finished__gte=since) for rows in walk.FINISHED.pieces(tasks, search)]
    kept = walk.count(
        tasks,
        pieces,
        order=walk.FINISHED,
        seconds=walk.SECONDS,
        since=since,
        limit=COUNT_LIMIT,
    )
    return Finished(done.finished, kept)


def count_newer(tasks: Tasks, search: Search, first: Place, order: Order = SUBMITTED) -> int:
    """How many that match are newer than *first*, as far as a short look comes, capped."""
    if order is SUBMITTED and search.conditions == {"only_roots"} and search.since is None:
        ids = roots(tasks, first.id, NEW_LIMIT + 1, newest=False)
        return tasks.filter(id__in=ids).count() if ids and tasks.query.has_filters() else len(ids)
    pieces = [order.after(rows, first) for rows in order.pieces(tasks, search)]
    newest = order.ends(tasks)
    start, length, found = first.moment, walk.FIRST_SPAN, 0
    started = monotonic()
    while newest and start <= newest[1] and found <= NEW_LIMIT:
        end = start + length
        for rows in pieces:
            span = order.within(rows, start, end if end <= newest[1] else None).order_by()
            found += span.values("pk")[: max(NEW_LIMIT + 1 - found, 0)].count()
        if monotonic() - started > NEW_SECONDS:
            break
        start, length = end, length * 2
    return found


def _search(tasks: Tasks, search: Search, before: Place | None, order: Order) -> Listed:
    pieces = order.pieces(tasks, search)
    since = search.since if order is SUBMITTED else None
    found: list[Task] = []
    try:
        spans = walk.spans(order, tasks, pieces, before=before, since=since, seconds=walk.SECONDS)
        for span in spans:
            found += newest(span.pieces, None, order, PAGE + 1 - len(found))
            if len(found) > PAGE:
                break
    except walk.Stopped as stopped:
        return replace(_listed(found, order), searched_to=stopped.back_to)
    return _listed(found, order)


def _newest_roots(tasks: Tasks, before: Place | None) -> list[Task]:
    """The first tasks of trees, however many tasks lie between them."""
    found: list[Task] = []
    started = monotonic()
    last = before.id if before else None
    while len(found) <= PAGE:
        ids = roots(tasks, last, PAGE + 1, newest=True)
        found += newest([tasks.filter(id__in=ids)], None, SUBMITTED, PAGE + 1)
        if len(ids) <= PAGE or monotonic() - started > walk.SECONDS:
            break
        last = ids[-1]
    return found


def _listed(found: Iterable[Task], order: Order) -> Listed:
    rows = list(found)[: PAGE + 1]
    return Listed(
        tuple(
            tree.Node(task, arguments.brief(tree.arguments_of(task), 120)) for task in rows[:PAGE]
        ),
        has_more=len(rows) > PAGE,
        order=order,
    )
