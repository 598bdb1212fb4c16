"""Does every task move as the table of moves says, and is every move of the table made?

A trigger of the database writes down each change of a status, whoever makes it and how.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import connection
from django.db.models.functions import Now

import cq
from cq import claims, leases, operations, recorder, registry, surveys, task
from cq.buffers import RecordBuffer
from cq.context import Context, Run
from cq.models import Task
from cq.outcomes import Outcome
from cq.states import MOVES, Status, may_move
from cq.statistics import Tally
from cq.testing import run_pending
from engine.looking import status_of

pytestmark = pytest.mark.django_db(transaction=True)

IS_BROKEN = True

_CREATE = {
    "sqlite": [
        """CREATE TRIGGER seen_moves_note AFTER UPDATE OF status ON cq_task
        WHEN OLD.status <> NEW.status
        BEGIN INSERT INTO seen_moves VALUES (OLD.status, NEW.status); END""",
    ],
    "postgresql": [
        """CREATE FUNCTION seen_moves_note() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN INSERT INTO seen_moves VALUES (OLD.status, NEW.status); RETURN NEW; END $$""",
        """CREATE TRIGGER seen_moves_note AFTER UPDATE OF status ON cq_task FOR EACH ROW
        WHEN (OLD.status <> NEW.status) EXECUTE FUNCTION seen_moves_note()""",
    ],
    "mysql": [
        """CREATE TRIGGER seen_moves_note AFTER UPDATE ON cq_task FOR EACH ROW
        IF OLD.status <> NEW.status THEN
        INSERT INTO seen_moves VALUES (OLD.status, NEW.status); END IF""",
    ],
}
_DROP = {
    "sqlite": ["DROP TRIGGER seen_moves_note"],
    "postgresql": ["DROP TRIGGER seen_moves_note ON cq_task", "DROP FUNCTION seen_moves_note"],
    "mysql": ["DROP TRIGGER seen_moves_note"],
}


@pytest.fixture
def seen(transactional_db: None) -> Iterator[Callable[[], set[tuple[Status, Status]]]]:
    """The moves that were made so far."""
    create = "CREATE TABLE seen_moves (old_status varchar(1), new_status varchar(1))"
    with connection.cursor() as cursor:
        for statement in (create, *_CREATE[connection.vendor]):
            cursor.execute(statement)

        def read() -> set[tuple[Status, Status]]:
            cursor.execute("SELECT DISTINCT old_status, new_status FROM seen_moves")
            return {(Status(before), Status(after)) for before, after in cursor.fetchall()}

        try:
            yield read
        finally:
            for statement in (*_DROP[connection.vendor], "DROP TABLE seen_moves"):
                cursor.execute(statement)


@pytest.fixture(autouse=True)
def _broken() -> None:
    global IS_BROKEN
    IS_BROKEN = True


@task
def step(cqt: Context) -> None: ...


@task
def fail(cqt: Context) -> None:
    if IS_BROKEN:
        raise ValueError("broken")


@task
def discard(cqt: Context) -> None:
    raise cq.Discard("not worth it")


@task(retries=1, backoff=0)
def fail_twice(cqt: Context) -> None:
    raise ValueError("broken")


@task(retries=1, backoff=600)
def fail_and_wait(cqt: Context) -> None:
    raise ValueError("broken")


@task
def parent(cqt: Context, child: str) -> None:
    cqt.subtask(child)


@task(atomic=False, retries=1, backoff=0)
def loose_parent(cqt: Context, child: str, problem: str) -> None:
    stored = cqt.subtask(child)
    if problem == "child ended":
        Task.objects.filter(pk=stored.pk).update(priority=100)
        run_pending(limit=1)
    if problem == "fail":
        raise ValueError("broken")
    if problem == "discard":
        raise cq.Discard("not worth it")


def lose(stored: Task, *, deaths: int = 1, has_child: bool = False) -> None:
    """Let workers die while they run it alone, as often; perhaps it has made a subtask by then."""
    for death in range(deaths):
        # Over is the pause after the death before.
        Task.objects.filter(pk=stored.pk).update(run_at=Now())
        surveys.release_due()
        worker = leases.register(queues=[], threads=1, is_embedded=False, is_scheduler=False)
        (claimed,) = claims.claim(worker, "default", 1, suspects=death > 0)
        assert claimed.id == stored.pk
        if has_child and death == deaths - 1:
            buffer = RecordBuffer(Tally(worker.pk), lambda _outcomes: None)
            Run(claimed, is_atomic=False, sink=buffer).add_children([registry.call(step, ())])
        leases.bury(worker.pk, running=[stored.pk])


def hand_back(stored: Task) -> None:
    worker = leases.register(queues=[], threads=1, is_embedded=False, is_scheduler=False)
    (claimed,) = claims.claim(worker, "default", 1)
    now = claimed.now()
    recorder.record([Outcome(claimed, Status.QUEUED, now, now)])
    leases.end(worker)


def test_the_moves_that_are_made_are_those_of_the_table(
    seen: Callable[[], set[tuple[Status, Status]]], settings: Any
) -> None:
    global IS_BROKEN
    settings.CQ_MAX_LOST = 2
    hand_back(step.delay())
    first = step.delay()
    first.chain(step).chain(fail)
    first.errorback(step)
    run_pending()

    for queued in (step.delay(), step.delay_args(submit=False), step.using(run_after=60).delay()):
        queued.cancel()
        queued.retry()
    step.delay_args(submit=False).submit()
    step.using(expires=0).delay()
    discard.delay()
    head = step.delay()
    head.chain(step)
    head.cancel()
    head.retry()
    run_pending()

    fail_twice.delay()
    waiting = fail_and_wait.delay()
    run_pending()
    waiting.cancel()

    lost = step.delay()
    lose(lost, deaths=3)
    assert status_of(lost) == Status.LOST
    lost.retry()
    run_pending()
    lost_parent = loose_parent.delay(step.name, "")
    lose(lost_parent, deaths=3, has_child=True)
    assert status_of(lost_parent) == Status.WAITING
    run_pending()
    assert status_of(lost_parent) == Status.LOST

    tree = parent.delay(parent.name + "_missing")
    run_pending()
    assert status_of(tree) == Status.FAILURE
    healing = parent.delay(fail.name)
    cancelled = parent.delay(step.name)
    run_pending(limit=2)
    cancelled.cancel()
    cancelled.retry()
    run_pending()
    for problem in ("fail", "discard", "child ended", ""):
        loose_parent.delay(fail.name, problem)
        run_pending()
    IS_BROKEN = False
    operations.retry([healing])
    run_pending()
    assert status_of(healing) == Status.SUCCESS

    made = seen()
    assert not [move for move in made if not may_move(*move)]
    table = {(before, after) for before, moves in MOVES.items() for after in moves}
    assert table - made == set()
