"""How may the word that somebody is typing into the search box go on?"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from django.db.models import QuerySet
from django.utils.translation import gettext as _

from cq import conf, registry
from cq.models import Task, Worker
from cq.redaction import is_secret

from . import hostile, search, store
from .queries import overview

SHOWN = 10


@dataclass(frozen=True, slots=True)
class Completion:
    """What the text becomes, the word as it is shown, and what it means."""

    text: str
    word: str
    hint: str = ""


def of(text: str, is_done: bool, tasks: QuerySet[Task]) -> list[Completion]:
    """How the last word of *text* may go on; a word that *is_done* is followed by a new one."""
    words = search.words(text)
    last = "" if is_done or not words else words[-1]
    before = words if is_done or not words else words[:-1]
    key, colon, value = last.partition(":")
    if colon:
        fitting = _fitting([(item, "") for item in _values(key, tasks)], value.replace('"', ""))
        found = [(f"{key}:{search.quoted(item)}", hint) for item, hint in fitting]
    elif last.startswith(search.ARGS):
        found = _fitting([(f"args.{name}:", "") for name in _parameters(before)], last)
    else:
        found = _fitting(_keys(), last)
        if last:
            found += _fitting([(name, _("function")) for name in registry.names()], last)
    return [
        Completion(_joined(before, word), hostile.one_line(word, 120), hint)
        for word, hint in found[:SHOWN]
        if word != last
    ]


def _keys() -> list[tuple[str, str]]:
    return [
        ("status:", _("failed, running, waiting …")),
        ("queue:", _("the name of a queue")),
        ("func:", _("a function, or a part of its name")),
        ("args.", _("an argument by its name")),
        ("since:", _("submitted in the last 30m, 7d …")),
        ("ran:", _("longer or shorter: >30s, <2h")),
        ("is:root", _("top-level tasks")),
        ("is:long", _("runs much longer than usual")),
        ("worker:", _("host:pid")),
        ("root:", _("everything in one tree")),
    ]


def _values(key: str, tasks: QuerySet[Task]) -> Iterable[str]:
    if key == "status":
        return search.STATUSES
    if key == "queue":
        return overview.names(tasks)
    if key == "func":
        return registry.names()
    if key == "worker":
        rows = store.rows(Worker).filter(stopped__isnull=True).order_by("-id")[:SHOWN]
        return [worker.name for worker in rows]
    fixed = {
        "since": ("15m", "1h", "24h", "7d"),
        "ran": (">1s", ">30s", ">10m", "<1s"),
        "is": search.KINDS,
    }
    return fixed.get(key, ())


def _parameters(words: Iterable[str]) -> list[str]:
    """The parameters of the functions that are named already; of all when none is."""
    named = search.parse(" ".join(words)).functions
    names = [name for name in named if registry.is_registered(name)] or registry.names()
    found: dict[str, None] = {}
    for name in names:
        for parameter in registry.get(name).parameters.signature.parameters:
            if not is_secret(parameter, conf.get().redact):
                found[parameter] = None
    return sorted(found)


def _fitting(found: Iterable[tuple[str, str]], typed: str) -> list[tuple[str, str]]:
    """Those that begin with what was typed, then those that contain it."""
    lowered = typed.lower()
    ranked = [
        (not word.lower().startswith(lowered), number, (word, hint))
        for number, (word, hint) in enumerate(found)
        if lowered in word.lower()
    ]
    return [pair for _is_inside, _number, pair in sorted(ranked)]


def _joined(before: Iterable[str], word: str) -> str:
    # A key waits for its value; a whole word for the next one.
    end = "" if word.endswith((":", ".")) else " "
    return " ".join([*before, word]) + end
