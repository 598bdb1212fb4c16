"""Do the engine's repeated queries use the indexes that are named after them?"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from cq import claims, leases, maintenance, removal, task, workflow
from cq.context import Context
from cq.ids import uuid7
from cq.mending import Mender
from cq.models import Task, Worker
from cq.outcomes import Outcome
from cq.recorder import record
from cq.states import Status

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.skipif("connection.vendor != 'postgresql'", reason="plans are PostgreSQL's"),
]


@task
def step(cqt: Context) -> None: ...


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
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO cq_task ({', '.join(given)}) SELECT {', '.join(given.values())}"
            f" FROM (SELECT gen_random_uuid() AS id FROM generate_series(1, {number})) AS ids"
        )


@pytest.fixture
def parent() -> Task:
    """A table as after a busy day: mostly finished, some scheduled, some on another queue."""
    parent_id = uuid7()
    below = {"parent_id": f"'{parent_id}'", "parent_claim": "1", "root_id": f"'{parent_id}'"}
    ended = {"status": "'S'", "finished": "now()", "started": "now()"}
    fill(8_000, **ended)
    fill(2_000, status="'Q'", run_at="now() + interval '1 day'")
    fill(2_000, status="'Q'", ready="true", queue="'other'")
    fill(1, status="'W'", claim="1", id=f"'{parent_id}'", root_id=f"'{parent_id}'")
    fill(2_000, **ended, **below, depth="1")
    fill(200, status="'Q'", ready="true")
    fill(1, status="'Q'", ready="true", queue="'only'", **below, depth="1")
    Task.objects.filter(pk=parent_id).update(open_children=2)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE cq_task")
    return Task.objects.get(pk=parent_id)


def plans_of(act: Callable[[], Any]) -> list[tuple[str, str]]:
    """Each statement that *act* sent about tasks, with its plan."""
    with CaptureQueriesContext(
        connection,
    ) as captured:
        act()
    found = []
    for query in captured.captured_queries:
        sql = query["sql"]
        if '"cq_task"' in sql and sql.startswith(("SELECT", "UPDATE", "WITH", "DELETE")):
            with connection.cursor() as cursor:
                cursor.execute("EXPLAIN (FORMAT JSON) " + sql)
                (plan,) = cursor.fetchone()
            found.append((sql, plan if isinstance(plan, str) else json.dumps(plan)))
    return found


def assert_uses(index: str, act: Callable[[], Any]) -> None:
    plans = plans_of(act)
    assert plans
    for sql, plan in plans:
        # The tables of what is stopped are small: those it may read whole.
        assert not re.search(r'"Seq Scan"[^{}]*"Relation Name": "cq_task"', plan), (sql, plan)
    assert any(index in plan for _sql, plan in plans), plans


@pytest.fixture
def worker() -> Worker:
    return leases.register(queues=[], threads=1, is_embedded=False, is_scheduler=False)


def test_a_claim_uses_its_index(parent: Task, worker: Worker) -> None:
    assert_uses("cq_task_for_claim", lambda: claims.claim(worker, "default", 10))


def test_the_control_a_query_without_index_is_found_out(parent: Task) -> None:
    plans = plans_of(lambda: list(Task.objects.filter(reason="x")))

    assert re.search(r'"Seq Scan"[^{}]*"Relation Name": "cq_task"', plans[0][1])


def test_a_survey_uses_its_indexes(parent: Task) -> None:
    assert_uses("cq_task_for_claim", claims.survey)


def test_what_has_come_due_is_found_by_its_index(parent: Task) -> None:
    assert_uses("cq_task_for_due", claims.release_due)


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
    plans = plans_of(lambda: workflow.harmed(parent))

    assert all("Seq Scan" not in plan for _sql, plan in plans)


def test_recording_touches_rows_by_their_keys_only(parent: Task, worker: Worker) -> None:
    claimed = claims.claim(worker, "default", 50)
    now = claimed[0].now()
    outcomes = [Outcome(one, Status.SUCCESS, now, now) for one in claimed]

    for sql, plan in plans_of(lambda: record(outcomes)):
        # The tables of what is stopped are small: those it may read whole.
        assert not re.search(r'"Seq Scan"[^{}]*"Relation Name": "cq_task"', plan), (sql, plan)


def test_a_child_is_counted_off_without_reading_its_siblings(parent: Task, worker: Worker) -> None:
    (claimed,) = claims.claim(worker, "only", 1)
    now = claimed.now()

    for sql, plan in plans_of(lambda: record([Outcome(claimed, Status.SUCCESS, now, now)])):
        assert "cq_task_by_parent" not in plan, (sql, plan)
    parent.refresh_from_db()
    assert parent.open_children == 1
    assert claimed.parent_id == parent.pk
