"""What does the page of a task answer: its family, its log, what happened to it?"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.translation import gettext as _

from cq.models import Task
from cq.states import Status

from .. import arguments, hostile, live, rows, store
from ..queries import history
from . import address, task_head, task_log, task_timeline, task_tree
from . import page as pages

TABS = ("tree", "timeline", "logs", "attempts", "data", "activity")


def show(model_admin: Any, request: HttpRequest, task_id: UUID) -> HttpResponse:
    """The whole page, at the tab and the node that the address names."""
    tasks = model_admin.get_queryset(request)
    task = tasks.filter(id=task_id).select_related("worker").first()
    if task is None:
        return _gone(model_admin, request, task_id)
    root = address.root(tasks, task)
    scene = rows.scene(tasks, root)
    tab = request.GET.get("tab", "")
    tab = tab if tab in TABS else "tree"
    name = arguments.name_of(task.func_name)
    context = pages.context(
        model_admin,
        request,
        "tasks",
        title=name.short,
        task=task,
        root=root,
        root_name=arguments.name_of(root.func_name),
        name=name,
        brief=arguments.brief(arguments.bound(task), 200),
        tab=tab,
        tabs=_tabs(task, tab),
        parts={part.key: part for part in task_head.parts(request, tasks, task, scene)},
        live_url=_live_url(task, tab, request),
        socket=f"/ws/cq/tree/{root.id}/",
    )
    context |= _TAB_CONTEXTS[tab](request, tasks, task, scene)
    return pages.page(request, "task.html", context)


def refresh(model_admin: Any, request: HttpRequest, task_id: UUID) -> HttpResponse:
    """What has changed on the page since the browser's fingerprints; 204 when nothing has."""
    tasks = model_admin.get_queryset(request)
    task = tasks.filter(id=task_id).select_related("worker").first()
    if task is None:
        return HttpResponse(status=204)
    scene = rows.scene(tasks, address.root(tasks, task))
    known = live.known_parts(request.GET.get("have", ""))
    swaps: list[str] = []
    swaps += live.changed(task_head.parts(request, tasks, task, scene), known)
    tab = request.GET.get("tab", "tree")
    if tab == "tree":
        swaps += live.changed(task_tree.parts(request, tasks, task, scene), known)
        swaps += task_tree.changed_rows(request, tasks, scene)
        swaps += task_tree.new_rows(request, tasks, scene)
    elif tab == "timeline":
        swaps += live.changed(task_timeline.parts(request, tasks, scene), known)
    elif tab == "logs":
        swaps += live.changed(task_log.parts(request, task), known)
        swaps += task_log.new_lines(request, task)
    return live.answer(swaps)


def _attempts(
    request: HttpRequest, tasks: QuerySet[Task], task: Task, scene: rows.Scene
) -> dict[str, Any]:
    return {"attempts": history.attempts(task), "open_attempts": task.attempts}


def _data(
    request: HttpRequest, tasks: QuerySet[Task], task: Task, scene: rows.Scene
) -> dict[str, Any]:
    raw = arguments.bound_raw(task.func_name, task.args, task.kwargs)
    return {
        "arguments": hostile.pretty(arguments.masked(raw)),
        "call": arguments.as_call(task.func_name, arguments.without_masked(raw)),
        "has_result": task.status == Status.SUCCESS,
        "result": hostile.pretty(arguments.masked({"result": task.result})["result"]),
        "error": arguments.safe_text(task.error),
    }


def _activity(
    request: HttpRequest, tasks: QuerySet[Task], task: Task, scene: rows.Scene
) -> dict[str, Any]:
    return {"acts": history.acts(task.id)}


_TAB_CONTEXTS = {
    "tree": task_tree.context,
    "timeline": task_timeline.context,
    "logs": task_log.context,
    "attempts": _attempts,
    "data": _data,
    "activity": _activity,
}


def _tabs(task: Task, current: str) -> list[dict[str, Any]]:
    labels = {
        "tree": _("Tree"),
        "timeline": _("Timeline"),
        "logs": _("Logs"),
        "attempts": _("Attempts"),
        "data": _("Arguments and result"),
        "activity": _("Activity"),
    }
    return [{"name": tab, "label": labels[tab], "is_current": tab == current} for tab in TABS]


def _gone(model_admin: Any, request: HttpRequest, task_id: UUID) -> HttpResponse:
    """410 for a task that was here, with what is still known of it."""
    if store.rows(Task).filter(id=task_id).exists():
        # It exists, but not for this user: say no more than about one that never was.
        raise Http404
    made = history.made_at(task_id)
    if made is None:
        raise Http404
    context = pages.context(
        model_admin,
        request,
        "tasks",
        title=_("This task was removed"),
        task_id=task_id,
        made=made,
        acts=history.acts(task_id),
        runs=history.runs_of(task_id),
    )
    response = pages.page(request, "gone.html", context)
    response.status_code = 410
    return response


def _live_url(task: Task, tab: str, request: HttpRequest) -> str:
    url = reverse("admin:cq_task_live", args=[task.id])
    return url + address.query(request, tab=tab, node="", line="", before="", after="")
