"""Which rows does a search ask for?"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import connections
from django.db.models import F, Q, QuerySet
from django.db.models.fields.json import KeyTransform

from cq.models import Task, Worker
from cq.states import CLAIMABLE, FAILED, Status

from .. import store
from ..search import Argument, Search
from . import speed

Tasks = QuerySet[Task]

# So many ids are asked for by name.
IDS = 1_000


def filtered(tasks: Tasks, search: Search) -> Tasks:
    """*tasks* that match *search*, in no order; every condition of it, each at most once."""
    rows = tasks
    for condition in _exact(search):
        rows = rows.filter(condition)
    if search.statuses:
        rows = rows.filter(status__in=search.statuses)
    if search.functions:
        rows = rows.filter(func_name__in=search.functions)
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
    """The ids of what matches, where an index of few rows leads to them; None else."""
    if search.is_scheduled:
        rows = tasks.filter(ready__isnull=True, status__in=sorted(CLAIMABLE))
        rows = rows.order_by("run_at")
    elif search.worker and set(search.statuses) == {Status.RUNNING}:
        rows = tasks.filter(status=Status.RUNNING, worker_id__in=_workers(search.worker)).order_by()
    else:
        return None
    ids = list(rows.values_list("id", flat=True)[: IDS + 1])
    return ids if len(ids) <= IDS else None


def id_at(moment: datetime) -> UUID:
    """The least id that could be made at *moment*."""
    return UUID(int=max(int(moment.timestamp() * 1000), 0) << 80)


def _exact(search: Search) -> list[Q]:
    found = []
    if search.id is not None:
        found.append(Q(id=search.id))
    if search.root is not None:
        found.append(Q(root_id=search.root))
    if search.cause:
        # The index holds failed tasks only; a task that retries keeps its cause as well.
        statuses = sorted(FAILED) if not search.statuses else [*search.statuses]
        found.append(Q(fingerprint=search.cause, status__in=statuses))
    if search.queue:
        found.append(Q(queue=search.queue))
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
