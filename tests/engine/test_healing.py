"""What does a retry bring back, and what does it leave alone?"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db.models.functions import Now

import cq
from cq import acts, operations, task
from cq.context import Context
from cq.models import Act, ActItem, Task
from cq.states import Cause, Status
from cq.testing import run_pending
from engine.looking import status_of, statuses_of

pytestmark = pytest.mark.django_db

S, F, INCOMPLETE, L, E, P, Q, R, W, Y = (
    Status.SUCCESS,
    Status.FAILURE,
    Status.INCOMPLETE,
    Status.LOST,
    Status.REVOKED,
    Status.PENDING,
    Status.QUEUED,
    Status.RUNNING,
    Status.WAITING,
    Status.RETRY,
)
RAN: list[str] = []
BROKEN: set[str] = set()


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    yield
    RAN.clear()
    BROKEN.clear()


@task
def step(cqt: Context, name: str) -> str:
    RAN.append(name)
    if name in BROKEN:
        raise ValueError(f"{name} is broken")
    return name


@task
def parent(cqt: Context, name: str, *children: str) -> str:
    RAN.append(name)
    for child in children:
        cqt.subtask(step, child)
    return name


@task(atomic=False)
def dig(cqt: Context, levels: int) -> None:
    if not levels:
        raise ValueError("bottom")
    cqt.subtask(dig, levels - 1)


@contextmanager
def frames_left(number: int) -> Iterator[None]:
    """Room on the stack for *number* more calls: those of one query need about fifty."""
    depth = 0
    frame: Any = sys._getframe()
    while frame is not None:
        depth, frame = depth + 1, frame.f_back
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(depth + number)
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


def child_of(stored: Task, name: str) -> Task:
    return Task.objects.exclude(pk=stored.pk).get(root=stored.root_id, args__0=name)


class TestFailed:
    def test_it_runs_again_with_a_fresh_budget(self) -> None:
        @task(retries=2, backoff=0)
        def flaky(cqt: Context) -> None:
            RAN.append(f"attempt {cqt.attempt}")
            if "it" in BROKEN:
                raise ValueError("broken")

        BROKEN.add("it")
        stored = flaky.delay()
        run_pending()
        assert status_of(stored) == F
        assert stored.attempts == 3

        stored.retry()
        assert status_of(stored) == Q
        run_pending()
        assert status_of(stored) == F
        assert stored.attempts == 6

        BROKEN.clear()
        stored.retry()
        run_pending()
        assert status_of(stored) == S
        assert stored.attempts == 7
        assert stored.error == ""
        assert [one.number for one in stored.attempt_set.order_by("id")] == [1, 2, 3, 4, 5, 6]

    def test_it_runs_at_once_though_it_was_scheduled(self) -> None:
        stored = step.using(priority=-5).delay("a")
        BROKEN.add("a")
        run_pending()
        BROKEN.clear()

        stored.retry()

        stored.refresh_from_db()
        assert stored.ready
        assert stored.finished is None
        assert stored.priority == -5

    def test_it_may_run_with_other_arguments(self) -> None:
        stored = step.delay("a")
        BROKEN.add("a")
        run_pending()

        operations.retry([stored], args=["b"])
        run_pending()

        assert status_of(stored) == S
        assert (stored.args, stored.result) == (["b"], "b")
        assert stored.named == {"name": "b"}

    def test_arguments_that_do_not_fit_are_refused(self) -> None:
        stored = step.delay("a")
        BROKEN.add("a")
        run_pending()

        affected = operations.retry([stored], kwargs={"nmae": 1})

        assert "do not fit" in affected.skipped[stored.pk]
        assert status_of(stored) == F

    def test_a_retry_does_not_repeat_the_subtasks_of_the_attempt_that_failed(self) -> None:
        @task(atomic=False)
        def loose(cqt: Context) -> None:
            cqt.subtask(step, "old")
            if "it" in BROKEN:
                raise ValueError("broken")

        BROKEN.update({"it", "old"})
        stored = loose.delay()
        run_pending()
        assert status_of(stored) == F

        BROKEN.clear()
        stored.retry()
        run_pending()

        # The failed child of the first attempt does not count for the second.
        assert status_of(stored) == S
        assert RAN == ["old", "old"]

    def test_a_follower_that_ran_never_runs_again(self) -> None:
        BROKEN.add("a")
        stored = step.delay("a")
        stored.chain(step, ("always",), force_chain=True)
        stored.errorback(step, ("errorback",))
        on_success = stored.chain(step, ("success",))
        run_pending()
        assert RAN == ["a", "always", "errorback"]

        BROKEN.clear()
        stored.retry()
        run_pending()

        assert RAN == ["a", "always", "errorback", "a", "success"]
        assert status_of(on_success) == S

    def test_a_follower_that_was_not_needed_is_not_brought_back(self) -> None:
        stored = step.delay("a")
        errorback = stored.errorback(step, ("errorback",))
        run_pending()

        affected = operations.retry([errorback])

        assert status_of(errorback) == E
        assert "predecessor" in affected.skipped[errorback.pk]


class TestIncomplete:
    def test_only_what_failed_below_runs_again(self) -> None:
        BROKEN.update({"b", "c"})
        stored = parent.delay("top", "a", "b", "c")
        run_pending()
        assert status_of(stored) == INCOMPLETE
        RAN.clear()

        BROKEN.clear()
        stored.retry()
        assert status_of(stored) == W
        run_pending()

        assert sorted(RAN) == ["b", "c"]
        assert status_of(stored) == S
        assert stored.result == "top"

    def test_it_heals_three_levels(self) -> None:
        @task
        def middle(cqt: Context, name: str) -> None:
            RAN.append(name)
            cqt.subtask(step, f"{name}.leaf")

        @task
        def top(cqt: Context) -> None:
            RAN.append("top")
            cqt.subtask(middle, "m1")
            cqt.subtask(middle, "m2")

        BROKEN.update({"m1.leaf", "m2.leaf"})
        stored = top.delay()
        run_pending()
        assert status_of(stored) == INCOMPLETE
        RAN.clear()

        BROKEN.remove("m1.leaf")
        stored.retry()
        run_pending()
        assert status_of(stored) == INCOMPLETE
        assert sorted(RAN) == ["m1.leaf", "m2.leaf"]

        BROKEN.clear()
        stored.retry()
        run_pending()
        assert {row.status for row in Task.objects.tree(stored)} == {S}
        assert sorted(RAN) == ["m1.leaf", "m2.leaf", "m2.leaf"]

    def test_retrying_a_leaf_reopens_its_ancestors(self) -> None:
        BROKEN.add("b")
        stored = parent.delay("top", "a", "b")
        run_pending()

        BROKEN.clear()
        child_of(stored, "b").retry()
        assert status_of(stored) == W
        assert stored.finished is None
        run_pending()

        assert status_of(stored) == S

    def test_a_parent_of_two_failures_waits_for_the_one_that_was_retried(self) -> None:
        BROKEN.update({"a", "b"})
        stored = parent.delay("top", "a", "b")
        run_pending()

        BROKEN.clear()
        child_of(stored, "b").retry()
        run_pending()

        assert status_of(stored) == INCOMPLETE
        assert status_of(child_of(stored, "b")) == S

    def test_what_was_blocked_behind_an_incomplete_task_runs_once_it_healed(self) -> None:
        BROKEN.add("a")
        stored = parent.delay("top", "a")
        follower = stored.chain(step, ("after",))
        run_pending()
        assert status_of(follower) == P

        BROKEN.clear()
        stored.retry()
        run_pending()

        assert statuses_of(stored, follower) == [S, S]

    def test_a_blocked_follower_of_a_child_counts_again_when_it_runs(self) -> None:
        @task
        def top(cqt: Context) -> None:
            cqt.subtask(step, "a").chain(step, ("b",)).chain(step, ("c",))

        BROKEN.add("a")
        stored = top.delay()
        run_pending()
        assert status_of(stored) == INCOMPLETE
        RAN.clear()

        BROKEN.clear()
        stored.retry()
        run_pending(limit=1)
        assert status_of(stored) == W
        run_pending()

        assert RAN == ["a", "b", "c"]
        assert {row.status for row in Task.objects.tree(stored)} == {S}

    @pytest.mark.parametrize("is_behind_blocked", [False, True])
    def test_what_was_chained_to_a_failed_child_after_its_parent_ended_counts_when_it_heals(
        self, is_behind_blocked: bool
    ) -> None:
        BROKEN.add("child")
        stored = parent.delay("top", "child")
        run_pending()
        child = child_of(stored, "child")
        last = child.chain(step, ("after",))
        if is_behind_blocked:
            last = last.chain(step, ("last",))
        assert (status_of(stored), status_of(last), last.is_blocked) == (INCOMPLETE, P, True)

        BROKEN.clear()
        stored.retry()
        run_pending(limit=1)
        assert statuses_of(child, stored) == [S, W]
        run_pending()

        assert statuses_of(stored, last) == [S, S]
        assert stored.open_children == 0

    def test_a_parent_that_ended_well_waits_neither_for_a_child_that_comes_back_nor_behind_it(
        self,
    ) -> None:
        @task
        def child(cqt: Context) -> None:
            if BROKEN:
                raise cq.Discard("not today")

        @task
        def top(cqt: Context) -> None:
            cqt.subtask(child).chain(step, ("after",)).chain(step, ("last",))

        BROKEN.add("day")
        stored = top.delay()
        run_pending()
        first, after, last = Task.objects.filter(parent=stored).order_by("id")
        assert statuses_of(stored, first, after, last) == [S, E, P, P]

        BROKEN.clear()
        first.retry()
        run_pending(limit=1)

        assert statuses_of(stored, first, after, last) == [S, S, Q, P]
        assert stored.open_children == 0
        run_pending()
        assert statuses_of(after, last) == [S, S]

    def test_a_child_that_was_cancelled_comes_back_with_a_retry_of_its_own(self) -> None:
        stored = parent.delay("top", "a", "b")
        run_pending(limit=1)
        child_of(stored, "a").cancel()
        run_pending()
        assert status_of(stored) == INCOMPLETE

        child_of(stored, "a").retry()
        run_pending()

        assert status_of(stored) == S


class TestRevoked:
    def test_a_cancelled_task_is_queued_again(self) -> None:
        stored = step.delay("a")
        stored.cancel()

        stored.retry()
        run_pending()

        assert status_of(stored) == S
        assert (stored.cause, stored.reason, stored.cancelled_by) == ("", "", "")
        assert stored.cancel_requested is None

    def test_the_followers_that_were_taken_along_come_back_too(self) -> None:
        first = step.delay("a")
        second = first.chain(step, ("b",))
        third = second.chain(step, ("c",), force_chain=True)
        first.cancel()
        assert statuses_of(first, second, third) == [E, E, E]

        first.retry()
        run_pending()

        assert statuses_of(first, second, third) == [S, S, S]
        assert RAN == ["a", "b", "c"]

    def test_a_follower_cancelled_behind_a_blocked_one_comes_back_blocked(self) -> None:
        BROKEN.add("a")
        stored = parent.delay("top", "a")
        run_pending(limit=1)
        second = child_of(stored, "a").chain(step, ("b",))
        third = second.chain(step, ("c",))
        run_pending()
        third.cancel()

        third.retry()

        assert third.is_blocked
        assert third.reason == "blocked: its predecessor failed"
        assert status_of(stored) == INCOMPLETE
        BROKEN.clear()
        stored.retry()
        run_pending()
        assert statuses_of(second, third, stored) == [S, S, S]

    def test_a_cancelled_tree_comes_back_without_running_what_had_run(self) -> None:
        stored = parent.delay("top", "a", "b", "c")
        run_pending(limit=2)
        stored.cancel()
        assert status_of(stored) == E
        assert RAN == ["top", "a"]

        stored.retry()
        assert status_of(stored) == W
        run_pending()

        assert {row.status for row in Task.objects.tree(stored)} == {S}
        assert RAN == ["top", "a", "b", "c"]

    def test_a_cancelled_tree_of_three_levels_comes_back(self) -> None:
        @task
        def top(cqt: Context) -> None:
            cqt.subtask(parent, "m1", "a", "b")
            cqt.subtask(parent, "m2", "c")

        stored = top.delay()
        run_pending(limit=2)
        stored.cancel()
        assert {row.status for row in Task.objects.tree(stored)} == {E}

        stored.retry()
        run_pending()

        assert {row.status for row in Task.objects.tree(stored)} == {S}
        assert sorted(RAN) == ["a", "b", "c", "m1", "m2"]

    def test_a_discarded_task_is_queued_again(self) -> None:
        from cq import Discard

        @task
        def picky(cqt: Context) -> None:
            if "it" in BROKEN:
                raise Discard("not today")

        BROKEN.add("it")
        stored = picky.delay()
        run_pending()
        assert (status_of(stored), stored.reason) == (E, "discarded: not today")

        BROKEN.clear()
        stored.retry()
        run_pending()
        assert status_of(stored) == S

    def test_an_expired_task_starts_after_all(self) -> None:
        stored = step.using(expires=0).delay("a")
        run_pending()
        assert (status_of(stored), stored.cause) == (E, Cause.EXPIRED)

        stored.retry()
        run_pending()

        assert status_of(stored) == S


class TestSkipped:
    def test_a_success_is_skipped(self) -> None:
        stored = step.delay("a")
        run_pending()

        affected = operations.retry([stored])

        assert affected.skipped == {stored.pk: "it is succeeded"}
        assert run_pending() == 0

    def test_a_waiting_and_a_queued_one_are_skipped(self) -> None:
        stored = parent.delay("top", "a")
        run_pending(limit=1)
        child = child_of(stored, "a")

        affected = operations.retry([stored, child])

        assert affected.skipped == {stored.pk: "it is waiting", child.pk: "it is queued"}

    @pytest.mark.parametrize("how", ["failed", "cancelled"])
    def test_under_an_ancestor_that_must_run_itself_it_is_skipped_with_its_name(
        self, how: str
    ) -> None:
        @task(atomic=False)
        def loose(cqt: Context) -> None:
            cqt.subtask(step, "child")
            if how == "failed":
                raise ValueError("broken")

        BROKEN.add("child")
        stored = loose.delay()
        run_pending()
        if how == "cancelled":
            Task.objects.filter(pk=stored.pk).update(status=E, cause=Cause.CANCELLED)
            Task.objects.filter(pk=stored.pk).update(returned=False)
        child = child_of(stored, "child")

        affected = operations.retry([child])

        assert str(stored) in affected.skipped[child.pk]
        assert status_of(child) == F

    def test_under_a_cancelled_tree_a_part_of_it_does_not_come_back_alone(self) -> None:
        stored = parent.delay("top", "a", "b")
        run_pending(limit=1)
        stored.cancel()
        child = child_of(stored, "a")

        affected = operations.retry([child])

        assert affected.skipped[child.pk] == f"its ancestor {stored} is revoked: retry that one"
        assert statuses_of(stored, child) == [E, E]

    def test_under_a_failed_ancestor_two_levels_up_it_is_skipped_and_nothing_opened(
        self,
    ) -> None:
        @task(atomic=False)
        def loose(cqt: Context) -> None:
            cqt.subtask(parent, "middle", "leaf")
            raise ValueError("broken")

        BROKEN.add("leaf")
        stored = loose.delay()
        run_pending()
        middle, leaf = child_of(stored, "middle"), child_of(stored, "leaf")
        assert statuses_of(stored, middle, leaf) == [F, INCOMPLETE, F]

        affected = operations.retry([leaf])

        assert str(stored) in affected.skipped[leaf.pk]
        assert statuses_of(stored, middle, leaf) == [F, INCOMPLETE, F]
        assert middle.open_children == 0

    def test_what_has_moved_on_since_it_was_shown_is_skipped(self) -> None:
        BROKEN.add("a")
        stored = step.delay("a")
        run_pending()

        late = operations.retry([stored], seen={stored.pk: ("Q", 0)})
        by_text = operations.cancel([stored], seen={str(stored.pk): ("F", 2)})
        right = operations.retry([stored], seen={stored.pk: ("F", 1)})

        assert late.skipped == {stored.pk: "changed meanwhile"}
        assert by_text.skipped == {stored.pk: "changed meanwhile"}
        assert right.done == [stored.pk]

    def test_a_coalescing_task_is_skipped_while_another_instance_waits(self) -> None:
        @task(coalesce=True)
        def sync(cqt: Context) -> None:
            if "sync" in BROKEN:
                raise ValueError("broken")

        BROKEN.add("sync")
        failed = sync.delay()
        run_pending()
        waiting = sync.delay()
        assert waiting.pk != failed.pk

        affected = operations.retry([failed])

        assert affected.skipped == {failed.pk: "one is queued"}
        assert status_of(failed) == F

    def test_a_coalescing_task_whose_arguments_fit_no_more_keeps_no_other_from_its_retry(
        self,
    ) -> None:
        @task(coalesce=True)
        def sync(cqt: Context, name: str) -> None:
            raise ValueError("broken")

        failed, other = sync.delay("a"), sync.delay("b")
        run_pending()
        Task.objects.filter(pk=failed.pk).update(args=["a", "of", "former", "times"])

        for verb in (operations.retry, operations.run_again):
            affected = verb([failed, other])

            assert "do not fit" in affected.skipped[failed.pk]
            assert len(affected.done) == 1
            run_pending()

    def test_a_parent_and_its_child_retried_together_run_once_each(self) -> None:
        BROKEN.add("a")
        stored = parent.delay("top", "a")
        run_pending()
        RAN.clear()
        BROKEN.clear()

        operations.retry(Task.objects.failed())
        run_pending()

        assert RAN == ["a"]
        assert status_of(stored) == S


class TestWaitingForTheirTime:
    def test_a_retry_of_what_waits_for_its_next_attempt_runs_it_now(self) -> None:
        @task(retries=1, backoff=3600)
        def flaky(cqt: Context) -> None:
            if cqt.attempt == 1:
                raise ValueError("broken")

        stored = flaky.delay()
        run_pending()
        assert status_of(stored) == Y
        assert run_pending() == 0

        stored.retry()
        run_pending()

        assert status_of(stored) == S

    def test_a_retry_of_what_is_scheduled_runs_it_now(self) -> None:
        stored = step.using(run_after=3600).delay("a")

        stored.retry()
        run_pending()

        assert status_of(stored) == S


class TestActs:
    def test_an_act_and_its_items_say_who_did_what_to_which(self) -> None:
        ada = get_user_model().objects.create_user("ada")
        BROKEN.add("a")
        failed, fine = step.delay("a"), step.delay("b")
        run_pending()

        affected = operations.retry([failed, fine], by=ada, reason="the disk is back")

        act = Act.objects.get()
        assert (act.verb, act.by_id, act.by_name) == ("retry", ada.pk, "ada")
        assert (act.done, act.skipped, act.reason) == (1, 1, "the disk is back")
        items = {item.task_id: item for item in ActItem.objects.filter(act=act)}
        assert items[failed.pk].skipped == ""
        assert items[fine.pk].skipped == affected.skipped[fine.pk] == "it is succeeded"

    @pytest.mark.django_db(transaction=True)
    def test_an_act_is_written_in_the_transaction_of_the_deed(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stored = step.delay("a")

        def refuse(*args: Any, **kwargs: Any) -> None:
            raise RuntimeError("no room for acts")

        monkeypatch.setattr(acts, "write", refuse)
        with pytest.raises(RuntimeError):
            operations.cancel([stored])

        assert status_of(stored) == Q

    def test_verbs_take_instances_ids_texts_and_querysets(self) -> None:
        stored = [step.delay(name) for name in "abc"]

        operations.cancel([stored[0], str(stored[1].pk), stored[2].pk])
        assert statuses_of(*stored) == [E, E, E]

        affected = operations.retry(Task.objects.finished())
        assert sorted(affected.done) == sorted(row.pk for row in stored)

    @pytest.mark.parametrize("verb", [operations.cancel, operations.coalesce])
    def test_verbs_take_the_first_of_a_queryset(self, verb: Any) -> None:
        stored = [step.delay("a") for _ in range(3)]

        affected = verb(Task.objects.order_by("-id")[:2])

        assert {*affected.done} <= {stored[1].pk, stored[2].pk}
        assert affected.done
        assert status_of(stored[0]) == Q

    @pytest.mark.parametrize(
        "verb",
        [operations.retry, operations.cancel, operations.coalesce, operations.run_again],
    )
    def test_of_a_task_that_is_gone_every_verb_says_so(self, verb: Any) -> None:
        gone = step.delay("a")
        Task.objects.all().delete()

        assert verb([gone]).skipped == {gone.pk: "it was removed"}
        assert verb([str(gone.pk)]).skipped == {gone.pk: "it was removed"}

    @pytest.mark.parametrize("verb", [operations.retry, operations.cancel, operations.run_again])
    def test_hundreds_at_once_cost_few_statements(
        self, verb: Any, django_assert_max_num_queries: Any
    ) -> None:
        step.delay_many([(str(number),) for number in range(300)])
        if verb is not operations.cancel:
            Task.objects.update(status=F, ready=None, finished=Now(), started=Now())

        with django_assert_max_num_queries(40):
            affected = verb(Task.objects.all())

        assert len(affected.done) == 300


class TestDepth:
    def test_a_chain_longer_than_pythons_stack_is_cancelled_and_comes_back(self) -> None:
        first = last = step.delay("a")
        for _ in range(100):
            last = last.chain(step, ("a",))

        with frames_left(150):
            first.cancel()
            assert set(Task.objects.values_list("status", flat=True)) == {E}
            first.retry()

        assert (status_of(first), status_of(last)) == (Q, Status.PENDING)

    def test_a_tree_deeper_than_pythons_stack_is_healed_and_cancelled(self) -> None:
        root = dig.delay(60)
        run_pending()
        assert status_of(root) == Status.INCOMPLETE

        with frames_left(150):
            root.retry()
            assert status_of(root) == Status.WAITING
            root.cancel()
            assert status_of(root) == E
            root.retry()

        assert status_of(root) == Status.WAITING


class TestRunAgain:
    def test_it_makes_a_new_task_with_the_arguments_of_the_old(self) -> None:
        stored = step.using(queue="bulk").delay("a")
        run_pending()

        affected = operations.run_again([stored])
        run_pending()

        assert affected.done == [stored.pk]
        made = affected.made[0]
        assert status_of(made) == S
        assert made.pk != stored.pk
        assert (made.args, made.replaces_id) == (["a"], stored.pk)
        assert RAN == ["a", "a"]

    def test_edited_arguments_run_in_a_new_task_and_the_old_one_stays(self) -> None:
        stored = step.delay("a")
        run_pending()

        affected = operations.run_again([stored], args=["b"], kwargs={})
        run_pending()

        made = affected.made[0]
        stored.refresh_from_db()
        assert (made.args, made.replaces_id) == (["b"], stored.pk)
        assert (stored.args, status_of(stored)) == (["a"], S)
        assert RAN == ["a", "b"]
        assert Act.objects.get().verb == "edit and retry"

    def test_edited_arguments_that_do_not_fit_are_skipped(self) -> None:
        stored = step.delay("a")
        run_pending()

        affected = operations.run_again([stored], args=[], kwargs={"nonsense": 1})

        assert "do not fit" in affected.skipped[stored.pk]
        assert Task.objects.count() == 1

    def test_one_that_has_not_ended_is_skipped(self) -> None:
        stored = step.delay("a")

        affected = operations.run_again([stored])

        assert affected.skipped == {stored.pk: "it is still queued"}
        assert Task.objects.count() == 1

    def test_one_whose_function_has_vanished_is_skipped_and_the_others_run(self) -> None:
        gone, fine = step.delay("a"), step.delay("b")
        run_pending()
        Task.objects.filter(pk=gone.pk).update(func_name="shop.tasks.vanished")

        affected = operations.run_again([gone, fine])

        assert "shop.tasks.vanished" in affected.skipped[gone.pk]
        assert affected.done == [fine.pk]
