"""How is a CRON entry said in plain words, and what does it do to come?"""

from __future__ import annotations

import zoneinfo
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from cron_descriptor import (  # type: ignore[import-untyped]
    ExpressionDescriptor,
    FormatException,
    MissingFieldException,
    Options,
    WrongArgumentException,
)
from django.utils.dateformat import format as date_format
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import get_language
from django.utils.translation import gettext as _

from cq import crontab
from cq.exceptions import InvalidCrontab

LOCALES = {
    "de": "de_DE",
    "en": "en_US",
    "es": "es_ES",
    "fr": "fr_FR",
    "it": "it_IT",
    "nl": "nl_NL",
    "pt": "pt_PT",
    "ru": "ru_RU",
    "zh-hans": "zh_CN",
}
LONGEST = 150


@dataclass(frozen=True, slots=True)
class Preview:
    """What an entry says and when it fires; *problem* when it is refused, with its column."""

    words: str = ""
    runs: tuple[Run, ...] = ()
    problem: str = ""
    fields: tuple[tuple[str, bool], ...] = ()


@dataclass(frozen=True, slots=True)
class Run:
    """One time, in the zone of the entry and in that of the viewer."""

    local: datetime
    mine: datetime
    note: str

    @property
    def local_said(self) -> SafeString:
        return said_with_year_apart(self.local)

    @property
    def mine_said(self) -> SafeString:
        return said_with_year_apart(self.mine)


def describe(expression: str) -> str:
    """*expression* in plain words; itself where there are none."""
    plain = crontab.ALIASES.get(expression.strip().lower(), expression)
    options = Options()
    options.use_24hour_time_format = True
    options.locale_code = LOCALES.get((get_language() or "en").split("-")[0], "en_US")
    try:
        return str(ExpressionDescriptor(plain[:LONGEST].upper(), options).get_description())
    except (FormatException, MissingFieldException, WrongArgumentException, ValueError, IndexError):
        return expression


def preview(
    expression: str, timezone: str, mine: zoneinfo.ZoneInfo, now: datetime, n: int = 10
) -> Preview:
    """The next *n* runs after *now*, or why there are none. The scheduler's own code computes."""
    try:
        found = crontab.parse(expression[: LONGEST + 1], timezone).occurrences(n, now)
    except InvalidCrontab as error:
        return Preview(problem=error.problem, fields=_fields(expression, error.column))
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return Preview(problem=_("%(name)s is not a time zone.") % {"name": timezone[:64]})
    return Preview(
        describe(expression),
        tuple(Run(run.local, run.utc.astimezone(mine), _note(run.note)) for run in found),
    )


def said(moment: datetime) -> str:
    """Weekday first; a template's filter would move the time into the viewer's zone."""
    return date_format(moment, "D j M Y H:i")


def said_with_year_apart(moment: datetime) -> SafeString:
    """The same as `said`; where the year goes without saying it can be hidden."""
    day, year, time = (date_format(moment, part) for part in ("D j M", "Y", "H:i"))
    return format_html('{} <span class="cq-year">{} </span>{}', day, year, time)


def _fields(expression: str, column: int | None) -> tuple[tuple[str, bool], ...]:
    words: Sequence[str] = expression[:LONGEST].split()[:8]
    return tuple((word, index == column) for index, word in enumerate(words))


def _note(note: str) -> str:
    notes = {
        "gap": _("clock goes forward: at the end of the gap"),
        "once": _("clock goes back: once"),
        "repeat": _("clock goes back: a second time"),
        "skipped": _("clock goes forward: times left out"),
    }
    return notes.get(note, "")
