"""How is a task's status said and drawn?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from cq.models import Task
from cq.states import Cause, Status

from . import durations

# The order of the family bar and its legend: what is done, what needs a person, what moves.
ORDER = (
    Status.SUCCESS,
    Status.FAILURE,
    Status.INCOMPLETE,
    Status.LOST,
    Status.REVOKED,
    Status.RUNNING,
    Status.WAITING,
    Status.RETRY,
    Status.QUEUED,
    Status.PENDING,
)

GLYPHS: Mapping[str, str] = {
    Status.PENDING: "pending",
    Status.QUEUED: "queued",
    Status.RUNNING: "running",
    Status.WAITING: "waiting",
    Status.RETRY: "retrying",
    Status.SUCCESS: "succeeded",
    Status.FAILURE: "failed",
    Status.INCOMPLETE: "incomplete",
    Status.LOST: "lost",
    Status.REVOKED: "revoked",
}

_WORDS: Mapping[str, Any] = {
    Status.PENDING: gettext_lazy("pending"),
    Status.QUEUED: gettext_lazy("queued"),
    Status.RUNNING: gettext_lazy("running"),
    Status.WAITING: gettext_lazy("waiting"),
    Status.RETRY: gettext_lazy("retrying"),
    Status.SUCCESS: gettext_lazy("succeeded"),
    Status.FAILURE: gettext_lazy("failed"),
    Status.INCOMPLETE: gettext_lazy("incomplete"),
    Status.LOST: gettext_lazy("lost"),
    Status.REVOKED: gettext_lazy("revoked"),
}
_CAUSES: Mapping[str, Any] = {
    Cause.CANCELLED: gettext_lazy("cancelled"),
    Cause.EXPIRED: gettext_lazy("expired"),
    Cause.DISCARDED: gettext_lazy("discarded"),
    Cause.NOT_NEEDED: gettext_lazy("not needed"),
    Cause.COALESCED: gettext_lazy("coalesced"),
}


@dataclass(frozen=True, slots=True)
class Shown:
    """A status: its letter, the word for it, the name of its shape, and why it is so."""

    letter: str
    word: str
    glyph: str
    reason: str = ""


def shown(task: Task, now: datetime) -> Shown:
    """The status of *task* as a person reads it at *now*."""
    status = Status(task.status)
    glyph, said = GLYPHS[status], word(status)
    if task.is_blocked:
        said = _("blocked")
    elif status == Status.REVOKED and task.cause:
        said = _cause(task.cause)
    elif status == Status.WAITING:
        said = _("waiting for %(n)s") % {"n": f"{task.open_children:,}"}
    elif status == Status.RETRY:
        if task.run_at > now:
            said = _("retries in %(span)s") % {"span": durations.roughly(task.run_at - now)}
        else:
            said = _("retries now")
    elif task.is_scheduled and task.run_at > now:
        glyph, said = "scheduled", _("scheduled")
    if task.is_cancelling and status in (Status.RUNNING, Status.WAITING):
        glyph, said = "cancelling", _("cancel requested")
    return Shown(str(status), said, glyph, _why(task.reason, said))


def word(status: str) -> str:
    """The word for a status, without what only a certain task can say."""
    return str(_WORDS[status])


def tasks(count: int) -> str:
    """``1 task``, ``212 tasks``."""
    return ngettext("%(n)s task", "%(n)s tasks", count) % {"n": f"{count:,}"}


def _why(reason: str, said: str) -> str:
    """*reason* without the word that stands before it already."""
    return "" if reason == said else reason.removeprefix(f"{said}: ")


def _cause(cause: str) -> str:
    return str(_CAUSES.get(cause, cause))
