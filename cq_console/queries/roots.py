"""Which tasks head a tree, however many tasks lie between them?"""

from __future__ import annotations

from uuid import UUID

from django.db.models import QuerySet

from cq.models import Task

from . import jumps


def roots(tasks: QuerySet[Task], beyond: UUID | None, limit: int, *, newest: bool) -> list[UUID]:
    """The *limit* roots older than *beyond*, the newest first; or newer ones, the oldest first."""
    found = jumps.values(tasks, "root", limit, beyond=beyond, descending=newest)
    return [value if isinstance(value, UUID) else UUID(value) for value in found]
