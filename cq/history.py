"""How did the runs of repeating tasks end, and how many of them are kept?"""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from django.db import models

from . import conf
from .database import update_each, write_transaction
from .models import RepeatingRun, Task
from .states import DONE, Status

NOTED_AT_ONCE = 500
KEEP_RUNS = 5_000

Outcome = RepeatingRun.Outcome

_OUTCOMES = {Status.SUCCESS: Outcome.SUCCEEDED, Status.REVOKED: Outcome.CANCELLED}
_Ended = tuple[str, datetime | None, datetime | None]


class Noted(NamedTuple):
    """Where to go on, 0 from the start; and is there a run whose task has not ended?"""

    place: int = 0
    has_open: bool = False


def note_outcomes(after: int) -> Noted:
    """Write into the history how the tasks of earlier ticks have ended.

    Looks at some open runs behind the id *after*.
    """
    open_runs = _runs().filter(outcome=Outcome.QUEUED, task_id__isnull=False)
    page = list(open_runs.filter(id__gt=after).order_by("id")[:NOTED_AT_ONCE])
    tasks = Task.objects.using(conf.get().database)
    rows = tasks.filter(pk__in=[run.task_id for run in page if run.task_id])
    found: dict[UUID | None, _Ended] = {
        task_id: (status, started, finished)
        for task_id, status, started, finished in rows.values_list(
            "id", "status", "started", "finished"
        )
    }
    ended = [run for run in page if run.task_id not in found or found[run.task_id][0] in DONE]
    if ended:
        with write_transaction():
            update_each(
                RepeatingRun,
                [
                    ({"id": run.pk, "outcome": Outcome.QUEUED}, _end(found.get(run.task_id)))
                    for run in ended
                ],
            )
    is_full = len(page) == NOTED_AT_ONCE
    return Noted(page[-1].pk if is_full else 0, has_open=is_full or len(ended) < len(page))


def forget_old_runs(after: int) -> int:
    """Remove what one entry, the next behind the id *after*, keeps beyond its newest runs.

    Returns where to go on, 0 from the start.
    """
    behind = _runs().filter(entry_id__gt=after).order_by("entry_id", "id")
    entry_id = behind.values_list("entry_id", flat=True).first()
    if entry_id is None:
        return 0
    rows = _runs().filter(entry_id=entry_id)
    beyond = rows.order_by("-id").values_list("id", flat=True)[KEEP_RUNS : KEEP_RUNS + 1]
    for newest in beyond:
        rows.filter(id__lte=newest).delete()
    return entry_id


def _runs() -> models.QuerySet[RepeatingRun]:
    return RepeatingRun.objects.using(conf.get().database)


def _end(task: _Ended | None) -> dict[str, Any]:
    if task is None:
        return {"outcome": Outcome.GONE, "started": None, "finished": None}
    status, started, finished = task
    outcome = _OUTCOMES.get(Status(status), Outcome.FAILED)
    return {"outcome": outcome, "started": started, "finished": finished}
