"""What happens when an operator presses a verb, on one task or on a selection?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.middleware.csrf import get_token
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from cq import operations
from cq.models import Task

from .. import arguments, bulk, guard, hostile, rows, statuses, verbs
from ..queries import failures
from ..queries.unanswered import unanswered
from . import page as pages

SELECTION_LIMIT = 1_000
REASON_LENGTH = 500

_OPERATIONS: Mapping[str, Callable[..., operations.Affected]] = {
    "retry": operations.retry,
    "cancel": operations.cancel,
    "run-now": operations.retry,
    "run-again": operations.run_again,
    "replace": operations.replace_process,
    "coalesce": operations.coalesce,
    "keep": operations.keep,
}


def one(model_admin: Any, request: HttpRequest, task_id: UUID, verb: str) -> HttpResponse:
    """GET asks, and writes nothing; POST acts."""
    tasks = model_admin.get_queryset(request)
    task = tasks.filter(id=task_id).select_related("worker").first()
    if task is None or verb not in _OPERATIONS:
        raise Http404
    if not request.user.has_perm(verbs.PERMISSIONS[verb]):
        raise PermissionDenied
    if request.method != "POST":
        return _ask(model_admin, request, tasks, task, verb)
    shown = verbs.parse_seen(request.POST.get("seen", ""))
    offered = _offered(request, tasks, task, verb)
    if offered is not None and offered.must_type and not _was_typed(request, offered.count):
        return _ask(model_admin, request, tasks, task, verb, is_wrong=True)
    return _act(
        model_admin,
        request,
        verb,
        verbs.targets(verb, task, tasks),
        {task.id: shown} if shown else {},
        [task],
        reverse("admin:cq_task_change", args=[task.id]),
    )


def selection(model_admin: Any, request: HttpRequest) -> HttpResponse:
    """A verb on the tasks that were ticked in the list; more than a few are asked for first."""
    verb = request.POST.get("verb", "")
    if request.method != "POST" or verb not in bulk.VERBS:
        raise Http404
    if not request.user.has_perm(bulk.VERBS[verb].permission):
        raise PermissionDenied
    seen = _ticked(request.POST.getlist("task"))
    return _on_many(model_admin, request, verb, seen, _back(request))


def cause(model_admin: Any, request: HttpRequest, fingerprint: str) -> HttpResponse:
    """Retry what has failed of one cause; more than a few are asked for first."""
    if request.method != "POST":
        raise Http404
    if not request.user.has_perm(verbs.PERMISSIONS["retry"]):
        raise PermissionDenied
    tasks = model_admin.get_queryset(request)
    rows = tasks.filter(id__in=failures.targets(tasks, fingerprint))
    seen = {id: (status, n) for id, status, n in rows.values_list("id", "status", "attempts")}
    return _on_many(model_admin, request, "retry", seen, reverse("admin:cq_task_failures"))


def _on_many(
    model_admin: Any,
    request: HttpRequest,
    verb: str,
    seen: Mapping[UUID, tuple[str, int]],
    back: str,
) -> HttpResponse:
    tasks = model_admin.get_queryset(request).filter(id__in=list(seen))
    found = list(tasks.without_large_columns())
    if not found:
        messages.warning(request, _("No task is selected."))
        return HttpResponseRedirect(back)
    if len(found) > verbs.ASK_ABOVE and request.POST.get("confirmed") != "yes":
        return _ask_selection(model_admin, request, verb, found, seen, back)
    return _act(model_admin, request, verb, [task.id for task in found], seen, found, back)


def _act(
    model_admin: Any,
    request: HttpRequest,
    verb: str,
    ids: Sequence[UUID],
    seen: Mapping[UUID, tuple[str, int]],
    shown: Sequence[Task],
    back: str,
) -> HttpResponse:
    affected = _OPERATIONS[verb](
        ids, by=request.user, reason=reason(request), seen=dict(seen) or None, way="console"
    )
    return done(model_admin, request, verb, affected, shown, back)


def reason(request: HttpRequest) -> str:
    """Why somebody does it."""
    return hostile.one_line(request.POST.get("reason", ""), REASON_LENGTH)


def done(
    model_admin: Any,
    request: HttpRequest,
    verb: str,
    affected: operations.Affected,
    shown: Sequence[Task],
    back: str,
) -> HttpResponse:
    """Write what *verb* did to the tasks that were *shown* into the admin's history, and say it."""
    said = _said(verb, affected)
    for task in shown[:SELECTION_LIMIT]:
        model_admin.log_change(request, task, said)
    if guard.is_fragment(request):
        if len(shown) == len(affected.made) == 1:
            made = reverse("admin:cq_task_change", args=[affected.made[0].id])
            said_html = format_html('{} <a href="{}">{}</a>', said, made, _("Open it"))
        else:
            said_html = format_html("{}", said)
        html = format_html('<p id="cq-said" hx-swap-oob="innerHTML">{}</p>', said_html)
        return HttpResponse(html, headers={"HX-Trigger": "cq:done"})
    level = messages.SUCCESS if affected.done else messages.WARNING
    messages.add_message(request, level, said)
    if len(shown) == len(affected.made) == 1:
        back = reverse("admin:cq_task_change", args=[affected.made[0].id])
    response = HttpResponseRedirect(back)
    response.status_code = 303
    return response


def _said(verb: str, affected: operations.Affected) -> str:
    done = len(affected.done)
    sentences = {
        "retry": ngettext("%(n)s task runs again.", "%(n)s tasks run again.", done),
        "cancel": ngettext(
            "Cancel was requested for %(n)s task.", "Cancel was requested for %(n)s tasks.", done
        ),
        "run-again": ngettext("%(n)s new task was made.", "%(n)s new tasks were made.", done),
        "run-now": ngettext(
            "It runs as soon as a worker is free.",
            "%(n)s tasks run as soon as a worker is free.",
            done,
        ),
        "replace": _("Its worker process is being replaced."),
        "coalesce": ngettext("%(n)s duplicate was ended.", "%(n)s duplicates were ended.", done),
        "keep": _("Its tree is kept for %(days)s days.") % {"days": verbs.KEPT_DAYS},
    }
    said = sentences[verb] % {"n": f"{done:,}"} if done else _("Nothing was done.")
    if affected.skipped:
        n = len(affected.skipped)
        whys = ", ".join(sorted(set(affected.skipped.values()))[:3])
        text = ngettext("%(n)s was skipped: %(why)s.", "%(n)s were skipped: %(why)s.", n)
        said += " " + text % {"n": f"{n:,}", "why": whys}
    return said


def _ask(
    model_admin: Any,
    request: HttpRequest,
    tasks: QuerySet[Task],
    task: Task,
    verb: str,
    *,
    is_wrong: bool = False,
) -> HttpResponse:
    offered = _offered(request, tasks, task, verb)
    back = reverse("admin:cq_task_change", args=[task.id])
    context = {
        "title": _("This makes no sense any more") if offered is None else offered.label,
        "verb": offered,
        "name": arguments.name_of(task.func_name),
        "status": statuses.shown(task, timezone.now()),
        "followers": verbs.followers(task, tasks) if verb == "cancel" else [],
        "seen": verbs.seen_of(task),
        "action": reverse("admin:cq_task_verb", args=[task.id, verb]),
        "back": back,
        "csrf_token": get_token(request),
        "is_wrong": is_wrong,
    }
    return dialog(model_admin, request, context, status=422 if is_wrong else 200)


def _ask_selection(
    model_admin: Any,
    request: HttpRequest,
    verb: str,
    found: Sequence[Task],
    seen: Mapping[UUID, tuple[str, int]],
    back: str,
) -> HttpResponse:
    label = str(bulk.VERBS[verb].question) % {"tasks": statuses.tasks(len(found))}
    context = {
        "title": label,
        "verb": verbs.Verb(verb, label, len(found), bulk.VERBS[verb].style),
        "samples": [arguments.name_of(task.func_name).short for task in found[:5]],
        "ticked": [f"{id}:{status}:{attempts}" for id, (status, attempts) in seen.items()],
        "action": reverse("admin:cq_task_selection"),
        "back": back,
        "csrf_token": get_token(request),
    }
    return dialog(model_admin, request, context, status=200)


def dialog(
    model_admin: Any, request: HttpRequest, context: dict[str, Any], status: int
) -> HttpResponse:
    """A question before an act: in the page's dialog, or without scripts as a page of its own."""
    if guard.is_fragment(request):
        html = pages.fragment(request, "_confirm.html", context)
        return HttpResponse(html, status=status)
    full = pages.context(model_admin, request, "tasks", **context)
    response = pages.page(request, "confirm.html", full)
    response.status_code = status
    return response


def _offered(
    request: HttpRequest, tasks: QuerySet[Task], task: Task, verb: str
) -> verbs.Verb | None:
    root = task if task.is_root else tasks.filter(id=task.root_id).first() or task
    family = rows.scene(tasks, root).family
    stuck = unanswered(tasks, task, timezone.now())
    possible = verbs.possible(task, family, request.user.has_perm, stuck)
    return next((offer for offer in possible if offer.name == verb), None)


def _was_typed(request: HttpRequest, count: int) -> bool:
    """Was the number typed that the dialog stated, and is it still enough?

    While somebody types, tasks end: fewer than stated is what was agreed to, more is not.
    """
    typed = request.POST.get("typed", "").replace(",", "").strip()
    stated = request.POST.get("count", "")
    return stated.isdecimal() and len(stated) < 12 and typed == stated and count <= int(stated)


def _ticked(values: Sequence[str]) -> dict[UUID, tuple[str, int]]:
    """Id → what was shown of it, from ``<id>:<status>:<attempts>``."""
    found: dict[UUID, tuple[str, int]] = {}
    for value in values[:SELECTION_LIMIT]:
        id, _colon, rest = value.partition(":")
        shown = verbs.parse_seen(rest)
        try:
            if shown is not None:
                found[UUID(id)] = shown
        except ValueError:
            continue
    return found


def _back(request: HttpRequest) -> str:
    """Back to the list as it was filtered; the query only, never an address."""
    return f"{reverse('admin:cq_task_changelist')}?{request.POST.get('back', '')[:2000]}"
