"""How is a span of time said?"""

from __future__ import annotations

from datetime import datetime, timedelta

MINUTE, HOUR, DAY = 60, 3600, 86400


def said(span: timedelta | float) -> str:
    """``0.4 s``, ``12.3 s``, ``4 m 12 s``, ``3 h 05 m``, ``2 d 4 h``."""
    seconds = span.total_seconds() if isinstance(span, timedelta) else span
    seconds = max(seconds, 0.0)
    if seconds < MINUTE - 0.05:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < HOUR:
        return f"{whole // MINUTE} m {whole % MINUTE:02d} s"
    if whole < DAY:
        return f"{whole // HOUR} h {whole % HOUR // MINUTE:02d} m"
    return f"{whole // DAY} d {whole % DAY // HOUR} h"


def roughly(span: timedelta | float) -> str:
    """One unit, for what moves while it is read: ``40 s``, ``4 min``, ``3 h``, ``2 d``."""
    seconds = span.total_seconds() if isinstance(span, timedelta) else span
    seconds = max(seconds, 0.0)
    if seconds < MINUTE:
        return f"{seconds:.0f} s"
    if seconds < HOUR:
        return f"{seconds / MINUTE:.0f} min"
    if seconds < 2 * DAY:
        return f"{seconds / HOUR:.0f} h"
    return f"{seconds / DAY:.0f} d"


def axis(span: timedelta) -> str:
    """The mark of an axis: ``0``, ``0.2 s``, ``30 s``, ``4 m``, ``2 h``, ``1 d``."""
    seconds = span.total_seconds()
    if seconds < MINUTE:
        return f"{round(seconds, 3):g} s" if seconds else "0"
    for unit, letter in ((DAY, "d"), (HOUR, "h"), (MINUTE, "m")):
        if seconds >= unit and not seconds % unit:
            return f"{seconds / unit:.0f} {letter}"
    return said(span)


def between(start: datetime | None, end: datetime | None) -> timedelta | None:
    """The time from *start* to *end*; None while one of them is not known."""
    return end - start if start is not None and end is not None else None
