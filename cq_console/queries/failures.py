"""Of which causes do tasks fail, how many of each, and since when?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID

from django.conf import settings
from django.db.models import Count, QuerySet
from django.db.models.functions import TruncHour

from cq.models import FailureGroup, Task
from cq.states import FAILED, Status

from .. import arguments, hostile, store

CAUSES = 50
# Failed tasks of all causes on the page for them to be counted in one go.
COUNT_LIMIT = 20_000
TARGETS = 1_000
FUNCTIONS = 3
# The trend: so many hours up to now.
HOURS = 24

Tasks = QuerySet[Task]


@dataclass(frozen=True, slots=True)
class CauseShown:
    """A cause with the failed tasks of it that are still kept."""

    fingerprint: str
    exception: str
    message: str
    frame: str
    first_seen: datetime
    last_seen: datetime
    count: int
    functions: tuple[str, ...]
    # Tasks that failed of it and will be tried again.
    retrying: int = 0
    # How many failed in each of the last hours.
    trend: tuple[int, ...] = ()


@dataclass(slots=True)
class _Counts:
    functions: dict[str, int] = field(default_factory=dict)
    hours: dict[datetime, int] = field(default_factory=dict)

    def add(self, func_name: str, hour: datetime | None, n: int) -> None:
        self.functions[func_name] = self.functions.get(func_name, 0) + n
        if hour is not None:
            self.hours[hour] = self.hours.get(hour, 0) + n


def causes(tasks: Tasks, now: datetime) -> list[CauseShown]:
    """The causes seen last; those with the most tasks that are still failed come first."""
    groups = list(store.rows(FailureGroup).order_by("-last_seen")[:CAUSES])
    fingerprints = [group.fingerprint for group in groups]
    counts = _counts(tasks, fingerprints)
    retrying = _retrying(tasks, fingerprints)
    shown = [
        _shown(
            group,
            counts.get(group.fingerprint) or _Counts(),
            retrying.get(group.fingerprint, 0),
            _hour(now),
        )
        for group in groups
    ]
    return sorted(shown, key=lambda cause: (cause.count, cause.retrying), reverse=True)


def targets(tasks: Tasks, fingerprint: str) -> list[UUID]:
    """The failed tasks of a cause, the oldest first, at most as many as one act takes."""
    rows = tasks.filter(fingerprint=fingerprint, status__in=sorted(FAILED)).order_by("id")
    return list(rows.values_list("id", flat=True)[:TARGETS])


def _counts(tasks: Tasks, fingerprints: Sequence[str]) -> dict[str, _Counts]:
    """Of each cause, how many failed tasks each function has; of very many, the newest."""
    rows = tasks.filter(fingerprint__in=list(fingerprints), status__in=sorted(FAILED)).order_by()
    if rows.values("pk")[: COUNT_LIMIT + 1].count() <= COUNT_LIMIT:
        hour = TruncHour("finished", tzinfo=UTC if settings.USE_TZ else None)
        grouped = rows.annotate(hour=hour).values_list("fingerprint", "func_name", "hour")
        return _collected(grouped.annotate(n=Count("id")))
    found: dict[str, _Counts] = {}
    for fingerprint in fingerprints:
        of_cause = tasks.filter(fingerprint=fingerprint, status__in=sorted(FAILED))
        newest = of_cause.order_by("-id").values_list("func_name", "finished")[: TARGETS + 1]
        found |= _collected((fingerprint, name, _hour(end), 1) for name, end in newest)
    return found


def _collected(rows: Iterable[tuple[str, str, datetime | None, int]]) -> dict[str, _Counts]:
    found: dict[str, _Counts] = {}
    for fingerprint, func_name, hour, n in rows:
        found.setdefault(fingerprint, _Counts()).add(func_name, hour, n)
    return found


def _retrying(tasks: Tasks, fingerprints: Sequence[str]) -> Mapping[str, int]:
    """Of each cause, how many tasks failed of it and wait for another attempt, capped."""
    rows = tasks.filter(status=Status.RETRY).exclude(fingerprint="").order_by()
    newest = rows.values_list("fingerprint", flat=True)[:COUNT_LIMIT]
    known = set(fingerprints)
    found: dict[str, int] = {}
    for fingerprint in newest:
        if fingerprint in known:
            found[fingerprint] = found.get(fingerprint, 0) + 1
    return found


def _said(group: FailureGroup) -> str:
    """The message of the exception, without its name, which stands before it."""
    name = group.exception.rpartition(".")[2]
    return "" if group.message == name else group.message.removeprefix(f"{name}: ")


def _hour(moment: datetime | None) -> datetime | None:
    if moment is None:
        return None
    utc = moment.astimezone(UTC) if settings.USE_TZ else moment
    return utc.replace(minute=0, second=0, microsecond=0)


def _shown(
    group: FailureGroup, counts: _Counts, retrying: int, this_hour: datetime | None
) -> CauseShown:
    names = sorted(counts.functions, key=lambda name: -counts.functions[name])[:FUNCTIONS]
    trend: tuple[int, ...] = ()
    if this_hour is not None:
        ages = range(HOURS - 1, -1, -1)
        trend = tuple(counts.hours.get(this_hour - timedelta(hours=age), 0) for age in ages)
    return CauseShown(
        fingerprint=group.fingerprint,
        exception=hostile.one_line(group.exception, 255),
        message=hostile.one_line(arguments.safe_text(_said(group)), 300),
        frame=hostile.one_line(group.frame, 300),
        first_seen=group.first_seen,
        last_seen=group.last_seen,
        count=sum(counts.functions.values()),
        functions=tuple(arguments.name_of(name).short for name in names),
        retrying=retrying,
        trend=trend,
    )
