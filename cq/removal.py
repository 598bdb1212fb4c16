"""Which finished trees are kept no longer, and how do they go?"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from django.db.models import Exists, F, Max, OuterRef, Q
from django.db.models.functions import Now

from . import conf, registry, workflow
from .database import locked, write_transaction
from .models import Attempt, TaskLog
from .states import ACTIVE, DONE, FAILED, Cause, Status

BATCH = 500
LOOK = 5_000

# When the last task that was looked at finished, and its id.
Place = tuple[datetime, UUID]


def remove_finished(after: Place | None = None, limit: int = LOOK) -> Place | None:
    """Remove whole trees whose time is up, looking at up to *limit* finished tasks from *after* on.

    A tree goes when nothing in it can still move, its time counted from the last end in it.
    Returns where to go on, None from the start.
    """
    # Subtasks too: asked for roots alone, PostgreSQL would rather sort the table than walk its
    # index past them.
    rows = workflow.tasks().filter(finished__isnull=False).order_by("finished", "id")
    if after is not None:
        rows = rows.filter(finished__gte=after[0]).exclude(finished=after[0], id__lte=after[1])
    columns = ("finished", "id", "root_id", "status", "func_name", "result_ttl", "keep_until")
    found = list(rows.values_list(*columns, Now())[:limit])
    due = [
        (root_id, finished)
        for finished, task_id, root_id, status, func_name, result_ttl, keep_until, now in found
        if task_id == root_id
        and finished + _ttl(Status(status), func_name, result_ttl) <= now
        and (keep_until is None or keep_until <= now)
    ]
    for start in range(0, len(due), BATCH):
        some = due[start : start + BATCH]
        _remove_due([root_id for root_id, _finished in some], until=some[-1][1])
    return found[-1][:2] if len(found) == limit else None


def remove_tree(root_id: UUID, *, or_pending: bool = False) -> int:
    """Remove a tree with its log and attempts, in bounded batches; returns how many tasks.

    It stops when something in it moves again: a retry, or a task chained to one of it.
    """
    removed = 0
    remove_lines([root_id])
    family = workflow.tasks().filter(root_id=root_id)
    while True:
        # Children before their parents: what is left is always a tree.
        ids = list(family.order_by("-depth", "-id").values_list("id", flat=True)[:BATCH])
        if not ids:
            return removed
        with write_transaction():
            list(locked(family.filter(id__in=ids).order_by("-depth", "id")).values_list("id"))
            if not is_still(root_id, or_pending=or_pending):
                return removed
            _delete(ids)
        removed += len(ids)


def remove_lines(root_ids: Collection[UUID]) -> int:
    """Remove the logs of trees, in bounded batches; returns how many lines."""
    alias = conf.get().database
    lines = TaskLog.objects.using(alias).filter(root_id__in=root_ids)
    removed = 0
    while ids := list(lines.values_list("id", flat=True)[:BATCH]):
        lines.filter(id__in=ids)._raw_delete(alias)
        removed += len(ids)
    return removed


def is_still(root_id: UUID, *, or_pending: bool = False) -> bool:
    """Can nothing in this tree move any more? With *or_pending*, unless somebody submits it."""
    moving = ACTIVE - {Status.PENDING} if or_pending else ACTIVE
    family = workflow.tasks().filter(root_id=root_id, status__in=sorted(moving))
    return not family.exclude(cause=Cause.BLOCKED).exists()


def _remove_due(root_ids: Sequence[UUID], until: datetime) -> None:
    """Remove trees whose roots ended by *until*: in bulk those that are a root and nothing else."""
    family = workflow.tasks().filter(root_id=OuterRef("pk")).exclude(pk=OuterRef("pk"))
    roots = workflow.tasks().filter(pk__in=root_ids)
    alone: list[UUID] = []
    others: list[UUID] = []
    for root_id, has_family in roots.values_list("pk", Exists(family)):
        (others if has_family else alone).append(root_id)
    _remove_alone(alone, until)
    for root_id in others:
        if _is_over(root_id):
            remove_tree(root_id)


def _remove_alone(root_ids: Sequence[UUID], until: datetime) -> None:
    if not root_ids:
        return
    remove_lines(root_ids)
    with write_transaction():
        is_kept = Q(keep_until__gt=Now())
        roots = workflow.tasks().filter(
            pk__in=root_ids, status__in=sorted(DONE), finished__lte=until
        )
        held = locked(roots.exclude(is_kept).order_by("-depth", "id"), skip_locked=True)
        ids = set(held.values_list("pk", flat=True))
        # Whoever chains to one of them now waits for us; whoever came first is seen.
        chained = workflow.tasks().filter(root_id__in=ids).exclude(pk=F("root_id"))
        _delete(ids - set(chained.values_list("root_id", flat=True)))


def _delete(ids: Collection[UUID]) -> None:
    alias = conf.get().database
    Attempt.objects.using(alias).filter(task_id__in=ids)._raw_delete(alias)
    # Those under their root are gone; a late one may stand elsewhere.
    TaskLog.objects.using(alias).filter(task_id__in=ids)._raw_delete(alias)
    workflow.tasks().filter(pk__in=ids)._raw_delete(alias)


def _is_over(root_id: UUID) -> bool:
    """Can nothing move in this tree, and has its time passed since the last end in it?"""
    family = workflow.tasks().filter(root_id=root_id)
    if not is_still(root_id):
        return False
    root = family.filter(pk=root_id).values_list("status", "func_name", "result_ttl", Now()).first()
    if root is None:
        return False
    status, func_name, result_ttl, now = root
    last = family.aggregate(last=Max("finished"))["last"]
    ttl = _ttl(Status(status), func_name, result_ttl)
    if status not in FAILED and family.filter(status__in=sorted(FAILED)).exists():
        ttl = max(ttl, _ttl(Status.FAILURE, func_name, None))
    return bool(last + ttl <= now)


def _ttl(status: Status, func_name: str, result_ttl: int | None) -> timedelta:
    options = registry.get(func_name).options if registry.is_registered(func_name) else None
    settings = conf.get()
    if status in FAILED:
        seconds = options.failure_ttl if options and options.failure_ttl is not None else None
        return timedelta(seconds=settings.failure_ttl if seconds is None else seconds)
    if result_ttl is None and options is not None:
        result_ttl = options.result_ttl
    return timedelta(seconds=settings.result_ttl if result_ttl is None else result_ttl)
