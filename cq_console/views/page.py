"""What does every page of the console share?"""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.template.loader import render_to_string
from django.template.response import TemplateResponse
from django.urls import NoReverseMatch, reverse
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from .. import csp
from ..live import Part

# Pages that do not exist (yet) are left out of the strip.
_STRIP: tuple[tuple[str, Any, str, dict[str, str], str | None], ...] = (
    ("overview", _("Overview"), "admin:app_list", {"app_label": "cq"}, None),
    ("tasks", _("Tasks"), "admin:cq_task_changelist", {}, "cq.view_task"),
    ("failures", _("Failures"), "admin:cq_task_failures", {}, "cq.view_task"),
    (
        "repeating",
        _("Repeating"),
        "admin:cq_repeatingtask_changelist",
        {},
        "cq.view_repeatingtask",
    ),
    ("workers", _("Workers"), "admin:cq_worker_changelist", {}, "cq.view_worker"),
    ("queues", _("Queues"), "admin:cq_queue_changelist", {}, "cq.view_queue"),
)


def context(
    model_admin: admin.ModelAdmin[Any], request: HttpRequest, current: str, **extra: Any
) -> dict[str, Any]:
    """The context of a full page; *current* is its entry in the strip."""
    site = model_admin.admin_site
    return {
        **site.each_context(request),
        "opts": model_admin.opts,
        "csp_nonce": csp.nonce(request),
        "is_nav_sidebar_enabled": False,
        "current": current,
        **extra,
    }


def strip(request: HttpRequest, current: str) -> list[dict[str, Any]]:
    """The pages that this user may see: label, address, and whether it is the current one."""
    entries = []
    for name, label, view, kwargs, permission in _STRIP:
        if permission and not request.user.has_perm(permission):
            continue
        try:
            url = reverse(view, kwargs=kwargs)
        except NoReverseMatch:
            continue
        entries.append({"label": label, "url": url, "is_current": name == current})
    return entries


def page(request: HttpRequest, template: str, context: dict[str, Any]) -> TemplateResponse:
    return TemplateResponse(request, f"cq_console/{template}", context)


def part(request: HttpRequest, key: str, template: str, context: dict[str, Any]) -> Part:
    """A live part, rendered by the template that the full page uses as well."""
    return Part(key, fragment(request, template, context))


def fragment(request: HttpRequest, template: str, context: dict[str, Any]) -> SafeString:
    """A template without request context: the same bytes for the page and for the refresh."""
    return SafeString(render_to_string(f"cq_console/{template}", context).strip())
