"""What does the log of a task's page answer?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from django.http import Http404, HttpRequest, StreamingHttpResponse
from django.urls import reverse
from django.utils import timezone

from cq.models import Task

from .. import live, rows, streams
from ..queries import logs
from . import address
from . import page as pages


def context(
    request: HttpRequest, tasks: QuerySet[Task], task: Task, scene: rows.Scene
) -> dict[str, Any]:
    """The newest lines, or those around the one in the address, and ways to others."""
    scope = _scope(request, task)
    places = {
        name: address.number(request.GET.get(name, "")) for name in ("line", "after", "before")
    }
    if (line := places["line"]) is not None:
        found = logs.around(scope, line)
    elif (after := places["after"]) is not None:
        found = logs.following(scope, after)
    else:
        found = logs.tail(scope, places["before"])
    # Elsewhere than at its end, or searched through, the log stands still.
    follows = not scope.text and all(place is None for place in places.values())
    older, newer = found.first if found.has_older else None, found.last if found.has_newer else None
    return {
        "shown": _in_minutes(found.lines),
        "passed_url": "",
        "lines": found,
        "linked": line,
        "scope": scope,
        "levels": [
            {
                "name": level,
                "url": _query(request, level=level),
                "is_current": scope.level == level,
            }
            for level in logs.LEVELS
        ],
        "whole_tree": scope.task_id is None,
        "whole_url": _query(request, of="tree"),
        "own_url": _query(request, of="task"),
        "older_url": _query(request, before=str(older)) if older else "",
        "newer_url": _query(request, after=str(newer)) if newer else "",
        "further_url": _query(request, before=str(found.searched_to)) if found.searched_to else "",
        "latest_url": _query(request),
        "download_url": reverse("admin:cq_task_log", args=[task.id]) + _query(request, tab=""),
        "follows": follows,
        "progress_part": _progress(request, task),
        "new_part": _new(request, scope),
    }


def new_lines(request: HttpRequest, task: Task) -> list[str]:
    """What has come to the end of a log that is followed, and what came to light late."""
    if "lines" not in request.GET:
        return []
    scope = _scope(request, task)
    known = sorted(_ids(request.GET.get("lines", "")))
    swaps: list[str] = []
    for line in logs.late(scope, known, timezone.now()):
        before = max(id for id in known if id < line.id)
        html = pages.fragment(request, "_line.html", {"line": line, "linked": None})
        swaps.append(f'<div hx-swap-oob="afterend:#line-{before}">{html}</div>')
    found = logs.since(scope, known[-1] if known else 0)
    if found.lines:
        context = {
            "lines": found,
            "shown": _in_minutes(found.lines, request.GET.get("minute", "")),
            "passed_url": _query(request, before=str(found.first)),
            "linked": None,
        }
        swaps.append(live.append("cq-lines", pages.fragment(request, "_lines.html", context)))
    return swaps


def parts(request: HttpRequest, task: Task) -> list[live.Part]:
    """How far the task says it is, and how many lines came while somebody reads others."""
    return [_progress(request, task), _new(request, _scope(request, task))]


def download(model_admin: Any, request: HttpRequest, task_id: UUID) -> StreamingHttpResponse:
    """Exactly the filtered lines, as a text file."""
    task = model_admin.get_queryset(request).filter(id=task_id).first()
    if task is None:
        raise Http404
    return streams.streamed(
        request,
        logs.stream(_scope(request, task)),
        "text/plain; charset=utf-8",
        {"Content-Disposition": f'attachment; filename="task-{task.id}.log"'},
    )


def _query(request: HttpRequest, **changes: str) -> str:
    """The log as it is filtered, at another place."""
    return address.query(
        request, **{"tab": "logs", "line": "", "before": "", "after": "", **changes}
    )


def _new(request: HttpRequest, scope: logs.Scope) -> live.Part:
    after = address.number(request.GET.get("reading", ""))
    count = logs.count_since(scope, after) if after is not None else 0
    return pages.part(request, "cq-log-new", "_log_new.html", {"count": count})


def _in_minutes(lines: Sequence[logs.Line], shown: str = "") -> list[tuple[str, logs.Line]]:
    """Each line, with the minute that it begins; *shown* is the one that stands above them."""
    found = []
    for line in lines:
        local = timezone.localtime(line.created)
        minute = f"{local:%Y-%m-%d %H:%M}"
        found.append((minute if minute != shown else "", line))
        shown = minute
    return found


def _progress(request: HttpRequest, task: Task) -> live.Part:
    context = {"progress": logs.progress(task.id)}
    return pages.part(request, "cq-progress", "_progress.html", context)


def _scope(request: HttpRequest, task: Task) -> logs.Scope:
    level = request.GET.get("level", "")
    is_whole = request.GET.get("of", "tree" if task.is_root else "task") == "tree"
    return logs.Scope(
        task.root_id,
        None if is_whole else task.id,
        level if level in logs.LEVELS else "debug",
        request.GET.get("text", "")[:200].replace("\x00", ""),
    )


def _ids(text: str) -> list[int]:
    """Ids from a first one and the differences after it, all in base 36."""
    found: list[int] = []
    for item in text.split(".")[: logs.PAGE]:
        if not item.isalnum() or len(item) > 12:
            return found
        number = int(item, 36)
        found.append(found[-1] + number if found else number)
    return found
