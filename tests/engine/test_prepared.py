"""Is a call that is stored by a prepared statement stored as any other, whatever the session?"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC
from math import inf
from typing import Any

import pytest
from django.core.exceptions import SynchronousOnlyOperation
from django.db import OperationalError, connection, connections, transaction
from django.forms.models import model_to_dict
from django.test.utils import CaptureQueriesContext

from cq import bulk, claims, leases, prepared, task
from cq.context import Context
from cq.exceptions import NotEncodable
from cq.models import Task

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif("connection.vendor != 'postgresql'", reason="PostgreSQL prepares"),
]


@task("prepared.work")
def work(cqt: Context, value: Any = None) -> None: ...


@pytest.fixture(autouse=True)
def new_session() -> Iterator[None]:
    connection.close()
    connection.ensure_connection()
    yield
    connection.close()


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For each prepared INSERT: was it carried out?"""
    carried_out: list[bool] = []
    run = prepared.run

    def watched(*args: Any) -> Any:
        answer = run(*args)
        carried_out.append(answer is not None)
        return answer

    monkeypatch.setattr(prepared, "run", watched)
    return carried_out


def warm_up() -> None:
    for _ in range(bulk._PREPARED_AFTER + 1):
        work.delay()


def ask(sql: str) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchone()[0] if cursor.description else None


def test_a_session_that_stores_a_few_prepares_nothing(runs: list[bool]) -> None:
    for _ in range(bulk._PREPARED_AFTER):
        work.delay()

    assert runs == []
    assert ask("SELECT COUNT(*) FROM pg_prepared_statements") == 0


def test_it_stores_the_same_row(runs: list[bool]) -> None:
    value = {"text": "it's \\ 100 % ü 💡", "list": [1, None, 2.5, True]}
    usual = work.delay(value)
    warm_up()
    runs.clear()

    quick = work.delay(value)

    assert runs == [True]
    stored = Task.objects.get(pk=quick.pk)
    for name in ("id", "root", "submitted", "run_at"):
        assert getattr(stored, name) == getattr(quick, name)
    assert quick.submitted.tzinfo is UTC
    assert usual.submitted < quick.submitted
    before, after = (model_to_dict(Task.objects.get(pk=one.pk)) for one in (usual, quick))
    differ = {name for name in before if before[name] != after[name]}
    assert differ <= {"id", "root", "submitted", "run_at"}
    assert stored.args == [value]


@pytest.mark.parametrize(
    "call",
    [
        lambda: work.using(run_after=60).delay(),
        lambda: work.using(retries=3).delay(),
        lambda: work.using(expires=60).delay(),
        lambda: work.using(coalesce="key").delay(),
    ],
)
def test_a_call_with_columns_of_its_own_goes_the_usual_way(
    runs: list[bool], call: Callable[[], Task]
) -> None:
    warm_up()
    runs.clear()

    stored = call()

    assert runs == []
    assert Task.objects.filter(pk=stored.pk).exists()


def test_within_a_transaction_it_goes_the_usual_way_and_rolls_back(runs: list[bool]) -> None:
    warm_up()
    runs.clear()

    with transaction.atomic():
        work.delay()
        transaction.set_rollback(True)

    assert runs == []
    assert Task.objects.count() == bulk._PREPARED_AFTER + 1


def test_a_statement_that_somebody_deallocated_is_prepared_anew(runs: list[bool]) -> None:
    warm_up()
    runs.clear()
    ask("DISCARD ALL")

    stored = [work.delay(number) for number in range(3)]

    assert runs == [False, True, True]
    assert Task.objects.filter(pk__in=[one.pk for one in stored]).count() == 3


def test_behind_a_pooler_nothing_is_prepared(
    runs: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepared, "_names_its_process", lambda *_who: False)
    warm_up()
    work.delay()

    assert runs == []
    assert ask("SELECT COUNT(*) FROM pg_prepared_statements") == 0
    assert Task.objects.count() == bulk._PREPARED_AFTER + 2


def test_a_connection_that_has_ended_raises_and_stores_nothing(runs: list[bool]) -> None:
    warm_up()
    number = Task.objects.count()
    with pytest.raises(OperationalError):
        ask("SELECT pg_terminate_backend(pg_backend_pid())")

    with pytest.raises(OperationalError):
        work.delay()

    connection.close()
    work.delay()
    assert Task.objects.count() == number + 1


def test_whoever_watches_queries_sees_it(runs: list[bool]) -> None:
    warm_up()
    runs.clear()
    with CaptureQueriesContext(connection) as seen:
        work.delay()

    assert runs == []
    assert [query["sql"].startswith("INSERT") for query in seen.captured_queries] == [True]


def test_on_an_event_loop_it_is_refused(runs: list[bool]) -> None:
    warm_up()
    number = Task.objects.count()

    async def call() -> None:
        work.delay()

    with pytest.raises(SynchronousOnlyOperation):
        asyncio.run(call())
    assert Task.objects.count() == number


@pytest.mark.parametrize("value", ["\0", "\ud800"])
def test_what_cannot_be_stored_is_refused(runs: list[bool], value: str) -> None:
    warm_up()
    with pytest.raises(NotEncodable):
        work.delay(value)


def test_where_greenlets_share_the_thread_it_goes_the_usual_way(
    runs: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    warm_up()
    runs.clear()
    # As gevent.monkey.patch_select() does.
    monkeypatch.setattr("select.select", lambda *_args: None)
    work.delay()

    assert runs == []


def test_in_a_pipeline_of_the_caller_it_goes_the_usual_way(runs: list[bool]) -> None:
    with connection.connection.pipeline():
        warm_up()
        work.delay()

    assert runs == []
    assert Task.objects.count() == bulk._PREPARED_AFTER + 2


def test_threads_that_share_a_connection_wait_for_each_other(runs: list[bool]) -> None:
    warm_up()
    shared = connections["default"]
    shared.inc_thread_sharing()

    def store() -> None:
        connections["default"] = shared
        for _ in range(50):
            work.delay()

    try:
        with ThreadPoolExecutor(3) as pool:
            for done in [pool.submit(store) for _ in range(3)]:
                done.result(30)
    finally:
        shared.dec_thread_sharing()

    # While another thread's is under way, it goes the usual way.
    assert True in runs
    assert Task.objects.count() == bulk._PREPARED_AFTER + 1 + 150


def test_a_test_runner_that_refuses_queries_refuses_it(
    runs: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    warm_up()
    number = Task.objects.count()

    def refused(*_args: Any) -> None:
        raise AssertionError("no queries here")

    # As Django's SimpleTestCase does it, and pytest-django.
    with monkeypatch.context() as patched:
        patched.setattr(connection, "cursor", refused)
        with pytest.raises(AssertionError, match="no queries"):
            work.delay()
    with monkeypatch.context() as patched:
        patched.setattr(type(connections["default"]), "ensure_connection", refused)
        with pytest.raises(AssertionError, match="no queries"):
            work.delay()

    assert Task.objects.count() == number


class TestPlans:
    """A plan is kept for as long as it is good, and for what is asked again soon."""

    @pytest.fixture
    def clock(self, monkeypatch: pytest.MonkeyPatch) -> list[float]:
        now = [1_000.0]
        monkeypatch.setattr(prepared, "monotonic", lambda: now[0])
        return now

    def test_it_is_made_anew_when_it_is_too_old(self, clock: list[float]) -> None:
        driver = connection.connection
        one = prepared.Statement("cq_test", ("int4",), "SELECT %s")

        def prepared_at() -> Any:
            return ask("SELECT prepare_time FROM pg_prepared_statements WHERE name = 'cq_test'")

        assert [prepared.is_ready(one, driver) for _ in range(2)] == [False, True]
        first = prepared_at()
        clock[0] += prepared.PLAN_SECONDS - 0.1
        assert prepared.is_ready(one, driver)
        assert prepared_at() == first
        clock[0] += 0.2
        # Too long ago: who asks so seldom has it planned each time.
        assert not prepared.is_ready(one, driver)
        assert prepared.is_ready(one, driver)
        assert prepared_at() > first

    def test_what_has_nothing_to_choose_is_kept(self, clock: list[float]) -> None:
        one = prepared.Statement("cq_test", ("int4",), "SELECT %s", seconds=inf)

        assert prepared.is_ready(one, connection.connection)
        clock[0] += 10_000
        assert prepared.is_ready(one, connection.connection)

    def test_small_claims_are_prepared_and_batches_are_not(self) -> None:
        worker = leases.register(queues=[], threads=1, is_embedded=False, is_scheduler=False)
        counted = "SELECT COUNT(*) FROM pg_prepared_statements WHERE name LIKE 'cq_claim%'"
        work.delay_many([()] * 100)

        for _ in range(5):
            assert len(claims.claim(worker, "default", 11)) == 11
        assert ask(counted) == 0
        for _ in range(5):
            assert len(claims.claim(worker, "default", 1)) == 1
        assert ask(counted) == 1


class TestEndOfASession:
    def test_it_is_gone_when_it_is_said_to_be(self) -> None:
        lost = connection.copy()
        lost.ensure_connection()
        assert prepared.is_own(lost.connection)
        pid = lost.connection.info.backend_pid

        prepared.end_session(lost.connection)

        assert ask(f"SELECT COUNT(*) FROM pg_stat_activity WHERE pid = {pid}") == 0
        lost.close()

    def test_one_that_does_not_end_is_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        lost = connection.copy()
        lost.ensure_connection()
        assert prepared.is_own(lost.connection)
        process = prepared._sessions[lost.connection].process
        assert process
        # What pg_terminate_backend() says when its time is over.
        with connection.cursor() as cursor:
            cursor.execute(
                "CREATE FUNCTION pg_temp.pg_terminate_backend(int, int) RETURNS bool"
                " LANGUAGE sql AS 'SELECT false'"
            )
        deaf = "SELECT pg_temp.pg_terminate_backend(pid, %s)"
        monkeypatch.setattr(
            prepared, "_TERMINATE", prepared._TERMINATE.replace(deaf.replace("pg_temp.", ""), deaf)
        )

        with pytest.raises(OperationalError, match=f"session {process[0]} does not end"):
            prepared.end_session(lost.connection)
        lost.close()

    def test_nobody_is_ended_who_is_not_known(self) -> None:
        prepared.end_session(None)
        prepared.end_session(connection.connection)

        assert ask("SELECT 1") == 1
