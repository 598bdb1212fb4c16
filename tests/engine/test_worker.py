"""Does a worker run what it should, in the order and number that it may?"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from time import monotonic, sleep
from typing import Any

import pytest
from django.db import OperationalError, connection, connections

from cq import (
    TaskTimeout,
    buffers,
    claims,
    hints,
    interrupts,
    leases,
    operations,
    recorder,
    registry,
    task,
)
from cq import worker as worker_module
from cq.models import Act, Task, Worker
from cq.outcomes import Outcome
from cq.prefetch import BATCH, Prefetch
from cq.states import Cause, Status
from cq.worker import WorkerLoop, WorkerOptions


class _Gauge:
    """How many are inside at once, and how many were at most."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)

    def __exit__(self, *_error: object) -> None:
        with self._lock:
            self.now -= 1


_on_loop, _on_threads = _Gauge(), _Gauge()
_may_end = threading.Event()


@task("worker.wait_on_loop")
async def wait_on_loop(cqt: Any) -> None:
    with _on_loop:
        await asyncio.sleep(0.2)


@task("worker.wait_on_thread", atomic=False)
def wait_on_thread(cqt: Any) -> None:
    with _on_threads:
        _may_end.wait(20)


@task("worker.wait_in_transaction")
def wait_in_transaction(cqt: Any) -> None:
    _may_end.wait(20)


@task("worker.count", atomic=False)
def count(cqt: Any, number: int) -> int:
    return number


@task("worker.spin")
def spin(cqt: Any) -> None:
    while True:
        pass


@task("worker.spin_for_a_moment", timeout=0.3)
def spin_for_a_moment(cqt: Any) -> None:
    while True:
        pass


@task("worker.sleep_on_loop", timeout=0.3)
async def sleep_on_loop(cqt: Any) -> None:
    await asyncio.sleep(60)


@contextmanager
def working(**options: Any) -> Iterator[WorkerLoop]:
    worker = WorkerLoop(WorkerOptions(scheduler=False, **options))
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        until(lambda: worker.is_registered)
        yield worker
    finally:
        _may_end.set()
        worker.stop()
        thread.join(20)
        _may_end.clear()
        connections.close_all()
    assert not thread.is_alive()


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = monotonic() + seconds
    while not condition():
        assert monotonic() < deadline, "the condition did not come true"
        sleep(0.02)


def ended(number: int) -> Callable[[], bool]:
    return lambda: Task.objects.finished().count() == number


@pytest.mark.django_db(transaction=True)
def test_hundreds_of_async_tasks_wait_at_once_and_no_more_than_allowed() -> None:
    _on_loop.most = 0
    wait_on_loop.delay_many([()] * 240)

    with working(async_concurrency=120, threads=2):
        until(ended(240))

    assert 100 < _on_loop.most <= 120


@pytest.mark.django_db(transaction=True)
def test_full_threads_do_not_keep_async_tasks_waiting() -> None:
    wait_on_thread.delay_many([()] * 2)

    with working(threads=2):
        until(lambda: _on_threads.now == 2)
        waiting = wait_on_loop.delay()
        until(lambda: Task.objects.get(pk=waiting.pk).status == Status.SUCCESS)

        assert _on_threads.now == 2


@pytest.mark.django_db(transaction=True)
def test_a_running_loop_without_checkpoints_is_cancelled() -> None:
    stored = spin.delay()

    with working(threads=1):
        until(lambda: Task.objects.get(pk=stored.pk).status == Status.RUNNING)
        operations.cancel([stored], "enough")
        # Hints may be off: the heartbeat finds it as well.
        until(ended(1))

    stored.refresh_from_db()
    assert (stored.status, stored.cause) == (Status.REVOKED, "cancelled")


@pytest.mark.django_db(transaction=True)
def test_a_cancel_that_was_meant_for_a_run_elsewhere_does_not_stop_a_later_one_here(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[Any] = []
    monkeypatch.setattr(hints, "control", told.append)
    stored = count.delay(7)
    elsewhere = leases.register(queues=[], threads=1, is_embedded=False, is_scheduler=False)
    (claimed,) = claims.claim(elsewhere, "default", 1)

    with working(threads=1) as worker:
        operations.cancel([stored])
        for message in told:
            worker._on_control(message)
        now = claimed.now()
        recorder.record([Outcome(claimed, Status.REVOKED, now, now, cause=Cause.CANCELLED)])
        operations.retry([stored])
        until(ended(1))

    assert [message["verb"] for message in told] == ["cancel"]
    stored.refresh_from_db()
    assert (stored.status, stored.result) == (Status.SUCCESS, 7)


SLOW_QUERY = {
    "postgresql": "SELECT pg_sleep(60)",
    "mysql": "SELECT SLEEP(60)",
    "sqlite": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT 1 FROM n"
    " WHERE i < 0",
}

QUERY_OF_SECONDS = {
    "postgresql": "SELECT pg_sleep(2)",
    "mysql": "SELECT SLEEP(2)",
    "sqlite": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 9000000)"
    " SELECT MAX(i) FROM n",
}
# MariaDB's SLEEP() says so instead of failing.
BROKEN_SLEEP = "1"


@task("worker.query")
def query(cqt: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute(SLOW_QUERY[connection.vendor])
        cursor.fetchall()


@pytest.fixture
def untraced() -> Iterator[None]:
    """No coverage: while an exception waits for one thread, a traced one stands still in 3.11."""
    own, for_threads = sys.gettrace(), threading.gettrace()
    sys.settrace(None)
    threading.settrace(None)
    yield
    threading.settrace(for_threads)
    sys.settrace(own)


@pytest.mark.django_db(transaction=True)
def test_a_task_that_waits_inside_a_query_is_cancelled(
    untraced: None, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings.CQ_HEARTBEAT = 0.1
    stored = query.delay()

    with working(threads=1):
        until(lambda: Task.objects.filter(status=Status.RUNNING).exists())
        sleep(0.5)  # nothing tells that the query has reached the server
        operations.cancel([stored])
        until(ended(1), 10)

    stored.refresh_from_db()
    assert (stored.status, stored.cause) == (Status.REVOKED, "cancelled")
    assert "could not break off" not in caplog.text


def ask_the_driver(session: interrupts._Session) -> None:
    """Break off a query under the number that MariaDB's driver names when it is asked."""
    with suppress(Exception):
        _break_off(replace(session, number=session.driver.thread_id()))


_break_off = interrupts._break_off_query


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(lambda _session: None, id="nothing"),
        pytest.param(
            ask_the_driver,
            marks=pytest.mark.skipif(
                "connection.vendor != 'mysql'", reason="elsewhere no driver is asked for a number"
            ),
        ),
    ],
)
def test_control_a_query_that_is_not_broken_off_keeps_its_cancelled_task(
    untraced: None, settings: Any, monkeypatch: pytest.MonkeyPatch, broken: Any
) -> None:
    settings.CQ_HEARTBEAT = 0.1
    sessions: list[interrupts._Session] = []

    def break_off(session: interrupts._Session) -> None:
        sessions.append(session)
        broken(session)

    monkeypatch.setattr(interrupts, "_break_off_query", break_off)
    stored = query.delay()

    with working(threads=1):
        until(lambda: Task.objects.filter(status=Status.RUNNING).exists())
        sleep(0.5)
        operations.cancel([stored])
        until(lambda: bool(sessions))
        sleep(1.5)
        assert Task.objects.get(pk=stored.pk).status == Status.RUNNING
        _break_off(sessions[0])
        until(ended(1), 10)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("is_atomic", [True, False])
def test_a_break_off_that_comes_late_meets_no_later_task(
    untraced: None, settings: Any, monkeypatch: pytest.MonkeyPatch, is_atomic: bool
) -> None:
    """Also when the interrupted one has caught the exception and returned."""
    settings.CQ_HEARTBEAT = 0.1
    is_in_query, has_broken_off = threading.Event(), threading.Event()

    @task("worker.stubborn", atomic=is_atomic, timeout=0.3)
    def stubborn(cqt: Any) -> str:
        list(Task.objects.all()[:1])
        with suppress(TaskTimeout):
            while True:
                pass
        return "returned"

    @task("worker.next_query", atomic=is_atomic)
    def next_query(cqt: Any) -> str:
        is_in_query.set()
        with connection.cursor() as cursor:
            cursor.execute(QUERY_OF_SECONDS[connection.vendor])
            return str(cursor.fetchone()[0])

    def break_off_late(session: interrupts._Session) -> None:
        assert is_in_query.wait(20)
        sleep(0.5)
        _break_off(session)
        has_broken_off.set()

    monkeypatch.setattr(interrupts, "_break_off_query", break_off_late)
    first, second = stubborn.delay(), next_query.delay()

    with working(threads=1):
        until(has_broken_off.is_set)
        until(ended(2))

    first.refresh_from_db()
    second.refresh_from_db()
    assert (first.status, second.status) == (Status.SUCCESS, Status.SUCCESS), second.error
    assert second.result != BROKEN_SLEEP


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("overrunning", [spin_for_a_moment, sleep_on_loop])
def test_what_overruns_its_timeout_fails_and_frees_its_place(overrunning: Any) -> None:
    stored = overrunning.delay()

    with working(threads=1):
        until(ended(1))
        next_one = count.delay(7)
        until(ended(2))

    stored.refresh_from_db()
    next_one.refresh_from_db()
    assert (stored.status, next_one.result) == (Status.FAILURE, 7)
    assert stored.error.startswith("TaskTimeout")


@pytest.mark.django_db(transaction=True)
def test_a_worker_stops_after_its_number_of_tasks_and_hands_back_the_rest() -> None:
    count.delay_many([(number,) for number in range(1500)])
    worker = WorkerLoop(WorkerOptions(scheduler=False, threads=2, max_tasks=10))

    worker.run()

    left = Task.objects.exclude(status=Status.SUCCESS)
    assert 10 <= Task.objects.finished().count() < 1500
    assert {(one.status, one.attempts) for one in left} == {(Status.QUEUED, 0)}
    assert Worker.objects.get().stopped is not None


@pytest.mark.django_db(transaction=True)
def test_a_worker_above_its_memory_stops_and_leaves_nothing_behind(settings: Any) -> None:
    settings.CQ_HEARTBEAT = 0.1
    count.delay_many([(number,) for number in range(50)])
    worker = WorkerLoop(WorkerOptions(scheduler=False, threads=2, max_memory=1))

    worker.run()

    assert not Task.objects.filter(status=Status.RUNNING).exists()
    assert Worker.objects.get().stopped is not None


@pytest.mark.django_db(transaction=True)
def test_an_atomic_task_that_runs_long_is_named_once(
    settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings.CQ_HEARTBEAT, settings.CQ_LONG_TRANSACTION = 0.05, 0.1
    stored, loose = wait_in_transaction.delay(), wait_on_thread.delay()

    with working(threads=2):
        until(lambda: "long transaction" in caplog.text)
        sleep(0.3)
        _may_end.set()
        until(ended(2))

    assert caplog.text.count("long transaction") == 1
    assert f"task={stored.pk} func=worker.wait_in_transaction" in caplog.text
    assert str(loose.pk) not in caplog.text


@pytest.mark.django_db(transaction=True)
def test_a_quiet_worker_claims_nothing_until_it_is_resumed() -> None:
    with working(threads=1) as worker:
        operations.quiet_worker(worker.row)
        until(lambda: worker._quiet, 10)
        stored = count.delay(5)
        sleep(0.3)
        held = Task.objects.get(pk=stored.pk).status
        operations.resume_worker(worker.row)
        until(ended(1))

    assert held == Status.QUEUED


@pytest.mark.django_db(transaction=True)
def test_a_worker_that_is_told_to_stop_finishes_what_runs_and_ends(settings: Any) -> None:
    settings.CQ_HEARTBEAT = 0.1
    running = wait_on_thread.delay()
    worker = WorkerLoop(WorkerOptions(threads=1, scheduler=False))
    thread = threading.Thread(target=worker.run)
    thread.start()
    until(lambda: Task.objects.filter(status=Status.RUNNING).exists())

    operations.stop_worker(worker.row, reason="maintenance")
    until(worker._stopping.is_set)
    late = count.delay(1)
    _may_end.set()
    thread.join(20)
    _may_end.clear()

    assert not thread.is_alive()
    running.refresh_from_db()
    late.refresh_from_db()
    assert (running.status, late.status) == (Status.SUCCESS, Status.QUEUED)
    assert Act.objects.get().verb == "stop worker"


@pytest.mark.django_db(transaction=True)
def test_what_waits_behind_tasks_that_take_long_is_handed_back(settings: Any) -> None:
    settings.CQ_HEARTBEAT = 0.2
    with working(threads=2) as worker:
        count.delay_many([(number,) for number in range(100)])
        until(lambda: Task.objects.filter(status=Status.SUCCESS).count() == 100)
        waiting = wait_on_thread.delay_many([()] * 20)
        until(lambda: worker._pool.queued > 0)

        # Another worker may have them.
        running = Task.objects.filter(status=Status.RUNNING)
        until(lambda: worker._pool.queued == 0 and running.count() == 2)
        queued = Task.objects.filter(status=Status.QUEUED).count()
        _may_end.set()
        until(lambda: Task.objects.filter(status=Status.SUCCESS).count() == 120)

    assert queued == 18
    assert {Task.objects.get(pk=one.pk).attempts for one in waiting} == {1}


def test_prefetch_takes_one_for_each_free_thread_while_durations_are_unknown() -> None:
    prefetch = Prefetch(threads=8)

    assert prefetch.room(busy=3, waiting=1) == 4


def test_prefetch_holds_what_starts_within_half_a_second() -> None:
    prefetch = Prefetch(threads=8)

    prefetch.saw(0.1)

    assert prefetch.room(busy=8, waiting=0) == 40
    assert prefetch.room(busy=8, waiting=30) == 0


def test_prefetch_claims_one_batch_while_another_runs() -> None:
    prefetch = Prefetch(threads=8)

    prefetch.saw(0.0001)

    waiting = (0, 300, BATCH, BATCH + 1)
    assert [prefetch.room(8, number) for number in waiting] == [BATCH, BATCH, BATCH, 0]


def test_one_long_task_makes_prefetch_careful_at_once() -> None:
    prefetch = Prefetch(threads=8)
    prefetch.saw(0.0001)
    before = prefetch.room(busy=0, waiting=0)

    prefetch.saw(10)

    assert (before, prefetch.room(busy=7, waiting=0)) == (BATCH, 1)


@pytest.mark.django_db(transaction=True)
def test_what_waits_for_records_goes_on_with_them_not_with_the_next_poll(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # All that was claimed has run before enough of it is recorded: nothing else wakes the loop.
    settings.CQ_POLL_INTERVAL = 30.0
    monkeypatch.setattr(worker_module, "BACKLOG", 2)
    monkeypatch.setattr(buffers, "BATCH", 2)
    record = recorder.record

    def slowly(*args: Any, **kwargs: Any) -> Any:
        sleep(0.1)
        return record(*args, **kwargs)

    monkeypatch.setattr(recorder, "record", slowly)
    count.delay_many([(number,) for number in range(60)])

    with working(threads=8):
        until(ended(60), 15)


@pytest.mark.django_db(transaction=True)
def test_a_queue_stays_in_view_while_there_is_room_for_async_tasks_only(settings: Any) -> None:
    settings.CQ_POLL_INTERVAL = 30.0
    # None of these is async, so a claim for the loop alone finds nothing.
    assert registry.async_names()
    wait_on_thread.delay_many([()] * 3)

    with working(threads=1):
        until(lambda: _on_threads.now == 1)
        sleep(0.3)
        _may_end.set()
        until(ended(3), 15)


@pytest.mark.django_db(transaction=True)
def test_a_claim_that_met_a_conflict_is_made_again(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.CQ_POLL_INTERVAL = 30.0
    claim, conflicts = claims.claim, [OperationalError("database is locked")]

    def refused_once(*args: Any, **kwargs: Any) -> Any:
        if conflicts:
            raise conflicts.pop()
        return claim(*args, **kwargs)

    monkeypatch.setattr(claims, "claim", refused_once)
    count.delay(1)

    with working(threads=1):
        until(ended(1), 15)
