"""When does a finished tree go, and what stays?"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db.models import F
from django.db.models.functions import Now

from cq import operations, removal, task
from cq.context import Context
from cq.models import Act, Attempt, Task, TaskLog
from cq.states import Status
from cq.testing import run_pending
from engine.looking import status_of

pytestmark = pytest.mark.django_db

DAY = 86_400


@task
def step(cqt: Context) -> None:
    cqt.log("line")


@task
def fail(cqt: Context) -> None:
    raise ValueError("broken")


def let_pass(seconds: float) -> None:
    """As if everything had ended so long ago."""
    Task.objects.filter(finished__isnull=False).update(
        finished=F("finished") - timedelta(seconds=seconds)
    )


def left() -> int:
    removal.remove_finished()
    return Task.objects.count()


def test_a_success_stays_for_its_ttl_and_goes_with_its_lines() -> None:
    step.delay()
    run_pending()
    let_pass(1700)
    assert left() == 1

    let_pass(101)
    assert left() == 0
    assert not TaskLog.objects.exists()


def test_the_setting_the_declaration_and_the_call_say_how_long(settings: Any) -> None:
    settings.CQ_RESULT_TTL = 100

    @task(result_ttl=1000)
    def declared(cqt: Context) -> None: ...

    by_setting, by_task, by_call = (
        step.delay(),
        declared.delay(),
        declared.using(result_ttl=3000).delay(),
    )
    run_pending()

    let_pass(101)
    removal.remove_finished()
    assert set(Task.objects.all()) == {by_task, by_call}
    let_pass(1000)
    removal.remove_finished()
    assert set(Task.objects.all()) == {by_call}
    let_pass(2000)
    assert left() == 0
    assert by_setting.pk


def test_a_failure_stays_longer_with_its_attempts() -> None:
    fail.delay()
    run_pending()
    let_pass(6.9 * DAY)
    assert left() == 1
    assert Attempt.objects.count() == 1

    let_pass(0.2 * DAY)
    assert left() == 0
    assert not Attempt.objects.exists()


def test_a_failure_ttl_of_its_own_counts() -> None:
    @task(failure_ttl=60)
    def brief(cqt: Context) -> None:
        raise ValueError("broken")

    brief.delay()
    run_pending()
    let_pass(61)

    assert left() == 0


def test_a_tree_goes_as_a_whole() -> None:
    @task
    def parent(cqt: Context) -> None:
        cqt.subtask(step)
        cqt.subtask(step).chain(step)

    stored = parent.delay()
    stored.chain(step)
    run_pending()
    assert Task.objects.count() == 5

    let_pass(1801)
    assert left() == 0


def test_a_tree_stays_while_anything_in_it_can_move() -> None:
    stored = step.delay()
    follower = stored.chain(step.using(run_after=DAY))
    run_pending()
    let_pass(1801)

    assert left() == 2
    assert status_of(stored) == Status.SUCCESS
    assert status_of(follower) == Status.QUEUED


def test_the_time_counts_from_the_last_end_in_the_tree() -> None:
    first = step.delay()
    run_pending()
    let_pass(1801)
    second = first.chain(step)
    run_pending()
    assert status_of(second) == Status.SUCCESS

    assert left() == 2
    let_pass(1801)
    assert left() == 0


def test_what_is_blocked_does_not_hold_a_tree() -> None:
    fail.delay().chain(step).chain(step)
    run_pending()
    let_pass(7 * DAY + 1)

    assert left() == 0


def test_one_large_tree_goes_in_bounded_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(removal, "BATCH", 3)

    @task
    def parent(cqt: Context) -> None:
        cqt.subtask_many(step, [()] * 10)

    stored = parent.delay()
    run_pending()

    assert removal.remove_tree(stored.pk) == 11
    assert not Task.objects.exists()
    assert not TaskLog.objects.exists()


def test_hundreds_of_single_tasks_go_with_few_statements(
    django_assert_max_num_queries: Any,
) -> None:
    step.delay_many([()] * 300)
    run_pending()
    let_pass(1801)

    with django_assert_max_num_queries(20):
        removal.remove_finished()

    assert not Task.objects.exists()
    assert not TaskLog.objects.exists()


def test_of_many_that_ended_at_one_moment_none_is_passed_over() -> None:
    step.delay_many([()] * 7)
    run_pending()
    Task.objects.update(finished=Now() - timedelta(seconds=1801))

    after = removal.remove_finished(limit=2)
    while after is not None:
        after = removal.remove_finished(after, limit=2)

    assert not Task.objects.exists()


def test_what_moves_again_while_it_is_removed_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    alone, root = step.delay(), step.delay()
    root.chain(step)
    run_pending()
    let_pass(1801)
    remove_lines = removal.remove_lines

    def retry_meanwhile(root_ids: Any) -> int:
        number = remove_lines(root_ids)
        Task.objects.filter(pk__in=root_ids).update(status=Status.QUEUED, finished=None)
        return number

    monkeypatch.setattr(removal, "remove_lines", retry_meanwhile)
    removal.remove_finished()

    assert set(Task.objects.filter(status=Status.QUEUED)) == {alone, root}
    assert Task.objects.count() == 3


def test_a_round_looks_at_so_many_roots_and_goes_on_where_it_stopped() -> None:
    step.delay_many([()] * 5)
    run_pending()
    keep = Task.objects.first()
    assert keep is not None
    Task.objects.filter(pk=keep.pk).update(result_ttl=DAY)
    let_pass(1801)

    after = removal.remove_finished(limit=2)
    assert after is not None
    for _ in range(5):
        if after is None:
            break
        after = removal.remove_finished(after, limit=2)

    assert after is None
    assert list(Task.objects.all()) == [keep]


def test_a_tree_that_is_kept_stays_until_then() -> None:
    from django.utils import timezone

    stored = step.delay()
    run_pending()
    let_pass(DAY)
    Task.objects.filter(pk=stored.pk).update(keep_until=timezone.now() + timedelta(hours=1))

    assert left() == 1


def test_keeping_any_task_keeps_its_whole_tree_and_never_for_less() -> None:
    stored = step.delay()
    follower = stored.chain(step)
    run_pending()
    let_pass(DAY)

    affected = operations.keep([follower.pk], reason="being read")
    stored.refresh_from_db()
    until = stored.keep_until
    operations.keep([stored], timedelta(hours=1))
    kept = left()

    stored.refresh_from_db()
    assert affected.done == [follower.pk]
    assert until is not None
    assert stored.keep_until == until
    assert kept == 2
    assert [(act.verb, act.reason) for act in Act.objects.order_by("id")] == [
        ("keep", "being read"),
        ("keep", ""),
    ]
