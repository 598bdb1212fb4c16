"""Which tasks, and what of them, does an export hold?"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from django.db.models import QuerySet

from cq.models import Task
from cq.states import Status

from .. import arguments, hostile
from ..search import Search
from . import tasks as lists
from . import tree, walk

CHUNK = 500
COLUMNS = (
    "id",
    "status",
    "reason",
    "function",
    "arguments",
    "queue",
    "submitted",
    "started",
    "finished",
    "attempts",
    "worker",
    "parent",
    "root",
    "error",
)
ERROR_LENGTH = 2_000

_FIELDS = (*tree.COLUMNS, "error", "worker__host", "worker__pid")


def rows(tasks: QuerySet[Task], search: Search, order: walk.Order) -> Iterator[dict[str, Any]]:
    """What matches *search*, a row each, the newest first; masked like the pages.

    Read in chunks behind the last one, so neither memory nor a snapshot is held for long.
    """
    pieces = order.pieces(tasks, search)
    last: walk.Place | None = None
    while True:
        chunk = lists.newest(pieces, last, order, CHUNK, _FIELDS)
        yield from map(_row, chunk)
        if len(chunk) < CHUNK:
            return
        last = order.place(chunk[-1])


def _row(task: Any) -> dict[str, Any]:
    return {
        "id": str(task.id),
        "status": Status(task.status).name.lower(),
        "reason": hostile.one_line(arguments.safe_text(task.reason)),
        "function": hostile.one_line(task.func_name),
        "arguments": tree.arguments_of(task),
        "queue": hostile.one_line(task.queue),
        "submitted": _iso(task.submitted),
        "started": _iso(task.started),
        "finished": _iso(task.finished),
        "attempts": task.attempts,
        "worker": task.worker.name if task.worker else None,
        "parent": str(task.parent_id) if task.parent_id else None,
        "root": str(task.root_id),
        "error": hostile.visible(arguments.safe_text(task.error[:ERROR_LENGTH]), ERROR_LENGTH),
    }


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None
