"""What does the page of queues answer, and who may hold what back?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.middleware.csrf import get_token
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _

from cq import conf, operations, registry
from cq.models import Queue, Task
from cq.models.task import FUNC_NAME_LENGTH
from cq.options import QUEUE_NAME_LENGTH

from .. import arguments, durations, hostile, live
from ..queries import numbers
from ..queries import overview as queries
from ..search import quoted
from . import page as pages
from . import said

PERMISSION = "cq.pause_queue"
SPARK_WIDTH, SPARK_HEIGHT = 160, 28

_OPERATIONS: Mapping[str, Callable[..., operations.Affected]] = {
    "pause": operations.pause_queue,
    "resume": operations.resume_queue,
    "hold": operations.hold_function,
    "release": operations.release_function,
}


def show(model_admin: Any, request: HttpRequest) -> HttpResponse:
    """The queues: depth, oldest, paused; and the functions that are held."""
    parts = _parts(model_admin, request)
    context = pages.context(
        model_admin,
        request,
        "queues",
        title=_("Queues"),
        queues_part=parts[0],
        held_part=parts[1],
        may_hold=request.user.has_perm(PERMISSION),
        functions=registry.names(),
        windows=windows(request),
        live_url=f"{reverse('admin:cq_queue_live')}?{urlencode({'span': window(request).name})}",
        socket="/ws/cq/overview/",
    )
    return pages.page(request, "queues.html", context)


def refresh(model_admin: Any, request: HttpRequest) -> HttpResponse:
    known = live.known_parts(request.GET.get("have", ""))
    return live.answer(live.changed(_parts(model_admin, request), known))


def control(model_admin: Any, request: HttpRequest, verb: str) -> HttpResponse:
    """Pause or resume a queue, hold or release a function; GET asks before a queue is paused."""
    if verb not in _OPERATIONS or (request.method != "POST" and verb != "pause"):
        raise Http404
    if not request.user.has_perm(PERMISSION):
        raise PermissionDenied
    if request.method != "POST":
        return _ask(model_admin, request, request.GET.get("name", "")[:QUEUE_NAME_LENGTH])
    name, why = request.POST.get("name", "").strip(), said.reason(request)
    longest = QUEUE_NAME_LENGTH if verb in ("pause", "resume") else FUNC_NAME_LENGTH
    back = reverse("admin:cq_queue_changelist")
    if not name or len(name) > longest or "\x00" in name:
        return said.answer(request, _("Nothing was done: that is no name."), back)
    _OPERATIONS[verb](name, by=request.user, reason=why, way="console")
    sentences = {
        "pause": _("Queue %(name)s is paused: workers claim nothing more from it."),
        "resume": _("Queue %(name)s runs again."),
        "hold": _("Function %(name)s is held: workers pass over its tasks."),
        "release": _("Function %(name)s runs again."),
    }
    text = sentences[verb] % {"name": hostile.one_line(name)}
    model_admin.log_change(request, Queue(name=name[:QUEUE_NAME_LENGTH]), text)
    return said.answer(request, text, back)


def _ask(model_admin: Any, request: HttpRequest, name: str) -> HttpResponse:
    return said.ask(
        model_admin,
        request,
        "queues",
        title=_("Pause %(name)s") % {"name": hostile.one_line(name)},
        meaning=_("Workers claim nothing more from it. What runs goes on; what comes waits."),
        action=reverse("admin:cq_queue_control", args=["pause"]),
        name=name,
        style="primary",
        back=reverse("admin:cq_queue_changelist"),
    )


def part(
    request: HttpRequest,
    found: Sequence[queries.QueueShown],
    now: datetime,
    shown_window: numbers.Window,
    *,
    may_pause: bool = False,
) -> live.Part:
    """The table of queues, with what may be done to them where *may_pause*."""
    drawn = _drawn(found, now, shown_window)
    context = {
        "queues": drawn,
        "window": shown_window.name,
        "tasks_url": reverse("admin:cq_task_changelist"),
        "may_pause": may_pause,
        "csrf_token": get_token(request) if may_pause else "",
    }
    html = pages.fragment(request, "_queues.html", context)
    return live.Part("cq-queues", html, said=repr((drawn, may_pause)))


def window(request: HttpRequest) -> numbers.Window:
    """The span of time whose numbers the page shows."""
    return numbers.WINDOWS.get(request.GET.get("span", ""), numbers.WINDOWS["hour"])


def windows(request: HttpRequest) -> list[dict[str, Any]]:
    """The spans to choose from."""
    current = window(request)
    labels = {"hour": _("hour"), "day": _("day"), "week": _("week")}
    return [
        {
            "label": labels[name],
            "url": f"?{urlencode({'span': name})}",
            "is_current": one is current,
        }
        for name, one in numbers.WINDOWS.items()
    ]


def _parts(model_admin: Any, request: HttpRequest) -> list[live.Part]:
    now = timezone.now()
    alive = [one for one in queries.workers(now, conf.get().heartbeat) if one.is_alive]
    tasks = model_admin.admin_site.get_model_admin(Task).get_queryset(request)
    found = queries.queues(tasks, alive, now, window(request))
    may = request.user.has_perm(PERMISSION)
    return [part(request, found, now, window(request), may_pause=may), _held(request, may)]


def _held(request: HttpRequest, may_release: bool) -> live.Part:
    rows = [
        {
            "name": arguments.name_of(row.func_name),
            "func_name": row.func_name,
            "since": row.held,
            "by": row.held_by,
            "reason": hostile.one_line(row.reason, 200),
        }
        for row in queries.held()
    ]
    context = {
        "held": rows,
        "tasks_url": reverse("admin:cq_task_changelist"),
        "may_release": may_release,
        "csrf_token": get_token(request) if may_release else "",
    }
    html = pages.fragment(request, "_held.html", context)
    return live.Part("cq-held", html, said=repr((rows, may_release)))


def _drawn(
    found: Sequence[queries.QueueShown], now: datetime, shown: numbers.Window
) -> list[dict[str, Any]]:
    """The queues with their sparklines, all on one scale.

    The last point is not over yet: it would look like a fall.
    """
    highest = max((point[0] for queue in found for point in queue.points[:-1]), default=0)
    return [
        {
            "queue": queue,
            "finished": _area([point[0] for point in queue.points[:-1]], highest),
            "failed": _area([point[1] for point in queue.points[:-1]], highest),
            "last": queue.points[-2][0] if queue.points else 0,
            "oldest": durations.roughly(now - queue.oldest) if queue.oldest else "",
            "percent": f"{queue.failure_rate:.1%}" if queue.failure_rate else "",
            "url": {
                status: "?" + urlencode({"q": f"queue:{quoted(queue.name)} status:{status}"})
                for status in ("queued", "running", "scheduled", "failed")
            },
            "done_url": "?"
            + urlencode(
                {"q": f"queue:{quoted(queue.name)}", "sort": "finished", "span": shown.name}
            ),
        }
        for queue in found
    ]


def _area(values: Sequence[int], highest: int) -> str:
    """An SVG path under *values*; nothing where there is nothing to draw."""
    if not highest or not any(values):
        return ""
    step = SPARK_WIDTH / max(len(values) - 1, 1)
    points = " ".join(
        f"L{index * step:.1f} {SPARK_HEIGHT - value / highest * (SPARK_HEIGHT - 2):.1f}"
        for index, value in enumerate(values)
    )
    return f"M0 {SPARK_HEIGHT} {points} L{SPARK_WIDTH} {SPARK_HEIGHT}Z"
