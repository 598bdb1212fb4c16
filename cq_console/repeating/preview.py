"""What does an entry say while it is typed, and what does the change to it change?"""

from __future__ import annotations

import inspect
import json
import zoneinfo
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.template.loader import render_to_string
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.http import urlencode
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from cq import registry
from cq.exceptions import CQError, TaskNotRegistered
from cq.models import RepeatingTask
from cq.models.repeating import is_timezone

from .. import durations, hostile, words
from . import load

LONGEST_ZONE = 64
LONGEST_JSON = 100_000
# Runs that are so near cannot be taken for each other without their year.
NEAR = timedelta(days=330)


@dataclass(frozen=True, slots=True)
class Row:
    """One of the runs to come, beside what it was before the change."""

    was: str
    local: str
    mine: str
    note: str
    differs: bool
    is_first: bool


def runs(
    expression: str,
    name: str,
    mine: zoneinfo.ZoneInfo,
    stored: RepeatingTask | None = None,
    now: datetime | None = None,
) -> SafeString:
    """The fragment for what is typed; beside *stored*, where its times were others.

    The times come from `cq.crontab`, as those of the scheduler and of ``upcoming()`` do.
    """
    expression, name = expression[: words.LONGEST + 1], name[:LONGEST_ZONE]
    now = now or timezone.now()
    if not expression.strip():
        return _rendered("preview", {"is_empty": True})
    will = words.preview(expression, name, mine, now)
    was = _was(expression, name, mine, stored, now)
    rows = _rows(will, was)
    own = None if will.problem else (expression, name)
    others = [] if will.problem else load.entries()
    if stored is not None and (stored.crontab, stored.timezone) in others:
        others.remove((stored.crontab, stored.timezone))
    context = {
        "preview": will,
        "field": "crontab" if is_timezone(name) else "timezone",
        "next_in": durations.roughly(will.runs[0].local - now) if will.runs else "",
        "is_near": bool(will.runs) and will.runs[-1].local - now < NEAR,
        "rows": rows,
        "has_was": was is not None,
        "is_same": was is not None and not any(row.differs for row in rows),
        "zone": name,
        "was_zone": stored.timezone if stored is not None and stored.timezone != name else "",
        "was_entry": stored.crontab if stored is not None else "",
        "mine": str(mine),
        "is_mine": name == str(mine),
        "load": load.of_day(others, now, mine, own) if own else None,
    }
    return _rendered("preview", context)


def signature(name: str, args: str | None, kwargs: str | None) -> SafeString:
    """The fragment that says what a function takes, and whether these arguments fit."""
    name = name.strip()[:255]
    context: dict[str, Any] = {"problem": "", "signature": "", "doc": "", "field": "args"}
    if name and registry.is_registered(name):
        definition = registry.get(name)
        context["signature"] = f"{name}{definition.parameters.signature}"
        context["doc"] = first_line(definition.func)
    try:
        if name:
            registry.get(name)
        if name and args is not None:
            registry.check_call(name, *_typed(args, kwargs or ""))
    except TaskNotRegistered as error:
        context |= {"problem": hostile.one_line(str(error), 500), "field": "func_name"}
    except _WrongKeywords as error:
        context |= {"problem": hostile.one_line(str(error), 500), "field": "kwargs"}
    except (CQError, TypeError, ValueError, RecursionError) as error:
        context["problem"] = hostile.one_line(str(error), 500)
    return _rendered("signature", context)


def live_signature(name: str, *, fixed: bool = False) -> SafeString:
    """`signature`, kept up with the typing; with *fixed* the function is not typed itself."""
    url = reverse("admin:cq_repeatingtask_signature")
    typed = ("args", "kwargs") if fixed else ("func_name", "args", "kwargs")
    asked = f"{url}?{urlencode({'func_name': name})}" if fixed else url
    return live("cq-signature", asked, typed, signature(name, None, None))


def live(name: str, url: str, typed: Sequence[str], content: SafeString) -> SafeString:
    """*content* that *url* replaces while one of the fields *typed* is written in."""
    return format_html(
        '<div id="{}" class="cq-preview" data-cq-asks="{}" hx-get="{}" hx-sync="this:replace" '
        'hx-include="{}" hx-trigger="{}" aria-live="polite">{}</div>',
        name,
        " ".join(typed),
        url,
        ", ".join(f"#id_{field}" for field in typed),
        ", ".join(f"input from:#id_{field} delay:100ms" for field in typed),
        content,
    )


def _rendered(name: str, context: dict[str, Any]) -> SafeString:
    return SafeString(render_to_string(f"cq_console/repeating/_{name}.html", context).strip())


def first_line(func: Any) -> str:
    """What a function's docstring promises."""
    return (inspect.getdoc(func) or "").partition("\n\n")[0].replace("\n", " ")


class _WrongKeywords(ValueError):
    """What is wrong with the keyword arguments."""


def _typed(args: str, kwargs: str) -> tuple[list[Any], dict[str, Any]]:
    values = _json(args, "[]", _("The arguments are not JSON: %(why)s"))
    if not isinstance(values, list):
        raise TypeError(_('The arguments are a list of values: [1, "two"].'))
    try:
        names = _json(kwargs, "{}", _("The keyword arguments are not JSON: %(why)s"))
    except (ValueError, RecursionError) as error:
        raise _WrongKeywords(str(error)) from None
    if not isinstance(names, dict):
        raise _WrongKeywords(_('The keyword arguments are names and values: {"name": "value"}.'))
    return values, names


def _json(text: str, empty: str, complaint: str) -> Any:
    if len(text) > LONGEST_JSON:
        raise ValueError(complaint % {"why": _("too long to be checked here")})
    try:
        return json.loads(text.strip() or empty)
    except json.JSONDecodeError as error:
        where = _("%(problem)s at line %(line)s, column %(column)s.") % {
            "problem": error.msg,
            "line": error.lineno,
            "column": error.colno,
        }
        raise ValueError(complaint % {"why": where}) from None


def _was(
    expression: str,
    name: str,
    mine: zoneinfo.ZoneInfo,
    stored: RepeatingTask | None,
    now: datetime,
) -> words.Preview | None:
    if stored is None or (stored.crontab, stored.timezone) == (expression.strip(), name):
        return None
    was = words.preview(stored.crontab, stored.timezone, mine, now)
    return None if was.problem else was


def _rows(will: words.Preview, was: words.Preview | None) -> list[Row]:
    rows: list[Row] = []
    for index, run in enumerate(will.runs):
        before = was.runs[index] if was and index < len(was.runs) else None
        differs = before is not None and before.local != run.local
        rows.append(
            Row(
                was=before.local_said if before else "",
                local=run.local_said,
                mine=run.mine_said,
                note=run.note,
                differs=differs,
                is_first=differs and not any(row.differs for row in rows),
            )
        )
    return rows
