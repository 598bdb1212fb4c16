"""Does a claim bring its tasks as they were stored, however much they hold?"""

from __future__ import annotations

import sqlite3
from datetime import timedelta
from typing import Any

import pytest
from django.db import DataError, connection
from django.utils import timezone

from cq import claims, leases, task
from cq.context import Context
from cq.models import Task, Worker
from cq.states import Status

pytestmark = pytest.mark.django_db(transaction=True)

VALUES: list[Any] = [
    None,
    True,
    0,
    -1,
    12345678901234567890123,
    0.1,
    -2.5e-7,
    "",
    "100 % \"quoted\" \\ 'single' {} [] \u2028 ☃ 😀",
    {"": {"deep": [[], {}, [None, {"a": False}]]}},
]


@task("claims.keep")
def keep(cqt: Context, *values: Any, **named: Any) -> None: ...


@pytest.fixture
def worker() -> Worker:
    return leases.register(queues=[], threads=1, is_embedded=False, is_scheduler=False)


def test_arguments_come_as_they_were_given(worker: Worker) -> None:
    keep.delay(*VALUES, named=VALUES)
    keep.delay()

    full, empty = claims.claim(worker, "default", 5)

    assert repr(full.args) == repr(VALUES)
    assert repr(full.kwargs) == repr({"named": VALUES})
    assert (empty.args, empty.kwargs) == ([], {})
    row = Task.objects.get(pk=full.id)
    assert (full.claim, full.attempt) == (row.claim, row.attempts) == (1, 1)
    assert row.started is not None
    assert abs((full.leased_at - row.started).total_seconds()) < 1


@pytest.mark.skipif("connection.vendor != 'sqlite'", reason="elsewhere one statement does both")
def test_what_was_due_in_time_is_not_taken_for_expired_while_it_is_leased(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = keep.using(expires=60).delay()
    due_rows = claims._due_rows

    def slowly(*args: Any) -> Any:
        found = due_rows(*args)
        Task.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
        return found

    monkeypatch.setattr(claims, "_due_rows", slowly)
    (claimed,) = claims.claim(worker, "default", 5)

    stored.refresh_from_db()
    assert (claimed.id, stored.status, stored.cause) == (stored.pk, Status.RUNNING, "")


@pytest.fixture
def narrow() -> Any:
    """A connection on which no text may be longer than 10,000 bytes."""
    if connection.vendor != "sqlite":
        pytest.skip("elsewhere each row comes by itself")
    connection.ensure_connection()
    driver: Any = connection.connection
    before = driver.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 10_000)
    yield
    driver.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, before)


@pytest.mark.usefixtures("narrow")
def test_what_is_too_much_for_one_text_comes_in_parts(worker: Worker) -> None:
    stored = [keep.delay("x" * 3_000) for _ in range(8)]

    claimed = claims.claim(worker, "default", 8)

    assert [one.id for one in claimed] == [one.pk for one in stored]
    assert Task.objects.filter(status=Status.RUNNING).count() == len(stored)


@pytest.mark.usefixtures("narrow")
def test_what_fits_runs_before_one_that_does_not(worker: Worker) -> None:
    good = [keep.delay("x") for _ in range(3)]
    bad = keep.delay("x" * 4_000, "y" * 3_000)
    Task.objects.filter(pk=bad.pk).update(kwargs={"more": "z" * 2_500})
    driver: Any = connection.connection
    driver.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 9_000)

    claimed = claims.claim(worker, "default", 8)

    driver.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 1_000_000)
    assert {one.id for one in claimed} == {one.pk for one in good}


@pytest.mark.usefixtures("narrow")
def test_one_that_is_too_much_by_itself_is_said_and_stays(worker: Worker) -> None:
    stored = keep.delay("x" * 4_000, "y" * 3_000)
    Task.objects.update(kwargs={"more": "z" * 2_500})
    driver: Any = connection.connection
    driver.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 9_000)

    with pytest.raises(DataError, match="too big"):
        claims.claim(worker, "default", 3)

    driver.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 1_000_000)
    stored.refresh_from_db()
    assert stored.status == Status.QUEUED
