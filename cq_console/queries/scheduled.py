"""What waits for its time?"""

from __future__ import annotations

from uuid import UUID

from django.db import connections

from cq import conf
from cq.database import read_by
from cq.models import Task
from cq.states import CLAIMABLE


def scheduled(limit: int) -> list[UUID]:
    """The ids of up to *limit* scheduled tasks of the whole table, the next one first.

    By the index of what is scheduled: SQLite would rather read everything that is queued.
    """
    statuses = ", ".join(f"'{status.value}'" for status in sorted(CLAIMABLE))
    select = (
        f"SELECT id FROM {read_by(Task, 'cq_task_for_due')} WHERE ready IS NULL"  # noqa: S608 - ours
        f" AND status IN ({statuses}) ORDER BY run_at LIMIT {limit:d}"
    )
    with connections[conf.get().database].cursor() as cursor:
        cursor.execute(select)
        return [row[0] if isinstance(row[0], UUID) else UUID(row[0]) for row in cursor.fetchall()]
