"""What did somebody type into the search box, and which word of it is wrong?

``status:failed queue:mail func:send_mail args.order_id:123 since:7d ran:>30s is:root``, an id or
its last digits, or a part of the name of a function. Values with spaces stand in quotes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from difflib import get_close_matches
from uuid import UUID

from django.conf import settings
from django.utils import timezone
from django.utils.dateparse import parse_date, parse_datetime
from django.utils.translation import gettext as _

from cq import conf, registry
from cq.redaction import is_secret
from cq.states import Status

from . import statuses

LENGTH = 500

STATUSES: Mapping[str, tuple[Status, ...]] = {
    **{glyph: (Status(status),) for status, glyph in statuses.GLYPHS.items()},
    "failed": (Status.FAILURE, Status.LOST),
    "active": (Status.RUNNING, Status.WAITING, Status.RETRY, Status.QUEUED, Status.PENDING),
    "scheduled": (Status.QUEUED,),
}
ARGS = "args."
KEYS = ("status", "queue", "func", "since", "ran", "is", "worker", "root", "cause")
KINDS = ("root", "long", "any")
FUNCTIONS = 20
ARGUMENTS = 5
TAIL_LENGTH = 8

_WORD = re.compile(r'(?:"[^"]*"?|[^\s"])+')
_SPAN = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)(ms|s|m|min|h|d|w)")
_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400, "w": 604_800}
_LONGEST = timedelta(days=36_500)
_NUMBER = re.compile(r"-?\d{1,18}(\.\d{1,15})?")
_TAIL = re.compile(r"…?([0-9a-f]{8})")


@dataclass(frozen=True, slots=True)
class Argument:
    """A parameter, and the value that it must have: a text, or what stands in it as a number."""

    name: str
    text: str

    @property
    def values(self) -> tuple[str | int | float, ...]:
        if not _NUMBER.fullmatch(self.text):
            return (self.text,)
        return (self.text, float(self.text) if "." in self.text else int(self.text))


@dataclass(frozen=True, slots=True)
class Search:
    """What is asked for; *problem* says what is wrong with it, *wrong* is the word.

    *now* is the moment that spans of time count from.
    """

    now: datetime
    text: str = ""
    statuses: tuple[Status, ...] = ()
    is_scheduled: bool = False
    queue: str = ""
    functions: tuple[str, ...] = ()
    root: UUID | None = None
    cause: str = ""
    id: UUID | None = None
    tail: str = ""
    worker: str = ""
    arguments: tuple[Argument, ...] = ()
    since: datetime | None = None
    ran_over: timedelta | None = None
    ran_under: timedelta | None = None
    only_roots: bool = False
    is_long: bool = False
    problem: str = ""
    wrong: str = ""

    @property
    def conditions(self) -> frozenset[str]:
        """The names of what is asked for, but for the span of time."""
        return frozenset(name for name in _CONDITIONS if getattr(self, name))

    @property
    def pieces(self) -> tuple[tuple[str, bool], ...]:
        """The text around the wrong word, and the word: each with whether it is that one."""
        before, word, after = self.text.partition(self.wrong) if self.wrong else (self.text, "", "")
        return tuple(piece for piece in ((before, False), (word, True), (after, False)) if piece[0])


_CONDITIONS = (
    "statuses",
    "is_scheduled",
    "queue",
    "functions",
    "root",
    "cause",
    "id",
    "tail",
    "worker",
    "arguments",
    "ran_over",
    "ran_under",
    "only_roots",
    "is_long",
)


def parse(text: str, now: datetime | None = None) -> Search:
    """The search that *text* describes at *now*; without a word, the top-level tasks."""
    found = Search(now or timezone.now(), clean(text))
    if not found.text:
        return replace(found, only_roots=True)
    for word in words(found.text):
        found = _with(found, word)
        if found.problem:
            return found
    return found


def clean(text: str) -> str:
    return text[:LENGTH].replace("\x00", " ").strip()


def words(text: str) -> list[str]:
    return _WORD.findall(text)


def quoted(value: str) -> str:
    """*value* as it stands behind a key."""
    return f'"{value}"' if re.search(r"\s", value) else value


def with_subtasks(text: str) -> str:
    """*text* without ``is:root``, which a search for nothing means as well."""
    return " ".join(word for word in words(text) if word != "is:root") or "is:any"


def _with(search: Search, word: str) -> Search:
    key, colon, value = word.partition(":")
    if not colon:
        return _with_free_word(search, word)
    value = value.replace('"', "").strip()
    if key.startswith(ARGS):
        return _with_argument(search, word, key.removeprefix(ARGS), value)
    if key not in KEYS:
        return _wrong(search, word, key.partition(".")[0], (*KEYS, "args"))
    if not value:
        return _refused(search, word, _("Say what “%(key)s:” should be.") % {"key": key})
    return _READERS[key](search, word, value)


def _with_status(search: Search, word: str, value: str) -> Search:
    if value not in STATUSES:
        return _wrong(search, word, value, STATUSES)
    return replace(search, statuses=STATUSES[value], is_scheduled=value == "scheduled")


def _with_queue(search: Search, word: str, value: str) -> Search:
    return replace(search, queue=value)


def _with_worker(search: Search, word: str, value: str) -> Search:
    host, _colon, pid = value.rpartition(":")
    if not host or not pid.isdecimal() or len(pid) > 9:
        return _refused(search, word, _("A worker is named host:pid."))
    return replace(search, worker=value)


def _with_cause(search: Search, word: str, value: str) -> Search:
    return replace(search, cause=value[:16])


def _with_kind(search: Search, word: str, value: str) -> Search:
    if value not in KINDS:
        return _wrong(search, word, value, KINDS)
    # "any" says that subtasks are wanted as well, when nothing else is asked for.
    return replace(
        search,
        only_roots=search.only_roots or value == "root",
        is_long=search.is_long or value == "long",
    )


def _with_root(search: Search, word: str, value: str) -> Search:
    id = _uuid(value)
    return replace(search, root=id) if id else _wrong(search, word, value, ())


def _with_since(search: Search, word: str, value: str) -> Search:
    span = _span(value)
    if span is not None:
        return replace(search, since=search.now - span)
    moment = _moment(value)
    if moment is None:
        return _refused(search, word, _("Write since:30m, since:7d or since:2026-11-14."))
    return replace(search, since=moment)


def _with_ran(search: Search, word: str, value: str) -> Search:
    span = _span(value[1:])
    if value[0] not in "<>" or span is None:
        return _refused(search, word, _("Write ran:>30s or ran:<2h."))
    if value[0] == ">":
        return replace(search, ran_over=span)
    return replace(search, ran_under=span)


def _with_argument(search: Search, word: str, name: str, value: str) -> Search:
    if is_secret(name, conf.get().redact):
        said = _("“%(name)s” is not searchable: its value is masked.") % {"name": name[:80]}
        return _refused(search, word, said)
    if not name.isidentifier() or len(search.arguments) >= ARGUMENTS:
        return _wrong(search, word, name, ())
    return replace(search, arguments=(*search.arguments, Argument(name, value)))


def _with_free_word(search: Search, word: str) -> Search:
    if id := _uuid(word):
        return replace(search, id=id)
    if tail := _TAIL.fullmatch(word.lower()):
        return replace(search, tail=tail[1])
    return _with_function(search, word, word.replace('"', ""))


def _with_function(search: Search, word: str, value: str) -> Search:
    names = registry.names()
    if value in names:
        return replace(search, functions=(value,))
    found = tuple(name for name in names if value.lower() in name.lower())[:FUNCTIONS]
    # A function that this process does not know may have tasks all the same.
    if not found and "." in value:
        found = (value,)
    if not found:
        shorts = [name.rpartition(".")[2] for name in names]
        return _wrong(search, word, value, shorts)
    return replace(search, functions=tuple(dict.fromkeys((value, *found))))


_READERS = {
    "status": _with_status,
    "queue": _with_queue,
    "func": _with_function,
    "since": _with_since,
    "ran": _with_ran,
    "is": _with_kind,
    "worker": _with_worker,
    "root": _with_root,
    "cause": _with_cause,
}


def _wrong(
    search: Search, word: str, value: str, allowed: Sequence[str] | Mapping[str, object]
) -> Search:
    close = get_close_matches(value, list(allowed), n=1)
    hint = _("Did you mean “%(close)s”?") % {"close": close[0]} if close else ""
    return _refused(search, word, hint)


def _refused(search: Search, word: str, hint: str) -> Search:
    problem = _("“%(word)s” is not understood.") % {"word": word[:80]}
    return replace(search, problem=f"{problem} {hint}".strip(), wrong=word)


def _span(text: str) -> timedelta | None:
    found = _SPAN.fullmatch(text)
    if found is None:
        return None
    seconds = float(found[1]) * _SECONDS[found[2]]
    return timedelta(seconds=min(seconds, _LONGEST.total_seconds()))


def _moment(text: str) -> datetime | None:
    try:
        moment = parse_datetime(text)
        day = None if moment else parse_date(text)
    except ValueError:
        return None
    if day is not None:
        moment = datetime(day.year, day.month, day.day)  # noqa: DTZ001 - the viewer's zone is next
    if moment is None or moment.year < 1971:
        return None
    is_local = settings.USE_TZ and timezone.is_naive(moment)
    return timezone.make_aware(moment) if is_local else moment


def _uuid(text: str) -> UUID | None:
    if len(text) not in (32, 36):
        return None
    try:
        return UUID(text)
    except ValueError:
        return None
