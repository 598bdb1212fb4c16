"""What may be done to a task now, how much does it touch, and what does it mean?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from uuid import UUID

from django.db.models import QuerySet
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from cq import registry
from cq.models import Task
from cq.states import ACTIVE, CLAIMABLE, Status

from . import arguments, statuses
from .queries.tree import Family
from .queries.unanswered import Unanswered

# Above the first number a dialog states the count, above the second it must be typed.
ASK_ABOVE = 10
TYPE_ABOVE = 1_000
TARGETS = 10_000
FOLLOWERS_NAMED = 10
DUPLICATES_SOUGHT = 1_000

KEPT_DAYS = 7

PERMISSIONS = {
    "retry": "cq.retry_task",
    "run-now": "cq.retry_task",
    "run-again": "cq.retry_task",
    "edit": "cq.retry_task",
    "cancel": "cq.cancel_task",
    "replace": "cq.control_worker",
    "coalesce": "cq.coalesce_task",
    "keep": "cq.keep_task",
}


@dataclass(frozen=True, slots=True)
class Verb:
    """A verb that makes sense for a task as it is now."""

    name: str
    label: str
    count: int
    style: str
    meaning: tuple[str, ...] = ()
    must_ask: bool = False
    # Stands under *More*.
    is_rare: bool = False

    @property
    def must_type(self) -> bool:
        return self.count > TYPE_ABOVE


def possible(
    task: Task,
    family: Family,
    may: Callable[[str], bool],
    stuck: Unanswered | None = None,
) -> list[Verb]:
    """The verbs for *task*, the most wanted first; *may* says which permissions there are.

    *stuck* is what is known of a cancel that it does not answer.
    """
    offered = (
        _replace(stuck),
        _retry(task, family),
        _run_now(task),
        _run_again(task),
        _cancel(task, family),
        _edit(task),
        _coalesce(task),
        _keep(task),
    )
    found = [verb for verb in offered if verb is not None and may(PERMISSIONS[verb.name])]
    return [
        verb if index == 0 or verb.style != "primary" else replace(verb, style="outline")
        for index, verb in enumerate(found)
    ]


def targets(verb: str, task: Task, tasks: QuerySet[Task]) -> Sequence[UUID]:
    """Which tasks the operation is told to touch for *verb* on *task*."""
    if verb == "retry" and task.status in ACTIVE:
        return failed_below(task, tasks)
    if verb == "coalesce":
        return duplicates(task, tasks)
    return [task.id]


def seen_of(task: Task) -> str:
    """What a form carries of the task that it showed: status and attempts."""
    return f"{task.status}:{task.attempts}"


def parse_seen(text: str) -> tuple[str, int] | None:
    status, _colon, attempts = text.partition(":")
    if status not in Status.values or not attempts.isdecimal() or len(attempts) > 9:
        return None
    return status, int(attempts)


def failed_below(task: Task, tasks: QuerySet[Task]) -> list[UUID]:
    """The topmost failed tasks below one that can still move; a retry heals what is below them."""
    found: list[UUID] = []
    level = [task.id]
    while level and len(found) < TARGETS:
        children = tasks.filter(parent_id__in=level[:500]).exclude(status=Status.SUCCESS)
        rows = list(children.values_list("id", "status")[:TARGETS])
        found += [
            id for id, status in rows if status in (Status.FAILURE, Status.LOST, Status.INCOMPLETE)
        ]
        level = [id for id, status in rows if status == Status.WAITING]
    return found[:TARGETS]


def duplicates(task: Task, tasks: QuerySet[Task]) -> list[UUID]:
    """Queued tasks with the function and the arguments of *task*, itself included."""
    queued = tasks.filter(queue=task.queue, status=Status.QUEUED).order_by("id")
    rows = queued.values_list("id", "func_name", "args", "kwargs")[:DUPLICATES_SOUGHT]
    return [
        id
        for id, func_name, args, kwargs in rows
        if func_name == task.func_name and args == task.args and kwargs == task.kwargs
    ]


def followers(task: Task, tasks: QuerySet[Task]) -> list[str]:
    """The names of the tasks chained behind *task* that will not run without it."""
    found: list[str] = []
    behind = [task.id]
    while behind and len(found) < FOLLOWERS_NAMED:
        rows = tasks.filter(previous_id__in=behind, status=Status.PENDING)
        pairs = list(rows.values_list("id", "func_name")[:FOLLOWERS_NAMED])
        found += [arguments.name_of(name).short for _id, name in pairs]
        behind = [id for id, _name in pairs]
    return found[:FOLLOWERS_NAMED]


def _retry(task: Task, family: Family) -> Verb | None:
    status = Status(task.status)
    below = family.failed_below(task.id)
    if status in (Status.FAILURE, Status.LOST):
        meaning = _what_again_means(task)
        return Verb(
            "retry", _("Retry"), 1, "primary", meaning, must_ask=not _is_atomic(task.func_name)
        )
    if status == Status.REVOKED:
        return Verb("retry", _("Retry"), 1, "outline", _what_again_means(task))
    if status == Status.INCOMPLETE or (status in (Status.RUNNING, Status.WAITING) and below):
        label = _("Retry %(n)s failed") % {"n": f"{below:,}"} if below else _("Retry what failed")
        meaning = (_("Only what failed runs again; what succeeded is kept."),)
        return Verb("retry", label, below, "primary", meaning, must_ask=below > ASK_ABOVE)
    return None


def _cancel(task: Task, family: Family) -> Verb | None:
    if task.status not in ACTIVE or task.is_cancelling:
        return None
    below = family.below.get(task.id, {})
    count = 1 + sum(n for status, n in below.items() if status in ACTIVE)
    label = _("Cancel") if count == 1 else _("Cancel %(tasks)s") % {"tasks": statuses.tasks(count)}
    meaning = (
        _("What has not started never runs. What runs is asked to stop."),
        _("What has succeeded is kept."),
    )
    return Verb("cancel", label, count, "danger", meaning, must_ask=count > ASK_ABOVE)


def _run_again(task: Task) -> Verb | None:
    if task.status != Status.SUCCESS:
        return None
    meaning = (_("A new task with the same arguments; this one stays as it is."),)
    return Verb("run-again", _("Run again"), 1, "outline", meaning)


def _run_now(task: Task) -> Verb | None:
    if task.status not in CLAIMABLE or task.ready:
        return None
    meaning = (_("It waits for a time; now it waits for a free worker only."),)
    return Verb("run-now", _("Run now"), 1, "outline", meaning)


def _edit(task: Task) -> Verb | None:
    if task.status not in (Status.FAILURE, Status.LOST, Status.REVOKED):
        return None
    meaning = (_("A new task with other arguments; this one stays as it is."),)
    return Verb("edit", _("Edit and retry"), 1, "outline", meaning, must_ask=True, is_rare=True)


def _coalesce(task: Task) -> Verb | None:
    if task.status != Status.QUEUED:
        return None
    meaning = (_("Of those queued with the same function and arguments, the oldest stays."),)
    label = _("Coalesce duplicates")
    return Verb("coalesce", label, 1, "outline", meaning, must_ask=True, is_rare=True)


def _keep(task: Task) -> Verb:
    label = _("Keep for %(n)s days") % {"n": KEPT_DAYS}
    meaning = (_("Its whole tree and its log stay, whatever their time says."),)
    return Verb("keep", label, 1, "outline", meaning, is_rare=True)


def _replace(stuck: Unanswered | None) -> Verb | None:
    if stuck is None or not stuck.is_replaceable:
        return None
    n = stuck.neighbours
    again = ngettext("%(n)s neighbour runs again", "%(n)s neighbours run again", n) % {"n": n}
    label = _("Replace its worker process (%(again)s)") % {"again": again}
    meaning = (
        _("The process is killed and a new one started; this task ends as cancelled."),
        _("What ran beside it runs again, and is not charged for it."),
    )
    return Verb("replace", label, 1, "danger", meaning, must_ask=True)


def _what_again_means(task: Task) -> tuple[str, ...]:
    if task.status in CLAIMABLE or task.started is None:
        return (_("It has not run."),)
    if not registry.is_registered(task.func_name):
        return (_("This process does not know the function; a worker may."),)
    if _is_atomic(task.func_name):
        return (_("Atomic: its database changes were rolled back."),)
    return (_("Not atomic: what it did before failing will be done again."),)


def _is_atomic(func_name: str) -> bool:
    return registry.is_registered(func_name) and registry.get(func_name).atomic
