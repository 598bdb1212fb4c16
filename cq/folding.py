"""How do the minutes of many workers become a few rows that can be kept for months?"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from django.db.models import Max, Min, QuerySet

from . import conf
from .database import write_transaction
from .models import Statistic
from .statistics import Totals, upsert

MINUTE, QUARTER, HOUR = 1, 15, 60
BATCH = 1_000


@dataclass(frozen=True, slots=True)
class Step:
    """Rows of *fine* minutes become rows of *coarse* ones, *after* the span has ended."""

    fine: int
    coarse: int
    # Workers write late when the database was away; what comes later still is not counted.
    after: timedelta


STEPS = (
    Step(MINUTE, QUARTER, timedelta(minutes=10)),
    Step(QUARTER, HOUR, timedelta(minutes=30)),
)
KEEP = {
    MINUTE: timedelta(hours=2),
    QUARTER: timedelta(days=8),
    HOUR: timedelta(days=90),
}


def fold(now: datetime) -> None:
    """Add up what is complete at *now*, and remove what is old and was added up.

    Each span is a transaction that writes the same rows however often it runs and however many
    workers run it at once: nobody counts anything twice.
    """
    for step in STEPS:
        while (start := _next_span(step, now)) is not None:
            _fold_span(step, start)
    for length, kept in KEEP.items():
        _remove(length, now - kept)


def start_of(moment: datetime, length: int) -> datetime:
    """The start of the span of *length* minutes, counted from midnight UTC, that holds *moment*."""
    if moment.tzinfo is not None:
        moment = moment.astimezone(UTC)
    midnight = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    return midnight + (moment - midnight) // timedelta(minutes=length) * timedelta(minutes=length)


def _next_span(step: Step, now: datetime) -> datetime | None:
    """The oldest span that is complete, has fine rows, and was not added up yet."""
    last = _rows(step.coarse).aggregate(last=Max("bucket"))["last"]
    fine = _rows(step.fine)
    if last is not None:
        fine = fine.filter(bucket__gte=last + timedelta(minutes=step.coarse))
    first = fine.aggregate(first=Min("bucket"))["first"]
    if first is None:
        return None
    start = start_of(first, step.coarse)
    return start if start + timedelta(minutes=step.coarse) + step.after <= now else None


def _fold_span(step: Step, start: datetime) -> None:
    end = start + timedelta(minutes=step.coarse)
    rows = _rows(step.fine).filter(bucket__gte=start, bucket__lt=end)
    # In the order of the constraint: two workers that write the same rows wait, not deadlock.
    found = sorted(_added_up(rows.iterator()).items())
    with write_transaction():
        upsert(
            [
                total.row(start, step.coarse, queue, func_name, 0)
                for (queue, func_name), total in found
            ]
        )


def _added_up(rows: Iterable[Statistic]) -> dict[tuple[str, str], Totals]:
    found: dict[tuple[str, str], Totals] = {}
    for row in rows:
        found.setdefault((row.queue, row.func_name), Totals()).add(row)
    return found


def _remove(length: int, before: datetime) -> None:
    """Remove rows of spans that began before *before*, in bounded batches."""
    old = _rows(length).filter(bucket__lt=before)
    while ids := list(old.values_list("pk", flat=True)[:BATCH]):
        _rows(length).filter(pk__in=ids).delete()


def _rows(length: int) -> QuerySet[Statistic]:
    return Statistic.objects.using(conf.get().database).filter(length=length)
