"""What does the page of workers answer, and what may an operator ask of one?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.middleware.csrf import get_token
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _

from cq import conf, operations
from cq.models import Task

from .. import durations, live
from ..queries import overview as queries
from . import page as pages
from . import said

PERMISSION = "cq.control_worker"

_OPERATIONS: Mapping[str, Callable[..., operations.Affected]] = {
    "quiet": operations.quiet_worker,
    "resume": operations.resume_worker,
    "stop": operations.stop_worker,
}
_GLYPHS = {"alive": "succeeded", "late": "retrying", "lost": "lost", "stopped": "revoked"}
_STATUSES = {"alive": "S", "late": "Y", "lost": "L", "stopped": "E"}


def show(model_admin: Any, request: HttpRequest) -> HttpResponse:
    """The workers: alive, late, lost, and what they run."""
    context = pages.context(
        model_admin,
        request,
        "workers",
        title=_("Workers"),
        workers_part=_part_of_page(model_admin, request),
        live_url=reverse("admin:cq_worker_live"),
        socket="/ws/cq/overview/",
    )
    return pages.page(request, "workers.html", context)


def refresh(model_admin: Any, request: HttpRequest) -> HttpResponse:
    known = live.known_parts(request.GET.get("have", ""))
    return live.answer(live.changed([_part_of_page(model_admin, request)], known))


def ask(model_admin: Any, request: HttpRequest, worker_id: int, verb: str) -> HttpResponse:
    """Ask a worker to claim nothing more, to go on, or to stop; GET asks before it is stopped."""
    if verb not in _OPERATIONS or (request.method != "POST" and verb != "stop"):
        raise Http404
    if not request.user.has_perm(PERMISSION):
        raise PermissionDenied
    worker = model_admin.get_queryset(request).filter(pk=worker_id, stopped__isnull=True).first()
    if worker is None:
        raise Http404
    back = reverse("admin:cq_worker_changelist")
    if request.method != "POST":
        return said.ask(
            model_admin,
            request,
            "workers",
            title=_("Stop %(worker)s") % {"worker": worker.name},
            meaning=_("Its loop ends; the web process goes on.")
            if worker.is_embedded
            else _("It finishes what it runs, claims nothing more, and ends."),
            action=reverse("admin:cq_worker_ask", args=[worker.pk, verb]),
            style="danger",
            back=back,
        )
    _OPERATIONS[verb](worker, by=request.user, reason=said.reason(request), way="console")
    sentences = {
        "quiet": _("Worker %(worker)s claims nothing more."),
        "resume": _("Worker %(worker)s claims again."),
        "stop": _("Worker %(worker)s stops when what it runs has ended."),
    }
    text = sentences[verb] % {"worker": worker.name}
    model_admin.log_change(request, worker, text)
    return said.answer(request, text, back)


def part(
    request: HttpRequest,
    found: Sequence[queries.WorkerShown],
    now: datetime,
    *,
    is_full: bool,
) -> live.Part:
    """The table of workers; in full with what they run and what may be asked of them."""
    may_control = is_full and request.user.has_perm(PERMISSION)
    shown = [
        {
            "worker": worker,
            "glyph": _GLYPHS[worker.state],
            "status": _STATUSES[worker.state],
            "heard": durations.roughly(now - worker.heartbeat),
            "up": durations.roughly(now - worker.started),
            "tasks": [
                {"task": task, "age": durations.said(now - task.started) if task.started else ""}
                for task in worker.tasks
            ],
        }
        for worker in found
    ]
    context = {
        "workers": shown,
        "is_full": is_full,
        "may_control": may_control,
        "csrf_token": get_token(request) if may_control else "",
    }
    html = pages.fragment(request, "_workers.html", context)
    return live.Part("cq-workers", html, said=repr((shown, may_control)))


def _part_of_page(model_admin: Any, request: HttpRequest) -> live.Part:
    now = timezone.now()
    visible = set(model_admin.get_queryset(request).values_list("pk", flat=True)[:10_000])
    found = [one for one in queries.workers(now, conf.get().heartbeat) if one.id in visible]
    if request.user.has_perm("cq.view_task"):
        tasks = model_admin.admin_site.get_model_admin(Task).get_queryset(request)
        found = queries.with_tasks(tasks, found)
    return part(request, found, now, is_full=True)
