"""What does the page of failures answer?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

from django.http import HttpRequest, HttpResponse
from django.middleware.csrf import get_token
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _

from .. import live, verbs
from ..queries import failures as queries
from . import page as pages

TREND_WIDTH, TREND_HEIGHT = 96, 20


def show(model_admin: Any, request: HttpRequest) -> HttpResponse:
    """The causes that tasks fail of, those with the most failed tasks first."""
    context = pages.context(
        model_admin,
        request,
        "failures",
        title=_("Failures"),
        causes_part=_causes(model_admin, request),
        live_url=reverse("admin:cq_task_failures_live"),
        socket="/ws/cq/overview/",
    )
    return pages.page(request, "failures.html", context)


def refresh(model_admin: Any, request: HttpRequest) -> HttpResponse:
    """The causes, when something about them has changed."""
    known = live.known_parts(request.GET.get("have", ""))
    return live.answer(live.changed([_causes(model_admin, request)], known))


def _causes(model_admin: Any, request: HttpRequest) -> live.Part:
    found = queries.causes(model_admin.get_queryset(request), timezone.now())
    may_retry = request.user.has_perm(verbs.PERMISSIONS["retry"])
    may_cancel = request.user.has_perm(verbs.PERMISSIONS["cancel"])
    context = {
        "causes": [_drawn(cause) for cause in found],
        "tasks_url": reverse("admin:cq_task_changelist"),
        "limit": queries.TARGETS,
        "may_retry": may_retry,
        "may_cancel": may_cancel,
        "csrf_token": get_token(request),
    }
    html = pages.fragment(request, "_causes.html", context)
    return live.Part("cq-causes", html, said=repr((found, may_retry, may_cancel)))


def _drawn(cause: queries.CauseShown) -> dict[str, Any]:
    of_cause = f"cause:{cause.fingerprint}"
    return {
        "cause": cause,
        "bars": _bars(cause.trend),
        "last_hour": cause.trend[-1] if cause.trend else 0,
        "failed_query": urlencode({"q": of_cause}),
        "retrying_query": urlencode({"q": f"{of_cause} status:retrying"}),
    }


def _bars(trend: Sequence[int]) -> list[dict[str, float]]:
    """The hours as bars, each cause on a scale of its own: it shows when, not how many."""
    highest = max(trend, default=0)
    width = TREND_WIDTH / max(len(trend), 1)
    return [
        {
            "x": round(index * width, 1),
            "y": TREND_HEIGHT - height,
            "width": width - 1,
            "height": height,
        }
        for index, n in enumerate(trend)
        if (height := max(round(n / highest * TREND_HEIGHT), 2) if n else 0)
    ]
