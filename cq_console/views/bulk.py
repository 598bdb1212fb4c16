"""What happens when an operator wants something done to everything that matches a search?"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.middleware.csrf import get_token
from django.urls import reverse
from django.utils.translation import gettext as _

from .. import bulk, guard, hostile, search, verbs
from ..tasks import on_all_that_match
from . import address
from . import page as pages

REASON_LENGTH = 500


def on_all(model_admin: Any, request: HttpRequest, verb: str) -> HttpResponse:
    """GET previews, and writes nothing; POST leaves what was previewed to the workers."""
    chosen = bulk.VERBS.get(verb)
    if chosen is None:
        raise Http404
    if not request.user.has_perm(chosen.permission):
        raise PermissionDenied
    if request.method == "POST":
        return _start(model_admin, request, chosen)
    return _ask(model_admin, request, chosen, search.clean(request.GET.get("q", "")))


def _start(model_admin: Any, request: HttpRequest, verb: bulk.Verb) -> HttpResponse:
    form = request.POST
    text = search.clean(form.get("q", ""))
    last, count = address.uuid(form.get("last", "")), address.number(form.get("count", ""))
    moment = bulk.at(form.get("at", ""))
    wanted = search.parse(text, moment)
    if last is None or moment is None or not count or wanted.problem:
        # It was not sent by the form: what it would act on was not seen.
        return _ask(model_admin, request, verb, text)
    if count > verbs.TYPE_ABOVE and _typed(form.get("typed", "")) != count:
        return _ask(model_admin, request, verb, text, is_wrong=True)
    job = on_all_that_match.delay(
        verb=verb.name,
        query=text,
        at=moment.isoformat(),
        last=str(last),
        count=count,
        user_id=request.user.pk,
        reason=hostile.one_line(form.get("reason", ""), REASON_LENGTH),
    )
    said = _("%(verb)s: %(count)s tasks that match “%(query)s”.") % {
        "verb": verb.label,
        "count": f"{count:,}",
        "query": text or "is:root",
    }
    model_admin.log_change(request, job, said)
    target = reverse("admin:cq_task_change", args=[job.id])
    if guard.is_fragment(request):
        return HttpResponse(status=204, headers={"HX-Redirect": target})
    messages.success(request, said)
    response = HttpResponseRedirect(target)
    response.status_code = 303
    return response


def _ask(
    model_admin: Any, request: HttpRequest, verb: bulk.Verb, text: str, *, is_wrong: bool = False
) -> HttpResponse:
    found = bulk.preview(model_admin.get_queryset(request), verb, text)
    back = f"{reverse('admin:cq_task_changelist')}?{urlencode({'q': text})}"
    context = {
        "title": found.label if found.count else verb.label,
        "preview": found,
        "must_type": bool(found.count and found.count > verbs.TYPE_ABOVE),
        "action": reverse("admin:cq_task_on_all", args=[verb.name]),
        "at": found.search.now.isoformat(),
        "back": back,
        "csrf_token": get_token(request),
        "is_wrong": is_wrong,
    }
    status = 422 if is_wrong else 200
    if guard.is_fragment(request):
        html = pages.fragment(request, "_preview_all.html", context)
        return HttpResponse(html, status=status)
    full = pages.context(model_admin, request, "tasks", **context)
    response = pages.page(request, "preview_all.html", full)
    response.status_code = status
    return response


def _typed(text: str) -> int | None:
    return address.number(text.replace(",", "").strip())
