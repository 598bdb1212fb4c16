"""Which words may the console's templates use?"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django import template
from django.contrib import admin
from django.template.base import NodeList, Parser, Token
from django.template.context import Context
from django.utils import formats, timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe

from cq.models import Task

from .. import csp, durations, hostile, zone
from ..live import Part
from ..views import overview, page, queues

register = template.Library()


@register.tag("secured")
def secured(parser: Parser, token: Token) -> template.Node:
    """Make the theme's markup between this and ``{% endsecured %}`` fit for the page's policy."""
    nodes = parser.parse(("endsecured",))
    parser.delete_first_token()
    return SecuredNode(nodes)


class SecuredNode(template.Node):
    def __init__(self, nodes: NodeList) -> None:
        self.nodes = nodes

    def render(self, context: Context) -> SafeString:
        html = self.nodes.render(context)
        nonce = csp.nonce(context["request"])
        return mark_safe(csp.secured(html, nonce))  # noqa: S308 - as escaped as it was before


@register.simple_tag(takes_context=True)
def policy_nonce(context: Context) -> str:
    """The nonce of this response."""
    return csp.nonce(context["request"])


@register.simple_tag(takes_context=True)
def page_policy(context: Context) -> str:
    """The policy for a page that cannot send a header."""
    return csp.policy(csp.nonce(context["request"]), as_meta=True)


@register.simple_tag(takes_context=True)
def console_strip(context: Context) -> list[dict[str, Any]]:
    """The pages of the console that this user may see."""
    return page.strip(context["request"], str(context.get("current") or "overview"))


@register.simple_tag(takes_context=True)
def overview_parts(context: Context) -> Mapping[str, Part]:
    """The parts of the overview, for the page that the admin itself serves."""
    request = context["request"]
    if not request.user.has_perm("cq.view_task"):
        return {}
    tasks = admin.site.get_model_admin(Task).get_queryset(request)
    with timezone.override(zone.of(request)):
        return {part.key: part for part in overview.parts(request, tasks)}


@register.simple_tag(takes_context=True)
def overview_spans(context: Context) -> list[dict[str, Any]]:
    """The spans of time that the numbers of the overview may cover."""
    return queues.windows(context["request"])


@register.simple_tag
def glyph(name: str, size: int = 16) -> SafeString:
    """The shape of a status, in the colour of the text around it."""
    return format_html(
        '<svg class="cq-glyph" data-glyph="{}" width="{}" height="{}" aria-hidden="true">'
        '<use href="#cq-{}"/></svg>',
        name,
        size,
        size,
        name,
    )


@register.filter
def visible(text: Any) -> str:
    return hostile.visible(str(text), hostile.BLOCK)


@register.filter
def one_line(text: Any) -> str:
    return hostile.one_line(str(text))


@register.filter
def span(value: Any) -> str:
    """A duration: ``4 m 12 s``."""
    return "" if value is None else durations.said(value)


@register.filter
def moment(value: datetime | None) -> SafeString | str:
    """The time of day, with the date unless that is today; exact on hover."""
    if value is None:
        return ""
    local = timezone.localtime(value)
    is_today = local.date() == timezone.localdate()
    pattern = "H:i:s" if is_today else "j M H:i"
    return format_html(
        '<time datetime="{}" title="{}">{}</time>',
        value.isoformat(timespec="milliseconds"),
        formats.date_format(local, "Y-m-d H:i:s T"),
        formats.date_format(local, pattern),
    )


@register.filter
def clock(value: datetime) -> SafeString:
    """The time of day to the millisecond, for log lines; the date on hover."""
    local = timezone.localtime(value)
    return format_html(
        '<time datetime="{}" title="{}"><span class="cq-clock">{}</span>{}</time>',
        value.isoformat(timespec="milliseconds"),
        formats.date_format(local, "Y-m-d H:i:s T"),
        f"{local:%H:%M:}",
        f"{local:%S}.{local.microsecond // 1000:03d}",
    )


@register.filter
def part(parts: Mapping[str, Part], key: str) -> SafeString:
    """The content of a live part."""
    return parts[key].html


@register.filter
def part_v(parts: Mapping[str, Part], key: str) -> str:
    """The fingerprint of a live part."""
    return parts[key].v


@register.filter
def number(value: int) -> str:
    """``10,000``."""
    return f"{value:,}"


@register.filter
def percent(value: float) -> str:
    """A place on an axis, whatever the language writes for a decimal point: ``12.5%``."""
    return f"{value:g}%"


@register.filter
def capped(value: int, limit: int = 10_000) -> str:
    """``10,000+`` for a count that stopped behind its limit."""
    return f"{limit:,}+" if value > limit else f"{value:,}"


@register.filter
def short_id(value: Any) -> str:
    return f"…{str(value)[-8:]}"
