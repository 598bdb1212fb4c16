"""What does the list of tasks answer?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from cq.models import Task
from cq.states import FAILED

from .. import arguments, bulk, completion, durations, lanes, live, rows, search, statuses, verbs
from ..queries import overview, walk
from ..queries import tasks as queries
from . import page as pages
from . import queues

VIEWS = (
    ("all", gettext_lazy("Top level"), ""),
    ("failed", gettext_lazy("Failed"), "status:failed"),
    ("long", gettext_lazy("Running long"), "is:long"),
    ("running", gettext_lazy("Running"), "status:running"),
    ("waiting", gettext_lazy("Waiting"), "status:waiting"),
    ("retrying", gettext_lazy("Retrying"), "status:retrying"),
    ("scheduled", gettext_lazy("Scheduled"), "status:scheduled"),
    ("lost", gettext_lazy("Lost"), "status:lost"),
)

_CELLS = {
    "s": "_list_status.html",
    "u": "_node_rollup.html",
    "w": "_list_waited.html",
    "t": "_node_time.html",
    "n": "_list_attempts.html",
    "k": "_list_worker.html",
}


@dataclass(frozen=True, slots=True)
class ListRow:
    live: live.LiveRow
    task: Task
    name: arguments.Name
    brief: str
    seen: str

    @property
    def url(self) -> str:
        return reverse("admin:cq_task_change", args=[self.task.id])


def show(model_admin: Any, request: HttpRequest) -> HttpResponse:
    """A page of tasks."""
    wanted = search.parse(request.GET.get("q", ""))
    order = order_of(request)
    before = walk.place(request.GET.get("before", ""))
    tasks = model_admin.get_queryset(request)
    listed = queries.page(tasks, wanted, before, order)
    found = [node.task for node in listed.nodes]
    roll_ups = queries.roll_ups(tasks, [task.id for task in found if task.is_root])
    now = timezone.now()
    shown = [
        ListRow(
            _live_row(node.task, now, roll_ups.get(node.task.id, {})),
            node.task,
            arguments.name_of(node.task.func_name),
            node.brief,
            verbs.seen_of(node.task),
        )
        for node in listed.nodes
    ]
    # Where all have failed, none needs to stand out.
    is_uniform = bool(wanted.cause) or (bool(wanted.statuses) and set(wanted.statuses) <= FAILED)
    query = _query(wanted, order)
    live_query = dict(query)
    if listed.first and before is None:
        live_query["first"] = str(listed.first)
    context = pages.context(
        model_admin,
        request,
        "tasks",
        title=_("Tasks"),
        search=wanted,
        listed=listed,
        rows=shown,
        is_uniform=is_uniform,
        views=_views(wanted),
        orders=_orders(wanted, order),
        order=order.name,
        all_url=_url(search.with_subtasks(wanted.text), order) if wanted.only_roots else "",
        verbs=bulk.offered(wanted, request.user.has_perm),
        query=urlencode(query),
        new_part=_new(request, 0),
        live_url=f"{reverse('admin:cq_task_list_live')}?{urlencode(live_query)}",
        count_url=f"{reverse('admin:cq_task_count')}?{urlencode(query | _span(request))}",
        older_url=f"?{urlencode({**query, 'before': str(listed.last)})}" if listed.last else "",
        further_url=_further(listed, query),
        first_url=f"?{urlencode(query)}" if before is not None else "",
        back=urlencode(query),
        last_failure=overview.last_failure(tasks) if not found and is_uniform else None,
        has_any=bool(found) or bool(wanted.text) or before is not None,
        socket="/ws/cq/overview/",
    )
    return pages.page(request, "tasks.html", context)


def refresh(model_admin: Any, request: HttpRequest) -> HttpResponse:
    """The cells that have changed, and how many tasks are new."""
    tasks = model_admin.get_queryset(request)
    wanted = search.parse(request.GET.get("q", ""))
    known = rows.known_rows(request.GET.get("rows", ""))
    ids = {key: id for key in known if (id := rows.long(key[1:])) is not None}
    found = queries.shown(tasks, list(ids.values()))
    roll_ups = queries.roll_ups(tasks, [task.id for task in found.values() if task.is_root])
    matching = queries.matching(tasks, wanted, list(found)) if wanted.conditions else set(found)
    now = timezone.now()
    swaps: list[str] = []
    for key, id in ids.items():
        if id in found:
            row = _live_row(found[id], now, roll_ups.get(id, {}), matches=id in matching)
            if row.v != known[key]:
                swaps.append(row.as_swap())
    first = walk.place(request.GET.get("first", ""))
    new = 0
    if first and not wanted.problem:
        new = queries.count_newer(tasks, wanted, first, order_of(request))
    parts = live.known_parts(request.GET.get("have", ""))
    swaps += live.changed([_new(request, new)], parts)
    return live.answer(swaps)


def count(model_admin: Any, request: HttpRequest) -> HttpResponse:
    """How many there are, capped: fetched apart, so that the page need not wait."""
    tasks = model_admin.get_queryset(request)
    wanted = search.parse(request.GET.get("q", ""))
    counts = [
        (name, queries.count(tasks, search.parse(text))) for name, _label, text in VIEWS if text
    ]
    counted = finished = None
    if wanted.text and not wanted.problem:
        counted = queries.count_all(tasks, wanted)
        if _span(request):
            finished = queries.finished(tasks, wanted, queues.window(request), timezone.now())
    context = {
        "counts": counts,
        "counted": counted,
        "finished": finished,
        "span": queues.window(request).name,
        "limit": queries.COUNT_LIMIT,
    }
    return HttpResponse(pages.fragment(request, "_list_counts.html", context))


def complete(model_admin: Any, request: HttpRequest) -> HttpResponse:
    """How the last word of what was typed may go on."""
    text = search.clean(request.GET.get("q", ""))
    is_done = request.GET.get("q", "").endswith(" ") or not text
    found = completion.of(text, is_done, model_admin.get_queryset(request))
    return HttpResponse(pages.fragment(request, "_completions.html", {"completions": found}))


def _live_row(
    task: Task, now: Any, counts: Mapping[str, int], *, matches: bool = True
) -> live.LiveRow:
    folded = lanes.folded(counts)
    waits = task.started is None and task.status in Task.STATUS_ACTIVE
    waited = durations.between(task.submitted, task.started)
    context = {
        "status": statuses.shown(task, now),
        "segments": lanes.segments(folded, ("done", "failed", "running", "open"), lanes.BAR_WIDTH),
        "folded": folded,
        "total": sum(counts.values()),
        "waited": durations.said(waited) if waited is not None else "",
        "waits": waits,
        "duration": rows.duration(task, now),
        "task": task,
        "matches": matches,
    }
    cells = {name: live.render_cell(template, context) for name, template in _CELLS.items()}
    state = {
        "status": task.status,
        "matches": "yes" if matches else "no",
        "seen": verbs.seen_of(task),
    }
    return live.LiveRow("t" + rows.short(task.id), cells, state)


def order_of(request: HttpRequest) -> walk.Order:
    """By which of its times the list is sorted."""
    return walk.ORDERS.get(request.GET.get("sort", ""), walk.SUBMITTED)


def _query(wanted: search.Search, order: walk.Order) -> dict[str, str]:
    query = {"q": wanted.text} if wanted.text else {}
    return query if order is walk.SUBMITTED else {**query, "sort": order.name}


def _span(request: HttpRequest) -> dict[str, str]:
    """The span of time whose number of finished tasks led here."""
    return {"span": queues.window(request).name} if "span" in request.GET else {}


def _url(text: str, order: walk.Order) -> str:
    query = {"q": text} if text else {}
    return f"?{urlencode(query if order is walk.SUBMITTED else {**query, 'sort': order.name})}"


def _views(wanted: search.Search) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "label": label,
            "url": _url(text, walk.SUBMITTED),
            "is_current": wanted.text == text,
        }
        for name, label, text in VIEWS
    ]


def _orders(wanted: search.Search, order: walk.Order) -> list[dict[str, Any]]:
    labels = {"submitted": _("submitted"), "finished": _("finished")}
    return [
        {"label": labels[name], "url": _url(wanted.text, other), "is_current": other is order}
        for name, other in walk.ORDERS.items()
    ]


def _further(listed: queries.Listed, query: Mapping[str, str]) -> str:
    if listed.searched_to is None:
        return ""
    return f"?{urlencode({**query, 'before': str(walk.lowest(listed.searched_to))})}"


def _new(request: HttpRequest, count: int) -> live.Part:
    return pages.part(request, "cq-new", "_list_new.html", {"count": count, "limit": 100})
