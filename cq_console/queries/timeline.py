"""When did the tasks of a tree wait and run?"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from .. import arguments
from ..timeline import Span
from . import tree

_COLUMNS = (
    "id",
    "parent_id",
    "previous_id",
    "func_name",
    "status",
    "submitted",
    "started",
    "finished",
)


def spans(
    tasks: tree.Tasks, root_id: UUID, heads: Sequence[UUID], *, is_capped: bool
) -> list[Span]:
    """The whole tree; of one too large to be added up, its heads and children of theirs."""
    if not is_capped:
        return _spans(tasks.filter(root_id=root_id))
    below = tasks.filter(parent_id__in=list(heads))
    return _spans(tasks.filter(id__in=list(heads))) + _spans(below)


def labels(tasks: tree.Tasks, spans: Sequence[Span]) -> dict[UUID, str]:
    """Of each task, the arguments that tell it from those of its function beside it."""
    rows = tasks.filter(id__in=[span.id for span in spans])
    found = {
        task.id: (task.func_name, tree.arguments_of(task))
        for task in tree.with_short_arguments(rows.only("id", "func_name", "named"))
    }
    siblings: dict[UUID | None, list[UUID]] = {}
    for span in spans:
        if span.id in found:
            siblings.setdefault(span.parent, []).append(span.id)
    result: dict[UUID, str] = {}
    for parent, ids in siblings.items():
        above = found[parent][1] if parent in found else {}
        telling = arguments.telling([found[id] for id in ids], above)
        result |= {
            id: arguments.brief_telling(values) for id, values in zip(ids, telling, strict=True)
        }
    return result


def _spans(rows: tree.Tasks) -> list[Span]:
    found = rows.order_by().values_list(*_COLUMNS)[: tree.ROLL_UP_LIMIT]
    return [Span(*row) for row in found]
