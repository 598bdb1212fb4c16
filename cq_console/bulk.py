"""What may be done to everything that matches a search, and how is that carried out?

What was previewed is frozen: the search, the moment it was made, and the newest id there was.
What came or moved since is left alone, so that a task that fails again is not retried again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from typing import Any
from uuid import UUID

from django.contrib import admin
from django.contrib.auth import get_user_model
from django.db.models import QuerySet
from django.db.models.functions import Now
from django.http import HttpRequest
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from cq import operations, registry
from cq.models import Task, Worker
from cq.states import DONE, Status

from . import arguments, search, statuses, store
from .queries import walk
from .queries.matching import filtered, in_pieces

QUEUE = "cq.console"
CHUNK = 500
PREVIEW_SECONDS = 5.0
SAMPLES = 5

Tasks = QuerySet[Task]


@dataclass(frozen=True, slots=True)
class Verb:
    """A verb for many tasks: which statuses it moves, who may, and what carries it out."""

    name: str
    label: Any
    question: Any
    permission: str
    statuses: frozenset[Status]
    style: str
    operation: Callable[..., operations.Affected]
    # A queued task that is not scheduled runs as soon as it can already.
    only_scheduled: bool = False


VERBS: Mapping[str, Verb] = {
    verb.name: verb
    for verb in (
        Verb(
            "retry",
            gettext_lazy("Retry"),
            gettext_lazy("Retry %(tasks)s"),
            "cq.retry_task",
            frozenset({Status.FAILURE, Status.INCOMPLETE, Status.LOST, Status.REVOKED}),
            "primary",
            operations.retry,
        ),
        Verb(
            "run-now",
            gettext_lazy("Run now"),
            gettext_lazy("Run %(tasks)s now"),
            "cq.retry_task",
            frozenset({Status.RETRY, Status.QUEUED}),
            "outline",
            operations.retry,
            only_scheduled=True,
        ),
        Verb(
            "run-again",
            gettext_lazy("Run again"),
            gettext_lazy("Run %(tasks)s again"),
            "cq.retry_task",
            frozenset({Status.SUCCESS}),
            "outline",
            operations.run_again,
        ),
        Verb(
            "coalesce",
            gettext_lazy("Coalesce"),
            gettext_lazy("Coalesce %(tasks)s"),
            "cq.coalesce_task",
            frozenset({Status.QUEUED}),
            "outline",
            operations.coalesce,
        ),
        Verb(
            "cancel",
            gettext_lazy("Cancel"),
            gettext_lazy("Cancel %(tasks)s"),
            "cq.cancel_task",
            frozenset(
                {Status.PENDING, Status.QUEUED, Status.RUNNING, Status.WAITING, Status.RETRY}
            ),
            "danger",
            operations.cancel,
        ),
    )
}


@dataclass(frozen=True, slots=True)
class Preview:
    """What a verb would touch: how many exactly (None: too many to count in time), and which."""

    verb: Verb
    search: search.Search
    last: UUID | None
    count: int | None
    samples: tuple[str, ...]
    # Why matching tasks are left alone: how many, and what they are.
    skipped: tuple[str, ...]
    has_worker: bool

    @property
    def rest(self) -> int:
        """How many there are beside the samples."""
        return (self.count or 0) - len(self.samples)

    @property
    def label(self) -> str:
        n = statuses.tasks(self.count or 0)
        return str(self.verb.question) % {"tasks": n}


def offered(wanted: search.Search, may: Callable[[str], bool]) -> list[Verb]:
    """The verbs that can move something of what *wanted* shows, for who *may*."""
    if wanted.problem:
        return []
    found = []
    for verb in VERBS.values():
        is_for = not wanted.statuses or bool(verb.statuses & set(wanted.statuses))
        if verb.only_scheduled and wanted.statuses == (Status.QUEUED,):
            is_for = wanted.is_scheduled
        if is_for and may(verb.permission):
            found.append(verb)
    return found


def preview(tasks: Tasks, verb: Verb, text: str) -> Preview:
    """Count and sample what *verb* would touch of what *text* asks for, within some seconds."""
    # The newest of all, not of those that match: it costs one look at the key. By its clock the
    # database also says when tasks end.
    newest = tasks.order_by("-id").values_list("id", Now()).first()
    last, now = newest or (None, None)
    wanted = search.parse(text, now)
    if wanted.problem:
        # What was understood of it may be everything.
        return Preview(verb, wanted, None, 0, (), (), has_worker=True)
    pieces = [rows.exclude(queue=QUEUE) for rows in walk.SUBMITTED.pieces(tasks, wanted)]
    counted = walk.count(tasks, pieces, seconds=PREVIEW_SECONDS, since=wanted.since)
    chosen = {status: n for status, n in counted.by_status.items() if status in verb.statuses}
    count = None if counted.back_to is not None else sum(chosen.values())
    skipped = [
        f"{n:,} {statuses.word(status)}"
        for status, n in counted.by_status.items()
        if status not in verb.statuses
    ]
    if verb.only_scheduled and count is not None and Status.QUEUED in chosen:
        rows = filtered(tasks, wanted).exclude(queue=QUEUE)
        due = rows.filter(status=Status.QUEUED, ready=True).order_by().values("pk").count()
        count -= due
        if due:
            skipped.append(_("%(n)s queued for now") % {"n": f"{due:,}"})
    samples: tuple[str, ...] = ()
    if count and last is not None:
        samples = _samples(frozen(tasks, verb, wanted, last))
    return Preview(verb, wanted, last, count, samples, tuple(skipped), _has_worker())


def frozen(tasks: Tasks, verb: Verb, wanted: search.Search, last: UUID) -> list[Tasks]:
    """What *verb* touches of what *wanted* showed at its moment, up to the id *last*, by status."""
    rows = filtered(tasks, wanted).filter(id__lte=last)
    if verb.only_scheduled:
        rows = rows.filter(ready__isnull=True)
    if verb.statuses <= DONE:
        rows = rows.filter(finished__lte=wanted.now)
    moved = verb.statuses & set(wanted.statuses) if wanted.statuses else verb.statuses
    # Neither itself nor another one like it.
    return in_pieces(rows.exclude(queue=QUEUE), moved)


class Work:
    """What is left to do of a verb on everything that matched; in chunks, each a transaction."""

    def __init__(self, verb: Verb, wanted: search.Search, last: UUID) -> None:
        self._verb = verb
        self._wanted = wanted
        self._last = last
        self._reached: UUID | None = None
        # Of each call the first task: what is coalesced later goes into that one.
        self._first: dict[tuple[str, str, str], UUID] = {}
        self.done = 0
        self.skipped = 0

    @property
    def looked_at(self) -> int:
        return self.done + self.skipped

    @property
    def said(self) -> str:
        said = ngettext("%(n)s task done", "%(n)s tasks done", self.done)
        said %= {"n": f"{self.done:,}"}
        if self.skipped:
            said += ", " + _("%(n)s skipped") % {"n": f"{self.skipped:,}"}
        return said

    def do_some(self, user: Any, reason: str, predicate: str) -> bool:
        """Carry the verb out on the next ones, the oldest first; False when there were none."""
        found: list[Task] = []
        for rows in frozen(tasks_of(user), self._verb, self._wanted, self._last):
            further = rows if self._reached is None else rows.filter(id__gt=self._reached)
            columns = ("id", "status", "attempts", *self._compared)
            found += further.order_by("id").only(*columns)[:CHUNK]
        chunk = sorted(found, key=lambda task: task.id)[:CHUNK]
        if not chunk:
            return False
        affected = self._verb.operation(
            [task.id for task in chunk] + self._firsts(chunk),
            by=user,
            reason=reason,
            seen={task.id: (task.status, task.attempts) for task in chunk},
            way="console",
            predicate=predicate,
        )
        self.done += len(affected.done)
        self.skipped += len(chunk) - len(affected.done)
        self._reached = chunk[-1].id
        return True

    @property
    def _compared(self) -> tuple[str, ...]:
        return ("func_name", "args", "kwargs") if self._verb.name == "coalesce" else ()

    def _firsts(self, chunk: Sequence[Task]) -> list[UUID]:
        """The earlier tasks that those of *chunk* are to be coalesced into."""
        if not self._compared:
            return []
        found: dict[UUID, None] = {}
        for task in chunk:
            key = (task.func_name, registry.key_of(task.args), registry.key_of(task.kwargs))
            first = self._first.setdefault(key, task.id)
            if first != task.id:
                found[first] = None
        ids = {task.id for task in chunk}
        return [id for id in found if id not in ids]


def user_who_may(user_id: Any, verb: Verb) -> Any:
    """The user as it is now, when it still may look at tasks and use *verb*; None else."""
    user = get_user_model()._default_manager.filter(pk=user_id).first()
    if user is None or not user.is_active or not user.is_staff:
        return None
    return user if user.has_perms(["cq.view_task", verb.permission]) else None


def tasks_of(user: Any) -> Tasks:
    """The tasks that *user* may see: where a project narrows rows, as in its requests."""
    request = HttpRequest()
    request.user = user
    rows: Tasks = admin.site.get_model_admin(Task).get_queryset(request)
    return rows


def _samples(pieces: Sequence[Tasks]) -> tuple[str, ...]:
    newest = [rows.order_by("-id").only("id", "func_name", "named")[:SAMPLES] for rows in pieces]
    found = sorted(chain(*newest), key=lambda task: task.id, reverse=True)[:SAMPLES]
    return tuple(
        f"{arguments.name_of(task.func_name).short} "
        f"{arguments.brief(arguments.masked(task.named or {}), 60)}".strip()
        for task in found
    )


def _has_worker() -> bool:
    alive = store.rows(Worker).filter(stopped__isnull=True, lease_expires_at__gt=Now())
    return alive.exclude(asked="quiet").exists()


def at(text: str) -> datetime | None:
    """The moment that an ISO text names; None when it names none."""
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None
