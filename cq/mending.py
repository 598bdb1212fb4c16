"""What stands in the table that must not exist, and how does it move on?

Nothing of it comes about by the engine's own writes, each of which moves followers and parents in
its own transaction. It does when rows are deleted or changed behind its back.
"""

from __future__ import annotations

import logging
from uuid import UUID

from django.db.models import Exists, OuterRef

from . import workflow
from .models import Task
from .states import DONE, Cause, Condition, Status, Verdict, verdict

logger = logging.getLogger("cq")

LOOK = 1_000


class Mender:
    """Walks through what waits for others, some in each round."""

    def __init__(self) -> None:
        self._follower: UUID | None = None
        self._parent: UUID | None = None

    @property
    def is_underway(self) -> bool:
        """Is there more to look at before it begins from the start?"""
        return self._follower is not None or self._parent is not None

    def mend(self, limit: int = LOOK) -> int:
        """Look at up to *limit* followers and parents; returns how many had been forgotten."""
        return self._mend_followers(limit) + self._mend_parents(limit)

    def _mend_followers(self, limit: int) -> int:
        """Let go on what is pending although its predecessor has ended, or is gone."""
        rows = workflow.tasks().filter(status=Status.PENDING, previous__isnull=False).order_by("id")
        if self._follower is not None:
            rows = rows.filter(id__gt=self._follower)
        found = list(rows.only("id", "previous_id", "cause", "condition", "status")[:limit])
        self._follower = found[-1].pk if len(found) == limit else None
        ids = {row.previous_id for row in found if row.previous_id}
        before = {
            row.pk: row for row in workflow.tasks().filter(pk__in=ids).only("id", "status", "cause")
        }
        orphans = [row.pk for row in found if row.previous_id not in before]
        forgotten = {
            row.previous_id
            for row in found
            if row.previous_id is not None
            and row.previous_id in before
            and _should_have_moved(row, before[row.previous_id])
        }
        mended = workflow.settle_again(forgotten)
        if orphans:
            mended += workflow.revoke_orphans(orphans)
        if mended:
            logger.warning("moved on forgotten followers: %s", mended)
        return mended

    def _mend_parents(self, limit: int) -> int:
        """End what waits although nothing below it is open."""
        rows = workflow.tasks().filter(status=Status.WAITING).order_by("id")
        if self._parent is not None:
            rows = rows.filter(id__gt=self._parent)
        children = workflow.open_children().filter(
            root_id=OuterRef("root_id"), parent_id=OuterRef("pk"), parent_claim=OuterRef("claim")
        )
        found = list(rows.values_list("pk", Exists(children))[:limit])
        self._parent = found[-1][0] if len(found) == limit else None
        idle = [task_id for task_id, has_open_children in found if not has_open_children]
        mended = sum(workflow.finish_forgotten(task_id) for task_id in idle)
        if mended:
            logger.warning("ended parents that waited for nobody: %s", mended)
        return mended


def mend_all() -> int:
    """Look at everything that waits for others; returns how many had been forgotten."""
    mender = Mender()
    mended = mender.mend()
    while mender.is_underway:
        mended += mender.mend()
    return mended


def _should_have_moved(follower: Task, previous: Task) -> bool:
    if previous.status not in DONE:
        return False
    said = verdict(Status(previous.status), previous.cause, Condition(follower.condition))
    return not (follower.cause == Cause.BLOCKED and said is Verdict.BLOCKED)
