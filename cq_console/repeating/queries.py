"""What do the rows of repeating tasks, of their runs and of what was done to them say?"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.contrib.admin.models import LogEntry
from django.contrib.contenttypes.models import ContentType
from django.db.models import OuterRef, Q, QuerySet, Subquery

from cq.models import Act, RepeatingRun, RepeatingTask, Task

from .. import store

STRIP = 20
PAGE = 50
ACTS = 2_000
VERBS = ("run now", "skip next", "pause", "resume")

Outcome = RepeatingRun.Outcome
FAILING = frozenset({Outcome.FAILED, Outcome.REFUSED})
# What an operator let pass, or what has not ended, says nothing of how an entry does.
_TELLING = (Outcome.SUCCEEDED, Outcome.FAILED, Outcome.REFUSED)


def last_runs(ids: Collection[int]) -> dict[int, list[Any]]:
    """Of each entry its last runs, newest first, each with its task's status: one query."""
    if not ids:
        return {}
    # The end of the index for each of them: a window function would number every run that is kept.
    runs, tasks = RepeatingRun._meta.db_table, Task._meta.db_table
    last = f"SELECT * FROM {runs} WHERE entry_id = %s ORDER BY id DESC LIMIT {STRIP}"
    each = " UNION ALL ".join([f"SELECT * FROM ({last}) AS one"] * len(ids))
    rows = store.rows(RepeatingRun).raw(
        f"SELECT run.*, task.status AS task_status FROM ({each}) AS run"
        f" LEFT JOIN {tasks} AS task ON task.id = run.task_id ORDER BY run.entry_id, run.id DESC",
        list(ids),
    )
    found: dict[int, list[Any]] = {}
    for run in rows:
        found.setdefault(run.entry_id, []).append(run)
    return found


def history(entry: RepeatingTask, before: int | None) -> tuple[list[Any], int | None]:
    """A page of the runs of *entry*, newest first, and the id from which the next one goes on."""
    rows = store.rows(RepeatingRun).filter(entry=entry)
    if before is not None:
        rows = rows.filter(id__lt=before)
    status = store.rows(Task).filter(pk=OuterRef("task_id")).values("status")[:1]
    page = list(rows.annotate(task_status=Subquery(status)).order_by("-id")[: PAGE + 1])
    return page[:PAGE], page[PAGE - 1].pk if len(page) > PAGE else None


@dataclass(frozen=True, slots=True)
class Deed:
    """What somebody did to an entry: in the admin, or from elsewhere."""

    at: datetime
    who: str
    way: str
    what: str
    why: str = ""


def activity(entry: RepeatingTask) -> list[Deed]:
    """The last deeds, newest first.

    The admin's own log says what was done there; of the others' acts the newest are looked
    through, which know an entry by its name.
    """
    entries = LogEntry.objects.filter(
        content_type=ContentType.objects.get_for_model(RepeatingTask), object_id=str(entry.pk)
    ).select_related("user")
    deeds = [
        Deed(one.action_time, one.user.get_username(), "console", one.get_change_message())
        for one in entries.order_by("-action_time")[:PAGE]
    ]
    newest = store.rows(Act).order_by("-id").values_list("id", flat=True).first() or 0
    acts = store.rows(Act).filter(id__gt=newest - ACTS, verb__in=VERBS, target=str(entry)[:255])
    deeds += [
        Deed(act.at, act.by_name, act.way, act.verb, act.reason)
        for act in acts.exclude(way="console").order_by("-id")[:PAGE]
    ]
    return sorted(deeds, key=lambda deed: deed.at, reverse=True)[:PAGE]


def failing(entries: QuerySet[RepeatingTask]) -> QuerySet[RepeatingTask]:
    """The entries that cannot run, and those whose last run that ended has failed."""
    runs = (
        store.rows(RepeatingRun).filter(entry=OuterRef("pk"), outcome__in=_TELLING).order_by("-id")
    )
    ended = entries.annotate(last_outcome=Subquery(runs.values("outcome")[:1]))
    return ended.filter(~Q(error="") | Q(last_outcome__in=sorted(FAILING)))


def functions(entries: QuerySet[RepeatingTask], limit: int = 200) -> list[str]:
    """The names of the functions that repeat."""
    return list(
        entries.order_by("func_name").values_list("func_name", flat=True).distinct()[:limit]
    )
