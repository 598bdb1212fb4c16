"""What happens when somebody edits a task's arguments and lets it run again?"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.middleware.csrf import get_token
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _

from cq import operations
from cq.models import Task
from cq.states import Status

from .. import arguments, edit, statuses, verbs
from . import verbs as acts

EDITABLE = (Status.FAILURE, Status.LOST, Status.REVOKED)


def show(model_admin: Any, request: HttpRequest, task_id: UUID) -> HttpResponse:
    """GET shows the form, and writes nothing; POST makes the new task."""
    task = model_admin.get_queryset(request).filter(id=task_id).first()
    if task is None:
        raise Http404
    if not request.user.has_perm(verbs.PERMISSIONS["edit"]):
        raise PermissionDenied
    if task.status not in EDITABLE or edit.is_too_large(task):
        return _ask(model_admin, request, task, None)
    form = edit.EditForm(task, request.POST if request.method == "POST" else None)
    if request.method != "POST" or not form.is_valid():
        return _ask(model_admin, request, task, form)
    shown = verbs.parse_seen(request.POST.get("seen", ""))
    affected = operations.run_again(
        [task.id],
        args=form.call_args,
        kwargs=form.call_kwargs,
        by=request.user,
        reason=acts.reason(request),
        seen={task.id: shown} if shown else None,
        way="console",
    )
    back = reverse("admin:cq_task_change", args=[task.id])
    return acts.done(model_admin, request, "run-again", affected, [task], back)


def _ask(
    model_admin: Any, request: HttpRequest, task: Task, form: edit.EditForm | None
) -> HttpResponse:
    label = _("Edit and retry")
    meaning = (_("A new task with these arguments; this one stays as it is."),)
    why_not = ""
    if form is None and task.status in EDITABLE:
        why_not = _("Its arguments are too large to be edited here.")
    context = {
        "title": label,
        "verb": verbs.Verb("edit", _("Run with these"), 1, "primary", meaning) if form else None,
        "why_not": why_not,
        "form": form,
        "name": arguments.name_of(task.func_name),
        "status": statuses.shown(task, timezone.now()),
        "seen": request.POST.get("seen") or verbs.seen_of(task),
        "action": reverse("admin:cq_task_edit", args=[task.id]),
        "back": reverse("admin:cq_task_change", args=[task.id]),
        "csrf_token": get_token(request),
    }
    is_wrong = form is not None and bool(form.errors)
    return acts.dialog(model_admin, request, context, status=422 if is_wrong else 200)
