"""What holds when two connections do at one moment what concerns the same tree?

Each race is run again and again, with both sides let loose at once; what must hold, holds after
every round. On SQLite the two take turns at its one write lock.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import DatabaseError, connections
from django.db.models.functions import Now

from cq import acts, claims, enqueue, healing, leases, mending, operations, recorder, removal, task
from cq.context import Context
from cq.database import is_conflict, until_no_conflict
from cq.exceptions import CQError, DuplicateSubmitError
from cq.models import Task
from cq.outcomes import Claimed, Outcome
from cq.states import Status
from cq.testing import run_pending
from engine.looking import status_of, statuses_of

pytestmark = pytest.mark.django_db(transaction=True)

S, F, INCOMPLETE, E, P, Q, R, W = (
    Status.SUCCESS,
    Status.FAILURE,
    Status.INCOMPLETE,
    Status.REVOKED,
    Status.PENDING,
    Status.QUEUED,
    Status.RUNNING,
    Status.WAITING,
)
ROUNDS, FEW = 15, 5


@task
def step(cqt: Context) -> None: ...


@task
def parent(cqt: Context, children: int) -> None:
    cqt.subtask_many(step, [()] * children)


def at_once(*acts: Callable[[], Any]) -> list[Any]:
    """Let all of *acts* loose at one moment, each on a connection of its own."""
    barrier = threading.Barrier(len(acts))
    results: list[Any] = [None] * len(acts)

    def work(number: int) -> None:
        try:
            list(Task.objects.all()[:1])  # connected before the start
            barrier.wait(10)
            results[number] = acts[number]()
        except BaseException as error:  # noqa: BLE001 - raised again by the test's thread
            results[number] = error
        finally:
            connections.close_all()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(acts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "a deadlock that nobody resolved"
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results


def claim(number: int) -> list[Claimed]:
    worker = leases.register(queues=[], threads=1, is_embedded=False, is_scheduler=False)
    return claims.claim(worker, "default", number)


def record(claimed: Claimed, status: Status = S) -> Callable[[], Any]:
    """Record an outcome as the buffer does: again while it meets conflicts or locked rows."""

    def act() -> Any:
        now = claimed.now()
        while True:
            recorded = until_no_conflict(
                lambda: recorder.record([Outcome(claimed, status, now, now)])
            )
            if not recorded.left:
                return recorded

    return act


def patiently(act: Callable[[], Any]) -> Callable[[], Any]:
    """As a caller would who tries again after a deadlock."""

    def again() -> Any:
        while True:
            try:
                return act()
            except DatabaseError as error:
                if not is_conflict(error):
                    raise

    return again


class Between:
    """Holds one side between its look and its write until the other is done, if that can be.

    Where a lock keeps the other out, it is let on after a moment, and the other goes on then.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> None:
        self.is_there, self._is_over = threading.Event(), threading.Event()
        original = getattr(module, name)

        def held(*args: Any, **kwargs: Any) -> Any:
            if not self.is_there.is_set():
                self.is_there.set()
                self._is_over.wait(1)
            return original(*args, **kwargs)

        monkeypatch.setattr(module, name, held)

    def other(self, *acts: Callable[[], Any]) -> Callable[[], None]:
        def act() -> None:
            assert self.is_there.wait(20)
            for one in acts:
                patiently(one)()
            self._is_over.set()

        return act


def run_one() -> None:
    (claimed,) = claim(1)
    record(claimed)()


def test_a_follower_that_is_chained_to_a_failure_while_that_is_retried_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = step.delay()
    (claimed,) = claim(1)
    record(claimed, F)()
    between = Between(monkeypatch, enqueue, "build")

    follower, _retried = at_once(
        patiently(lambda: first.chain(step)),
        between.other(lambda: operations.retry([first]), run_one),
    )

    assert statuses_of(first, follower) == [S, Q]
    assert mending.mend_all() == 0


def test_a_follower_that_is_chained_while_a_retry_is_on_its_way_waits_for_the_next_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = step.delay()
    (claimed,) = claim(1)
    record(claimed, F)()
    between = Between(monkeypatch, acts, "write")
    made: list[Task] = []

    at_once(
        lambda: operations.retry([first]),
        between.other(lambda: made.append(first.chain(step))),
    )

    (follower,) = made
    assert statuses_of(first, follower) == [Q, P]
    assert not follower.is_blocked
    run_pending()
    assert statuses_of(first, follower) == [S, S]


def test_a_follower_that_is_retried_while_its_predecessor_ends_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = step.delay()
    follower = first.chain(step)
    follower.cancel()
    (claimed,) = claim(1)
    between = Between(monkeypatch, healing, "_requeue_pending")

    at_once(lambda: operations.retry([follower]), between.other(record(claimed)))

    assert statuses_of(first, follower) == [S, Q]
    assert mending.mend_all() == 0


def test_a_follower_that_is_retried_behind_one_that_is_retried_waits_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = step.delay()
    follower = first.chain(step)
    first.cancel()
    assert statuses_of(first, follower) == [E, E]
    between = Between(monkeypatch, healing, "_bring_back_followers")

    at_once(
        lambda: operations.retry([first]),
        between.other(lambda: operations.retry([follower]), run_one),
    )

    assert statuses_of(first, follower) == [S, Q]
    assert mending.mend_all() == 0


def test_two_claimers_never_share_a_row() -> None:
    stored = step.delay_many([()] * 120)

    batches = at_once(*[lambda: [claim(5) for _ in range(8)]] * 3)

    taken = [one.id for batch in batches for some in batch for one in some]
    assert len(taken) == len(set(taken))
    left = claim(200)
    assert len(taken) + len(left) == len(stored)
    assert set(Task.objects.values_list("claim", flat=True)) == {1}


def test_a_follower_chained_while_its_predecessor_is_recorded_runs() -> None:
    for status in [S, F] * ROUNDS:
        first = step.delay()
        (claimed,) = claim(1)

        _recorded, follower = at_once(
            record(claimed, status),
            patiently(lambda: first.chain(step, force_chain=True)),  # noqa: B023
        )

        assert status_of(follower) == Q
        run_pending()
        assert status_of(follower) == S


def test_a_follower_chained_behind_the_last_child_keeps_the_count_right() -> None:
    for _ in range(ROUNDS):
        stored = parent.delay(1)
        run_pending(limit=1)
        child = Task.objects.get(parent=stored)
        (claimed,) = claim(1)

        at_once(record(claimed), patiently(lambda: child.chain(step)))  # noqa: B023

        follower = Task.objects.get(previous=child)
        stored.refresh_from_db()
        assert (stored.status, stored.open_children) in [(W, 1), (S, 0)]
        run_pending()
        assert statuses_of(stored, follower) == [S, S]
        stored.refresh_from_db()
        assert stored.open_children == 0


def test_two_last_children_that_end_at_once_finish_their_parent_once() -> None:
    for _ in range(ROUNDS):
        stored = parent.delay(2)
        follower = stored.chain(step)
        run_pending(limit=1)
        first, second = claim(2)

        at_once(record(first), record(second))

        stored.refresh_from_db()
        assert (stored.status, stored.open_children) == (S, 0)
        assert status_of(follower) == Q
        run_pending()


def test_children_of_many_ends_are_all_counted() -> None:
    stored = parent.delay(24)
    run_pending(limit=1)
    claimed = claim(24)

    def some(start: int) -> Callable[[], Any]:
        return lambda: [record(one)() for one in claimed[start::4]]

    at_once(*[some(start) for start in range(4)])

    stored.refresh_from_db()
    assert (stored.status, stored.open_children) == (S, 0)


def test_a_retry_against_a_cancel_leaves_one_of_the_two() -> None:
    for _ in range(ROUNDS):
        stored = step.delay()
        (claimed,) = claim(1)
        record(claimed, F)()

        at_once(
            lambda: operations.retry([stored]),  # noqa: B023
            lambda: operations.cancel([stored]),  # noqa: B023
        )

        status = status_of(stored)
        assert status in (Q, E)
        assert stored.ready is (True if status == Q else None)
        assert run_pending() == (1 if status == Q else 0)


def test_two_retries_of_children_reopen_their_parent_for_both() -> None:
    for _ in range(ROUNDS):
        stored = parent.delay(2)
        run_pending(limit=1)
        for one in claim(2):
            record(one, F)()
        assert status_of(stored) == INCOMPLETE
        first, second = Task.objects.filter(parent=stored)

        at_once(
            lambda: operations.retry([first]),  # noqa: B023
            lambda: operations.retry([second]),  # noqa: B023
        )

        stored.refresh_from_db()
        assert (stored.status, stored.open_children) == (W, 2)
        run_pending()
        assert status_of(stored) == S


def test_a_cancel_against_the_record_of_a_child_leaves_nothing_open() -> None:
    for _ in range(ROUNDS):
        stored = parent.delay(2)
        run_pending(limit=1)
        (claimed,) = claim(1)

        at_once(record(claimed), lambda: operations.cancel([stored]))  # noqa: B023

        stored.refresh_from_db()
        assert (stored.status, stored.open_children) == (E, 0)
        assert not Task.objects.tree(stored).filter(status__in=Task.STATUS_ACTIVE).exists()
        assert run_pending() == 0


def test_a_cancel_against_an_atomic_task_that_ends_wins_or_comes_too_late() -> None:
    for _ in range(ROUNDS):
        stored = parent.delay(2)
        results = at_once(
            patiently(lambda: run_pending(limit=1)),
            lambda: operations.cancel([stored]),  # noqa: B023
        )

        assert status_of(stored) == E, results
        assert run_pending() == 0
        assert not Task.objects.active().exists()


def test_an_adoption_against_a_cancel_of_the_adopted_leaves_nothing_waiting() -> None:
    @task
    def adopt(cqt: Context, wanted: str) -> Any:
        return Task.objects.get(pk=wanted)

    for _ in range(FEW):
        wanted = step.using(queue="later").delay()
        follower = wanted.chain(step)
        stored = adopt.delay(str(wanted.pk))

        at_once(
            patiently(lambda: run_pending(limit=1, queues=["default"])),
            lambda: operations.cancel([wanted]),  # noqa: B023
        )
        run_pending()

        assert statuses_of(wanted, follower, stored) == [E, E, INCOMPLETE]
        assert wanted.parent_id == follower.parent_id == stored.pk
        assert stored.open_children == 0


@pytest.mark.parametrize("is_atomic", [True, False])
def test_of_two_that_return_one_task_only_one_adopts_it(is_atomic: bool) -> None:
    @task(atomic=is_atomic)
    def adopt(cqt: Context, wanted: str) -> Any:
        return Task.objects.get(pk=wanted)

    for _ in range(FEW):
        wanted = step.using(queue="later").delay()
        rivals = adopt.delay_many([(str(wanted.pk),)] * 2)

        at_once(*[patiently(lambda: run_pending(limit=1, queues=["default"]))] * 2)
        run_pending()

        assert sorted(statuses_of(*rivals)) == [F, S]
        assert status_of(wanted) == S
        (winner,) = (one for one in rivals if one.status == S)
        assert (wanted.parent_id, wanted.root_id) == (winner.pk, winner.pk)


@pytest.mark.parametrize("is_atomic", [True, False])
def test_what_a_task_makes_and_logs_around_its_adoption_belongs_to_the_new_family(
    is_atomic: bool,
) -> None:
    is_running, is_adopted = threading.Event(), threading.Event()

    @task(atomic=is_atomic, queue="below")
    def below(cqt: Context) -> None:
        cqt.log("before")
        cqt.subtask(step)
        is_running.set()
        assert is_adopted.wait(20)
        cqt.log("after")
        cqt.subtask(step).chain(step)

    @task(queue="above")
    def above(cqt: Context, wanted: str) -> Any:
        return Task.objects.get(pk=wanted)

    wanted = below.delay()
    stored = above.delay(str(wanted.pk))

    def adopt() -> None:
        assert is_running.wait(20)
        run_pending(queues=["above"])
        is_adopted.set()

    at_once(lambda: run_pending(queues=["below"]), adopt)
    run_pending()

    assert statuses_of(stored, wanted) == [S, S]
    made = Task.objects.filter(parent=wanted)
    assert [(row.root_id, row.depth, row.status) for row in made] == [(stored.pk, 2, S)] * 3
    assert [line.message for line in stored.logs] == ["before", "after"]


def test_a_coalesce_against_a_claim_ends_only_what_has_not_started() -> None:
    for _ in range(FEW):
        Task.objects.all().delete()
        stored = step.delay_many([()] * 4)

        claimed, affected = at_once(
            lambda: claim(2),
            patiently(lambda: operations.coalesce(stored)),  # noqa: B023
        )

        started = {one.id for one in claimed}
        assert not started & set(affected.done)
        assert set(Task.objects.filter(status=R).values_list("pk", flat=True)) == started
        assert Task.objects.filter(status=E).count() == len(affected.done)
        assert Task.objects.filter(status=Q).count() <= 2
        for one in claimed:
            record(one)()


def test_a_removal_against_a_chain_leaves_no_follower_without_predecessor() -> None:
    def chain_if_there(stored: Task) -> Task | None:
        try:
            return stored.chain(step)
        except CQError:
            return None

    for _ in range(FEW):
        stored = step.delay()
        run_pending()
        Task.objects.filter(pk=stored.pk).update(finished=Now() - timedelta(days=1))

        _removed, follower = at_once(
            patiently(removal.remove_finished),
            patiently(lambda: chain_if_there(stored)),  # noqa: B023
        )

        assert Task.objects.filter(pk=stored.pk).exists() == (follower is not None)
        assert run_pending() == (0 if follower is None else 1)
        Task.objects.all().delete()


def test_a_removal_against_a_retry_removes_nothing_that_runs() -> None:
    for _ in range(FEW):
        stored = step.delay()
        (claimed,) = claim(1)
        record(claimed, F)()
        Task.objects.filter(pk=stored.pk).update(finished=Now() - timedelta(days=30))

        _removed, affected = at_once(
            patiently(removal.remove_finished),
            lambda: operations.retry([stored]),  # noqa: B023
        )

        assert run_pending() == len(affected.done)
        Task.objects.all().delete()


def test_one_key_has_one_waiting_instance() -> None:
    @task(coalesce=True)
    def sync(cqt: Context) -> None: ...

    for _ in range(5):
        Task.objects.all().delete()

        made = at_once(*[patiently(sync.delay)] * 4)

        assert len({one.pk for one in made}) == 1
        assert Task.objects.count() == 1


def test_a_task_is_submitted_by_one_of_two() -> None:
    for _ in range(5):
        stored = step.delay_args(submit=False)
        refused: list[Any] = []

        def submit(stored: Task = stored, refused: list[Any] = refused) -> None:
            try:
                Task.objects.get(pk=stored.pk).submit()
            except DuplicateSubmitError as error:
                refused.append(error)

        at_once(submit, submit)

        assert len(refused) == 1
        assert run_pending() == 1
