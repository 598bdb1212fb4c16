"""What does the tree of a task's page answer, with the inspector beside it?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.middleware.csrf import get_token

from cq.models import Task
from cq.states import FAILED, Status

from .. import arguments, hostile, live, rows, statuses, verbs
from ..queries import history, logs, tree
from ..queries.unanswered import unanswered
from . import address
from . import page as pages


def context(
    request: HttpRequest, tasks: QuerySet[Task], task: Task, scene: rows.Scene
) -> dict[str, Any]:
    """The tree from its top, open at *task* and at what failed first, with the inspector."""
    path = [*tree.path(tasks, task), task]
    branches = tree.failed_branches(tasks, path[0].id) if scene.family.counts else {}
    selected = _selected(request, tasks, task, branches)
    levels: dict[UUID, rows.LevelShown] = {}
    for parent_id, found in reversed(list(branches.items())):
        levels[parent_id] = rows.level(
            scene,
            found,
            parent_id,
            rows.FAILED_SECTION,
            open_levels=levels,
            selected=selected.id,
            direct=_direct(tasks, scene, found),
        )
    failed = levels.get(path[0].id)
    top = rows.level(
        scene,
        tree.top(tasks, scene.heads),
        scene.root.id,
        rows.ALL_SECTION,
        selected=selected.id,
    )
    return {
        "top": top,
        "opened": path[0].id,
        "failed": failed if failed and failed.rows else None,
        "failed_count": tree.count_failed(tasks, path[0].id),
        "all": _open_levels(tasks, scene, path, selected.id),
        "all_count": tree.count_children(tasks, path[0].id),
        "selected": selected,
        "tree_parts": {
            part.key: part
            for part in [
                *parts(request, tasks, task, scene, failed_shown=None),
                _inspector(request, tasks, selected, scene),
            ]
        },
    }


def parts(
    request: HttpRequest,
    tasks: QuerySet[Task],
    task: Task,
    scene: rows.Scene,
    failed_shown: int | None = -1,
) -> list[live.Part]:
    """What the tree says of itself: how many have failed since it was opened."""
    top_id = task.id if task.parent_id is None else scene.root.id
    count = tree.count_failed(tasks, top_id)
    if failed_shown is None:
        shown = count
    else:
        given = request.GET.get("failed", "")
        shown = int(given) if given.isdecimal() and len(given) < 9 else count
    context = {"more": max(count - shown, 0), "shown": shown, "task": task}
    parts = [pages.part(request, "cq-more-failed", "_more_failed.html", context)]
    node = address.uuid(request.GET.get("node", "")) if failed_shown is not None else None
    if node is not None:
        selected = tasks.filter(id=node, root_id=scene.root.id).select_related("worker").first()
        if selected is not None:
            parts.append(_inspector(request, tasks, selected, scene))
    return parts


def changed_rows(request: HttpRequest, tasks: QuerySet[Task], scene: rows.Scene) -> list[str]:
    """The cells of those rows in sight that look different now."""
    known = rows.known_rows(request.GET.get("rows", ""))
    ids = {key: id for key in known if (id := rows.long(key[1:])) is not None}
    found = tree.nodes(tasks.filter(root_id=scene.root.id), list(set(ids.values())))
    ticks = tree.retries(task.id for task in found.values() if task.attempts > 1)
    direct = tree.direct_counts(tasks, list(found)) if scene.family.is_capped else None
    swaps: list[str] = []
    for key, id in ids.items():
        if id in found:
            row = rows.live_row(scene, found[id], key[0], ticks.get(id, ()), direct)
            if row.v != known[key]:
                swaps.append(row.as_swap())
    return swaps


def new_rows(request: HttpRequest, tasks: QuerySet[Task], scene: rows.Scene) -> list[str]:
    """What has come to the end of the pages that are not full yet."""
    swaps: list[str] = []
    for record in request.GET.get("levels", "").split()[:20]:
        key, _colon, rest = record.partition(":")
        last, _colon, count = rest.partition(":")
        parent = rows.long(key[1:])
        if parent is None or key[0] != rows.ALL_SECTION or not count.isdecimal():
            continue
        room = tree.PAGE - int(count[:4])
        if room <= 0:
            continue
        found = tree.children(
            tasks.filter(root_id=scene.root.id), parent, after=rows.long(last), size=room
        )
        if found.nodes:
            shown = rows.level(scene, found, parent, rows.ALL_SECTION)
            html = pages.fragment(request, "_level.html", {"level": shown})
            swaps.append(live.append(f"k-{key}", html))
    return swaps


def level(model_admin: Any, request: HttpRequest, task_id: UUID) -> HttpResponse:
    """A page of the tasks below one task."""
    tasks = model_admin.get_queryset(request)
    parent = tasks.filter(id=task_id).first()
    if parent is None:
        raise Http404
    scene = rows.scene(tasks, address.root(tasks, parent))
    section = rows.FAILED_SECTION if request.GET.get("section") == "f" else rows.ALL_SECTION
    found = tree.children(
        tasks,
        parent.id,
        after=address.uuid(request.GET.get("after", "")),
        only_failed=section == rows.FAILED_SECTION,
    )
    shown = rows.level(scene, found, parent.id, section, direct=_direct(tasks, scene, found))
    return HttpResponse(pages.fragment(request, "_level.html", {"level": shown}))


def inspector(model_admin: Any, request: HttpRequest, task_id: UUID) -> HttpResponse:
    """What stands beside the tree about one of its tasks."""
    tasks = model_admin.get_queryset(request)
    task = tasks.filter(id=task_id).select_related("worker").first()
    if task is None:
        raise Http404
    scene = rows.scene(tasks, address.root(tasks, task))
    return HttpResponse(_inspector(request, tasks, task, scene).html)


def _open_levels(
    tasks: QuerySet[Task], scene: rows.Scene, path: list[Task], selected: UUID
) -> rows.LevelShown:
    """The children of the first task on *path*, with what is on the path standing open."""
    parent, *rest = path
    found = tree.children(tasks, parent.id)
    is_cut = False
    if rest and found.last is not None and found.last < rest[0].id:
        found, is_cut = tree.children(tasks, parent.id, since=rest[0].id), True
    below = {rest[0].id: _open_levels(tasks, scene, rest, selected)} if rest else {}
    shown = rows.level(
        scene,
        found,
        parent.id,
        rows.ALL_SECTION,
        open_levels=below,
        selected=selected,
        direct=_direct(tasks, scene, found),
    )
    return rows.LevelShown(
        shown.parent, shown.section, shown.rows, shown.has_more, {"is_cut": is_cut}
    )


def _selected(
    request: HttpRequest,
    tasks: QuerySet[Task],
    task: Task,
    branches: Mapping[UUID, tree.Level],
) -> Task:
    """The node in the address; else the first cause of failure; else the task itself."""
    wanted = address.uuid(request.GET.get("node", ""))
    if wanted is None and task.status not in FAILED - {Status.INCOMPLETE} and task.is_root:
        wanted = next(
            (
                node.task.id
                for found in branches.values()
                for node in found.nodes
                if node.task.status != Status.INCOMPLETE
            ),
            None,
        )
    if wanted is None:
        return task
    found = tasks.filter(id=wanted, root_id=task.root_id).select_related("worker").first()
    return found or task


def _inspector(
    request: HttpRequest, tasks: QuerySet[Task], task: Task, scene: rows.Scene
) -> live.Part:
    lines = logs.tail(logs.Scope(task.root_id, task.id)).lines[-5:]
    stuck = unanswered(tasks, task, scene.now)
    possible = verbs.possible(task, scene.family, request.user.has_perm, stuck)
    status = statuses.shown(task, scene.now)
    context = {
        "task": task,
        "status": status,
        "name": arguments.name_of(task.func_name),
        "error": arguments.safe_text(task.error),
        "meaning": possible[0].meaning if possible and possible[0].name == "retry" else (),
        "traceback": history.last_traceback(task) if task.error else None,
        "lines": lines,
        "arguments": hostile.pretty(arguments.bound(task), 4_000),
        "verbs": possible,
        "has_rare": any(verb.is_rare for verb in possible),
        "seen": verbs.seen_of(task),
        "csrf_token": get_token(request),
        "is_shown": True,
    }
    html = pages.fragment(request, "_inspector.html", context)
    said = (status.word, task.attempts, task.error, [line.id for line in lines], possible)
    return live.Part("cq-inspector", html, repr((task.id, said)))


def _direct(
    tasks: QuerySet[Task], scene: rows.Scene, found: tree.Level
) -> Mapping[UUID, tree.Counts] | None:
    if not scene.family.is_capped:
        return None
    return tree.direct_counts(tasks, [node.task.id for node in found.nodes])
