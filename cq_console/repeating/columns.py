"""What does a row of the list say about a repeating task?"""

from __future__ import annotations

import zoneinfo
from datetime import UTC, tzinfo
from typing import Any

from django.contrib import admin
from django.urls import reverse
from django.utils import formats, timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from cq.models import RepeatingRun, RepeatingTask
from cq.models.repeating import is_timezone
from cq.states import Status

from .. import arguments, durations, hostile, words
from .queries import FAILING, STRIP

Outcome = RepeatingRun.Outcome

_LETTERS = {
    Outcome.QUEUED: "Q",
    Outcome.SKIPPED: "E",
    Outcome.SUCCEEDED: "S",
    Outcome.FAILED: "F",
    Outcome.CANCELLED: "E",
    Outcome.REFUSED: "F",
    Outcome.GONE: "P",
}
_PITCH, _BAR, _TALL, _LOW = 6, 4, 16, 8


@admin.display(description=gettext_lazy("repeating task"), ordering="name")
def entry(row: RepeatingTask) -> SafeString:
    name = arguments.name_of(row.func_name)
    shown = hostile.one_line(row.name)
    if not shown:
        return format_html('<span title="{}">{}</span>', name.full, name.short)
    return format_html(
        '{} <span class="cq-quiet cq-second" title="{}">{}</span>', shown, name.full, name.short
    )


@admin.display(description=gettext_lazy("when"), ordering="crontab")
def says(row: RepeatingTask) -> SafeString:
    return format_html(
        '<span title="{}">{}</span> <span class="cq-quiet cq-second">{}</span>',
        row.crontab,
        words.describe(row.crontab),
        row.timezone,
    )


@admin.display(description=gettext_lazy("next run"), ordering="next_run")
def runs_next(row: RepeatingTask) -> SafeString | str:
    said = when_next(row)
    if row.error or row.next_run is None:
        return said
    exact = words.said(row.next_run.astimezone(_zone(row)))
    return format_html('{} <span class="cq-quiet cq-second">{}</span>', said, exact)


def when_next(row: RepeatingTask) -> SafeString | str:
    """How far its next run is, or why there is none."""
    if row.error:
        return format_html(
            '<span class="cq-status" data-status="F">{}</span> {}',
            _("cannot run:"),
            hostile.one_line(row.error, 200),
        )
    if not row.enabled:
        why = hostile.one_line(row.pause_reason, 80)
        said = _("paused: %(why)s") % {"why": why} if why else _("paused")
        return format_html('<span class="cq-quiet">{}</span>', said)
    if row.next_run is None:
        return "—"
    ahead = row.next_run - timezone.now()
    said = _("in %(span)s") % {"span": durations.roughly(ahead)}
    return format_html(
        '<time datetime="{}" title="{}" tabindex="0">{}</time>',
        row.next_run.isoformat(timespec="seconds"),
        in_both_zones(row),
        said if ahead.total_seconds() > 0 else _("now"),
    )


@admin.display(description=gettext_lazy("last run"), ordering="last_run")
def ran_last(row: Any) -> SafeString | str:
    if not row.last_runs:
        return "—"
    run = row.last_runs[0]
    letter, said = outcome(run)
    took = durations.between(run.started, run.finished)
    return format_html(
        '<span class="cq-status" data-status="{}">{}</span>{} '
        '<time class="cq-quiet cq-second" datetime="{}" '
        'title="{}">{}</time>',
        letter,
        said,
        f" {_('in %(span)s') % {'span': durations.said(took)}}" if took is not None else "",
        run.created.isoformat(timespec="seconds"),
        formats.date_format(timezone.localtime(run.created), "Y-m-d H:i:s T"),
        _("%(span)s ago") % {"span": durations.roughly(timezone.now() - run.created)},
    )


@admin.display(description=gettext_lazy("last 20"))
def outcomes(row: Any) -> SafeString:
    """Bars, oldest first: what failed is tall and coloured, what was skipped is a line."""
    failed = sum(1 for run in row.last_runs if run.outcome in FAILING)
    label = ngettext("%(n)s of %(all)s failed", "%(n)s of %(all)s failed", failed) % {
        "n": failed,
        "all": len(row.last_runs),
    }
    bars = format_html_join(
        "",
        '<rect class="cq-outcome" data-status="{}" x="{}" y="{}" width="{}" height="{}">'
        "<title>{}</title></rect>",
        (
            (
                outcome(run)[0],
                (STRIP - len(row.last_runs) + index) * _PITCH,
                _TALL - _height(run),
                _BAR,
                _height(run),
                f"{timezone.localtime(run.created):%Y-%m-%d %H:%M} {outcome(run)[1]}",
            )
            for index, run in enumerate(reversed(row.last_runs))
        ),
    )
    return format_html(
        '<svg class="cq-outcomes" width="{}" height="{}" viewBox="0 0 {} {}" role="img" '
        'aria-label="{}">{}</svg>',
        STRIP * _PITCH,
        _TALL,
        STRIP * _PITCH,
        _TALL,
        label,
        bars,
    )


@admin.display(description=gettext_lazy("enabled"), ordering="enabled")
def switch(row: RepeatingTask) -> SafeString:
    return format_html(
        '<button class="cq-switch" role="switch" aria-checked="{}" aria-label="{}" name="to" '
        'value="{}" formaction="{}" formnovalidate><span></span></button>',
        "true" if row.enabled else "false",
        _("%(entry)s is enabled") % {"entry": hostile.one_line(str(row), 100)},
        "off" if row.enabled else "on",
        reverse("admin:cq_repeatingtask_switch", args=[row.pk]),
    )


@admin.display(description=gettext_lazy("enabled"), ordering="enabled")
def is_on(row: RepeatingTask) -> str:
    return _("yes") if row.enabled else _("no")


@admin.display(description=gettext_lazy("run"))
def run_button(row: RepeatingTask) -> SafeString:
    return format_html(
        '<button class="cq-button cq-small" formaction="{}" aria-label="{}" formnovalidate>{}'
        "</button>",
        reverse("admin:cq_repeatingtask_run", args=[row.pk]),
        _("Run %(entry)s now") % {"entry": hostile.one_line(str(row), 100)},
        _("Run now"),
    )


def outcome(run: Any) -> tuple[str, str]:
    """The status letter that gives a run its colour, and its word."""
    status = getattr(run, "task_status", None)
    if run.outcome == Outcome.QUEUED and status:
        # The history learns of an end at the next tick; the task knows already.
        return str(status), str(Status(status).label)
    return _LETTERS[Outcome(run.outcome)], str(run.get_outcome_display())


def in_both_zones(row: RepeatingTask) -> str:
    """The exact time by the clock of the entry and by that of the viewer."""
    if row.next_run is None:
        return ""
    mine = timezone.localtime(row.next_run)
    said = f"{words.said(mine)} {timezone.get_current_timezone_name()}"
    zone = _zone(row)
    if zone is UTC and row.timezone != "UTC":
        return said
    return f"{words.said(row.next_run.astimezone(zone))} {row.timezone} · {said}"


def _zone(row: RepeatingTask) -> tzinfo:
    """The zone of the entry; UTC when there is none of that name."""
    return zoneinfo.ZoneInfo(row.timezone) if is_timezone(row.timezone) else UTC


def _height(run: Any) -> int:
    if run.outcome in FAILING:
        return _TALL
    return 2 if run.outcome == Outcome.SKIPPED else _LOW
