"""Which tasks does a tree show, and how far is everything below each of them?"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import Case, Count, F, JSONField, Q, QuerySet, TextField, When
from django.db.models.functions import Cast, Length

from cq.models import Attempt, Task
from cq.states import FAILED, Status

from .. import arguments, store

PAGE = 100
ROLL_UP_LIMIT = 20_000
COUNT_LIMIT = 10_000
SHORT_ARGUMENTS = 600
RETRIES_SHOWN = 500
# Failed branches that stand open at first, so that the cause is on the page.
OPEN_BRANCHES = 5
# Siblings from which the arguments of failed tasks are told apart.
BESIDE = 20

Tasks = QuerySet[Task]
Counts = Mapping[str, int]

COLUMNS = (
    "id",
    "status",
    "cause",
    "reason",
    "func_name",
    "named",
    "queue",
    "ready",
    "run_at",
    "parent_id",
    "previous_id",
    "root_id",
    "condition",
    "open_children",
    "submitted",
    "started",
    "finished",
    "attempts",
    "cancel_requested",
)


@dataclass(frozen=True, slots=True)
class Family:
    """How many tasks of a tree have which status, in all and below each task."""

    counts: Counts
    total: int
    # Too large to be added up: only direct children are counted, where they are asked for.
    is_capped: bool = False
    below: Mapping[UUID, Counts] = field(default_factory=dict)

    def failed_below(self, task_id: UUID) -> int:
        """Tasks below *task_id* that a retry would run again."""
        counts = self.below.get(task_id, {})
        return counts.get(Status.FAILURE, 0) + counts.get(Status.LOST, 0)


@dataclass(frozen=True, slots=True)
class Node:
    """A task as the tree shows it, with the arguments that tell it from its siblings."""

    task: Task
    brief: str
    retries: tuple[datetime, ...] = ()


@dataclass(frozen=True, slots=True)
class Level:
    """A page of the tasks below one task."""

    nodes: tuple[Node, ...]
    has_more: bool

    @property
    def last(self) -> UUID | None:
        return self.nodes[-1].task.id if self.nodes else None


def family(tasks: Tasks, root_id: UUID) -> Family:
    """Count the tree of *root_id*: two queries, or one for each status past the limit."""
    members = tasks.filter(root_id=root_id).order_by()
    if members.values("pk")[: ROLL_UP_LIMIT + 1].count() > ROLL_UP_LIMIT:
        counts = {
            str(status): members.filter(status=status).values("pk")[: COUNT_LIMIT + 1].count()
            for status in Status
        }
        return Family(counts, sum(counts.values()), is_capped=True)
    rows = members.values_list("parent_id", "status", "parent__parent_id").annotate(n=Count("id"))
    counts = {}
    direct: dict[UUID, dict[str, int]] = {}
    above: dict[UUID, UUID | None] = {}
    for parent, status, grandparent, n in rows:
        counts[status] = counts.get(status, 0) + n
        if parent is not None:
            direct.setdefault(parent, {})[status] = n
            above[parent] = grandparent
    return Family(counts, sum(counts.values()), below=_added_up(direct, above))


def heads(tasks: Tasks, root_id: UUID) -> list[Task]:
    """The first task of a family and those chained behind it, in the order of their making.

    They are followed link by link: asked for those of the tree that have no parent, a database
    that does not know that there are few of them reads the whole tree.
    """
    found: list[Task] = []
    behind = tasks.filter(id=root_id)
    while len(found) < PAGE:
        level = list(behind.only(*COLUMNS)[: PAGE - len(found)])
        if not level:
            break
        found += level
        behind = tasks.filter(previous_id__in=[task.id for task in level], parent__isnull=True)
    return sorted(found, key=lambda task: task.id)


def top(tasks: Tasks, ids: Sequence[UUID]) -> Level:
    """The *heads* of a family as a page of its tree."""
    return _level(tasks.filter(id__in=ids), None, PAGE)


def children(
    tasks: Tasks,
    parent_id: UUID,
    *,
    after: UUID | None = None,
    since: UUID | None = None,
    only_failed: bool = False,
    size: int = PAGE,
) -> Level:
    """A page of the children of *parent_id*, in the order of their making.

    It begins behind the child *after*, or with the child *since*.
    """
    siblings = rows = tasks.filter(parent_id=parent_id)
    if only_failed:
        rows = rows.filter(status__in=sorted(FAILED))
    if since is not None:
        rows = rows.filter(id__gte=since)
    above = _handed_down(tasks, parent_id)
    return _level(rows, after, size, above=above, beside=siblings if only_failed else None)


def nodes(tasks: Tasks, ids: Sequence[UUID]) -> dict[UUID, Task]:
    """The tasks with these *ids* as they are now, without arguments."""
    return {task.id: task for task in tasks.filter(id__in=ids).only(*COLUMNS)}


def retries(ids: Iterable[UUID]) -> dict[UUID, tuple[datetime, ...]]:
    """When the attempts of these tasks ended, for those that had any."""
    found: dict[UUID, list[datetime]] = {}
    rows = (
        store.rows(Attempt).filter(task_id__in=list(ids), outcome=Status.RETRY).order_by("task_id")
    )
    for task_id, finished in rows.values_list("task_id", "finished")[:RETRIES_SHOWN]:
        found.setdefault(task_id, []).append(finished)
    return {task_id: tuple(moments) for task_id, moments in found.items()}


def direct_counts(tasks: Tasks, ids: Sequence[UUID]) -> dict[UUID, Counts]:
    """Of each task, its children by status: what a tree too large to be added up shows."""
    found: dict[UUID, dict[str, int]] = {}
    rows = tasks.filter(parent_id__in=list(ids)).order_by()
    for parent, status, n in rows.values_list("parent_id", "status").annotate(n=Count("id")):
        found.setdefault(parent, {})[status] = n
    return dict(found)


def path(tasks: Tasks, task: Task) -> list[Task]:
    """The tasks above *task*, from the top; its depth bounds the number of queries."""
    found: list[Task] = []
    parent_id = task.parent_id
    while parent_id is not None and len(found) < 100:
        parent = tasks.filter(id=parent_id).only(*COLUMNS).first()
        if parent is None:
            break
        found.append(parent)
        parent_id = parent.parent_id
    return found[::-1]


def failed_branches(tasks: Tasks, parent_id: UUID) -> dict[UUID, Level]:
    """Failed children of the first incomplete tasks below *parent_id*, so that causes are shown."""
    found: dict[UUID, Level] = {}
    waiting = deque([parent_id])
    while waiting and len(found) < OPEN_BRANCHES:
        level = children(tasks, current := waiting.popleft(), only_failed=True)
        found[current] = level
        waiting.extend(
            node.task.id for node in level.nodes if node.task.status == Status.INCOMPLETE
        )
    return found


def count_failed(tasks: Tasks, parent_id: UUID) -> int:
    """How many children of *parent_id* have failed, at most one more than the limit."""
    rows = tasks.filter(parent_id=parent_id, status__in=sorted(FAILED)).order_by()
    return rows.values("pk")[: COUNT_LIMIT + 1].count()


def count_children(tasks: Tasks, parent_id: UUID) -> int:
    """How many children *parent_id* has, at most one more than the limit."""
    rows = tasks.filter(parent_id=parent_id).order_by()
    return rows.values("pk")[: COUNT_LIMIT + 1].count()


def with_short_arguments(rows: Tasks) -> Tasks:
    """*rows* with arguments that are short enough to be read for a list of them."""
    return rows.annotate(
        args_length=Length(Cast("args", TextField())),
        short_args=Case(
            When(Q(args_length__lte=SHORT_ARGUMENTS), then=F("args")),
            default=None,
            output_field=JSONField(),
        ),
    )


def arguments_of(task: Any) -> dict[str, Any]:
    """What may be shown of a task's arguments in a list: short ones, else the searchable ones."""
    if task.short_args is not None:
        named = task.named or {}
        values = arguments.positional(task.func_name, task.short_args)
        # An unknown function's arguments have no names but those that were noted for searching.
        unnamed = [
            name for name, value in values.items() if name.isdecimal() and value in named.values()
        ]
        for name in unnamed:
            del values[name]
        return arguments.masked({**values, **named})
    return arguments.masked(task.named or {})


def _handed_down(tasks: Tasks, id: UUID) -> dict[str, Any]:
    parent = with_short_arguments(tasks.filter(id=id).only("id", "func_name", "named")).first()
    return arguments_of(parent) if parent else {}


def _level(
    rows: Tasks,
    after: UUID | None,
    size: int,
    above: Mapping[str, Any] | None = None,
    beside: Tasks | None = None,
) -> Level:
    if after is not None:
        rows = rows.filter(id__gt=after)
    found = list(with_short_arguments(rows.order_by("id").only(*COLUMNS))[: size + 1])
    shown = found[:size]
    calls = [(task.func_name, arguments_of(task)) for task in shown]
    if shown and beside is not None:
        # Told apart as they are amid all others: one that failed alone has nothing to differ from.
        some = with_short_arguments(beside.order_by("id").only(*COLUMNS))[:BESIDE]
        ids = {task.id for task in shown}
        calls += [(task.func_name, arguments_of(task)) for task in some if task.id not in ids]
    telling = arguments.telling(calls, above)[: len(shown)]
    ticks = retries(task.id for task in shown if task.attempts > 1)
    return Level(
        tuple(
            Node(task, arguments.brief_telling(values), ticks.get(task.id, ()))
            for task, values in zip(shown, telling, strict=True)
        ),
        has_more=len(found) > size,
    )


def _added_up(
    direct: Mapping[UUID, Mapping[str, int]], above: Mapping[UUID, UUID | None]
) -> dict[UUID, Counts]:
    """Direct counts → counts of everything below, from the leaves up."""
    below = {parent: dict(counts) for parent, counts in direct.items()}
    waiting_for: dict[UUID, int] = {}
    for parent in above.values():
        if parent is not None:
            waiting_for[parent] = waiting_for.get(parent, 0) + 1
    ready = deque(parent for parent in direct if not waiting_for.get(parent))
    while ready:
        parent = ready.popleft()
        grandparent = above[parent]
        if grandparent is None or grandparent not in below:
            continue
        for status, n in below[parent].items():
            below[grandparent][status] = below[grandparent].get(status, 0) + n
        waiting_for[grandparent] -= 1
        if not waiting_for[grandparent]:
            ready.append(grandparent)
    return dict(below)
