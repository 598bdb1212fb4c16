"""What stands at the head of a task's page, whatever its tab?"""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from django.http import HttpRequest
from django.middleware.csrf import get_token
from django.urls import reverse
from django.utils import timezone
from django.utils.dateformat import format as date_format
from django.utils.translation import gettext as _

from cq import registry
from cq.models import Task
from cq.states import ACTIVE

from .. import durations, hostile, lanes, live, rows, statuses, verbs
from ..queries.unanswered import Unanswered, unanswered
from . import page as pages


def parts(
    request: HttpRequest, tasks: QuerySet[Task], task: Task, scene: rows.Scene
) -> list[live.Part]:
    status = statuses.shown(task, scene.now)
    stuck = unanswered(tasks, task, scene.now)
    possible = verbs.possible(task, scene.family, request.user.has_perm, stuck)
    facts = {"status": status, "task": task, "facts": _facts(task, scene, stuck)}
    buttons = {
        "verbs": possible,
        "has_rare": any(verb.is_rare for verb in possible),
        "task": task,
        "seen": verbs.seen_of(task),
        "csrf_token": get_token(request),
    }
    return [
        pages.part(request, "cq-glyph", "_task_glyph.html", {"status": status}),
        pages.part(request, "cq-facts", "_facts.html", facts),
        # The token is masked anew for each response: without it in the fingerprint the buttons
        # are swapped only when they say something else.
        live.Part("cq-verbs", pages.fragment(request, "_verbs.html", buttons), repr(possible)),
        pages.part(request, "cq-family", "_family.html", _family(scene)),
    ]


def _facts(task: Task, scene: rows.Scene, stuck: Unanswered | None) -> list[tuple[str, str]]:
    now = scene.now
    facts = []
    if stuck is not None:
        said = _("not answered for %(span)s") % {"span": durations.roughly(stuck.since)}
        if not stuck.is_replaceable:
            said += ": " + _("its worker cannot be replaced from here, restart that")
        facts.append((_("Cancel"), said))
    facts.append((_("Queue"), hostile.one_line(task.queue, 80)))
    if task.attempts:
        allowed = _attempts_allowed(task)
        said = f"{task.attempts}"
        if allowed is not None and allowed > 1:
            said = _("%(n)s of %(all)s") % {"n": task.attempts, "all": allowed}
        facts.append((_("Attempt"), said))
    begun = max(task.submitted, task.run_at) if task.started is None else task.submitted
    if task.started is not None:
        facts.append((_("Waited"), durations.said(task.started - begun)))
        if ran := rows.duration(task, now):
            facts.append((_("Ran") if task.finished else _("Running for"), ran))
    elif task.status in ACTIVE and begun <= now:
        facts.append((_("Waits for"), durations.roughly(now - begun)))
    if task.worker is not None:
        facts.append((_("Worker"), task.worker.name))
    if scene.root.keep_until is not None and scene.root.keep_until > now:
        until = date_format(timezone.localtime(scene.root.keep_until), "j M H:i")
        facts.append((_("Kept until"), until))
    return facts


def _attempts_allowed(task: Task) -> int | None:
    retries = task.retries
    if retries is None and registry.is_registered(task.func_name):
        retries = registry.get(task.func_name).options.retries
    return None if retries is None else task.attempts_before + retries + 1


def _family(scene: rows.Scene) -> dict[str, Any]:
    counts = scene.family.counts
    tasks_url = reverse("admin:cq_task_changelist")
    legend = [
        {
            "status": str(status),
            "word": statuses.word(status),
            "count": counts[status],
            "url": f"{tasks_url}?q=root%3A{scene.root.id}+status%3A{statuses.GLYPHS[status]}",
        }
        for status in statuses.ORDER
        if counts.get(status)
    ]
    return {
        "segments": lanes.segments(counts, statuses.ORDER, lanes.FAMILY_WIDTH),
        "legend": legend,
        "total": scene.family.total,
    }
