"""What happens when an operator runs, skips, pauses or resumes a repeating task?"""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.core.serializers.json import DjangoJSONEncoder
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.middleware.csrf import get_token
from django.urls import reverse
from django.utils.html import format_html
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from cq import operations
from cq.exceptions import CQError
from cq.models import RepeatingTask

from .. import arguments, hostile
from ..views import page as pages
from . import columns, preview
from .form import masked_args, unmasked

REASON_LENGTH = 255


class RunForm(forms.Form):
    """Other arguments for one run."""

    args = forms.JSONField(
        label=gettext_lazy("Arguments"),
        required=False,
        encoder=DjangoJSONEncoder,
        widget=forms.Textarea(attrs={"rows": 3, "class": "cq-json", "spellcheck": "false"}),
    )
    kwargs = forms.JSONField(
        label=gettext_lazy("Keyword arguments"),
        required=False,
        encoder=DjangoJSONEncoder,
        widget=forms.Textarea(attrs={"rows": 3, "class": "cq-json", "spellcheck": "false"}),
    )
    reason = forms.CharField(
        label=gettext_lazy("Why (kept with the act)"), required=False, max_length=REASON_LENGTH
    )

    def clean_args(self) -> list[Any]:
        value = self.cleaned_data["args"]
        if value not in (None, "") and not isinstance(value, list):
            raise forms.ValidationError(_('Write a list of values: [1, "two"].'))
        return value or []

    def clean_kwargs(self) -> dict[str, Any]:
        value = self.cleaned_data["kwargs"]
        if value not in (None, "") and not isinstance(value, dict):
            raise forms.ValidationError(_('Write names and values: {"name": "value"}.'))
        return value or {}


def run(model_admin: Any, request: HttpRequest, pk: int) -> HttpResponse:
    """Run it now, beside its schedule."""
    entry = _entry(model_admin, request, pk, model_admin.has_run_permission(request))
    run_one(model_admin, request, entry)
    return _back(request, entry)


def run_with(model_admin: Any, request: HttpRequest, pk: int) -> HttpResponse:
    """GET asks for the arguments of one run, and writes nothing; POST runs it."""
    if not model_admin.has_run_permission(request):
        raise PermissionDenied
    entry = _found(model_admin, request, pk)
    shown = {
        "args": masked_args(entry),
        "kwargs": arguments.masked(entry.kwargs if isinstance(entry.kwargs, dict) else {}),
    }
    form = RunForm(request.POST if request.method == "POST" else None, initial=shown)
    if request.method == "POST" and form.is_valid():
        values = form.cleaned_data
        args = unmasked(values["args"], entry.args)
        kwargs = unmasked(values["kwargs"], entry.kwargs)
        if run_one(model_admin, request, entry, args, kwargs, values["reason"]):
            response = HttpResponseRedirect(_url("change", entry))
            response.status_code = 303
            return response
    title = _("Run once with other arguments")
    context = pages.context(
        model_admin,
        request,
        "repeating",
        title=title,
        entry=entry,
        label=hostile.one_line(str(entry), 120),
        form=form,
        signature=preview.live_signature(entry.func_name, fixed=True),
        back=_url("change", entry),
        csrf_token=get_token(request),
    )
    return pages.page(request, "repeating/run.html", context)


def skip(model_admin: Any, request: HttpRequest, pk: int) -> HttpResponse:
    """Let the next tick pass."""
    entry = _entry(model_admin, request, pk, model_admin.has_change_permission(request))
    before = entry.next_run
    shown = request.POST.get("shown", "")
    if before is None or (shown and shown != before.isoformat()):
        messages.warning(request, _("Nothing was skipped: the next run has changed meanwhile."))
        return _back(request, entry)
    exact = columns.in_both_zones(entry)
    operations.skip_next(entry, by=request.user, reason=_reason(request), way="console")
    said = _("The run of %(at)s will be skipped.") % {"at": exact}
    model_admin.log_change(request, entry, said)
    messages.success(request, said)
    return _back(request, entry)


def switch(model_admin: Any, request: HttpRequest, pk: int) -> HttpResponse:
    """Pause it with a reason, or let it go on."""
    entry = _entry(model_admin, request, pk, model_admin.has_change_permission(request))
    is_on = request.POST.get("to") == "on"
    if switch_one(model_admin, request, entry, is_on=is_on, reason=_reason(request)):
        said = _("%(entry)s is enabled.") if is_on else _("%(entry)s is paused.")
        messages.success(request, said % {"entry": hostile.one_line(str(entry), 120)})
    return _back(request, entry)


def run_one(
    model_admin: Any,
    request: HttpRequest,
    entry: RepeatingTask,
    args: list[Any] | None = None,
    kwargs: dict[str, Any] | None = None,
    reason: str = "",
    *,
    says_so: bool = True,
) -> bool:
    """Run *entry* once, with its audit entries; False when it cannot run."""
    label = hostile.one_line(str(entry), 120)
    try:
        affected = operations.run_now(
            entry, args, kwargs, by=request.user, reason=reason, way="console"
        )
    except CQError as error:
        messages.error(request, f"{label}: {hostile.one_line(str(error), 500)}")
        return False
    if args is None:
        model_admin.log_change(request, entry, _("Run now."))
    else:
        brief = arguments.brief(arguments.bound(affected.made[0]))
        model_admin.log_change(
            request, entry, _("Run once with other arguments: %(brief)s") % {"brief": brief}
        )
    if says_so:
        url = reverse("admin:cq_task_change", args=[affected.made[0].pk])
        messages.success(
            request,
            format_html('{} <a href="{}">{}</a>', _("%s was queued.") % label, url, _("Open it")),
        )
    return True


def switch_one(
    model_admin: Any, request: HttpRequest, entry: RepeatingTask, *, is_on: bool, reason: str = ""
) -> bool:
    """Enable or pause *entry*, with its audit entries; False when it is so already."""
    if entry.enabled == is_on:
        return False
    act = operations.resume_repeating if is_on else operations.pause_repeating
    try:
        act(entry, reason=reason, by=request.user, way="console")
    except CQError as error:
        messages.error(request, f"{hostile.one_line(str(entry), 120)}: {error}")
        return False
    said = _("Enabled.") if is_on else _("Disabled.")
    model_admin.log_change(request, entry, f"{said} {reason}".strip())
    return True


def _entry(model_admin: Any, request: HttpRequest, pk: int, is_allowed: bool) -> RepeatingTask:
    if not is_allowed:
        raise PermissionDenied
    if request.method != "POST":
        raise Http404
    return _found(model_admin, request, pk)


def _found(model_admin: Any, request: HttpRequest, pk: int) -> RepeatingTask:
    entry: RepeatingTask | None = model_admin.get_queryset(request).filter(pk=pk).first()
    if entry is None:
        raise Http404
    return entry


def _reason(request: HttpRequest) -> str:
    return hostile.one_line(request.POST.get("reason", ""), REASON_LENGTH)[:REASON_LENGTH]


def _back(request: HttpRequest, entry: RepeatingTask) -> HttpResponse:
    """Back to where the button was: the list as it was filtered, or the entry."""
    came_from = request.headers.get("referer", "")
    allowed = url_has_allowed_host_and_scheme(
        came_from, {request.get_host()}, require_https=request.is_secure()
    )
    target = came_from if allowed else reverse("admin:cq_repeatingtask_changelist")
    response = HttpResponseRedirect(target)
    response.status_code = 303
    return response


def _url(name: str, entry: RepeatingTask) -> str:
    return reverse(f"admin:cq_repeatingtask_{name}", args=[entry.pk])
