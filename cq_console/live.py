"""What does a page send when somebody asks what has changed?

A page is made of parts. Each part is rendered once, by one template, for the full page and for the
refresh alike; the browser sends the fingerprints of the parts that it shows, and gets back only
those that differ, as out-of-band swaps of their content.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from django.http import HttpResponse
from django.template import Context, Engine, Template
from django.utils.html import escape, format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe

FINGERPRINT_LENGTH = 6


@dataclass(frozen=True, slots=True)
class Part:
    """One live region of a page: the element's id, and what is inside it.

    *said* stands for the content where that holds what differs each time, such as a form's token.
    """

    key: str
    html: SafeString
    said: str = ""

    @property
    def v(self) -> str:
        return fingerprint(self.said or self.html)

    def as_swap(self) -> SafeString:
        return format_html(
            '<div id="{}" data-v="{}" hx-swap-oob="innerHTML">{}</div>', self.key, self.v, self.html
        )


@dataclass(frozen=True, slots=True)
class LiveRow:
    """A row whose cells are live; *state* is mirrored onto the row element's data attributes."""

    key: str
    cells: Mapping[str, SafeString]
    state: Mapping[str, str] = field(default_factory=dict)

    @property
    def v(self) -> str:
        return fingerprint("".join(self.cells.values()) + repr(sorted(self.state.items())))

    def as_swap(self) -> SafeString:
        """The cells as swaps; the first one carries the row's new state and fingerprint."""
        state = {"v": self.v, **self.state}
        carried = format_html_join("", ' data-row-{}="{}"', state.items())
        parts: list[SafeString] = []
        for name, html in self.cells.items():
            attributes = carried if not parts else ""
            # Only the content is swapped in: a <div> here may meet a <td> there.
            parts.append(
                format_html(
                    '<div id="{}-{}"{} hx-swap-oob="innerHTML">{}</div>',
                    name,
                    self.key,
                    attributes,
                    html,
                )
            )
        return mark_safe("".join(parts))  # noqa: S308 - joined from escaped parts


def render_cell(template: str, context: Mapping[str, Any]) -> SafeString:
    """A cell: by the bare template, since a page has hundreds of them."""
    return SafeString(_cell(template).render(Context(dict(context))).strip())


@cache
def _cell(template: str) -> Template:
    return Engine.get_default().get_template(f"cq_console/{template}")


def fingerprint(html: str) -> str:
    return hashlib.blake2s(html.encode(errors="surrogatepass")).hexdigest()[:FINGERPRINT_LENGTH]


def known_parts(text: str) -> dict[str, str]:
    """Key → fingerprint, from ``head:1a2b3c facts:4d5e6f``."""
    pairs = (item.partition(":") for item in text.split())
    return {key: v for key, _colon, v in pairs}


def changed(parts: Iterable[Part], known: Mapping[str, str]) -> list[SafeString]:
    """The swaps of those parts that differ from what the browser has; unknown ones are not its."""
    return [part.as_swap() for part in parts if part.key in known and known[part.key] != part.v]


def answer(swaps: Iterable[str]) -> HttpResponse:
    """The swaps, or 204: a 304 would make htmx empty its target."""
    body = "".join(swaps)
    return HttpResponse(body) if body else HttpResponse(status=204)


def append(target: str, html: str) -> SafeString:
    """A swap that puts *html* at the end of the element *target*."""
    return mark_safe(  # noqa: S308 - html comes from a template
        f'<div hx-swap-oob="beforeend:#{escape(target)}">{html}</div>'
    )
