"""What stops when a task is cancelled, and when does it say so?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group

from cq import TaskCancelled, operations, task
from cq.context import Context
from cq.models import Task
from cq.states import Cause, Status
from cq.testing import run_pending
from engine.looking import status_of, statuses_of

pytestmark = pytest.mark.django_db

S, F, INCOMPLETE, E, P, Q, R, W, Y = (
    Status.SUCCESS,
    Status.FAILURE,
    Status.INCOMPLETE,
    Status.REVOKED,
    Status.PENDING,
    Status.QUEUED,
    Status.RUNNING,
    Status.WAITING,
    Status.RETRY,
)
RAN: list[str] = []


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    yield
    RAN.clear()


@task
def step(cqt: Context, name: str) -> str:
    RAN.append(name)
    return name


@task
def parent(cqt: Context, *children: str) -> None:
    for child in children:
        cqt.subtask(step, child)


def child_of(stored: Task, name: str) -> Task:
    return Task.objects.exclude(pk=stored.pk).get(root=stored.root_id, args__0=name)


class TestIdle:
    def test_a_queued_task_ends_at_once_with_who_and_why(self) -> None:
        ada = get_user_model().objects.create_user("ada")
        stored = step.delay("a")

        operations.cancel([stored], "wrong file", by=ada)

        assert status_of(stored) == E
        assert (stored.cause, stored.reason) == (Cause.CANCELLED, "cancelled: wrong file")
        assert stored.cancelled_by == "ada"
        assert stored.finished is not None
        assert run_pending() == 0

    def test_a_scheduled_task_ends_at_once(self) -> None:
        stored = step.using(run_after=3600).delay("a")

        stored.cancel()

        assert status_of(stored) == E

    def test_a_pending_task_ends_at_once(self) -> None:
        stored = step.delay_args(("a",), submit=False)

        stored.revoke()

        assert status_of(stored) == E

    def test_one_that_waits_for_its_next_attempt_ends_at_once(self) -> None:
        @task(retries=1, backoff=3600)
        def flaky(cqt: Context) -> None:
            raise ValueError("broken")

        stored = flaky.delay()
        run_pending()
        assert status_of(stored) == Y

        stored.cancel()

        assert status_of(stored) == E

    def test_one_that_has_ended_is_skipped(self) -> None:
        stored = step.delay("a")
        run_pending()

        affected = operations.cancel([stored])

        assert affected.skipped == {stored.pk: "it has ended: succeeded"}
        assert status_of(stored) == S

    def test_its_key_is_free_again(self) -> None:
        @task(coalesce="nightly")
        def sync(cqt: Context) -> None: ...

        first = sync.delay()
        first.cancel()

        assert sync.delay().pk != first.pk

    def test_what_is_chained_behind_it_is_cancelled_whatever_its_condition(self) -> None:
        first = step.delay("a")
        followers = [
            first.chain(step, ("b",)),
            first.chain(step, ("c",), force_chain=True),
            first.errorback(step, ("d",)),
        ]
        last = followers[0].chain(step, ("e",))

        first.cancel()

        assert statuses_of(*followers, last) == [E, E, E, E]
        assert {row.cause for row in followers} == {Cause.CANCELLED}
        assert run_pending() == 0

    def test_a_blocked_follower_can_be_cancelled(self) -> None:
        @task
        def fail(cqt: Context) -> None:
            raise ValueError("broken")

        first = fail.delay()
        follower = first.chain(step, ("b",))
        behind = follower.chain(step, ("c",))
        run_pending()

        follower.cancel()

        assert statuses_of(first, follower, behind) == [F, E, E]


class TestWaiting:
    def test_a_waiting_tree_ends_with_all_that_has_not_run(self) -> None:
        stored = parent.delay("a", "b")
        run_pending(limit=2)
        assert status_of(stored) == W

        stored.cancel()

        assert statuses_of(stored, child_of(stored, "a"), child_of(stored, "b")) == [E, S, E]
        assert stored.cause == Cause.CANCELLED
        assert stored.open_children == 0
        assert stored.finished is not None
        assert run_pending() == 0

    def test_followers_below_are_cancelled_too(self) -> None:
        @task
        def top(cqt: Context) -> None:
            cqt.subtask(step, "a").chain(step, ("b",))

        stored = top.delay()
        after = stored.chain(step, ("c",), force_chain=True)
        run_pending(limit=1)

        stored.cancel()

        assert {row.status for row in Task.objects.tree(stored)} == {E}
        assert status_of(after) == E
        assert run_pending() == 0

    def test_cancelling_one_child_leaves_its_siblings_and_harms_the_parent(self) -> None:
        stored = parent.delay("a", "b")
        run_pending(limit=1)

        child_of(stored, "a").cancel()
        assert status_of(stored) == W
        run_pending()

        assert status_of(stored) == INCOMPLETE
        assert RAN == ["b"]

    def test_a_parent_and_its_children_cancelled_in_one_go_end_once(self) -> None:
        stored = parent.delay("a", "b", "c")
        run_pending(limit=1)

        operations.cancel(Task.objects.all())

        assert {row.status for row in Task.objects.tree(stored)} == {E}
        stored.refresh_from_db()
        assert stored.open_children == 0

    def test_a_failed_non_atomic_parent_whose_children_are_open_ends_revoked(self) -> None:
        @task(atomic=False, retries=1, backoff=0)
        def loose(cqt: Context) -> None:
            cqt.subtask(step, "a")
            raise ValueError("broken")

        stored = loose.delay()
        run_pending(limit=1)
        assert status_of(stored) == W

        stored.cancel()

        assert status_of(stored) == E
        assert run_pending() == 0


class TestRunning:
    """A task that cancels itself stands for one that is cancelled from elsewhere meanwhile."""

    def test_an_atomic_task_is_rolled_back_although_it_returned(self) -> None:
        @task
        def write(cqt: Context) -> str:
            Group.objects.create(name="written")
            RAN.append("wrote")
            return "done"

        stored = write.delay()
        cancel_while_running(stored)

        run_pending()

        assert RAN == ["wrote"]
        assert status_of(stored) == E
        assert (stored.cause, stored.reason) == (Cause.CANCELLED, "cancelled: meanwhile")
        assert stored.result is None
        assert not Group.objects.exists()

    def test_an_atomic_task_that_used_no_database_is_revoked_too(self) -> None:
        @task
        def idle(cqt: Context) -> str:
            RAN.append("ran")
            return "done"

        stored = idle.delay()
        cancel_while_running(stored)
        run_pending()

        assert RAN == ["ran"]
        assert status_of(stored) == E
        assert stored.result is None

    def test_a_non_atomic_task_that_returned_stays_succeeded(self) -> None:
        @task(atomic=False)
        def loose(cqt: Context) -> str:
            Group.objects.create(name="written")
            return "done"

        stored = loose.delay()
        follower = stored.chain(step, ("after",))
        cancel_while_running(stored)
        run_pending()

        assert status_of(stored) == S
        assert stored.result == "done"
        assert Group.objects.exists()
        assert status_of(follower) == E
        assert RAN == []

    def test_the_waiting_children_of_a_non_atomic_task_are_cancelled(self) -> None:
        @task(atomic=False)
        def loose(cqt: Context) -> str:
            cqt.subtask(step, "a")
            operations.cancel([cqt.id], "meanwhile")
            return "done"

        stored = loose.delay()
        run_pending()

        assert {row.status for row in Task.objects.filter(parent=stored)} == {E}
        assert RAN == []
        stored.refresh_from_db()
        assert stored.open_children == 0
        assert stored.is_finished

    def test_it_makes_no_subtasks_after_the_cancel(self) -> None:
        @task(atomic=False)
        def loose(cqt: Context) -> str:
            operations.cancel([cqt.id], "meanwhile")
            cqt.subtask(step, "a")
            return "done"

        stored = loose.delay()
        run_pending()

        assert RAN == []
        assert list(Task.objects.all()) == [stored]
        assert status_of(stored) == E

    def test_followers_that_it_asked_for_itself_do_not_run(self) -> None:
        @task(atomic=False)
        def loose(cqt: Context) -> str:
            cqt.chain(step, ("a",))
            cqt.chain(step, ("b",), force_chain=True)
            operations.cancel([cqt.id], "meanwhile")
            return "done"

        loose.delay()
        run_pending()

        assert RAN == []

    def test_it_is_asked_and_runs_until_it_stops(self) -> None:
        seen: list[Any] = []

        @task(atomic=False)
        def loose(cqt: Context) -> str:
            operations.cancel([cqt.id], "meanwhile")
            row = Task.objects.get(pk=cqt.id)
            seen.append((row.status, row.is_cancelling))
            raise TaskCancelled

        stored = loose.delay()
        run_pending()

        assert seen == [(R, True)]
        assert status_of(stored) == E
        assert not stored.is_cancelling
        assert stored.reason == "cancelled: meanwhile"

    def test_a_failure_with_attempts_left_is_not_retried_once_cancelled(self) -> None:
        @task(atomic=False, retries=3, backoff=0)
        def loose(cqt: Context) -> str:
            RAN.append("attempt")
            operations.cancel([cqt.id])
            raise ValueError("broken")

        stored = loose.delay()
        run_pending()

        assert RAN == ["attempt"]
        assert status_of(stored) == E

    def test_a_checkpoint_raises_once_a_cancel_was_asked_for(self) -> None:
        @task(atomic=False)
        def loose(cqt: Context) -> None:
            cqt.checkpoint()
            cqt._run.is_cancelled = True
            assert cqt.is_cancelled
            for checkpoint in (cqt.checkpoint, lambda: cqt.log("x"), lambda: cqt.progress(1, 2)):
                with pytest.raises(TaskCancelled):
                    checkpoint()
            RAN.append("checked")

        loose.delay()
        run_pending()

        assert RAN == ["checked"]

    def test_cancelled_is_not_caught_by_except_exception(self) -> None:
        assert not issubclass(TaskCancelled, Exception)


def cancel_while_running(stored: Task) -> None:
    """Ask *stored* to stop once it runs: between its claim and the fence of its record.

    The request is written by the claim's own thread, as one from another process would have been
    committed meanwhile; an atomic task that wrote it itself would roll it back.
    """
    from cq import testing

    original = testing._PassingWorker.run

    def run(self: Any, claimed: Any) -> None:
        testing._PassingWorker.run = original  # type: ignore[method-assign]
        operations.cancel([claimed.id], "meanwhile")
        original(self, claimed)

    testing._PassingWorker.run = run  # type: ignore[method-assign]
