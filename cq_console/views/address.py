"""What does the address of a page say, and what may it name?"""

from __future__ import annotations

from uuid import UUID

from django.db.models import QuerySet
from django.http import HttpRequest

from cq.models import Task

# What only a refresh asks with; an address that can be sent to a colleague has none of it.
_OF_A_REFRESH = ("have", "rows", "levels", "lines", "minute", "reading", "failed")


def query(request: HttpRequest, **changes: str) -> str:
    """The page's own query with *changes*; an empty one is left out."""
    found = request.GET.copy()
    for key, value in changes.items():
        if value:
            found[key] = value
        else:
            found.pop(key, None)
    for key in _OF_A_REFRESH:
        found.pop(key, None)
    text = found.urlencode()
    return f"?{text}" if text else "?"


def uuid(text: str) -> UUID | None:
    """*text* as an id; None when it is not one."""
    try:
        return UUID(text)
    except ValueError:
        return None


def number(text: str) -> int | None:
    """*text* as a whole number that a database takes; None when it is not one."""
    return int(text) if text.isdecimal() and len(text) < 19 else None


def root(tasks: QuerySet[Task], task: Task) -> Task:
    """The first task of the family of *task*."""
    if task.is_root:
        return task
    return tasks.filter(id=task.root_id).first() or task
