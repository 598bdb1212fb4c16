"""How does a page learn what an operator's act did?"""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.middleware.csrf import get_token
from django.utils.html import format_html

from .. import guard, hostile
from . import page as pages

REASON_LENGTH = 500


def answer(request: HttpRequest, said: str, back: str) -> HttpResponse:
    """Say *said*: in place where htmx asked, on the page *back* without scripts."""
    if guard.is_fragment(request):
        html = format_html('<p id="cq-said" hx-swap-oob="innerHTML">{}</p>', said)
        return HttpResponse(html, headers={"HX-Trigger": "cq:done"})
    messages.success(request, said)
    response = HttpResponseRedirect(back)
    response.status_code = 303
    return response


def ask(model_admin: Any, request: HttpRequest, current: str, **question: str) -> HttpResponse:
    """Ask why, before something is held back: in the page's dialog, or on a page of its own.

    *question* is its title, meaning, action, style, the way back, and the name of what it is about.
    """
    context = {**question, "csrf_token": get_token(request)}
    if guard.is_fragment(request):
        return HttpResponse(pages.fragment(request, "_ask.html", context))
    return pages.page(request, "ask.html", pages.context(model_admin, request, current, **context))


def reason(request: HttpRequest) -> str:
    """Why somebody does it."""
    return hostile.one_line(request.POST.get("reason", ""), REASON_LENGTH)
