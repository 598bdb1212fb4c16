"""Which task runs next, and which does not run yet or any more?"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import OperationalError, connection
from django.db.models import F
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext

from cq import claims, leases, operations, surveys, task
from cq.context import Context
from cq.exceptions import InvalidArguments, NotEncodable
from cq.maintenance import expire
from cq.models import Act, HeldFunction, Queue, Task, Worker
from cq.states import Cause, Status
from cq.testing import run_pending
from engine.looking import status_of, statuses_of

pytestmark = pytest.mark.django_db

S, E, P, Q = Status.SUCCESS, Status.REVOKED, Status.PENDING, Status.QUEUED
RAN: list[str] = []


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    yield
    RAN.clear()


@task
def step(cqt: Context, name: str) -> None:
    RAN.append(name)


def let_pass(seconds: float, *tasks: Task) -> None:
    """Move the times of *tasks* into the past, as if so many seconds had gone by."""
    by = timedelta(seconds=seconds)
    rows = Task.objects.filter(pk__in=[one.pk for one in tasks])
    rows.update(run_at=F("run_at") - by)
    rows.filter(expires_at__isnull=False).update(expires_at=F("expires_at") - by)


@pytest.fixture
def worker() -> Worker:
    return leases.register(queues=[], threads=1, is_embedded=False, is_scheduler=False)


class TestOrder:
    def test_the_more_urgent_runs_first_then_the_older(self) -> None:
        for name, priority in [("a", 0), ("b", 7), ("c", -7), ("d", 7), ("e", 0)]:
            step.using(priority=priority).delay(name)

        run_pending()

        assert RAN == ["b", "d", "a", "e", "c"]

    def test_of_equal_priority_the_earlier_time_runs_first(self) -> None:
        late = step.delay("late")
        early = step.delay("early")
        let_pass(60, early)
        let_pass(30, late)

        run_pending()

        assert RAN == ["early", "late"]

    def test_a_claim_takes_no_more_than_it_was_told_and_names_its_worker(
        self, worker: Worker
    ) -> None:
        stored = step.delay_many([(str(number),) for number in range(5)])

        claimed = claims.claim(worker, "default", 3)

        assert [one.id for one in claimed] == [row.pk for row in stored[:3]]
        assert [one.claim for one in claimed] == [1, 1, 1]
        rows = Task.objects.filter(pk__in=[one.id for one in claimed])
        assert {(row.status, row.worker_id, row.attempts) for row in rows} == {
            (Status.RUNNING, worker.pk, 1)
        }
        assert claims.claim(worker, "other", 3) == []
        assert len(claims.claim(worker, "default", 3)) == 2

    def test_every_statement_can_be_shown_to_who_debugs(self) -> None:
        step.delay("a")
        let_pass(60, step.using(expires=30).delay("expired"))

        with CaptureQueriesContext(connection) as captured:
            assert run_pending() == 1

        assert len(captured.captured_queries) > 3


class TestSchedule:
    def test_it_does_not_run_before_its_time(self) -> None:
        stored = step.using(run_at=datetime(2040, 1, 1, tzinfo=UTC)).delay("a")
        assert run_pending() == 0
        assert stored.is_scheduled

        Task.objects.filter(pk=stored.pk).update(run_at=Now() - timedelta(seconds=1))
        assert run_pending() == 1
        assert status_of(stored) == S

    def test_a_time_in_the_past_is_due_at_once(self) -> None:
        step.using(run_at=datetime(2020, 1, 1, tzinfo=UTC)).delay("a")

        assert run_pending() == 1

    def test_many_due_ones_are_released_in_bounded_batches(self) -> None:
        stored = step.using(run_after=60).delay_many([(str(number),) for number in range(7)])
        let_pass(120, *stored)

        assert surveys.release_due(limit=5) == {"default"}
        assert Task.objects.filter(ready=True).count() == 5
        surveys.release_due(limit=5)
        assert Task.objects.filter(ready=True).count() == 7


class TestSurvey:
    def test_it_names_the_queues_with_work(self) -> None:
        for queue in ("mail", "bulk", "a.b-c_d"):
            step.using(queue=queue).delay_many([("x",)] * 3)
        step.using(queue="later", run_after=60).delay("x")

        found = surveys.survey()

        assert found.queues == {"mail", "bulk", "a.b-c_d"}
        assert (found.has_suspects, found.has_due) == (False, False)

    def test_it_sees_what_has_come_due_and_suspects(self) -> None:
        let_pass(120, step.using(run_after=60).delay("x"))
        suspect = step.using(queue="odd").delay("y")
        Task.objects.filter(pk=suspect.pk).update(suspect=True)

        found = surveys.survey()

        assert (found.has_suspects, found.has_due) == (True, True)


class TestPausing:
    def test_its_verbs_say_what_they_did_and_what_not(self, worker: Worker) -> None:
        for stop, go_on, idle in (
            (operations.pause_queue, operations.resume_queue, "it is not paused"),
            (operations.hold_function, operations.release_function, "it is not held"),
        ):
            assert stop("mail") == operations.Affected(done=["mail"])
            assert go_on("mail") == operations.Affected(done=["mail"])
            assert go_on("mail") == operations.Affected(skipped={"mail": idle})
        assert Act.objects.count() == 4

        assert operations.quiet_worker(worker) == operations.Affected(done=[worker.pk])
        gone = Worker(pk=worker.pk + 1)
        assert operations.stop_worker(gone).skipped == {gone.pk: "it was removed"}

    def test_a_paused_queue_rests_until_it_is_resumed(self) -> None:
        ada = get_user_model().objects.create_user("ada")
        mail, other = step.using(queue="mail").delay("mail"), step.delay("other")

        operations.pause_queue("mail", "the server is down", by=ada)
        run_pending()
        assert statuses_of(mail, other) == [Q, S]
        row = Queue.objects.get()
        assert (row.name, row.paused_by, row.reason) == ("mail", "ada", "the server is down")
        assert row.paused is not None

        operations.resume_queue("mail")
        run_pending()
        assert status_of(mail) == S
        assert list(Act.objects.order_by("id").values_list("verb", "target")) == [
            ("pause queue", "mail"),
            ("resume queue", "mail"),
        ]

    def test_a_held_function_rests_until_it_is_released(self) -> None:
        @task
        def other(cqt: Context) -> None:
            RAN.append("other")

        held = step.using(priority=9).delay("held")
        other.delay()

        operations.hold_function(step.name, "under repair")
        run_pending()
        assert RAN == ["other"]
        assert status_of(held) == Q
        assert HeldFunction.objects.get().reason == "under repair"

        operations.release_function(step.name)
        run_pending()
        assert RAN == ["other", "held"]

    def test_the_subtasks_of_a_held_function_rest_and_the_parent_waits(self) -> None:
        @task
        def parent(cqt: Context) -> None:
            cqt.subtask(step, "child")

        operations.hold_function(step.name)
        stored = parent.delay()
        run_pending()

        assert status_of(stored) == Status.WAITING


class TestExpires:
    def test_what_was_not_started_in_time_ends_revoked(self) -> None:
        stored = step.using(expires=300).delay("a")
        assert run_pending(limit=0) == 0
        let_pass(301, stored)

        run_pending()

        assert RAN == []
        assert status_of(stored) == E
        assert (stored.cause, stored.reason) == (Cause.EXPIRED, "expired before it was started")
        assert stored.finished is not None

    def test_housekeeping_ends_it_also_when_nobody_claims(self) -> None:
        stored = step.using(expires=300, queue="nobody").delay("a")
        assert expire() == 0
        let_pass(301, stored)

        assert expire() == 1
        assert status_of(stored) == E

    def test_a_claim_revokes_what_has_expired_and_takes_the_rest(self, worker: Worker) -> None:
        stale = step.using(expires=300).delay("a")
        let_pass(301, stale)
        fresh = step.delay("b")

        claimed = claims.claim(worker, "default", 2)

        assert [one.id for one in claimed] == [fresh.pk]
        assert status_of(stale) == E

    def test_it_counts_from_the_time_that_it_is_due(self) -> None:
        at = datetime(2040, 1, 1, tzinfo=UTC)

        stored = step.using(run_at=at, expires=300).delay("a")

        stored.refresh_from_db()
        assert stored.expires_at == at + timedelta(seconds=300)

    def test_of_a_function_that_declares_it_every_call_expires(self) -> None:
        @task(expires=60)
        def urgent(cqt: Context) -> None: ...

        stored = urgent.delay()

        stored.refresh_from_db()
        assert stored.expires_at is not None
        assert stored.expires_at - stored.run_at == timedelta(seconds=60)

    def test_of_a_follower_it_counts_from_its_release(self) -> None:
        first = step.using(run_after=3600).delay("a")
        second = first.chain(step.using(expires=300), ("b",))
        let_pass(3600, first, second)
        second.refresh_from_db()
        assert second.expires_at is None

        run_pending()

        assert status_of(second) == S
        assert second.expires_at is not None

    def test_of_a_task_without_submit_it_counts_from_the_submit(self) -> None:
        stored = step.using(expires=300).delay_args(submit=False)
        let_pass(400, stored)

        stored.submit("a")
        run_pending()

        assert status_of(stored) == S

    def test_it_does_not_matter_after_the_first_start(self) -> None:
        @task(retries=1, backoff=0, expires=300)
        def flaky(cqt: Context) -> None:
            if cqt.attempt == 1:
                raise ValueError("broken")

        stored = flaky.delay()
        run_pending(limit=1)
        let_pass(301, stored)
        assert expire() == 0
        run_pending()

        assert status_of(stored) == S

    def test_what_came_back_from_a_dead_worker_has_been_started(self, worker: Worker) -> None:
        stored = step.using(expires=300).delay("a")
        claims.claim(worker, "default", 1)
        leases._bury(worker, running=None)
        let_pass(301, stored)

        run_pending()

        assert status_of(stored) == S

    def test_the_followers_of_an_expired_one_go_by_the_table(self) -> None:
        first = step.using(expires=300).delay("a")
        on_success = first.chain(step, ("b",))
        always = first.chain(step, ("c",), force_chain=True)
        let_pass(301, first)

        run_pending()

        assert statuses_of(first, on_success, always) == [E, P, S]
        assert on_success.is_blocked


class TestCoalesce:
    def test_true_means_function_and_arguments(self) -> None:
        @task(coalesce=True)
        def sync(cqt: Context, name: str, mode: str = "fast") -> None:
            RAN.append(name)

        first = sync.delay("a")

        assert sync.delay("a").pk == first.pk
        assert sync.delay("b").pk != first.pk
        assert sync.delay("a", mode="slow").pk != first.pk
        assert Task.objects.count() == 3

    def test_arguments_are_the_same_by_place_and_by_name_in_any_order(self) -> None:
        @task(coalesce=True)
        def sync(cqt: Context, name: str, *parts: int, **flags: bool) -> None: ...

        first = sync.delay("a")
        flagged = sync.delay("a", fast=True, quiet=False)

        assert sync.delay(name="a").pk == first.pk
        assert sync.delay(quiet=False, fast=True, name="a").pk == flagged.pk
        assert sync.delay("a", 1).pk != sync.delay("a", 2).pk
        assert sync.delay("a", 1).pk == sync.delay("a", 1).pk
        assert Task.objects.count() == 4

    def test_a_text_is_the_key_of_a_function(self) -> None:
        @task(coalesce="nightly")
        def sync(cqt: Context, name: str) -> None: ...

        @task(coalesce="nightly")
        def other(cqt: Context) -> None: ...

        assert sync.delay("a").pk == sync.delay("b").pk
        assert other.delay().pk != sync.delay("c").pk

    def test_a_callable_makes_the_key_of_the_arguments(self) -> None:
        def customer(order: int, customer: str) -> str:
            return customer

        @task(coalesce=customer)
        def bill(cqt: Context, order: int, customer: str) -> None: ...

        first = bill.delay(1, "ada")

        assert bill.delay(2, customer="ada").pk == first.pk
        assert bill.delay(2, "bob").pk != first.pk

    def test_a_callable_that_raises_is_named_and_nothing_is_stored(self) -> None:
        @task(coalesce=lambda order: order["customer"])
        def bill(cqt: Context, order: Any) -> None: ...

        with pytest.raises(InvalidArguments, match=r"bill.*no key of these.*KeyError"):
            bill.delay({})

        assert not Task.objects.exists()

    def test_what_the_database_says_to_a_callable_is_not_taken_for_wrong_arguments(self) -> None:
        def ask(order: int) -> int:
            raise OperationalError("server closed the connection")

        with pytest.raises(OperationalError):
            step.using(coalesce=ask).delay("a")

    def test_using_may_ask_for_it_or_not(self) -> None:
        first = step.using(coalesce=True).delay("a")

        assert step.using(coalesce=True).delay("a").pk == first.pk
        assert step.delay("a").pk != first.pk
        assert step.using(coalesce=True).using(coalesce=False).delay("a").pk != first.pk

    def test_delay_many_returns_the_one_that_is_there(self) -> None:
        @task(coalesce=True)
        def sync(cqt: Context, name: str) -> None: ...

        there = sync.delay("a")

        made = sync.delay_many([("a",), ("b",), ("b",), ("c",)])

        assert [made[0].pk, made[1].pk] == [there.pk, made[2].pk]
        assert Task.objects.count() == 3

    def test_one_that_has_started_lets_another_wait(self) -> None:
        seen: list[Any] = []

        @task(coalesce=True, atomic=False)
        def sync(cqt: Context) -> None:
            if not seen:
                seen.append(cqt.id)
                seen.append(sync.delay().pk)
                seen.append(sync.delay().pk)

        sync.delay()
        assert run_pending() == 2
        first, second, third = seen
        assert first != second == third

    def test_one_that_comes_back_does_not_conflict(self, worker: Worker) -> None:
        @task(coalesce=True)
        def sync(cqt: Context) -> None:
            RAN.append("sync")

        first = sync.delay()
        claims.claim(worker, "default", 1)
        second = sync.delay()
        leases._bury(worker, running=None)

        assert second.pk != first.pk
        assert statuses_of(first, second) == [Q, Q]
        assert sync.delay().pk == second.pk
        run_pending()
        assert RAN == ["sync", "sync"]

    def test_a_pending_instance_counts_as_one_that_waits(self) -> None:
        @task(coalesce="one")
        def sync(cqt: Context, name: str) -> None: ...

        waiting = sync.delay_args(submit=False)

        assert sync.delay("a").pk == waiting.pk

    def test_a_follower_is_always_created(self) -> None:
        @task(coalesce=True)
        def sync(cqt: Context) -> None: ...

        first = step.delay("a")

        assert first.chain(sync).pk != first.chain(sync).pk

    def test_a_key_that_is_no_json_is_refused(self) -> None:
        @task(coalesce=object)
        def sync(cqt: Context) -> None: ...

        with pytest.raises(NotEncodable, match="coalesce key"):
            sync.delay()


class TestOperatorsCoalesce:
    @pytest.mark.parametrize(("keep", "kept"), [("oldest", 0), ("newest", 2)])
    def test_of_queued_duplicates_one_is_kept(self, keep: str, kept: int) -> None:
        same = [step.delay("a") for _ in range(3)]
        other = step.delay("b")

        affected = operations.coalesce(Task.objects.all(), keep=keep)

        assert status_of(same[kept]) == Q
        for row in same:
            if row.pk != same[kept].pk:
                assert status_of(row) == E
                assert row.cause == Cause.COALESCED
                assert row.reason == f"coalesced into {same[kept].pk}"
        assert status_of(other) == Q
        assert set(affected.done) == {row.pk for row in same} - {same[kept].pk}
        run_pending()
        assert sorted(RAN) == ["a", "b"]

    def test_what_is_not_queued_is_left_alone(self) -> None:
        done = step.delay("a")
        run_pending()
        queued = step.delay("a")

        affected = operations.coalesce([done, queued])

        assert affected.skipped[done.pk] == "it is succeeded"
        assert statuses_of(done, queued) == [S, Q]

    def test_one_with_a_follower_is_left_alone(self) -> None:
        kept, followed = step.delay("a"), step.delay("a")
        follower = followed.chain(step, ("b",))

        affected = operations.coalesce([kept, followed])

        assert affected.done == []
        assert affected.skipped == {followed.pk: "another task waits behind it"}
        run_pending()
        assert status_of(follower) == S

    def test_a_coalesced_child_does_not_harm_its_parent(self) -> None:
        @task
        def parent(cqt: Context) -> None:
            cqt.subtask_many(step, [("a",), ("a",)])

        stored = parent.delay()
        run_pending(limit=1)
        operations.coalesce(Task.objects.filter(parent=stored))
        run_pending()

        assert status_of(stored) == S
        assert RAN == ["a"]

    def test_keep_is_checked(self) -> None:
        with pytest.raises(ValueError, match="oldest"):
            operations.coalesce([], keep="youngest")

    def test_arguments_in_another_order_are_the_same(self) -> None:
        @task
        def sync(cqt: Context, **kwargs: int) -> None: ...

        sync.delay(a=1, b=2)
        sync.delay(b=2, a=1)

        assert len(operations.coalesce(Task.objects.all()).done) == 1
