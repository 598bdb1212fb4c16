"""What becomes of the tasks of a worker that has died, and who is charged for it?"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.db import OperationalError, connection
from django.db.models.functions import Now

from cq import claims, leases, maintenance, operations, process, recorder, surveys, task
from cq.context import Context
from cq.models import Attempt, Task, Worker
from cq.outcomes import Claimed, Outcome
from cq.states import Cause, Status
from cq.testing import run_pending
from cq.vigil import Vigil
from engine.looking import status_of, statuses_of

pytestmark = pytest.mark.django_db

S, F, Q, R, L, E, W, Y = (
    Status.SUCCESS,
    Status.FAILURE,
    Status.QUEUED,
    Status.RUNNING,
    Status.LOST,
    Status.REVOKED,
    Status.WAITING,
    Status.RETRY,
)
RAN: list[str] = []
NewWorker = Callable[..., Worker]


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    yield
    RAN.clear()


@task
def step(cqt: Context, name: str = "it") -> None:
    RAN.append(name)


def new_worker() -> Worker:
    return leases.register(queues=[], threads=1, is_embedded=False, is_scheduler=False)


def gone_worker() -> Worker:
    """A worker whose process has ended, on this host."""
    ended = subprocess.Popen([sys.executable, "-c", "pass"])
    ended.wait()
    worker = new_worker()
    Worker.objects.filter(pk=worker.pk).update(pid=ended.pid, pid_started="1")
    worker.refresh_from_db()
    return worker


def late_worker() -> Worker:
    """A worker of another host, whose lease has expired."""
    worker = new_worker()
    Worker.objects.filter(pk=worker.pk).update(
        host="elsewhere", boot_id="another boot", lease_expires_at=Now() - timedelta(seconds=1)
    )
    worker.refresh_from_db()
    return worker


def claim_all(worker: Worker, number: int = 10) -> list[Claimed]:
    return claims.claim(worker, "default", number)


def claim_suspect(worker: Worker) -> Claimed:
    (claimed,) = claims.claim(worker, "default", 1, suspects=True)
    return claimed


class TestWhoIsDead:
    def test_a_process_that_is_gone_from_this_host_is_noticed_at_once(self) -> None:
        stored = step.delay()
        worker = gone_worker()
        claim_all(worker)

        assert leases.rescue() == 1
        assert status_of(stored) == Q
        worker.refresh_from_db()
        assert worker.stopped is not None

    def test_a_worker_that_lives_keeps_its_tasks(self) -> None:
        stored = step.delay()
        claim_all(new_worker())

        assert leases.rescue() == 0
        assert status_of(stored) == R

    def test_an_expired_lease_is_death_but_on_sqlite_only_a_dead_pid_is(self) -> None:
        stored = step.delay()
        claim_all(late_worker())

        rescued = leases.rescue()

        assert rescued == (0 if connection.vendor == "sqlite" else 1)
        assert status_of(stored) == (R if connection.vendor == "sqlite" else Q)

    def test_of_another_host_a_pid_says_nothing(self) -> None:
        worker = gone_worker()
        Worker.objects.filter(pk=worker.pk).update(boot_id="another boot")

        assert leases.rescue() == 0

    def test_a_pid_that_was_given_away_again_is_another_process(self) -> None:
        worker = new_worker()
        assert not process.is_dead(process.own())
        Worker.objects.filter(pk=worker.pk).update(pid_started="1")

        assert leases.rescue() == 1

    def test_a_beat_extends_the_lease_and_tells_what_was_asked(self) -> None:
        worker = late_worker()

        assert leases.beat(worker.pk, 3, 1234) == ""

        worker.refresh_from_db()
        now = Worker.objects.values_list(Now(), flat=True).get()
        assert timedelta(seconds=20) < worker.lease_expires_at - now <= timedelta(seconds=30)
        assert (worker.running, worker.memory) == (3, 1234)
        operations.quiet_worker(worker)
        assert leases.beat(worker.pk, 0, 0) == "quiet"

    def test_a_buried_worker_cannot_beat_again(self) -> None:
        worker = gone_worker()
        leases.rescue()

        assert leases.beat(worker.pk, 0, 0) is None

    def test_it_is_rescued_once(self) -> None:
        gone_worker()

        assert leases.rescue() == 1
        assert leases.rescue() == 0


@pytest.mark.skipif("connection.vendor == 'sqlite'", reason="its leases end with the process")
class TestSilence:
    """After the database was away, or its clock was set, leases say nothing."""

    @pytest.fixture(autouse=True)
    def _clock(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1_000.0
        monkeypatch.setattr(leases, "monotonic", lambda: self.now)

    def look(self, vigil: Vigil, after: float) -> int:
        self.now += after
        return leases.rescue(vigil)

    def test_an_expired_lease_is_death_only_after_two_heartbeats_of_silence(self) -> None:
        late_worker()
        vigil = Vigil()

        assert [self.look(vigil, 5.0) for _look in range(4)] == [0, 0, 1, 0]

    def test_one_that_beats_again_lives(self) -> None:
        worker = late_worker()
        vigil = Vigil()
        assert self.look(vigil, 0.0) == 0
        leases.beat(worker.pk, 0, 0)
        Worker.objects.update(lease_expires_at=Now() - timedelta(seconds=1))

        assert [self.look(vigil, 6.0) for _look in range(3)] == [0, 0, 1]

    def test_an_outage_begins_the_watch_anew(self, monkeypatch: pytest.MonkeyPatch) -> None:
        late_worker()
        house = maintenance.Housekeeper()
        house.keep()
        self.now += 9.0
        with monkeypatch.context() as patched:
            patched.setattr(leases, "rescue", unreachable)
            with pytest.raises(OperationalError):
                house.keep()

        for after, alive in ((60.0, 1), (9.0, 1), (1.0, 0)):
            self.now += after
            house.keep()
            assert Worker.objects.filter(stopped__isnull=True).count() == alive

    def test_a_clock_set_back_keeps_no_dead_worker_alive(self) -> None:
        worker = late_worker()
        Worker.objects.filter(pk=worker.pk).update(lease_expires_at=Now() + timedelta(hours=1))
        vigil = Vigil()

        assert [self.look(vigil, 15.0) for _look in range(3)] == [0, 0, 1]


def unreachable(*_arguments: object) -> int:
    raise OperationalError("the server is away")


class TestWhatComesBack:
    def test_it_runs_again_with_the_attempt_not_counted(self) -> None:
        stored = step.delay()
        claim_all(gone_worker())
        leases.rescue()

        assert statuses_of(stored) == [Q]
        assert stored.attempts == 0
        run_pending()
        assert status_of(stored) == S
        assert (stored.attempts, stored.deaths, stored.claim) == (1, 0, 2)
        assert not Attempt.objects.exists()

    def test_a_graceful_end_hands_back_without_suspicion(self) -> None:
        stored = step.delay()
        worker = new_worker()
        claim_all(worker)

        leases.end(worker)

        assert status_of(stored) == Q
        assert (stored.attempts, stored.suspect, stored.ready) == (0, False, True)
        assert stored.worker_id is None

    def test_of_a_dead_process_only_what_was_running_is_suspect(self) -> None:
        running, waiting = step.delay("running"), step.delay("waiting")
        worker = gone_worker()
        claim_all(worker)

        leases.bury(worker.pk, running={running.pk})

        assert statuses_of(running, waiting) == [Q, Q]
        assert (running.suspect, waiting.suspect) == (True, False)
        assert (running.attempts, waiting.attempts) == (0, 0)

    def test_a_late_record_of_the_dead_worker_changes_nothing(self) -> None:
        stored = step.delay()
        (late,) = claim_all(gone_worker())
        leases.rescue()
        now = late.now()

        for _again in range(2):
            recorded = recorder.record([Outcome(late, F, now, now)])
            assert len(recorded.lost) == 1
            if status_of(stored) == Q:
                claim_suspect(new_worker())

        assert status_of(stored) == R

    def test_more_than_a_batch_comes_back(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(leases, "BATCH", 3)
        stored = step.delay_many([(str(number),) for number in range(10)])
        claim_all(gone_worker())

        leases.rescue()

        assert set(statuses_of(*stored)) == {Q}

    def test_what_was_asked_to_stop_ends_revoked_with_the_reason(self) -> None:
        stored = step.delay()
        follower = stored.chain(step, ("after",), force_chain=True)
        claim_all(gone_worker())
        operations.cancel([stored], "wrong file")
        assert status_of(stored) == R
        assert stored.is_cancelling

        leases.rescue()

        assert statuses_of(stored, follower) == [E, E]
        assert (stored.cause, stored.reason) == (Cause.CANCELLED, "cancelled: wrong file")


class TestPoison:
    def die_alone(self) -> None:
        """Let a worker die that ran the next suspect alone."""
        worker = gone_worker()
        claimed = claim_suspect(worker)
        leases.bury(worker.pk, running={claimed.id})

    def wait_out_the_pause(self) -> None:
        Task.objects.filter(status=Q).update(run_at=Now())
        surveys.release_due()

    def test_a_suspect_is_claimed_only_by_who_asks_for_one_and_alone(self) -> None:
        first, second, third = (step.delay(str(number)) for number in range(3))
        worker = gone_worker()
        claims.claim(worker, "default", 2)
        leases.bury(worker.pk, running={first.pk, second.pk})

        other = new_worker()
        assert [one.id for one in claim_all(other)] == [third.pk]
        assert [one.id for one in claims.claim(other, "default", 9, suspects=True)] == [first.pk]

    def test_a_death_counts_only_for_a_task_that_ran_alone(self) -> None:
        stored = step.delay_many([(str(number),) for number in range(5)])
        worker = gone_worker()
        claim_all(worker)
        leases.bury(worker.pk, running={row.pk for row in stored})

        assert Task.objects.filter(deaths__gt=0).count() == 0
        self.die_alone()
        assert list(Task.objects.filter(deaths__gt=0)) == [stored[0]]

    def test_each_death_alone_lets_it_wait_longer_and_the_first_among_others_not_at_all(
        self, settings: Any
    ) -> None:
        settings.CQ_MAX_LOST = 9
        stored = step.delay()
        worker = gone_worker()
        claim_all(worker)
        leases.bury(worker.pk, running={stored.pk})

        pauses = []
        for _death in range(5):
            self.die_alone()
            assert claims.claim(new_worker(), "default", 1, suspects=True) == []
            due, now = Task.objects.values_list("run_at", Now()).get(pk=stored.pk)
            pauses.append(round((due - now).total_seconds()))
            self.wait_out_the_pause()

        assert pauses == [2, 8, 32, 60, 60]

    def test_a_suspect_that_waits_lets_the_next_be_tried(self) -> None:
        first, second = step.delay_many([("first",), ("second",)])
        worker = gone_worker()
        claim_all(worker)
        leases.bury(worker.pk, running={first.pk, second.pk})

        self.die_alone()

        assert claim_suspect(new_worker()).id == second.pk
        first.refresh_from_db()
        assert (first.deaths, first.ready) == (1, None)

    def test_after_so_many_deaths_alone_it_is_lost(self, settings: Any) -> None:
        settings.CQ_MAX_LOST = 2
        stored = step.delay()
        errorback = stored.errorback(step, ("errorback",))
        worker = gone_worker()
        claim_all(worker)
        leases.bury(worker.pk, running={stored.pk})

        self.die_alone()
        assert (status_of(stored), stored.deaths) == (Q, 1)
        self.wait_out_the_pause()
        self.die_alone()

        assert (status_of(stored), stored.deaths) == (L, 2)
        assert "2 workers died" in stored.error
        assert stored.finished is not None
        attempt = Attempt.objects.get()
        assert (attempt.task_id, attempt.outcome) == (stored.pk, L)
        run_pending()
        assert status_of(errorback) == S

    def test_a_lost_child_leaves_its_parent_incomplete(self, settings: Any) -> None:
        settings.CQ_MAX_LOST = 1

        @task
        def parent(cqt: Context) -> None:
            cqt.subtask(step)

        stored = parent.delay()
        run_pending(limit=1)
        child = Task.objects.get(parent=stored)
        worker = gone_worker()
        claim_all(worker)
        leases.bury(worker.pk, running={child.pk})
        assert status_of(stored) == W

        self.die_alone()

        assert statuses_of(child, stored) == [L, Status.INCOMPLETE]

    def test_who_has_ended_is_no_suspect_however_it_ended(self, settings: Any) -> None:
        settings.CQ_MAX_LOST = 1
        lost, cancelled, asked = stored = step.delay_many([("lost",), ("cancelled",), ("asked",)])
        worker = gone_worker()
        claim_all(worker)
        leases.bury(worker.pk, running={row.pk for row in stored})
        assert Task.objects.filter(suspect=True).count() == 3

        self.die_alone()
        cancelled.cancel()
        worker = gone_worker()
        claimed = claim_suspect(worker)
        asked.cancel()
        leases.bury(worker.pk, running={claimed.id})

        assert statuses_of(lost, cancelled, asked) == [L, E, E]
        assert not Task.objects.filter(suspect=True).exists()

    def test_a_suspect_that_waits_for_its_subtasks_is_one_until_it_is_cancelled(self) -> None:
        @task(atomic=False)
        def parent(cqt: Context) -> None: ...

        stored = parent.delay()
        worker = gone_worker()
        (claimed,) = claim_all(worker)
        half_run(claimed)
        leases.bury(worker.pk, running={stored.pk})
        assert (status_of(stored), stored.suspect) == (W, True)

        stored.cancel()

        assert (status_of(stored), stored.suspect) == (E, False)

    def test_a_suspect_whose_worker_lived_is_cleared_for_its_next_claim(self) -> None:
        @task(retries=1, backoff=0)
        def flaky(cqt: Context) -> None:
            if cqt.attempt == 1:
                raise ValueError("broken")

        stored = flaky.delay()
        worker = gone_worker()
        claim_all(worker)
        leases.bury(worker.pk, running={stored.pk})

        run_pending(limit=1)

        # It ended alone, as an ordinary failure: the worker lived.
        assert status_of(stored) == Y
        assert not stored.suspect
        run_pending()
        assert status_of(stored) == S

    def test_a_retry_of_a_lost_task_starts_afresh(self, settings: Any) -> None:
        settings.CQ_MAX_LOST = 1
        stored = step.delay()
        worker = gone_worker()
        claim_all(worker)
        leases.bury(worker.pk, running={stored.pk})
        self.die_alone()
        assert status_of(stored) == L

        stored.retry()

        assert (status_of(stored), stored.deaths, stored.suspect) == (Q, 0, False)
        run_pending()
        assert status_of(stored) == S


class TestParents:
    def test_a_dead_non_atomic_parent_runs_again_after_its_subtasks(self) -> None:
        attempts: list[int] = []

        @task(atomic=False)
        def parent(cqt: Context) -> None:
            attempts.append(cqt.attempt)
            cqt.subtask(step, "new")

        stored = parent.delay()
        worker = gone_worker()
        (claimed,) = claim_all(worker)
        half_run(claimed)
        leases.bury(worker.pk, running={stored.pk})
        assert status_of(stored) == W
        assert stored.open_children == 1

        run_pending()

        assert RAN == ["old", "new"]
        assert attempts == [1]
        assert status_of(stored) == S


def half_run(claimed: Claimed) -> UUID:
    """Let a non-atomic parent make a subtask, and go no further."""
    from cq.context import Run
    from cq.registry import call

    class Nowhere:
        def add_lines(self, lines: Any) -> None: ...

    run = Run(claimed, is_atomic=False, sink=Nowhere())
    return run.add_children([call(step, ("old",), {})])[0].pk
