"""When does a chained task run, wait, or end without running?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import cq
from cq import claims, leases, task
from cq.context import Context
from cq.models import Task
from cq.states import Cause, Status
from cq.testing import run_pending
from engine.looking import status_of, statuses_of

pytestmark = pytest.mark.django_db

S, F, INCOMPLETE, L, E, P, Q, W = (
    Status.SUCCESS,
    Status.FAILURE,
    Status.INCOMPLETE,
    Status.LOST,
    Status.REVOKED,
    Status.PENDING,
    Status.QUEUED,
    Status.WAITING,
)
RAN: list[str] = []


@pytest.fixture(autouse=True)
def _nothing_ran() -> None:
    RAN.clear()


@task
def note(cqt: Context, name: str) -> str:
    RAN.append(name)
    return f"result of {name}"


@task
def fail(cqt: Context, name: str = "it") -> None:
    RAN.append(name)
    raise ValueError(f"{name} is broken")


@task
def discard(cqt: Context) -> None:
    raise cq.Discard("not worth it")


@task
def harmed_parent(cqt: Context) -> None:
    cqt.subtask(fail, "child")


def succeeding() -> Task:
    return note.delay("first")


def failing() -> Task:
    return fail.delay("first")


def incomplete() -> Task:
    return harmed_parent.delay()


def lost() -> Task:
    """A task as the rescue leaves it that gave it up."""
    stored = note.delay("first")
    stored.chain(note, ("unrelated",), force_chain=True)
    return stored


def cancelled() -> Task:
    return note.delay("first")


def discarded() -> Task:
    return discard.delay()


def expired() -> Task:
    return note.using(expires=0).delay("first")


def end(first: Task, how: Callable[[], Task]) -> None:
    """Let *first* end the way that its maker stands for."""
    if how is cancelled:
        first.cancel()
    elif how is lost:
        worker = leases.register(queues=[], threads=1, is_embedded=False, is_scheduler=False)
        claims.claim(worker, "default", 1)
        # It killed two workers alone before; this is the third.
        Task.objects.filter(pk=first.pk).update(suspect=True, deaths=2)
        leases._bury(worker, running=None)
    run_pending()


RUNS, BLOCKED, NOT_NEEDED, TAKEN_ALONG = "runs", "blocked", "not needed", "cancelled"

TABLE = [
    (succeeding, S, RUNS, RUNS, NOT_NEEDED),
    (failing, F, BLOCKED, RUNS, RUNS),
    (lost, L, BLOCKED, RUNS, RUNS),
    (incomplete, INCOMPLETE, BLOCKED, RUNS, RUNS),
    (cancelled, E, TAKEN_ALONG, TAKEN_ALONG, TAKEN_ALONG),
    (expired, E, BLOCKED, RUNS, NOT_NEEDED),
    (discarded, E, BLOCKED, RUNS, NOT_NEEDED),
]


def became(follower: Task) -> str:
    follower.refresh_from_db()
    if follower.status == S:
        return RUNS
    if follower.status == P and follower.is_blocked:
        return BLOCKED
    assert follower.status == E, follower.status
    return {Cause.NOT_NEEDED: NOT_NEEDED, Cause.CANCELLED: TAKEN_ALONG}[Cause(follower.cause)]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(("first", "status", "success", "always", "failure"), TABLE)
def test_a_follower_runs_when_its_condition_is_met(
    first: Callable[[], Task], status: Status, success: str, always: str, failure: str, when: str
) -> None:
    stored = first()
    if when == "after":
        end(stored, first)

    on_success = stored.chain(note, ("on success",))
    on_always = stored.chain(note, ("always",), force_chain=True)
    on_failure = stored.errorback(note, ("on failure",))
    if when == "before":
        end(stored, first)
    run_pending()

    assert status_of(stored) == status
    assert (became(on_success), became(on_always), became(on_failure)) == (
        success,
        always,
        failure,
    )


def test_a_chain_reads_from_left_to_right() -> None:
    last = note.delay("a").chain(note, ("b",)).chain(note, ("c",))

    run_pending()

    assert status_of(last) == S
    assert RAN == ["a", "b", "c"]


def test_a_follower_waits_for_its_predecessor() -> None:
    first = note.delay("a")
    second = first.chain(note, ("b",))

    run_pending(limit=1)

    assert statuses_of(first, second) == [S, Q]
    assert RAN == ["a"]


def test_behind_a_blocked_task_all_are_blocked_and_say_why() -> None:
    first = fail.delay("a")
    second = first.chain(note, ("b",))
    third = second.chain(note, ("c",))
    always = second.chain(note, ("d",), force_chain=True)

    run_pending()

    assert statuses_of(second, third, always) == [P, P, P]
    for follower in (second, third, always):
        assert follower.is_blocked
        assert "failed" in follower.reason
    assert not Task.objects.active().exists()


def test_what_is_chained_to_a_blocked_task_is_blocked_too() -> None:
    first = fail.delay("a")
    second = first.chain(note, ("b",))
    run_pending()

    third = second.chain(note, ("c",))

    assert third.is_blocked
    assert run_pending() == 0


def test_a_blocked_follower_runs_once_its_predecessor_was_retried_with_success() -> None:
    broken = {"a"}

    @task
    def mend(cqt: Context) -> None:
        if "a" in broken:
            raise ValueError("a is broken")

    first = mend.delay()
    second = first.chain(note, ("b",))
    third = second.chain(note, ("c",))
    run_pending()
    assert second.is_blocked or status_of(second) == P

    broken.clear()
    first.retry()
    run_pending()

    assert statuses_of(first, second, third) == [S, S, S]
    assert RAN == ["b", "c"]


def test_behind_what_is_not_needed_nothing_is_needed_on_failure_and_success_is_blocked() -> None:
    first = note.delay("a")
    not_needed = first.errorback(note, ("cleanup",))
    on_success = not_needed.chain(note, ("after cleanup",))
    always = not_needed.chain(note, ("anyway",), force_chain=True)

    run_pending()

    assert status_of(not_needed) == E
    assert status_of(on_success) == P
    assert on_success.is_blocked
    assert status_of(always) == S


def test_wait_returns_on_a_blocked_task(transactional_db: None) -> None:
    first = fail.delay("a")
    second = first.chain(note, ("b",))
    run_pending()

    assert second.wait(timeout=5).is_blocked


def test_a_follower_reads_the_result_of_its_predecessor() -> None:
    seen: list[Any] = []

    @task
    def look(cqt: Context) -> None:
        assert cqt.previous is not None
        seen.append((cqt.previous.result, cqt.previous.error))

    note.delay("a").chain(look)
    failed = fail.delay("b")
    failed.errorback(look)
    run_pending()

    assert seen == [("result of a", ""), (None, "ValueError: b is broken")]


def test_previous_in_the_arguments_is_the_result_of_the_predecessor() -> None:
    got: list[Any] = []

    @task
    def make(cqt: Context) -> dict[str, Any]:
        return {"list": [1, 2], "PREVIOUS": "no"}

    @task
    def take(cqt: Context, *args: Any, **kwargs: Any) -> None:
        got.append((args, kwargs))

    make.delay().chain(
        take, (cq.PREVIOUS, ["deep", {"x": cq.PREVIOUS}]), {"named": cq.PREVIOUS, "other": 1}
    )
    run_pending()

    made = {"list": [1, 2], "PREVIOUS": "no"}
    assert got == [((made, ["deep", {"x": made}]), {"named": made, "other": 1})]


def test_what_a_task_chains_to_itself_runs_after_it_with_its_id_known_before() -> None:
    ids: list[Any] = []

    @task
    def parent(cqt: Context) -> None:
        follower = cqt.chain(note, ("b",)).chain(note, ("c",))
        ids.append(follower.id)
        assert not Task.objects.filter(pk=follower.id).exists()

    stored = parent.delay()
    run_pending()

    assert RAN == ["b", "c"]
    last = Task.objects.get(pk=ids[0])
    assert last.status == S
    assert last.root_id == stored.id
    assert last.previous is not None
    assert last.previous.previous_id == stored.id


def test_what_a_failed_task_chained_is_kept_by_its_condition() -> None:
    @task
    def parent(cqt: Context) -> None:
        cqt.chain(note, ("on success",))
        cqt.chain(note, ("always",), force_chain=True)
        cqt.errorback(note, ("on failure",)).chain(note, ("after failure",))
        raise ValueError("broken")

    stored = parent.delay()
    run_pending()

    assert status_of(stored) == F
    assert sorted(RAN) == ["after failure", "always", "on failure"]
    assert Task.objects.filter(previous__isnull=False).count() == 3


def test_an_attempt_that_is_retried_drops_what_it_chained() -> None:
    @task(retries=1, backoff=0)
    def parent(cqt: Context) -> None:
        cqt.chain(note, (f"always {cqt.attempt}",), force_chain=True)
        raise ValueError("broken")

    parent.delay()
    run_pending()

    assert RAN == ["always 2"]


def test_a_follower_has_the_parent_of_its_predecessor_and_is_waited_for() -> None:
    @task
    def parent(cqt: Context) -> None:
        cqt.subtask(note, "a").chain(note, ("b",))

    stored = parent.delay()
    run_pending(limit=2)

    assert status_of(stored) == W
    first, second = Task.objects.filter(parent=stored).order_by("id")
    assert second.previous_id == first.pk
    assert (first.depth, second.depth) == (1, 1)

    run_pending()
    assert status_of(stored) == S


def test_a_chain_behind_a_subtask_from_outside_is_waited_for() -> None:
    @task
    def parent(cqt: Context) -> None:
        cqt.subtask(note, "a")

    stored = parent.delay()
    run_pending(limit=1)
    child = Task.objects.get(parent=stored)
    follower = child.chain(note, ("b",))
    run_pending(limit=1)

    assert statuses_of(stored, child, follower) == [W, S, Q]

    run_pending()
    assert statuses_of(stored, follower) == [S, S]


def test_a_follower_of_a_subtask_chained_to_itself_is_waited_for() -> None:
    @task
    def child(cqt: Context) -> None:
        cqt.chain(note, ("b",))

    @task
    def parent(cqt: Context) -> None:
        cqt.subtask(child)

    stored = parent.delay()
    run_pending(limit=2)
    assert status_of(stored) == W

    run_pending()
    assert status_of(stored) == S
    assert RAN == ["b"]


def test_a_blocked_follower_does_not_keep_a_parent_waiting() -> None:
    @task
    def parent(cqt: Context) -> None:
        cqt.subtask(fail, "a").chain(note, ("b",)).chain(note, ("c",))

    stored = parent.delay()
    run_pending()

    assert status_of(stored) == INCOMPLETE
    assert stored.open_children == 0
    blocked = Task.objects.filter(parent=stored, status=P)
    assert [follower.is_blocked for follower in blocked] == [True, True]


def test_an_errorback_of_a_subtask_is_waited_for_and_the_parent_stays_incomplete() -> None:
    @task
    def parent(cqt: Context) -> None:
        cqt.subtask(fail, "a").errorback(note, ("b",))

    stored = parent.delay()
    run_pending(limit=2)
    assert status_of(stored) == W

    run_pending()
    assert status_of(stored) == INCOMPLETE
    assert RAN == ["a", "b"]


def test_a_task_chained_behind_a_child_of_a_parent_that_has_ended_still_runs() -> None:
    @task
    def parent(cqt: Context) -> None:
        cqt.subtask(note, "a")

    stored = parent.delay()
    run_pending()
    follower = Task.objects.get(parent=stored).chain(note, ("b",))
    run_pending()

    assert statuses_of(stored, follower) == [S, S]
    assert stored.open_children == 0


def test_a_follower_of_a_root_belongs_to_its_family() -> None:
    first = note.delay("a")
    second = first.chain(note, ("b",))

    assert (second.parent_id, second.root_id) == (None, first.pk)
    assert list(Task.objects.roots()) == [first]
    assert list(Task.objects.tree(second)) == [first, second]


def test_chaining_to_a_removed_task_says_so() -> None:
    first = note.delay("a")
    Task.objects.all().delete()

    with pytest.raises(cq.CQError, match="not stored, or was removed"):
        first.chain(note, ("b",))


def test_a_follower_with_options_of_its_own_keeps_them() -> None:
    second = note.delay("a").chain(note.using(queue="bulk", priority=9), ("b",))

    assert (second.queue, second.priority) == ("bulk", 9)
    run_pending(queues=["default"])
    assert status_of(second) == Q
