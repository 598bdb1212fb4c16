"""Which rows does a search ask for?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import connections
from django.db.models import F, Func, Q, QuerySet
from django.db.models.fields.json import KeyTransform

from cq.models import Task, Worker
from cq.states import FAILED, Status

from .. import store
from ..search import Argument, Search
from . import speed
from .scheduled import scheduled

Tasks = QuerySet[Task]

# So many ids are asked for by name.
IDS = 1_000


class _Unindexed(Func):
    """A column without its indexes: for SQLite, which knows nothing of how many rows they hold.

    It takes what is equal to a value to be rare, and would read and sort everything that succeeded
    instead of the last few tasks.
    """

    arity = 1
    template = "%(expressions)s"

    def as_sqlite(self, compiler: Any, connection: Any, **extra: Any) -> Any:
        return self.as_sql(compiler, connection, template="+%(expressions)s", **extra)


_INDEXED = ("status", "queue", "func_name", "fingerprint")
_BARE = "bare_"


def filtered(tasks: Tasks, search: Search) -> Tasks:
    """*tasks* that match *search*, in no order; every condition of it, each at most once."""
    return _filtered(tasks, search, "")


def along(tasks: Tasks, search: Search) -> Tasks:
    """*tasks* that match *search*, to be walked through by an index of something else."""
    bare = {_BARE + name: _Unindexed(name) for name in _INDEXED}
    return _filtered(tasks.alias(**bare), search, _BARE)


def pieces(tasks: Tasks, search: Search) -> list[Tasks]:
    """*tasks* that match *search*, in parts of which each follows one index in the order of ids.

    For one of several values a database reads all of them, and sorts.
    """
    rows = filtered(tasks, search)
    if search.queue and not (search.statuses or search.cause or search.conditions == {"queue"}):
        # What few of a queue's tasks match is found sooner by one walk than by one of each status.
        return [along(tasks, search)]
    if search.statuses or search.cause or search.queue:
        return in_pieces(rows, search.statuses or (FAILED if search.cause else Status))
    if len(search.functions) > 1:
        return [rows.filter(func_name=name) for name in search.functions]
    return [rows]


def in_pieces(rows: Tasks, statuses: Iterable[Status]) -> list[Tasks]:
    """*rows* by status."""
    return [rows.filter(status=status) for status in sorted(statuses)]


def _filtered(tasks: Tasks, search: Search, prefix: str) -> Tasks:
    rows = tasks
    for condition in _exact(search, prefix):
        rows = rows.filter(condition)
    if search.statuses:
        rows = rows.filter(**{f"{prefix}status__in": search.statuses})
    if search.functions:
        rows = rows.filter(**{f"{prefix}func_name__in": search.functions})
    if search.only_roots:
        rows = rows.filter(root_id=F("id"))
    if search.is_long:
        rows = rows.filter(id__in=[run.id for run in speed.long_running(tasks, search.now)])
    if search.tail:
        rows = rows.filter(id__endswith=search.tail)
    for number, argument in enumerate(search.arguments):
        rows = _with_argument(rows, argument, number)
    if search.since is not None:
        rows = rows.filter(id__gte=id_at(search.since))
    return rows


def few(tasks: Tasks, search: Search) -> Sequence[UUID] | None:
    """The ids of all that may match, where an index of few rows leads to them; None else."""
    if search.is_scheduled:
        ids = scheduled(IDS + 1)
    elif search.worker and set(search.statuses) == {Status.RUNNING}:
        rows = tasks.filter(status=Status.RUNNING, worker_id__in=_workers(search.worker)).order_by()
        ids = list(rows.values_list("id", flat=True)[: IDS + 1])
    else:
        return None
    return ids if len(ids) <= IDS else None


def id_at(moment: datetime) -> UUID:
    """The least id that could be made at *moment*."""
    return UUID(int=max(int(moment.timestamp() * 1000), 0) << 80)


def _exact(search: Search, prefix: str) -> list[Q]:
    found = []
    if search.id is not None:
        found.append(Q(id=search.id))
    if search.root is not None:
        found.append(Q(root_id=search.root))
    if search.cause:
        # The index holds failed tasks only; a task that retries keeps its cause as well.
        of_cause: dict[str, Any] = {f"{prefix}fingerprint": search.cause}
        if set(search.statuses) <= FAILED:
            of_cause[f"{prefix}status__in"] = sorted(FAILED)
        found.append(Q(**of_cause))
    if search.queue:
        found.append(Q(**{f"{prefix}queue": search.queue}))
    if search.worker:
        found.append(Q(worker_id__in=_workers(search.worker)))
    if search.is_scheduled:
        found.append(Q(ready__isnull=True))
    if search.ran_over is not None:
        found.append(
            Q(finished__gt=F("started") + search.ran_over)
            | Q(status=Status.RUNNING, started__lt=search.now - search.ran_over)
        )
    if search.ran_under is not None:
        found.append(
            Q(finished__lt=F("started") + search.ran_under)
            | Q(status=Status.RUNNING, started__gt=search.now - search.ran_under)
        )
    return found


def _with_argument(rows: Tasks, argument: Argument, number: int) -> Tasks:
    if connections[rows.db].vendor == "postgresql":
        # Containment, for which there is an index.
        wanted = Q()
        for value in argument.values:
            wanted |= Q(named__contains={argument.name: value})
        return rows.filter(wanted)
    alias = f"argument_{number}"
    values: dict[str, Any] = {alias: KeyTransform(argument.name, "named")}
    wanted = Q()
    for value in argument.values:
        wanted |= Q(**{alias: value})
    return rows.alias(**values).filter(wanted)


def _workers(name: str) -> list[int]:
    host, _colon, pid = name.rpartition(":")
    rows = store.rows(Worker).filter(host=host, pid=int(pid)).order_by("-id")
    return list(rows.values_list("id", flat=True)[:20])
