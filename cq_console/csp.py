"""What may a console page load and run, and which nonce do its inline parts carry?"""

from __future__ import annotations

import re
import secrets

from django.http import HttpRequest
from django.http.response import HttpResponseBase

HEADER = "Content-Security-Policy"
_ATTRIBUTE = "_cq_console_nonce"

_INLINE_OPENING = re.compile(r"<(style|script)\b(?![^>]*\snonce=)", re.IGNORECASE)
_HIDDEN_LOGO = re.compile(r"""\sstyle=(["'])display:\s*none;?\1""", re.IGNORECASE)
_VIEWPORT = re.compile(
    r"""(<meta\s+name=["']viewport["']\s+content=)(["'])[^"']*\2""", re.IGNORECASE
)
_LOOSE_VIEWPORT = r"\1\2width=device-width, initial-scale=1.0\2"


def nonce(request: HttpRequest) -> str:
    """The nonce of this response; the host's own when it has made one."""
    known = getattr(request, _ATTRIBUTE, None)
    if known is None:
        # Django 6 keeps its lazy nonce as _csp_nonce, django-csp as csp_nonce.
        theirs = getattr(request, "_csp_nonce", None) or getattr(request, "csp_nonce", None)
        if theirs is None and hasattr(request, "_csp_nonce"):
            theirs = request._csp_nonce
        known = str(theirs) if theirs is not None else secrets.token_urlsafe(16)
        setattr(request, _ATTRIBUTE, known)
    return known


def policy(value: str, *, as_meta: bool = False) -> str:
    """The policy of a page whose nonce is *value*; a <meta> knows no frame-ancestors."""
    directives = [
        "default-src 'none'",
        f"script-src 'self' 'nonce-{value}'",
        f"style-src 'self' 'nonce-{value}'",
        "img-src 'self' data:",
        "font-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "frame-src 'self'",
        "base-uri 'none'",
    ]
    if not as_meta:
        directives.append("frame-ancestors 'self'")
    return "; ".join(directives)


def protect(request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
    """Send the console's policy with *response*; a middleware leaves a header that is set."""
    response.headers[HEADER] = policy(nonce(request))
    return response


def secured(html: str, value: str) -> str:
    """*html* of the host's theme, made fit for the policy and for phones.

    Inline styles and scripts get the nonce; the logo's style attribute becomes ``hidden``, and it
    gets an empty text alternative; a viewport that forbids zooming allows it again.
    """
    html = _INLINE_OPENING.sub(lambda tag: f'<{tag[1]} nonce="{value}"', html)
    html = _HIDDEN_LOGO.sub(' hidden alt=""', html)
    return _VIEWPORT.sub(_LOOSE_VIEWPORT, html)
