"""When does a task that failed run again, and what is kept of each attempt?"""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

import pytest
from django.db.models.functions import Now

import cq
from cq import retry, task
from cq.context import Context
from cq.models import FailureGroup, Statistic, Task
from cq.signals import task_failed, task_finished
from cq.states import Cause, Status
from cq.testing import run_pending
from engine.looking import status_of

pytestmark = pytest.mark.django_db

S, F, E, Y = Status.SUCCESS, Status.FAILURE, Status.REVOKED, Status.RETRY


class Flaky(Exception): ...


class Hopeless(Exception): ...


def wait_of(stored: Task) -> timedelta:
    """How long the task still has to wait, by the database's clock."""
    run_at, now = Task.objects.filter(pk=stored.pk).values_list("run_at", Now()).get()
    assert run_at is not None
    wait: timedelta = run_at - now
    return wait


class TestBudget:
    def test_a_failure_without_retries_is_final(self) -> None:
        @task
        def flaky(cqt: Context) -> None:
            raise Flaky("once")

        stored = flaky.delay()
        assert run_pending() == 1
        assert status_of(stored) == F
        assert stored.attempts == 1

    def test_retries_are_further_attempts(self) -> None:
        @task(retries=2, backoff=0)
        def flaky(cqt: Context) -> str:
            if cqt.attempt < 3:
                raise Flaky(f"attempt {cqt.attempt}")
            return "at last"

        stored = flaky.delay()
        assert run_pending() == 3

        assert status_of(stored) == S
        assert (stored.result, stored.attempts, stored.error) == ("at last", 3, "")

    def test_every_failed_attempt_is_kept_with_its_traceback(self) -> None:
        @task(retries=1, backoff=0)
        def flaky(cqt: Context) -> None:
            secret_free = cqt.attempt
            raise Flaky(f"attempt {secret_free}")

        stored = flaky.delay()
        run_pending()

        first, second = stored.attempt_set.order_by("id")
        assert (first.number, first.outcome, first.error) == (1, Y, "Flaky: attempt 1")
        assert (second.number, second.outcome, second.error) == (2, F, "Flaky: attempt 2")
        assert first.exception.endswith("test_attempts.Flaky")
        assert "raise Flaky(" in first.traceback
        assert first.frames[-1]["function"].endswith("flaky")
        assert first.started is not None
        assert first.started <= first.finished
        assert first.worker_name
        stored.refresh_from_db()
        assert (stored.error, stored.traceback) == ("Flaky: attempt 2", second.traceback)

    def test_a_task_that_succeeds_at_once_has_no_attempts_to_show(self) -> None:
        @task
        def fine(cqt: Context) -> None: ...

        stored = fine.delay()
        run_pending()

        assert not stored.attempt_set.exists()
        assert stored.traceback == ""

    def test_the_budget_of_a_call_counts_more_than_the_declaration(self) -> None:
        @task(retries=5, backoff=0)
        def flaky(cqt: Context) -> None:
            raise Flaky

        stored = flaky.using(retries=1).delay()
        assert run_pending() == 2
        assert status_of(stored) == F

    def test_a_failed_atomic_attempt_leaves_nothing_but_its_record(self) -> None:
        @task(retries=1, backoff=0)
        def flaky(cqt: Context) -> None:
            Task.objects.create(func_name="litter", root_id=cqt.id)
            raise Flaky

        flaky.delay()
        run_pending()

        assert not Task.objects.filter(func_name="litter").exists()


class TestRetryExceptions:
    @pytest.mark.parametrize(
        ("raised", "runs"), [(Flaky("x"), 2), (Hopeless("x"), 1), (Hopeless("temporary"), 2)]
    )
    def test_only_what_matches_is_retried(self, raised: Exception, runs: int) -> None:
        @task(
            retries=1,
            backoff=0,
            retry_exceptions=[Flaky, lambda error: "temporary" in str(error)],
        )
        def flaky(cqt: Context) -> None:
            raise raised

        flaky.delay()

        assert run_pending() == runs

    def test_a_callable_that_raises_does_not_hide_the_failure(self) -> None:
        def unsure(error: BaseException) -> bool:
            raise RuntimeError("who knows")

        @task(retries=1, backoff=0, retry_exceptions=[unsure])
        def flaky(cqt: Context) -> None:
            raise Flaky("the real one")

        stored = flaky.delay()
        run_pending()

        assert status_of(stored) == F
        assert stored.error == "Flaky: the real one"

    def test_one_class_need_not_be_a_list(self) -> None:
        @task(retries=1, backoff=0, retry_exceptions=Flaky)
        def flaky(cqt: Context) -> None:
            raise Flaky

        flaky.delay()
        assert run_pending() == 2


class TestBackoff:
    @pytest.mark.parametrize("backoff", [90, timedelta(seconds=90), lambda attempt: 90 * attempt])
    def test_the_next_attempt_waits(self, backoff: Any) -> None:
        @task(retries=2, backoff=backoff)
        def flaky(cqt: Context) -> None:
            raise Flaky

        stored = flaky.delay()
        run_pending()

        assert status_of(stored) == Y
        assert timedelta(seconds=80) < wait_of(stored) <= timedelta(seconds=90)

    def test_a_callable_is_given_the_number_of_the_attempt(self) -> None:
        numbers: list[int] = []

        def backoff(attempt: int) -> float:
            numbers.append(attempt)
            return 0

        @task(retries=3, backoff=backoff)
        def flaky(cqt: Context) -> None:
            raise Flaky

        flaky.delay()
        run_pending()

        assert numbers == [1, 2, 3]

    def test_a_callable_that_raises_falls_back_to_the_default(self) -> None:
        def backoff(attempt: int) -> float:
            raise ZeroDivisionError

        @task(retries=1, backoff=backoff)
        def flaky(cqt: Context) -> None:
            raise Flaky("the real one")

        stored = flaky.delay()
        run_pending()

        assert status_of(stored) == Y
        assert stored.error == "Flaky: the real one"

    def test_the_default_doubles_and_draws_half_of_each_wait(self) -> None:
        least = [retry.delay(None, attempt, jitter=lambda: 0.0) for attempt in range(1, 6)]
        most = [retry.delay(None, attempt, jitter=lambda: 1.0) for attempt in range(1, 6)]

        assert least == [0.5, 1, 2, 4, 8]
        assert most == [1, 2, 4, 8, 16]

    @pytest.mark.parametrize("attempt", [13, 50, 10_000])
    def test_the_default_never_waits_longer_than_an_hour(self, attempt: int) -> None:
        assert retry.delay(None, attempt, jitter=lambda: 1.0) == 3600

    def test_two_tasks_that_failed_together_do_not_come_back_together(self) -> None:
        assert len({retry.delay(None, 8) for _ in range(20)}) > 1


class TestRetryRaised:
    def test_it_asks_for_another_attempt_after_so_many_seconds(self) -> None:
        @task(retries=1, backoff=1)
        def polite(cqt: Context) -> None:
            raise cq.Retry("the server said so", after=timedelta(minutes=5))

        stored = polite.delay()
        run_pending()

        assert status_of(stored) == Y
        assert "the server said so" in stored.error
        assert timedelta(seconds=280) < wait_of(stored) <= timedelta(seconds=300)

    def test_it_is_heard_whatever_retry_exceptions_say(self) -> None:
        @task(retries=1, retry_exceptions=[Flaky])
        def polite(cqt: Context) -> None:
            raise cq.Retry(after=0)

        stored = polite.delay()
        assert run_pending() == 2
        assert status_of(stored) == F

    def test_without_after_the_backoff_counts(self) -> None:
        @task(retries=1, backoff=90)
        def polite(cqt: Context) -> None:
            raise cq.Retry

        stored = polite.delay()
        run_pending()

        assert timedelta(seconds=80) < wait_of(stored) <= timedelta(seconds=90)

    def test_an_after_that_is_no_time_fails_the_task_and_says_so(self) -> None:
        @task
        def confused(cqt: Context) -> None:
            raise cq.Retry(after="soon")  # type: ignore[arg-type]

        stored = confused.delay()
        run_pending()

        assert status_of(stored) == F
        assert "after" in stored.error


class TestDiscard:
    def test_the_task_ends_revoked_with_the_reason(self) -> None:
        @task(retries=3)
        def picky(cqt: Context) -> None:
            raise cq.Discard("nothing to do")

        stored = picky.delay()
        assert run_pending() == 1

        assert status_of(stored) == E
        assert (stored.cause, stored.reason) == (Cause.DISCARDED, "discarded: nothing to do")
        assert stored.error == ""

    @pytest.mark.parametrize("is_atomic", [True, False])
    def test_a_reason_that_no_database_stores_is_put_into_other_words(
        self, is_atomic: bool
    ) -> None:
        @task(atomic=is_atomic)
        def picky(cqt: Context) -> None:
            raise cq.Discard("nul \x00, half \ud800, " + "x" * 5_000_000)

        stored = picky.delay()
        run_pending()

        assert (status_of(stored), stored.cause) == (E, Cause.DISCARDED)
        assert stored.reason.startswith("discarded: nul \ufffd, half \ufffd, xxx")
        assert len(stored.reason) < 5_000

    def test_what_an_atomic_task_did_is_rolled_back(self) -> None:
        @task
        def picky(cqt: Context) -> None:
            Task.objects.create(func_name="litter", root_id=cqt.id)
            raise cq.Discard

        stored = picky.delay()
        run_pending()

        assert (status_of(stored), stored.reason) == (E, "discarded")
        assert not Task.objects.filter(func_name="litter").exists()


class TestStrangeErrors:
    def test_an_error_that_cannot_be_shown_is_a_failure_all_the_same(self) -> None:
        class Shy(Exception):
            def __str__(self) -> str:
                raise RuntimeError("no")

        @task
        def strange(cqt: Context) -> None:
            raise Shy

        stored = strange.delay()
        run_pending()

        assert status_of(stored) == F
        assert "cannot be shown" in stored.error

    def test_what_a_database_refuses_is_replaced_in_errors(self) -> None:
        @task
        def strange(cqt: Context) -> None:
            raise ValueError("a\x00b \ud800 c")

        stored = strange.delay()
        run_pending()

        assert status_of(stored) == F
        assert stored.error == "ValueError: a\ufffdb \ufffd c"

    def test_a_huge_message_is_cut(self) -> None:
        @task
        def strange(cqt: Context) -> None:
            raise ValueError("x" * 1_000_000)

        stored = strange.delay()
        run_pending()

        assert status_of(stored) == F
        assert len(stored.error) < 10_000

    @pytest.mark.parametrize("kind", [SystemExit, GeneratorExit, BaseException])
    def test_an_exit_is_the_failure_of_the_task(self, kind: type[BaseException]) -> None:
        @task
        def leaving(cqt: Context) -> None:
            raise kind(3)

        @task(atomic=False)
        def leaving_loosely(cqt: Context) -> None:
            raise kind(3)

        @task
        async def leaving_the_loop(cqt: Context) -> None:
            raise kind(3)

        stored = [one.delay() for one in (leaving, leaving_loosely, leaving_the_loop)]
        run_pending()

        assert [status_of(one) for one in stored] == [F, F, F]
        assert all(kind.__name__ in one.error for one in stored)

    @pytest.mark.parametrize("result", [object(), float("nan"), "a\x00b", ["\udfff"], [10**5_000]])
    @pytest.mark.parametrize("is_atomic", [True, False])
    def test_a_result_that_cannot_be_stored_is_a_failure(
        self, result: Any, is_atomic: bool
    ) -> None:
        @task(atomic=is_atomic)
        def strange(cqt: Context) -> Any:
            return result

        stored = strange.delay()
        run_pending()

        assert status_of(stored) == F
        assert "result" in stored.error
        assert "cannot be stored as JSON" in stored.error

    def test_a_function_that_is_no_longer_registered_is_a_failure_with_a_hint(self) -> None:
        @task("shop.tasks.ship_order")
        def ship(cqt: Context) -> None: ...

        stored = ship.delay()
        Task.objects.filter(pk=stored.pk).update(func_name="shop.tasks.ship_oder")
        run_pending()

        assert status_of(stored) == F
        assert "Did you mean 'shop.tasks.ship_order'?" in stored.error

    def test_arguments_that_no_longer_fit_are_a_failure(self) -> None:
        @task
        def strict(cqt: Context, number: int) -> None: ...

        stored = strict.delay(1)
        Task.objects.filter(pk=stored.pk).update(args=[1, 2])
        run_pending()

        assert status_of(stored) == F
        assert "TypeError" in stored.error or "InvalidArguments" in stored.error


class TestAnnouncements:
    @pytest.mark.django_db(transaction=True)
    def test_signals_tell_of_ends_after_the_commit(self) -> None:
        told: list[Any] = []

        def finished(sender: str, task_id: Any, **_kwargs: Any) -> None:
            told.append(("finished", sender, Task.objects.get(pk=task_id).status))

        def failed(sender: str, task_id: Any, **_kwargs: Any) -> None:
            told.append(("failed", sender, Task.objects.get(pk=task_id).status))
            raise RuntimeError("a receiver's own trouble")

        @task("sig.good")
        def good(cqt: Context) -> None: ...

        @task("sig.bad")
        def bad(cqt: Context) -> None:
            raise Flaky

        task_finished.connect(finished)
        task_failed.connect(failed)
        try:
            good.delay()
            bad.delay()
            run_pending()
        finally:
            task_finished.disconnect(finished)
            task_failed.disconnect(failed)

        assert told == [("finished", "sig.good", "S"), ("failed", "sig.bad", "F")]

    def test_statistics_and_failure_groups_count_attempts_by_cause(self) -> None:
        @task(retries=1, backoff=0)
        def flaky(cqt: Context, number: int) -> None:
            raise Flaky(f"order {number} is late")

        for number in (17, 4711):
            flaky.delay(number)
        run_pending()

        statistic = Statistic.objects.get(func_name=flaky.name)
        assert (statistic.started, statistic.failed, statistic.retried) == (4, 2, 2)
        group = FailureGroup.objects.get()
        assert group.exception.endswith("Flaky")
        assert set(Task.objects.values_list("fingerprint", flat=True)) == {group.fingerprint}

    def test_the_log_record_of_a_task_names_it(self, caplog: pytest.LogCaptureFixture) -> None:
        @task
        def chatty(cqt: Context) -> None:
            cqt.log("half way", level=logging.WARNING)

        stored = chatty.delay()
        run_pending()

        record = next(one for one in caplog.records if one.getMessage() == "half way")
        assert record.cq_task_id == str(stored.pk)  # type: ignore[attr-defined]
