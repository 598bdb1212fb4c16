"""When is a parent finished, and as what?"""

from __future__ import annotations

from typing import Any

import pytest

import cq
from cq import task
from cq.context import Context
from cq.models import Task
from cq.states import Cause, Status
from cq.testing import run_pending
from engine.looking import status_of

pytestmark = pytest.mark.django_db

S, F, INCOMPLETE, E, Q, W, Y = (
    Status.SUCCESS,
    Status.FAILURE,
    Status.INCOMPLETE,
    Status.REVOKED,
    Status.QUEUED,
    Status.WAITING,
    Status.RETRY,
)


@task
def leaf(cqt: Context, name: str = "leaf") -> str:
    return f"result of {name}"


@task
def fail(cqt: Context) -> None:
    raise ValueError("broken")


@task
def discard(cqt: Context) -> None:
    raise cq.Discard("not worth it")


def children_of(parent: Task) -> list[Task]:
    return list(Task.objects.filter(parent=parent).order_by("id"))


class TestWaiting:
    def test_a_parent_waits_for_its_last_child(self) -> None:
        @task
        def parent(cqt: Context) -> str:
            cqt.subtask(leaf, "a")
            cqt.subtask(leaf, "b")
            return "own result"

        stored = parent.delay()
        run_pending(limit=2)
        assert status_of(stored) == W
        assert (stored.open_children, stored.finished) == (1, None)

        run_pending()
        assert status_of(stored) == S
        assert stored.result == "own result"
        assert stored.open_children == 0
        last = max(child.finished for child in children_of(stored) if child.finished)
        assert stored.finished is not None
        assert stored.finished >= last

    def test_a_subtask_knows_its_place(self) -> None:
        places: list[Any] = []

        @task
        def child(cqt: Context) -> None:
            assert cqt.parent is not None
            places.append((cqt.parent.id, cqt.root_id))

        @task
        def parent(cqt: Context) -> None:
            stored = cqt.subtask(child)
            assert (stored.parent_id, stored.root_id, stored.depth) == (cqt.id, cqt.id, 1)

        stored = parent.delay()
        run_pending()

        assert places == [(stored.id, stored.id)]

    def test_three_levels_end_from_below(self) -> None:
        @task
        def middle(cqt: Context) -> None:
            cqt.subtask_many(leaf, [("a",), ("b",)])

        @task
        def top(cqt: Context) -> None:
            cqt.subtask(middle)
            cqt.subtask(middle)

        stored = top.delay()
        run_pending(limit=6)
        assert status_of(stored) == W
        run_pending()

        assert status_of(stored) == S
        assert [child.status for child in Task.objects.tree(stored)] == [S] * 7
        assert sorted(child.depth for child in Task.objects.tree(stored)) == [0, 1, 1, 2, 2, 2, 2]

    def test_a_thousand_subtasks_are_counted_in_one_column(self) -> None:
        @task
        def parent(cqt: Context) -> None:
            made = cqt.subtask_many(leaf, ((str(number),) for number in range(1001)))
            assert len(made) == 1001

        stored = parent.delay()
        run_pending(limit=1)

        assert status_of(stored) == W
        assert stored.open_children == 1001

    @pytest.mark.parametrize("is_atomic", [True, False])
    def test_a_parent_without_children_after_all_is_finished_at_once(self, is_atomic: bool) -> None:
        @task(atomic=is_atomic)
        def parent(cqt: Context) -> None:
            cqt.subtask_many(leaf, [])

        stored = parent.delay()
        run_pending()

        assert status_of(stored) == S

    def test_subtasks_of_an_atomic_parent_vanish_with_its_failure(self) -> None:
        @task
        def parent(cqt: Context) -> None:
            cqt.subtask(leaf)
            cqt.subtask_many(leaf, [("x",)] * 600)
            raise ValueError("broken")

        stored = parent.delay()
        run_pending()

        assert status_of(stored) == F
        assert Task.objects.count() == 1

    def test_a_delay_inside_a_task_is_no_subtask(self) -> None:
        @task
        def parent(cqt: Context) -> None:
            leaf.delay()

        stored = parent.delay()
        run_pending(limit=1)

        assert status_of(stored) == S
        assert Task.objects.exclude(pk=stored.pk).get().is_root

    def test_subtasks_are_created_also_when_they_coalesce(self) -> None:
        @task(coalesce=True)
        def one(cqt: Context) -> None: ...

        @task
        def parent(cqt: Context) -> None:
            cqt.subtask(one)
            cqt.subtask(one)
            cqt.subtask_many(one, [(), ()])

        stored = parent.delay()
        run_pending(limit=1)

        assert len(children_of(stored)) == 4


class TestIncomplete:
    def test_a_failed_child_leaves_the_parent_incomplete(self) -> None:
        @task
        def parent(cqt: Context) -> None:
            cqt.subtask(leaf)
            cqt.subtask(fail)

        stored = parent.delay()
        run_pending()

        assert status_of(stored) == INCOMPLETE

    def test_a_failed_child_of_three_levels_leaves_all_above_incomplete(self) -> None:
        @task
        def middle(cqt: Context) -> None:
            cqt.subtask(fail)

        @task
        def top(cqt: Context) -> None:
            cqt.subtask(middle)
            cqt.subtask(leaf)

        stored = top.delay()
        run_pending()

        assert [row.status for row in Task.objects.tree(stored)] == [INCOMPLETE, INCOMPLETE, S, F]

    @pytest.mark.parametrize(
        ("ending", "cause", "expected"),
        [
            ("cancel", Cause.CANCELLED, INCOMPLETE),
            ("expire", Cause.EXPIRED, INCOMPLETE),
            ("discard", Cause.DISCARDED, S),
            ("not needed", Cause.NOT_NEEDED, S),
        ],
    )
    def test_a_revoked_child_harms_its_parent_by_its_cause(
        self, ending: str, cause: Cause, expected: Status
    ) -> None:
        @task
        def parent(cqt: Context) -> None:
            if ending == "discard":
                cqt.subtask(discard)
            elif ending == "expire":
                cqt.subtask(leaf.using(expires=0))
            elif ending == "not needed":
                cqt.subtask(leaf).errorback(leaf)
            else:
                cqt.subtask(leaf)

        stored = parent.delay()
        run_pending(limit=1)
        if ending == "cancel":
            children_of(stored)[0].cancel()
        run_pending()

        assert status_of(stored) == expected
        assert children_of(stored)[-1].cause == cause

    def test_it_stays_waiting_while_anything_below_can_move(self) -> None:
        @task
        def parent(cqt: Context) -> None:
            cqt.subtask(fail)
            cqt.subtask(leaf.using(run_after=3600))

        stored = parent.delay()
        run_pending()

        assert status_of(stored) == W


class TestNonAtomicParents:
    def test_its_subtasks_are_visible_at_once(self) -> None:
        seen: list[Any] = []

        @task(atomic=False)
        def parent(cqt: Context) -> None:
            child = cqt.subtask(leaf)
            seen.append(Task.objects.filter(pk=child.pk).exists())
            seen.append(Task.objects.get(pk=cqt.id).open_children)

        stored = parent.delay()
        run_pending()

        assert seen == [True, 1]
        assert status_of(stored) == S

    def test_it_fails_only_after_the_subtasks_it_made(self) -> None:
        @task(atomic=False)
        def parent(cqt: Context) -> None:
            cqt.subtask(leaf)
            raise ValueError("too bad")

        stored = parent.delay()
        run_pending(limit=1)
        assert status_of(stored) == W
        assert stored.error == "ValueError: too bad"

        run_pending()
        assert status_of(stored) == F
        assert stored.error == "ValueError: too bad"
        assert [child.status for child in children_of(stored)] == [S]

    def test_its_errorback_runs_after_it_has_really_ended(self) -> None:
        ran: list[str] = []

        @task
        def child(cqt: Context) -> None:
            ran.append("child")

        @task
        def clean(cqt: Context) -> None:
            ran.append("errorback")

        @task(atomic=False)
        def parent(cqt: Context) -> None:
            cqt.errorback(clean.using(priority=50))
            cqt.subtask(child)
            raise ValueError("too bad")

        parent.delay().errorback(clean.using(priority=50))
        run_pending()

        assert ran == ["child", "errorback", "errorback"]

    def test_its_retry_starts_after_the_old_subtasks_and_counts_only_new_ones(self) -> None:
        attempts: list[int] = []

        @task(atomic=False, retries=1, backoff=0)
        def parent(cqt: Context) -> None:
            attempts.append(cqt.attempt)
            if cqt.attempt == 1:
                cqt.subtask(fail)
                raise ValueError("too bad")
            cqt.subtask(leaf)

        stored = parent.delay()
        run_pending(limit=1)
        assert status_of(stored) == W

        run_pending(limit=1)
        assert status_of(stored) == Y
        assert attempts == [1]

        run_pending()
        assert attempts == [1, 2]
        assert status_of(stored) == S  # the failed child belongs to the attempt that failed

    def test_a_follower_of_an_old_child_does_not_count_for_the_next_attempt(self) -> None:
        @task(atomic=False, retries=1, backoff=0)
        def parent(cqt: Context) -> None:
            if cqt.attempt == 1:
                cqt.subtask(leaf, "old").chain(leaf.using(run_after=3600), ("late",))
                raise ValueError("too bad")

        stored = parent.delay()
        run_pending(limit=2)

        # The late follower still has to end before the parent runs again.
        assert status_of(stored) == W
        assert stored.open_children == 1


class TestAdoption:
    def test_a_returned_task_is_waited_for_and_gives_its_result(self) -> None:
        @task
        def parent(cqt: Context) -> Any:
            return leaf.delay("adopted")

        stored = parent.delay()
        run_pending(limit=1)
        assert status_of(stored) == W
        run_pending()

        assert status_of(stored) == S
        assert stored.result == "result of adopted"
        child = Task.objects.exclude(pk=stored.pk).get()
        assert (child.parent_id, child.root_id, child.depth) == (stored.id, stored.id, 1)

    def test_a_returned_subtask_gives_its_result(self) -> None:
        @task
        def parent(cqt: Context) -> Any:
            cqt.subtask(leaf, "other")
            return cqt.subtask(leaf, "chosen")

        stored = parent.delay()
        run_pending()

        assert status_of(stored) == S
        assert stored.result == "result of chosen"

    def test_results_are_adopted_through_levels(self) -> None:
        @task
        def middle(cqt: Context) -> Any:
            return cqt.subtask(leaf, "deep")

        @task
        def top(cqt: Context) -> Any:
            return middle.delay()

        stored = top.delay()
        run_pending()

        assert status_of(stored) == S
        assert stored.result == "result of deep"
        assert {row.root_id for row in Task.objects.all()} == {stored.id}

    def test_the_whole_chain_is_adopted(self) -> None:
        @task
        def parent(cqt: Context) -> Any:
            first = leaf.delay("first")
            second = first.chain(leaf, ("second",))
            second.chain(leaf, ("third",))
            return second

        stored = parent.delay()
        run_pending(limit=1)
        assert status_of(stored) == W
        assert stored.open_children == 3

        run_pending(limit=2)
        assert status_of(stored) == W
        run_pending()
        assert status_of(stored) == S
        assert stored.result == "result of second"
        assert [child.parent_id for child in Task.objects.tree(stored)][1:] == [stored.id] * 3

    def test_a_task_that_failed_when_adopted_makes_the_parent_incomplete(self) -> None:
        @task
        def parent(cqt: Context) -> Any:
            return fail.delay()

        stored = parent.delay()
        run_pending()

        assert status_of(stored) == INCOMPLETE

    @pytest.mark.parametrize(("made", "expected"), [(leaf, S), (fail, INCOMPLETE)])
    def test_a_task_that_has_ended_counts_at_once(self, made: Any, expected: Status) -> None:
        ended = made.delay()
        run_pending()

        @task
        def parent(cqt: Context) -> Any:
            return Task.objects.get(pk=ended.pk)

        stored = parent.delay()
        run_pending(limit=1)

        assert status_of(stored) == expected
        assert stored.result == ("result of leaf" if expected == S else None)

    def test_log_lines_move_with_the_adopted(self) -> None:
        @task
        def chatty(cqt: Context) -> None:
            cqt.log("from below")

        ended = chatty.delay()
        run_pending()

        @task
        def parent(cqt: Context) -> Any:
            cqt.log("from above")
            return Task.objects.get(pk=ended.pk)

        stored = parent.delay()
        run_pending()

        assert [line.message for line in stored.logs] == ["from below", "from above"]

    def test_the_subtree_of_the_adopted_comes_along(self) -> None:
        @task
        def middle(cqt: Context) -> None:
            cqt.subtask(leaf)

        ended = middle.delay()
        run_pending()

        @task
        def parent(cqt: Context) -> Any:
            return Task.objects.get(pk=ended.pk)

        stored = parent.delay()
        run_pending()

        assert [row.depth for row in Task.objects.filter(root=stored).order_by("depth")] == [
            0,
            1,
            2,
        ]

    def test_returning_itself_fails(self) -> None:
        @task
        def parent(cqt: Context) -> Any:
            return Task.objects.get(pk=cqt.id)

        stored = parent.delay()
        run_pending()

        assert status_of(stored) == F
        assert "cannot return itself" in stored.error

    def test_returning_an_ancestor_fails(self) -> None:
        @task
        def child(cqt: Context) -> Any:
            return Task.objects.get(pk=cqt.root_id)

        @task
        def middle(cqt: Context) -> None:
            cqt.subtask(child)

        @task
        def top(cqt: Context) -> None:
            cqt.subtask(middle)

        stored = top.delay()
        run_pending()

        assert [row.status for row in Task.objects.tree(stored)] == [INCOMPLETE, INCOMPLETE, F]
        assert "ancestor" in Task.objects.get(func_name=child.name).error

    def test_returning_a_task_of_another_parent_fails(self) -> None:
        @task
        def other(cqt: Context) -> None:
            cqt.subtask(leaf)

        other.delay()
        run_pending()
        stranger = Task.objects.get(func_name=leaf.name)

        @task
        def parent(cqt: Context) -> Any:
            return Task.objects.get(pk=stranger.pk)

        stored = parent.delay()
        run_pending()

        assert status_of(stored) == F
        assert "another parent" in stored.error

    def test_returning_its_own_predecessor_fails(self) -> None:
        @task
        def second(cqt: Context) -> Any:
            return cqt.previous

        last = leaf.delay().chain(second)
        run_pending()

        assert status_of(last) == F
        assert "chained" in last.error

    def test_returning_a_task_that_is_not_stored_fails(self) -> None:
        @task
        def parent(cqt: Context) -> Any:
            return Task(func_name=leaf.name)

        stored = parent.delay()
        run_pending()

        assert status_of(stored) == F
        assert "not stored" in stored.error

    @pytest.mark.parametrize("is_atomic", [True, False])
    def test_a_refused_adoption_leaves_no_child_behind_uncounted(self, is_atomic: bool) -> None:
        @task(atomic=is_atomic)
        def parent(cqt: Context) -> Any:
            cqt.subtask(leaf)
            return Task.objects.get(pk=cqt.id)

        stored = parent.delay()
        run_pending()

        assert status_of(stored) == F
        assert "cannot return itself" in stored.error
        assert stored.open_children == 0
        # An atomic task that fails leaves nothing; one that is not keeps what it made.
        assert len(children_of(stored)) == (0 if is_atomic else 1)
