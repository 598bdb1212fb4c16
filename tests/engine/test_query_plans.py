"""Do the engine's repeated queries use the indexes that are named after them?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import connection, transaction

from cq import (
    claims,
    leases,
    maintenance,
    prepared,
    removal,
    successes,
    surveys,
    task,
    workflow,
)
from cq.context import Context
from cq.ids import uuid7
from cq.mending import Mender
from cq.models import Task, Worker
from cq.outcomes import Outcome
from cq.recorder import record
from cq.states import Status
from plans import analyze, plans_of, start_afresh

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.skipif(
        "connection.vendor not in ('postgresql', 'sqlite')",
        reason="plans are read of PostgreSQL and SQLite",
    ),
]


@task
def step(cqt: Context) -> None: ...


@task
def ask(cqt: Context) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")


def fill(number: int, **columns: str) -> None:
    """Insert *number* rows; *columns* holds SQL for those that differ from their defaults."""
    given = {
        "func_name": f"'{step.name}'",
        "queue": "'default'",
        "priority": "0",
        **dict.fromkeys(("args", "kwargs", "named"), "'{}'"),
        "id": "ids.id",
        "root_id": "ids.id",
        **columns,
    }
    ids = f"SELECT gen_random_uuid() AS id FROM generate_series(1, {number})"
    if connection.vendor == "sqlite":
        ids = (
            f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {number})"
            " SELECT lower(hex(randomblob(16))) AS id FROM n"
        )
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO cq_task ({', '.join(given)}) SELECT {', '.join(given.values())}"
            f" FROM ({ids}) AS ids"
        )


@pytest.fixture(params=["analyzed", "never analyzed"])
def parent(request: pytest.FixtureRequest) -> Task:
    """A table as after a busy day: mostly finished, some scheduled, some on another queue."""
    is_analyzed = request.param == "analyzed"
    if not is_analyzed and connection.vendor == "postgresql":
        pytest.skip("PostgreSQL analyzes by itself")
    is_sqlite = connection.vendor == "sqlite"
    now = "STRFTIME('%Y-%m-%d %H:%M:%f', 'NOW')" if is_sqlite else "now()"
    tomorrow = "DATETIME('NOW', '+1 day')" if is_sqlite else "now() + interval '1 day'"
    parent_id = uuid7()
    key = f"'{parent_id.hex if is_sqlite else parent_id}'"
    below = {"parent_id": key, "parent_claim": "1", "root_id": key}
    ended = {"status": "'S'", "finished": now, "started": now}
    start_afresh()
    fill(8_000, **ended)
    fill(2_000, status="'Q'", run_at=tomorrow)
    fill(2_000, status="'Q'", ready="true", queue="'other'")
    fill(1, status="'W'", claim="1", id=key, root_id=key)
    fill(2_000, **ended, **below, depth="1")
    fill(200, status="'Q'", ready="true")
    fill(1, status="'Q'", ready="true", queue="'only'", **below, depth="1")
    Task.objects.filter(pk=parent_id).update(open_children=2)
    if is_analyzed:
        analyze()
    return Task.objects.get(pk=parent_id)


def assert_uses(index: str, act: Callable[[], Any]) -> None:
    plans = plans_of(act)
    for plan in plans:
        assert not plan.reads_whole, plan
    assert any(index in plan.text for plan in plans), plans


@pytest.fixture
def worker() -> Worker:
    return leases.register(queues=[], threads=1, is_embedded=False, is_scheduler=False)


def test_a_claim_uses_its_index(parent: Task, worker: Worker) -> None:
    assert_uses("cq_task_for_claim", lambda: claims.claim(worker, "default", 10))


@pytest.mark.skipif("connection.vendor != 'sqlite'", reason="others understand the condition")
@pytest.mark.parametrize("words", ['"ready"', '"ready" = 1'])
def test_a_claim_uses_its_index_in_the_words_of_any_django(
    parent: Task, worker: Worker, words: str
) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT sql FROM sqlite_master WHERE name = 'cq_task_for_claim'")
        made = cursor.fetchone()[0].partition(" WHERE ")[0]
        cursor.execute("DROP INDEX cq_task_for_claim")
        cursor.execute(f"{made} WHERE {words}")

    assert_uses("cq_task_for_claim", lambda: claims.claim(worker, "default", 10))


def test_the_control_a_query_without_index_is_found_out(parent: Task) -> None:
    (plan,) = plans_of(lambda: list(Task.objects.filter(reason="x")))

    assert plan.reads_whole


def test_a_survey_uses_its_indexes(parent: Task) -> None:
    for index in ("cq_task_for_claim", "cq_task_suspects", "cq_task_for_due", "cq_task_for_expiry"):
        assert_uses(index, surveys.survey)


def test_what_has_come_due_is_found_by_its_index(parent: Task) -> None:
    assert_uses("cq_task_for_due", surveys.release_due)


def test_what_has_expired_is_found_by_its_index(parent: Task) -> None:
    assert_uses("cq_task_for_expiry", maintenance.expire)


def test_what_has_finished_is_walked_through_by_its_index(parent: Task) -> None:
    assert_uses("cq_task_by_finished", lambda: removal.remove_finished(limit=200))


def test_what_waits_for_others_is_looked_at_by_its_index(parent: Task) -> None:
    assert_uses("cq_task_by_status", Mender().mend)


def test_what_a_dead_worker_held_is_found_by_its_index(parent: Task, worker: Worker) -> None:
    claims.claim(worker, "default", 50)

    assert_uses("cq_task_for_rescue", lambda: leases.end(worker))


def test_followers_are_found_by_their_index(parent: Task) -> None:
    end = workflow.Ended(parent.pk, Status.SUCCESS, "", None, 0)

    assert_uses("cq_task_by_previous", lambda: workflow._settle_followers([end], workflow.Moves()))


def test_harm_below_a_parent_is_found_by_its_index(parent: Task) -> None:
    for plan in plans_of(lambda: workflow.harmed(parent)):
        assert not plan.reads_whole, plan


def test_recording_touches_rows_by_their_keys_only(parent: Task, worker: Worker) -> None:
    claimed = claims.claim(worker, "default", 50)
    now = claimed[0].now()
    outcomes = [Outcome(one, Status.SUCCESS, now, now) for one in claimed]

    # The plan of a table's own key: PostgreSQL's name for it, and SQLite's.
    key = "cq_task_pkey" if connection.vendor == "postgresql" else "sqlite_autoindex_cq_task_1"
    assert_uses(key, lambda: record(outcomes))


def test_a_child_is_counted_off_without_reading_its_siblings(parent: Task, worker: Worker) -> None:
    (claimed,) = claims.claim(worker, "only", 1)
    now = claimed.now()

    for plan in plans_of(lambda: record([Outcome(claimed, Status.SUCCESS, now, now)])):
        assert "cq_task_by_parent" not in plan.text, plan
    parent.refresh_from_db()
    assert parent.open_children == 1
    assert claimed.parent_id == parent.pk


@pytest.fixture
def never_counted(transactional_db: None) -> Iterator[None]:
    """A new session, and a table of which PostgreSQL knows nothing, and is not told anything."""
    connection.close()
    start_afresh()
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE cq_task SET (autovacuum_enabled = false)")
        cursor.execute("SELECT usesuper FROM pg_user WHERE usename = CURRENT_USER")
        if cursor.fetchone() != (True,):
            pytest.skip("a superuser alone can take statistics away")
        cursor.execute("DELETE FROM pg_statistic WHERE starelid = 'cq_task'::regclass")
    yield
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE cq_task RESET (autovacuum_enabled)")
    connection.close()


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif("connection.vendor != 'postgresql'", reason="statistics of PostgreSQL")
class TestABacklogThatStatisticsDoNotKnow:
    """Tens of thousands came at once, and the table was not counted since."""

    @pytest.fixture(autouse=True)
    def backlog(self, never_counted: None) -> None:
        # So many that it looks cheaper to sort them than to follow the index.
        fill(30_000, status="'Q'", ready="true")

    def claims_in_its_order(self, worker: Worker) -> bool:
        (plan,) = plans_of(lambda: claims.claim(worker, "default", 10))
        assert "cq_task_for_claim" in plan.text
        # A join filter compares each of the rows that were leased with each that was due.
        return not any(word in plan.text for word in ("Sort", "Bitmap", "Join Filter"))

    def test_a_claim_reads_no_more_than_it_takes(self, worker: Worker) -> None:
        assert self.claims_in_its_order(worker)

    def test_the_control_without_the_setting_it_reads_all(
        self, worker: Worker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(prepared, "BY_INDEX", "SET LOCAL enable_sort = on; ")

        assert not self.claims_in_its_order(worker)

    def test_the_setting_ends_with_the_claim(self, worker: Worker) -> None:
        with connection.cursor() as cursor:
            assert claims.claim(worker, "default", 10)
            cursor.execute("SHOW enable_sort")
            assert cursor.fetchone() == ("on",)

    def test_a_claim_within_a_transaction_leaves_it_its_sorts(self, worker: Worker) -> None:
        with transaction.atomic(), connection.cursor() as cursor:
            assert claims.claim(worker, "default", 10)
            cursor.execute("SHOW enable_sort")
            assert cursor.fetchone() == ("on",)

    @pytest.mark.parametrize(
        ("index", "wanted"),
        [
            ("cq_task_suspects", {"suspects": True}),
            ("cq_task_by_function", {"only": [ask.name]}),
        ],
    )
    def test_a_claim_of_few_is_not_made_by_way_of_the_many(
        self, worker: Worker, index: str, wanted: dict[str, Any]
    ) -> None:
        analyze()
        for _ in range(4):
            (plan,) = plans_of(lambda: claims.claim(worker, "default", 10, **wanted))
            assert index in plan.text
            assert "cq_task_for_claim" not in plan.text

    def records_by_key(self, worker: Worker, number: int) -> bool:
        claimed = claims.claim(worker, "default", 500)
        now = claimed[0].now()
        outcomes = [Outcome(one, Status.SUCCESS, now, now) for one in claimed[:number]]
        plans = plans_of(lambda: record(outcomes))
        return not any("cq_task_for_rescue" in plan.text for plan in plans)

    def test_a_record_does_not_read_all_that_runs(self, worker: Worker) -> None:
        assert self.records_by_key(worker, 50)

    def test_the_control_worded_plainly_it_reads_all_that_runs(
        self, worker: Worker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(successes, "BY_ID_ALONE", successes._UNDISTURBED)

        assert not self.records_by_key(worker, 50)
