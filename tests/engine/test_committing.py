"""Is a success that is committed in one message with its effects as safe as one in steps?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.db import connection, connections, transaction

from cq import committing, prepared, signals, task
from cq.context import Context
from cq.models import Task
from cq.states import Cause, Status
from cq.testing import run_pending
from engine.looking import status_of

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif("connection.vendor != 'postgresql'", reason="PostgreSQL alone can"),
]


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For each attempt to end a task so: did it succeed?"""
    answers = []
    write_and_commit = committing.write_and_commit

    def watched(*args: Any) -> bool:
        answers.append(write_and_commit(*args))
        return answers[-1]

    monkeypatch.setattr(committing, "write_and_commit", watched)
    return answers


@pytest.fixture(autouse=True)
def new_session() -> Iterator[None]:
    connection.close()
    yield
    connection.close()


@task("committing.write")
def write(cqt: Context, name: str = "a") -> str:
    Group.objects.create(name=name)
    return name


@task("committing.after")
def after(cqt: Context) -> None: ...


def elsewhere(act: Callable[[], object]) -> None:
    """Act on another connection."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(act).result(30)
        pool.submit(connections.close_all).result(30)


def is_prepared() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT COUNT(*) FROM pg_prepared_statements WHERE name = 'cq_end'")
        return int(cursor.fetchone()[0])


def names() -> list[str]:
    return sorted(Group.objects.values_list("name", flat=True))


def test_effects_result_and_hooks_come_once(at_once: list[bool]) -> None:
    hooks = []

    @task
    def act(cqt: Context, name: str) -> dict[str, str]:
        Group.objects.create(name=name)
        transaction.on_commit(lambda: hooks.append(name))
        return {"written": "it's 100 % \\ done"}

    ended = []

    def heard(**kwargs: Any) -> None:
        ended.append(kwargs["task_id"])

    signals.task_finished.connect(heard)
    try:
        stored = [act.delay("a"), act.delay("b")]
        run_pending()
    finally:
        signals.task_finished.disconnect(heard)

    assert at_once == [True, True]
    assert names() == sorted(hooks) == ["a", "b"]
    assert sorted(ended) == sorted(one.pk for one in stored)
    for one in stored:
        one.refresh_from_db()
        assert (one.status, one.result) == (Status.SUCCESS, {"written": "it's 100 % \\ done"})
        assert one.started
        assert one.finished
        assert one.started <= one.finished
    assert is_prepared() == 1


def run_one_that_loses_its_lease() -> None:
    @task
    def act(cqt: Context) -> None:
        Group.objects.create(name="a")
        elsewhere(lambda: Task.objects.filter(pk=cqt.id).update(claim=99))

    act.delay()
    run_pending(limit=1)


def test_who_has_lost_the_lease_commits_nothing(at_once: list[bool]) -> None:
    run_one_that_loses_its_lease()

    assert at_once == [False]
    assert names() == []


def test_the_control_without_the_error_it_commits(monkeypatch: pytest.MonkeyPatch) -> None:
    harmless = committing._END.sql.replace("1 / COUNT", "1 + COUNT")
    monkeypatch.setattr(committing, "_END", committing._END._replace(sql=harmless))

    run_one_that_loses_its_lease()

    assert names() == ["a"]


def test_a_cancel_before_the_end_wins(at_once: list[bool]) -> None:
    @task
    def act(cqt: Context) -> None:
        Group.objects.create(name="a")
        elsewhere(lambda: Task.objects.get(pk=cqt.id).cancel())

    stored = act.delay()
    run_pending()

    stored.refresh_from_db()
    assert (stored.status, stored.cause) == (Status.REVOKED, Cause.CANCELLED)
    assert names() == []
    assert True not in at_once


def test_what_was_chained_behind_it_meanwhile_runs_and_it_does_not_run_again(
    at_once: list[bool],
) -> None:
    runs = []

    @task
    def act(cqt: Context) -> None:
        runs.append(1)
        Group.objects.create(name="a")
        elsewhere(lambda: Task.objects.get(pk=cqt.id).chain(after))

    stored = act.delay()
    run_pending(limit=1)

    assert at_once == [False]
    assert status_of(stored) == Status.SUCCESS
    assert len(runs) == 1
    assert names() == ["a"]
    assert stored.next.get().status == Status.QUEUED


def test_a_parent_that_adopted_it_meanwhile_is_moved(at_once: list[bool]) -> None:
    above = after.delay()
    Task.objects.filter(pk=above.pk).update(
        status=Status.WAITING, ready=None, claim=1, open_children=1, returned=True, ends_as="S"
    )

    @task
    def act(cqt: Context) -> None:
        Group.objects.create(name="a")
        rows = Task.objects.filter(pk=cqt.id)
        elsewhere(lambda: rows.update(parent=above, parent_claim=1, root=above, depth=1))

    stored = act.delay()
    run_pending()

    assert at_once == [False]
    assert (status_of(stored), status_of(above)) == (Status.SUCCESS, Status.SUCCESS)
    assert names() == ["a"]


def test_a_follower_known_at_the_claim_is_not_tried(at_once: list[bool]) -> None:
    stored = write.delay()
    stored.chain(after)
    run_pending()

    assert at_once == []
    assert stored.next.get().status == Status.SUCCESS


def test_a_task_that_deallocates_what_was_prepared_runs_once_all_the_same(
    at_once: list[bool],
) -> None:
    runs = []

    @task
    def act(cqt: Context, name: str) -> None:
        runs.append(name)
        Group.objects.create(name=name)
        with connection.cursor() as cursor:
            cursor.execute("DEALLOCATE ALL")

    act.delay("a")
    act.delay("b")
    act.delay("c")
    write.delay("d")
    run_pending()

    # It is prepared at the end of the second one, and missed at that of the third.
    assert at_once == [True, True, False, True]
    assert runs == ["a", "b", "c"]
    assert names() == ["a", "b", "c", "d"]


def test_behind_a_pooler_it_is_committed_in_steps(
    at_once: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    # A pooler hands out a process id of its own making.
    monkeypatch.setattr(prepared, "_names_its_process", lambda *_who: False)

    write.delay("a")
    write.delay("b")
    run_pending()

    assert at_once == [False, False]
    assert names() == ["a", "b"]
    assert is_prepared() == 0


def test_a_constraint_that_refuses_the_commit_fails_the_task(at_once: list[bool]) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE TABLE deferred (number int UNIQUE DEFERRABLE INITIALLY DEFERRED, name text)"
        )

    @task
    def act(cqt: Context) -> None:
        Group.objects.create(name="a")
        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO deferred VALUES (1, 'a'), (1, 'b')")

    try:
        stored = act.delay()
        write.delay("b")
        run_pending()
    finally:
        with connection.cursor() as cursor:
            cursor.execute("DROP TABLE deferred")

    stored.refresh_from_db()
    assert stored.status == Status.FAILURE
    assert "duplicate key" in stored.error
    assert names() == ["b"]
    assert at_once == [True]


def test_a_result_that_the_database_refuses_fails_the_task(at_once: list[bool]) -> None:
    @task
    def act(cqt: Context) -> str:
        Group.objects.create(name="a")
        return "\0"

    stored = act.delay()
    run_pending()

    assert status_of(stored) == Status.FAILURE
    assert names() == []


def test_a_block_around_the_task_is_not_committed() -> None:
    with transaction.atomic():
        assert not committing.can_commit()  # nothing was sent in it
        assert names() == []
        assert committing.can_commit()
        with transaction.atomic():
            assert not committing.can_commit()
    assert not committing.can_commit()


def test_a_pooler_is_known_by_the_process_that_it_names() -> None:
    connection.ensure_connection()
    server = connection.connection.pgconn

    class Pooler:
        backend_pid = server.backend_pid + 1
        exec_ = server.exec_

    assert not prepared._names_its_process(Pooler, prepared._Session())
    session = prepared._Session()
    assert prepared._names_its_process(server, session)
    assert session.process
    assert session.process[0] == server.backend_pid
