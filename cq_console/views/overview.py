"""What does the overview answer, the page of the section?"""

from __future__ import annotations

from typing import Any

from django.core.exceptions import EmptyResultSet
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.translation import get_language

from cq import conf
from cq.models import Task

from .. import durations, health, live, zone
from ..queries import overview as queries
from ..queries import speed
from ..shared import Shared
from . import page as pages
from . import queues, workers

_shared: Shared[list[live.Part]] = Shared()
forget = _shared.forget


def refresh(model_admin: Any, request: HttpRequest) -> HttpResponse:
    """The parts of the overview that have changed."""
    known = live.known_parts(request.GET.get("have", ""))
    return live.answer(live.changed(parts(request, model_admin.get_queryset(request)), known))


def parts(request: HttpRequest, tasks: QuerySet[Task]) -> list[live.Part]:
    """The live parts of the overview, shared by all who may see the same for a second."""
    user: Any = request.user
    key = (
        _rows_of(tasks),
        user.is_superuser or frozenset(user.get_all_permissions()),
        queues.window(request).name,
        zone.of(request).key,
        get_language(),
    )
    return _shared.of(key, lambda: _parts(request, tasks))


def _rows_of(tasks: QuerySet[Task]) -> str:
    """What tells apart the rows that a project leaves its users: parameters stand in it."""
    try:
        return str(tasks.query)
    except EmptyResultSet:
        return ""


def _parts(request: HttpRequest, tasks: QuerySet[Task]) -> list[live.Part]:
    now = timezone.now()
    found = queries.workers(now, conf.get().heartbeat)
    alive = [worker for worker in found if worker.is_alive]
    window = queues.window(request)
    all_queues = queries.queues(tasks, alive, now, window)
    failing = queries.failing(tasks, now)
    runs = queries.next_runs()
    needs = health.needs(
        all_queues,
        found,
        failing,
        runs,
        queries.late_ticks(now),
        speed.long_running(tasks, now),
        queries.unknown_functions(tasks),
        now,
    )
    last_failure = queries.last_failure(tasks)
    said = health.sentence(needs, found, last_failure, now)
    state = {"sentence": said, "needs": needs, "is_well": not needs and bool(alive)}
    next_runs = [
        {"run": run, "in": durations.roughly(run.at - now) if run.at and run.at > now else ""}
        for run in runs
    ]
    fails = {"failing": failing, "last_failure": last_failure}
    return [
        pages.part(request, "cq-health", "_health.html", state),
        queues.part(request, all_queues, now, window),
        pages.part(request, "cq-failing", "_failing.html", fails),
        pages.part(request, "cq-next", "_next_runs.html", {"runs": next_runs}),
        workers.part(request, found, now, is_full=False),
    ]
