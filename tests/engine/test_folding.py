"""Do numbers outlive their minutes, without being counted twice or kept for ever?"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from cq import folding
from cq.models import Statistic

pytestmark = pytest.mark.django_db

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def minute(at: datetime, worker: int = 1, **values: int) -> Statistic:
    runs = [0] * 12
    runs[3] = values.get("started", 0)
    return Statistic.objects.create(
        bucket=at,
        length=1,
        queue="mail",
        func_name="shop.send",
        worker=worker,
        waits=[1] * 12,
        runs=runs,
        **values,
    )


def quarters() -> list[tuple[datetime, int, int]]:
    rows = Statistic.objects.filter(length=15).order_by("bucket")
    return list(rows.values_list("bucket", "started", "failed"))


def test_minutes_of_all_workers_become_one_quarter_of_an_hour() -> None:
    minute(NOON, started=3, succeeded=2, failed=1)
    minute(NOON + timedelta(minutes=14), started=4, succeeded=4)
    minute(NOON, worker=2, started=5, retried=5)

    folding.fold(NOON + timedelta(minutes=25))

    row = Statistic.objects.get(length=15)
    assert (row.bucket, row.worker, row.queue, row.func_name) == (NOON, 0, "mail", "shop.send")
    assert (row.started, row.succeeded, row.failed, row.retried) == (12, 6, 1, 5)
    assert row.waits == [3] * 12
    assert row.runs[3] == 12


def test_folding_again_counts_nothing_twice() -> None:
    minute(NOON, started=3)
    minute(NOON + timedelta(minutes=15), started=4)

    for _ in range(2):
        folding.fold(NOON + timedelta(minutes=45))

    assert quarters() == [(NOON, 3, 0), (NOON + timedelta(minutes=15), 4, 0)]


def test_what_may_still_be_written_is_not_folded() -> None:
    minute(NOON, started=3)

    folding.fold(NOON + timedelta(minutes=24, seconds=59))

    assert quarters() == []


def test_quarters_become_hours() -> None:
    for number in range(4):
        minute(NOON + timedelta(minutes=15 * number), started=number + 1)

    folding.fold(NOON + timedelta(hours=1, minutes=30))

    row = Statistic.objects.get(length=60)
    assert (row.bucket, row.started) == (NOON, 10)


def test_what_was_written_while_nobody_folded_is_not_lost() -> None:
    minute(NOON, started=3)
    minute(NOON + timedelta(days=3), started=4)

    folding.fold(NOON + timedelta(days=4))

    assert not Statistic.objects.filter(length=1).exists()
    assert [started for _bucket, started, _failed in quarters()] == [3, 4]
    assert Statistic.objects.filter(length=60).count() == 2


@pytest.mark.parametrize(
    ("length", "kept"), [(1, {"hours": 2}), (15, {"days": 8}), (60, {"days": 90})]
)
def test_each_length_is_kept_for_its_time(length: int, kept: dict[str, int]) -> None:
    for age in (timedelta(), timedelta(minutes=-1)):
        Statistic.objects.create(
            bucket=NOON + age, length=length, queue="q", func_name="f", waits=[0] * 12,
            runs=[0] * 12,
        )  # fmt: skip

    folding.fold(NOON + timedelta(**kept))

    left = Statistic.objects.filter(length=length).order_by("bucket")
    assert list(left.values_list("bucket", flat=True)) == [NOON]
