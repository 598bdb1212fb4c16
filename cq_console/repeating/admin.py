"""How are repeating tasks listed and edited in the admin?"""

from __future__ import annotations

import zoneinfo
from functools import partial
from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import URLPattern, URLResolver, path, reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from cq import conf
from cq.models import RepeatingTask

from .. import arguments, csp, durations, guard, hostile, store, words, zone
from ..views import page as pages
from . import columns, filters, load, preview, queries, verbs
from .form import RepeatingTaskForm, masked_args

if TYPE_CHECKING:
    RepeatingBase = admin.ModelAdmin[RepeatingTask]
else:
    RepeatingBase = admin.ModelAdmin


@admin.register(RepeatingTask)
class RepeatingTaskAdmin(RepeatingBase):
    """The stock list and form, with a preview, verbs, and a history behind them."""

    form = RepeatingTaskForm
    list_display = (
        columns.entry,
        columns.says,
        columns.runs_next,
        columns.ran_last,
        columns.outcomes,
        columns.switch,
        columns.run_button,
    )
    list_display_links = (columns.entry,)
    list_filter = (
        filters.FunctionFilter,
        ("enabled", filters.EnabledFilter),
        filters.FailingFilter,
    )
    search_fields = ("name", "func_name")
    ordering = ("name", "func_name", "id")
    list_per_page = 50
    show_full_result_count = False
    actions = ("run_selected", "enable_selected", "disable_selected")
    readonly_fields = ("signature", "shown_arguments")
    # The preview stands behind the second of them.
    fieldsets = (
        (None, {"fields": ("name", "func_name", "signature", "args", "kwargs")}),
        (gettext_lazy("When"), {"fields": ("crontab", "timezone")}),
        (gettext_lazy("Downtime and overlap"), {"fields": ("missed", "coalesce", "overlap")}),
        (gettext_lazy("Where"), {"fields": ("queue", "priority", "result_ttl")}),
        (gettext_lazy("Pause"), {"fields": ("enabled", "pause_reason")}),
    )

    def get_urls(self) -> list[URLPattern | URLResolver]:  # type: ignore[override]
        def at(route: str, view: Any, name: str) -> URLPattern:
            guarded = guard.guarded(self.admin_site, view, "cq.view_repeatingtask")
            return path(route, guarded, name=f"cq_repeatingtask_{name}")

        return [
            at("_preview/", self.preview_view, "preview"),
            at("_signature/", self.signature_view, "signature"),
            at("<int:pk>/runs/", self.history_of_runs, "runs"),
            at("<int:pk>/history/", self.activity, "history"),
            at("<int:pk>/run/", partial(verbs.run, self), "run"),
            at("<int:pk>/run-with/", partial(verbs.run_with, self), "run_with"),
            at("<int:pk>/skip/", partial(verbs.skip, self), "skip"),
            at("<int:pk>/switch/", partial(verbs.switch, self), "switch"),
            *super().get_urls(),
        ]

    def get_queryset(self, request: HttpRequest) -> QuerySet[RepeatingTask]:
        return super().get_queryset(request).using(conf.get().database)

    def save_model(self, request: HttpRequest, obj: RepeatingTask, form: Any, change: bool) -> None:
        obj.save(using=conf.get().database)

    # The list

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        found = super().get_changelist_instance(request)
        rows = list(found.result_list)
        runs = queries.last_runs([row.pk for row in rows])
        for row in rows:
            row.last_runs = runs.get(row.pk, [])
        found.result_list = rows
        return found

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        mine = zone.of(request)
        context = {
            **(extra_context or {}),
            "load": load.of_day(load.entries(), timezone.now(), mine, pitch=12),
            "mine": str(mine),
            "title": _("Repeating tasks"),
        }
        return self._in_zone(request, super().changelist_view, context)

    def get_list_display(self, request: HttpRequest) -> Any:
        """Without the buttons that this user may not press."""
        shown: list[Any] = []
        for column in super().get_list_display(request):
            if column is columns.switch and not self.has_change_permission(request):
                shown.append(columns.is_on)
            elif column is not columns.run_button or self.has_run_permission(request):
                shown.append(column)
        return shown

    def has_run_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("cq.run_repeatingtask")

    @admin.action(description=gettext_lazy("Run now"), permissions=["run"])
    def run_selected(self, request: HttpRequest, chosen: QuerySet[RepeatingTask]) -> None:
        done = sum(1 for entry in chosen if verbs.run_one(self, request, entry, says_so=False))
        said = ngettext("%(n)s task was queued.", "%(n)s tasks were queued.", done) % {"n": done}
        messages.success(request, said)

    @admin.action(description=gettext_lazy("Enable"), permissions=["change"])
    def enable_selected(self, request: HttpRequest, chosen: QuerySet[RepeatingTask]) -> None:
        self._switch(request, chosen, is_on=True)

    @admin.action(description=gettext_lazy("Disable"), permissions=["change"])
    def disable_selected(self, request: HttpRequest, chosen: QuerySet[RepeatingTask]) -> None:
        self._switch(request, chosen, is_on=False)

    def _switch(
        self, request: HttpRequest, chosen: QuerySet[RepeatingTask], *, is_on: bool
    ) -> None:
        done = sum(1 for entry in chosen if verbs.switch_one(self, request, entry, is_on=is_on))
        said = ngettext("%(n)s entry was changed.", "%(n)s entries were changed.", done)
        messages.success(request, said % {"n": done})

    # The form

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> Any:
        show = partial(super().changeform_view, request, object_id, form_url)

        def view(_request: HttpRequest, context: dict[str, Any]) -> Any:
            if object_id and object_id.isdecimal():
                entry = self.get_queryset(request).filter(pk=int(object_id)).first()
                if entry is not None:
                    context |= self._about(request, entry, "entry")
            return show(context)

        return self._in_zone(request, view, extra_context)

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        fieldsets = super().get_fieldsets(request, obj)
        if obj is None or self.has_change_permission(request, obj):
            return fieldsets
        # Who may only look sees no form, which would mask the secrets.
        (_none, first), *others = fieldsets
        return [(None, {**first, "fields": ("name", "func_name", "shown_arguments")}), *others]

    @admin.display(description=gettext_lazy("arguments"))
    def shown_arguments(self, row: RepeatingTask) -> SafeString:
        args, kwargs = masked_args(row), arguments.masked(row.kwargs or {})
        return format_html("<code>{} {}</code>", hostile.pretty(args), hostile.pretty(kwargs))

    @admin.display(description=gettext_lazy("takes"))
    def signature(self, row: RepeatingTask) -> SafeString:
        return preview.live_signature(row.func_name)

    def render_change_form(self, request: HttpRequest, context: Any, *args: Any, **kw: Any) -> Any:
        # What was typed, when a preview was asked for or something was refused.
        context["preview"] = self.preview_of(context["adminform"].form.instance)
        return super().render_change_form(request, context, *args, **kw)

    def preview_of(self, row: RepeatingTask) -> SafeString:
        """The next runs of *row*, and what keeps them up with the typing."""
        mine = zoneinfo.ZoneInfo(timezone.get_current_timezone_name())
        stored = store.rows(RepeatingTask).filter(pk=row.pk).first() if row.pk else None
        url = reverse("admin:cq_repeatingtask_preview")
        return format_html(
            '{}<button class="cq-button" id="cq-preview-button" name="_preview" value="1" '
            "formnovalidate>{}</button>",
            preview.live(
                "cq-preview",
                f"{url}?entry={row.pk}" if row.pk else url,
                ("crontab", "timezone"),
                preview.runs(row.crontab, row.timezone, mine, stored),
            ),
            _("Preview"),
        )

    def preview_view(self, request: HttpRequest) -> HttpResponse:
        """What the entry says, while it is typed."""
        number = request.GET.get("entry", "")
        stored = None
        if number.isdecimal() and len(number) < 19:
            stored = self.get_queryset(request).filter(pk=int(number)).first()
        expression, name = request.GET.get("crontab", ""), request.GET.get("timezone", "")
        return HttpResponse(preview.runs(expression, name, zone.of(request), stored))

    def signature_view(self, request: HttpRequest) -> HttpResponse:
        """Whether the arguments fit the function, while they are typed."""
        name = request.GET.get("func_name", "")
        args, kwargs = request.GET.get("args"), request.GET.get("kwargs")
        return HttpResponse(preview.signature(name, args, kwargs))

    # The history

    def history_of_runs(self, request: HttpRequest, pk: int) -> HttpResponse:
        """The runs of one entry, page by page; their tasks may be gone."""
        entry = self.get_queryset(request).filter(pk=pk).first()
        if entry is None:
            raise Http404
        before = request.GET.get("before", "")
        is_number = before.isdecimal() and len(before) < 19
        runs, older = queries.history(entry, int(before) if is_number else None)
        rows = []
        for run in runs:
            letter, said = columns.outcome(run)
            took = durations.between(run.started, run.finished)
            rows.append({"run": run, "status": letter, "said": said, "took": took})
        context = self._about(request, entry, "history") | {"rows": rows, "older": older}
        context["is_first"] = not is_number
        full = pages.context(self, request, "repeating", **context)
        return pages.page(request, "repeating/history.html", full)

    def activity(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Who did what to one entry, newest first; in the place of the admin's own history."""
        entry = self.get_queryset(request).filter(pk=pk).first()
        if entry is None:
            raise Http404
        context = self._about(request, entry, "activity") | {"deeds": queries.activity(entry)}
        full = pages.context(self, request, "repeating", **context)
        return pages.page(request, "repeating/activity.html", full)

    def _about(self, request: HttpRequest, entry: RepeatingTask, tab: str) -> dict[str, Any]:
        """What the pages of one entry share: its name, its next run, and what may be done."""
        may_change = self.has_change_permission(request, entry)
        return {
            "entry": entry,
            "label": hostile.one_line(str(entry), 120),
            "entry_words": words.describe(entry.crontab),
            "exact": columns.in_both_zones(entry),
            "next_run": columns.when_next(entry),
            "shown_tick": entry.next_run.isoformat() if entry.next_run else "",
            "tab": tab,
            "may_run": self.has_run_permission(request),
            "may_skip": may_change and entry.enabled and entry.next_run is not None,
            "may_switch": may_change,
        }

    def _in_zone(
        self, request: HttpRequest, view: Any, extra: dict[str, Any] | None
    ) -> HttpResponse:
        context = {
            **(extra or {}),
            "current": "repeating",
            "csp_nonce": csp.nonce(request),
            "is_nav_sidebar_enabled": False,
        }
        with timezone.override(zone.of(request)):
            response: HttpResponse = view(request, context)
            if hasattr(response, "render"):
                response.render()
        csp.protect(request, response)
        return response
