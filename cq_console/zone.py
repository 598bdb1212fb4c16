"""In which time zone does the viewer read the clock?"""

from __future__ import annotations

import zoneinfo
from functools import cache
from urllib.parse import unquote

from django.http import HttpRequest
from django.utils import timezone

COOKIE = "cq_tz"


def of(request: HttpRequest) -> zoneinfo.ZoneInfo:
    """The zone that the browser named in its cookie; TIME_ZONE without one, or with a wrong one."""
    name = unquote(request.COOKIES.get(COOKIE, "")[:200])
    # Checked against the known names first: a name is a path below the zone files.
    if name in _names():
        return zoneinfo.ZoneInfo(name)
    return zoneinfo.ZoneInfo(timezone.get_default_timezone_name())


@cache
def _names() -> frozenset[str]:
    # It reads hundreds of files each time.
    return frozenset(zoneinfo.available_timezones())
