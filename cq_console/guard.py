"""Who may see a page of the console, and in which headers does it go out?"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any
from urllib.parse import urlencode, urlsplit

from django.contrib import admin
from django.contrib.auth import REDIRECT_FIELD_NAME
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.urls import reverse
from django.utils import timezone
from django.utils.cache import add_never_cache_headers, patch_vary_headers
from django.views.decorators.csrf import csrf_protect

from . import csp, zone

View = Callable[..., HttpResponseBase]


def is_fragment(request: HttpRequest) -> bool:
    """Did htmx ask? A restored history entry is a page."""
    headers = request.headers
    return headers.get("HX-Request") == "true" and "HX-History-Restore-Request" not in headers


def guarded(admin_site: admin.AdminSite, view: View, permission: str) -> View:
    """*view* for staff with *permission*, in the viewer's zone, with the console's headers.

    Without a session a page leads to the login, and a fragment answers 401 with HX-Redirect: a
    redirect would put the login form inside the page.
    """

    @wraps(view)
    def inner(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if not admin_site.has_permission(request):
            if is_fragment(request):
                return _login_by_htmx(admin_site, request)
            return as_page(request, *args, **kwargs)
        if not request.user.has_perm(permission):
            raise PermissionDenied
        with timezone.override(zone.of(request)):
            response = view(request, *args, **kwargs)
            # Rendered now: a template that is rendered later would have left the viewer's zone.
            render = getattr(response, "render", None)
            if render is not None:
                response = render()
        add_never_cache_headers(response)
        patch_vary_headers(response, ["HX-Request", "Cookie"])
        return csp.protect(request, response)

    # admin_view adds the redirect to the login; csrf_protect for hosts without the middleware.
    as_page = admin_site.admin_view(view)
    return csrf_protect(inner)


def _login_by_htmx(admin_site: admin.AdminSite, request: HttpRequest) -> HttpResponse:
    shown = urlsplit(request.headers.get("HX-Current-URL", ""))
    back = shown.path + (f"?{shown.query}" if shown.query else "")
    login = reverse("admin:login", current_app=admin_site.name)
    target = f"{login}?{urlencode({REDIRECT_FIELD_NAME: back})}" if back else login
    return HttpResponse(status=401, headers={"HX-Redirect": target})
