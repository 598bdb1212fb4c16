"""Does a task answer the cancel that was asked for, and what runs beside it?"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from cq.models import Task
from cq.states import Status

from . import tree

PATIENCE = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class Unanswered:
    """How long a cancel has had no effect; how many neighbours a new process would run again."""

    since: timedelta
    neighbours: int
    # Somebody looks after the process and can replace it; an embedded one is the web process.
    is_replaceable: bool


def unanswered(tasks: tree.Tasks, task: Task, now: datetime) -> Unanswered | None:
    """Whether the running *task* has let a cancel wait for too long."""
    asked = task.cancel_requested
    if task.status != Status.RUNNING or asked is None or now - asked < PATIENCE:
        return None
    worker = task.worker
    if worker is None or worker.stopped is not None or not worker.supervisor:
        return Unanswered(now - asked, neighbours=0, is_replaceable=False)
    beside = tasks.filter(worker_id=worker.pk, status=Status.RUNNING).exclude(id=task.id)
    neighbours = beside.order_by().values("pk")[:1_000].count()
    return Unanswered(now - asked, neighbours, is_replaceable=True)
