"""Do a task's own effects and its completion commit together, or not at all?"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import Group, Permission, User
from django.db import (
    DatabaseError,
    DataError,
    IntegrityError,
    OperationalError,
    connection,
    connections,
    models,
    transaction,
)

from cq import bulk, claims, database, leases, recorder, runner, task, workflow
from cq.buffers import RecordBuffer
from cq.context import Context, Run
from cq.exceptions import LeaseLost, TaskCancelled
from cq.models import Task, Worker
from cq.outcomes import Claimed, Outcome
from cq.states import Cause, Status
from cq.statistics import Tally
from cq.testing import run_pending
from engine.looking import status_of

pytestmark = pytest.mark.django_db(transaction=True)

S, F, Q, R, E = (
    Status.SUCCESS,
    Status.FAILURE,
    Status.QUEUED,
    Status.RUNNING,
    Status.REVOKED,
)
on_postgresql = pytest.mark.skipif("connection.vendor != 'postgresql'", reason="PostgreSQL only")


@pytest.fixture
def worker() -> Worker:
    return leases.register(queues=[], threads=1, is_embedded=False, is_scheduler=False)


@pytest.fixture
def buffer(worker: Worker) -> RecordBuffer:
    return RecordBuffer(Tally(worker.pk), lambda _outcomes: None)


def in_thread(act: Callable[[], Any]) -> Any:
    """What *act* returns on another connection."""
    found: list[Any] = []

    def work() -> None:
        try:
            found.append(act())
        finally:
            connections.close_all()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(30)
    assert found, "it raised, or did not end"
    return found[0]


class TestTogether:
    def test_writes_result_subtasks_and_followers_commit_together(self) -> None:
        seen: list[Any] = []

        @task
        def child(cqt: Context) -> None: ...

        def looks_from_outside() -> Any:
            return Group.objects.count(), Task.objects.count()

        @task
        def write(cqt: Context) -> str:
            seen.append(in_thread(looks_from_outside) if connection.vendor != "sqlite" else (0, 1))
            Group.objects.create(name="written")
            cqt.subtask(child)
            cqt.chain(child)
            if connection.vendor != "sqlite":
                seen.append(in_thread(looks_from_outside))
            return "done"

        stored = write.delay()
        run_pending(limit=1)

        assert set(seen) == {(0, 1)}
        assert (Group.objects.count(), Task.objects.count()) == (1, 3)
        assert status_of(stored) == Status.WAITING
        run_pending()
        assert status_of(stored) == S

    def test_a_failure_rolls_everything_back(self) -> None:
        @task
        def write(cqt: Context) -> None:
            Group.objects.create(name="written")
            task_never.delay()
            raise ValueError("broken")

        stored = write.delay()
        run_pending()

        assert status_of(stored) == F
        assert not Group.objects.exists()
        assert Task.objects.count() == 1

    def test_a_savepoint_of_its_own_may_fail_inside(self) -> None:
        @task
        def write(cqt: Context) -> int:
            Group.objects.create(name="a")
            try:
                with transaction.atomic():
                    Group.objects.create(name="a")
            except IntegrityError:
                Group.objects.create(name="b")
            return Group.objects.count()

        stored = write.delay()
        run_pending()

        assert status_of(stored) == S
        assert stored.result == Group.objects.count() == 2

    def test_a_non_atomic_task_runs_outside_any_transaction(self) -> None:
        seen: list[bool] = []

        @task(atomic=False)
        def loose(cqt: Context) -> None:
            seen.append(connection.in_atomic_block)
            Group.objects.create(name="kept")
            raise ValueError("broken")

        stored = loose.delay()
        run_pending()

        assert seen == [False]
        assert status_of(stored) == F
        assert Group.objects.filter(name="kept").exists()

    def test_a_callback_on_commit_runs_after_the_commit_of_the_task(self) -> None:
        seen: list[Any] = []

        @task
        def write(cqt: Context) -> None:
            transaction.on_commit(
                lambda: seen.append((Task.objects.get(pk=cqt.id).status, Group.objects.count()))
            )
            Group.objects.create(name="written")

        write.delay()
        run_pending()

        assert seen == [("S", 1)]

    def test_a_callback_on_commit_of_a_failed_task_does_not_run(self) -> None:
        seen: list[Any] = []

        @task
        def write(cqt: Context) -> None:
            Group.objects.create(name="written")
            transaction.on_commit(lambda: seen.append("ran"))
            raise ValueError("broken")

        write.delay()
        run_pending()

        assert seen == []

    @pytest.mark.parametrize("writes", [True, False])
    def test_a_callback_on_commit_that_raises_changes_nothing(self, writes: bool) -> None:
        seen: list[Any] = []

        def trouble() -> None:
            seen.append("trouble")
            raise RuntimeError("mail server is down")

        @task(retries=3, backoff=0)
        def write(cqt: Context) -> str:
            if writes:
                Group.objects.create(name="written")
            transaction.on_commit(trouble)
            transaction.on_commit(lambda: seen.append("after"))
            return "done"

        stored = write.delay()
        assert run_pending() == 1

        assert status_of(stored) == S
        assert stored.result == "done"
        assert seen == ["trouble", "after"]

    def test_an_interrupt_in_a_callback_on_commit_changes_nothing(self) -> None:
        @task
        def write(cqt: Context) -> str:
            Group.objects.create(name="written")

            def leave() -> None:
                raise SystemExit(1)

            transaction.on_commit(leave)
            return "done"

        stored = write.delay()
        run_pending()

        assert status_of(stored) == S
        assert Group.objects.count() == 1

    def test_what_a_callback_on_commit_delays_is_stored(self) -> None:
        @task
        def write(cqt: Context) -> None:
            Group.objects.create(name="written")
            transaction.on_commit(lambda: task_never.delay())  # noqa: PLW0108

        write.delay()
        run_pending(limit=1)

        assert Task.objects.get(func_name=task_never.name).status == Q


@task
def task_never(cqt: Context) -> None: ...


class TestHoles:
    """A task that returns although its transaction cannot commit has failed, and says why."""

    def test_a_swallowed_database_error(self) -> None:
        @task
        def write(cqt: Context) -> str:
            Group.objects.create(name="a")
            with contextlib.suppress(IntegrityError):
                Group.objects.create(name="a")
            return "done"

        stored = write.delay()
        run_pending()

        # Where a failed statement does not end the transaction, there is nothing to refuse.
        can_go_on = not connection.features.atomic_transactions or connection.vendor != "postgresql"
        if status_of(stored) == S:
            assert can_go_on
            assert Group.objects.count() == 1
        else:
            assert status_of(stored) == F
            assert "swallowed a database error" in stored.error
            assert not Group.objects.exists()

    def test_a_swallowed_database_error_of_an_inner_block_that_marks_the_outer_one(self) -> None:
        @task
        def write(cqt: Context) -> str:
            Group.objects.create(name="a")
            try:
                with transaction.atomic(savepoint=False):
                    Group.objects.create(name="a")
            except IntegrityError:
                pass
            return "done"

        stored = write.delay()
        run_pending()

        assert status_of(stored) == F
        assert "marked for rollback" in stored.error
        assert not Group.objects.exists()

    def test_set_rollback(self) -> None:
        @task
        def write(cqt: Context) -> str:
            Group.objects.create(name="a")
            transaction.set_rollback(True)
            return "done"

        stored = write.delay()
        run_pending()

        assert status_of(stored) == F
        assert "set_rollback()" in stored.error
        assert not Group.objects.exists()

    @pytest.mark.parametrize("reconnects", [True, False])
    def test_a_closed_connection(self, reconnects: bool) -> None:
        @task
        def write(cqt: Context) -> str:
            Group.objects.create(name="a")
            connection.close()
            if reconnects:
                with contextlib.suppress(Exception):
                    Group.objects.count()
            return "done"

        stored = write.delay()
        run_pending()

        assert status_of(stored) == F
        assert "closed its database connection" in stored.error
        assert not Group.objects.exists()

    @on_postgresql
    def test_a_raw_driver_cursor_counts_as_use(self) -> None:
        table = Group._meta.db_table

        @task
        def write(cqt: Context) -> str:
            connection.ensure_connection()
            with connection.connection.cursor() as cursor:
                cursor.execute(f"INSERT INTO {table} (name) VALUES ('raw')")
            return "done"

        stored = write.delay()
        recorded = outcome_of_next()

        assert recorded is not None
        assert recorded.is_recorded
        assert status_of(stored) == S
        assert Group.objects.get().name == "raw"

    @on_postgresql
    def test_an_error_of_a_raw_driver_cursor_fails_the_task(self) -> None:
        @task
        def write(cqt: Context) -> str:
            Group.objects.create(name="a")
            with contextlib.suppress(Exception), connection.connection.cursor() as cursor:
                cursor.execute("SELECT no_such_column")
            return "done"

        stored = write.delay()
        run_pending()

        assert status_of(stored) == F
        assert not Group.objects.exists()

    def test_a_deferred_constraint_at_commit_is_the_failure_of_the_task(self) -> None:
        if not connection.features.can_defer_constraint_checks:
            pytest.skip("this database checks at once")

        @task(retries=1, backoff=0)
        def write(cqt: Context) -> str:
            Permission.objects.create(name="x", codename=f"x{cqt.attempt}", content_type_id=999_999)
            return "done"

        stored = write.delay()
        follower = stored.errorback(task_never)
        assert run_pending() == 3

        assert status_of(stored) == F
        assert "IntegrityError" in stored.error
        assert not Permission.objects.filter(codename__startswith="x").exists()
        assert status_of(follower) == S

    def test_a_task_that_only_read_is_recorded_once(self) -> None:
        @task
        def read(cqt: Context) -> int:
            return Group.objects.count()

        stored = read.delay()
        run_pending()

        assert (status_of(stored), stored.result) == (S, 0)

    def test_a_task_that_used_nothing_is_recorded_in_bulk(self) -> None:
        @task
        def idle(cqt: Context) -> int:
            return 42

        stored = idle.delay()
        outcome = outcome_of_next()

        assert outcome is not None
        assert not outcome.is_recorded
        assert status_of(stored) == R


def outcome_of_next() -> Outcome | None:
    """Claim and run the next task, without recording what is left to the bulk recorder."""
    worker = leases.register(queues=[], threads=1, is_embedded=False, is_scheduler=False)
    buffer = RecordBuffer(Tally(worker.pk), lambda _outcomes: None)
    (claimed,) = claims.claim(worker, "default", 1)
    return runner.run(claimed, buffer, lambda _run: None)


class TestFence:
    """Whoever lost the lease leaves no trace."""

    @staticmethod
    def take_away(claimed: Claimed) -> None:
        """Let another worker own the task: the row comes back, and is claimed anew."""
        Task.objects.filter(pk=claimed.id).update(status=Q, ready=True, worker=None)
        other = leases.register(queues=[], threads=1, is_embedded=False, is_scheduler=False)
        (again,) = claims.claim(other, "default", 1)
        assert again.id == claimed.id

    @pytest.fixture
    def claimed(self, worker: Worker) -> Claimed:
        @task
        def write(cqt: Context) -> str:
            Group.objects.create(name="late")
            cqt.subtask(task_never)
            cqt.chain(task_never)
            return "late"

        write.delay()
        return claims.claim(worker, "default", 1)[0]

    def test_a_late_atomic_task_is_rolled_back(
        self, claimed: Claimed, buffer: RecordBuffer
    ) -> None:
        self.take_away(claimed)

        assert runner.run(claimed, buffer, lambda _run: None) is None

        row = Task.objects.get()
        assert (row.status, row.claim, row.result) == (R, 2, None)
        assert not Group.objects.exists()

    def test_the_control_without_the_fence_the_late_task_does_its_harm(
        self, claimed: Claimed, buffer: RecordBuffer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(recorder, "_owns", lambda _row, _claimed: True)
        self.take_away(claimed)

        runner.run(claimed, buffer, lambda _run: None)

        assert Group.objects.filter(name="late").exists()

    def test_the_control_with_the_lease_it_commits(
        self, claimed: Claimed, buffer: RecordBuffer
    ) -> None:
        outcome = runner.run(claimed, buffer, lambda _run: None)

        assert outcome is not None
        assert outcome.is_recorded
        assert Group.objects.filter(name="late").exists()

    @pytest.mark.parametrize("status", [S, F, Status.RETRY, E])
    def test_a_late_outcome_of_the_bulk_recorder_is_dropped(
        self, claimed: Claimed, status: Status
    ) -> None:
        self.take_away(claimed)
        now = claimed.now()

        recorded = recorder.record([Outcome(claimed, status, now, now, result="late")])

        assert (len(recorded.written), len(recorded.lost), len(recorded.left)) == (0, 1, 0)
        row = Task.objects.get()
        assert (row.status, row.claim, row.result) == (R, 2, None)
        assert not row.attempt_set.exists()

    def test_one_late_outcome_does_not_keep_the_others_of_its_batch(
        self, claimed: Claimed, worker: Worker
    ) -> None:
        stored = task_never.delay_many([()] * 5)
        others = claims.claim(worker, "default", 5)
        self.take_away(claimed)
        now = claimed.now()

        recorded = recorder.record([Outcome(one, S, now, now) for one in (claimed, *others)])

        assert len(recorded.written) == 5
        assert {status_of(one) for one in stored} == {S}
        assert Task.objects.get(pk=claimed.id).status == R

    def test_a_removed_row_is_a_lost_lease(self, claimed: Claimed) -> None:
        Task.objects.all().delete()
        now = claimed.now()

        recorded = recorder.record([Outcome(claimed, S, now, now)])

        assert len(recorded.lost) == 1
        with pytest.raises(LeaseLost), transaction.atomic():
            recorder.record_within(Outcome(claimed, S, now, now))


class TestRefusedByTheDatabase:
    @pytest.mark.parametrize("error", [DataError, TypeError])
    def test_in_a_batch_the_bad_one_alone_fails(
        self,
        worker: Worker,
        buffer: RecordBuffer,
        monkeypatch: pytest.MonkeyPatch,
        error: type[Exception],
    ) -> None:
        stored = task_never.delay_many([()] * 9)
        claimed = claims.claim(worker, "default", 9)
        bad = claimed[4].id
        original = recorder.record

        def refuse(outcomes: list[Outcome], **kwargs: Any) -> Any:
            if any(one.claimed.id == bad and one.status == S for one in outcomes):
                raise error("invalid value for a column")
            return original(outcomes, **kwargs)

        monkeypatch.setattr(recorder, "record", refuse)
        now = claimed[0].now()
        for one in claimed:
            buffer.add(Outcome(one, S, now, now, result={"n": 1}))
        buffer.flush()

        assert [status_of(row) for row in stored] == [S, S, S, S, F, S, S, S, S]
        assert "invalid value" in Task.objects.get(pk=bad).error

    @on_postgresql
    def test_what_only_the_database_refuses_ends_as_a_failure(
        self, worker: Worker, buffer: RecordBuffer
    ) -> None:
        stored = task_never.delay_many([()] * 3)
        claimed = claims.claim(worker, "default", 3)
        now = claimed[0].now()
        for one, result in zip(claimed, ["fine", "nul \x00", "fine"], strict=True):
            buffer.add(Outcome(one, S, now, now, result=result))
        buffer.flush()

        assert [status_of(row) for row in stored] == [S, F, S]

    def test_what_cannot_even_be_written_as_a_failure_holds_up_no_other(
        self, worker: Worker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        given_up: list[Any] = []
        buffer = RecordBuffer(Tally(worker.pk), given_up.extend)
        stored = task_never.delay_many([()] * 3)
        claimed = claims.claim(worker, "default", 3)
        now = claimed[0].now()
        write_one = recorder._write_one

        def refuse_the_second(outcome: Outcome, *rest: Any) -> Any:
            if outcome.claimed.id == stored[1].pk:
                raise ValueError("no way to write this")
            return write_one(outcome, *rest)

        monkeypatch.setattr(recorder, "_write_one", refuse_the_second)
        for one in claimed:
            buffer.add(Outcome(one, F, now, now))
        buffer.flush()

        assert [status_of(row) for row in stored] == [F, R, F]
        assert {outcome.claimed.id for outcome in given_up} == {row.pk for row in stored}
        assert f"gave up the record task={stored[1].pk}" in caplog.text


class TestConflicts:
    def test_a_conflict_of_the_record_is_met_again_with_the_followers(
        self, buffer: RecordBuffer, worker: Worker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        @task(atomic=False)
        def heads(cqt: Context) -> None:
            cqt.chain(task_never).chain(task_never)

        stored = heads.delay()
        conflicts = iter([a_conflict(), a_conflict()])
        settle = workflow.settle

        def conflict_twice(*args: Any) -> None:
            for error in conflicts:
                raise error
            settle(*args)

        monkeypatch.setattr(workflow, "settle", conflict_twice)
        (claimed,) = claims.claim(worker, "default", 1)
        outcome = runner.run(claimed, buffer, lambda _run: None)
        assert outcome is not None
        buffer.add(outcome)
        buffer.flush()

        assert status_of(stored) == S
        assert Task.objects.filter(root=stored).count() == 3

    def test_a_conflict_of_what_a_non_atomic_task_makes_is_met_again(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        conflicts = iter([a_conflict()])
        insert = bulk.insert

        def conflict_once(rows: Any) -> None:
            insert(rows)
            for error in conflicts:
                raise error

        @task(atomic=False)
        def parent(cqt: Context) -> str:
            monkeypatch.setattr(bulk, "insert", conflict_once)
            child = cqt.subtask(task_never)
            child.refresh_from_db()
            return str(child.pk)

        stored = parent.delay()
        run_pending(limit=1)

        assert stored.subtasks.count() == 1
        assert status_of(stored) == Status.WAITING
        assert stored.open_children == 1

    def test_a_conflict_runs_the_task_again_uncharged(self) -> None:
        runs: list[int] = []

        @task
        def write(cqt: Context) -> str:
            runs.append(cqt.attempt)
            Group.objects.create(name=f"run {len(runs)}")
            if len(runs) < 3:
                raise a_conflict()
            return "done"

        stored = write.delay()
        run_pending()

        assert runs == [1, 1, 1]
        assert (status_of(stored), stored.attempts) == (S, 1)
        assert [group.name for group in Group.objects.all()] == ["run 3"]
        assert not stored.attempt_set.exists()

    @on_postgresql
    def test_a_conflict_of_many_that_the_task_swallowed_runs_it_again_too(self) -> None:
        """The server's own error: it must not come later than the statement that it refuses."""
        tries = []

        @task
        def plain(cqt: Context, number: int) -> None: ...

        @task
        def spread(cqt: Context) -> None:
            tries.append(1)
            with contextlib.suppress(DatabaseError), transaction.atomic():
                plain.delay_many([(number,) for number in range(10)])

        spread.delay()
        with connection.cursor() as cursor:
            # A sequence is not rolled back: only the first row of all meets a deadlock.
            cursor.execute(
                """
                CREATE SEQUENCE met;
                CREATE FUNCTION meet() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                    IF nextval('met') = 1 THEN RAISE EXCEPTION 'met' USING ERRCODE = '40P01';
                    END IF; RETURN NEW; END $$;
                CREATE TRIGGER meeting BEFORE INSERT ON cq_task FOR EACH ROW
                    EXECUTE FUNCTION meet()
                """
            )
        try:
            run_pending(limit=1)
        finally:
            with connection.cursor() as cursor:
                cursor.execute("DROP FUNCTION meet CASCADE; DROP SEQUENCE met")

        assert len(tries) == 2
        assert Task.objects.filter(func_name=plain.name).count() == 10

    def test_a_conflict_that_the_task_swallowed_runs_it_again_too(self) -> None:
        runs: list[int] = []

        @task
        def write(cqt: Context) -> str:
            runs.append(1)
            if len(runs) == 1:
                with connection.execute_wrapper(refusing), contextlib.suppress(Exception):
                    Group.objects.count()
            return "done"

        def refusing(*_args: Any) -> Any:
            raise a_conflict()

        stored = write.delay()
        run_pending()

        assert len(runs) == 2
        assert status_of(stored) == S

    def test_a_break_off_that_meets_the_record_is_the_cancel_that_it_was_for(
        self, worker: Worker, buffer: RecordBuffer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        @task
        def write(cqt: Context) -> None:
            Group.objects.create(name="a")

        def broken_off(_outcome: Outcome) -> None:
            raise OperationalError("canceling statement due to user request")

        write.delay()
        (claimed,) = claims.claim(worker, "default", 1)
        monkeypatch.setattr(recorder, "record_within", broken_off)

        outcome = runner.run(
            claimed, buffer, lambda run: setattr(run.interrupt, "sent", TaskCancelled)
        )

        assert outcome is not None
        assert (outcome.status, outcome.cause) == (Status.REVOKED, Cause.CANCELLED)
        assert not Group.objects.exists()

    def test_whoever_loses_every_time_is_queued_again_uncharged(self) -> None:
        @task
        def write(cqt: Context) -> None:
            raise a_conflict()

        stored = write.delay()
        run_pending(limit=1)

        assert status_of(stored) == Q
        assert stored.attempts == 0
        assert stored.ready


@pytest.mark.skipif("connection.vendor == 'sqlite'", reason="SQLite has no sessions")
class TestSessions:
    @staticmethod
    def end_own_session() -> None:
        with connection.cursor() as cursor:
            if connection.vendor == "mysql":
                cursor.execute("KILL CONNECTION_ID()")
            else:
                cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    def test_a_task_that_ends_its_session_each_time_fails_and_says_so(self) -> None:
        runs: list[int] = []

        @task
        def suicidal(cqt: Context) -> None:
            runs.append(cqt.attempt)
            self.end_own_session()

        stored = suicidal.delay()
        neighbour = task_never.delay()
        run_pending(limit=5)

        assert len(runs) == 2 * runner.CONFLICT_RERUNS
        assert status_of(stored) == F
        assert f"ended in each of {len(runs)} runs" in stored.error
        assert stored.attempt_set.count() == 1
        assert status_of(neighbour) == S

    def test_one_whose_session_ends_now_and_then_succeeds_uncharged(self) -> None:
        runs: list[int] = []

        @task
        def unlucky(cqt: Context) -> None:
            runs.append(cqt.attempt)
            Group.objects.create(name=f"run {len(runs)}")
            if len(runs) < 2 * runner.CONFLICT_RERUNS:
                self.end_own_session()

        stored = unlucky.delay()
        run_pending(limit=5)

        assert (status_of(stored), stored.attempts, stored.suspect) == (S, 1, False)
        assert [group.name for group in Group.objects.all()] == [f"run {len(runs)}"]

    def test_while_the_server_is_away_nobody_is_charged(
        self, worker: Worker, buffer: RecordBuffer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        @task
        def suicidal(cqt: Context) -> None:
            self.end_own_session()

        stored = suicidal.delay()
        Task.objects.update(suspect=True)
        (claimed,) = claims.claim(worker, "default", 1, suspects=True)
        monkeypatch.setattr(runner, "is_reachable", lambda _connection: False)

        outcome = runner.run(claimed, buffer, lambda _run: None)

        assert outcome is not None
        assert outcome.status == Q
        recorder.record([outcome])
        assert (status_of(stored), stored.attempts) == (Q, 0)


def a_conflict() -> Exception:
    """A deadlock as Django reports one on this database."""
    if connection.vendor == "mysql":
        return OperationalError(1213, "Deadlock found when trying to get lock")
    if connection.vendor == "sqlite":
        return OperationalError("database is locked")
    error = OperationalError("deadlock detected")
    error.__cause__ = type("Deadlock", (Exception,), {"sqlstate": "40P01"})()
    return error


@pytest.mark.skipif("connection.vendor != 'sqlite'", reason="elsewhere writers do not wait")
class TestWriteLock:
    def test_a_task_that_holds_it_long_is_named_once(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(runner, "WRITE_LOCK_PATIENCE", 0.0)

        @task("atomic.hold_the_lock")
        def hold(cqt: Context) -> None:
            Group.objects.get_or_create(name="written")

        hold.delay_many([(), ()])
        run_pending()

        assert caplog.text.count("task atomic.hold_the_lock held SQLite's only write lock") == 1
        assert "atomic=False" in caplog.text

    def test_a_hook_of_a_commit_may_write_here_and_in_another_thread(self) -> None:
        def write() -> str:
            with database.write_transaction():
                return Group.objects.get_or_create(name="by a hook")[0].name

        def hook() -> None:
            assert [write(), in_thread(write)] == ["by a hook"] * 2

        def commit() -> bool:
            with database.write_transaction():
                transaction.on_commit(hook)
            return True

        assert in_thread(commit)

    def test_a_task_that_only_reads_is_not(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(runner, "WRITE_LOCK_PATIENCE", 0.0)

        @task("atomic.only_read")
        def read(cqt: Context) -> int:
            return Group.objects.count()

        read.delay()
        run_pending()

        assert "write lock" not in caplog.text


@pytest.mark.skipif("connection.vendor != 'sqlite'", reason="a server's tasks see each commit")
class TestKeptTransaction:
    @pytest.mark.parametrize("reads", [True, False])
    def test_is_left_as_soon_as_a_raw_cursor_has_read_in_it(self, *, reads: bool) -> None:
        def run_two() -> tuple[int, list[str]]:
            database.keep_transactions()
            connection.force_debug_cursor = True
            with database.TaskTransaction(connection) as first:
                if reads:
                    connection.connection.execute("SELECT * FROM auth_group").fetchall()
                first.is_unused = True
            in_thread(lambda: Group.objects.create(name="meanwhile"))
            with database.TaskTransaction(connection):
                begun = [query["sql"] for query in connection.queries]
                return Group.objects.count(), begun

        seen, begun = in_thread(run_two)

        assert seen == 1
        assert begun == (["BEGIN", "COMMIT", "BEGIN"] if reads else ["BEGIN"])


class TestOtherDatabases:
    def test_a_model_of_the_task_database_may_be_named_by_its_alias(self) -> None:
        @task
        def write(cqt: Context) -> int:
            Group.objects.using("default").create(name="a")
            return User.objects.using("default").count()

        stored = write.delay()
        run_pending()

        assert status_of(stored) == S
        assert isinstance(stored._meta.get_field("result"), models.JSONField)


def test_a_run_is_told_of_before_its_function_is_called(
    worker: Worker, buffer: RecordBuffer
) -> None:
    told: list[Run] = []

    @task
    def look(cqt: Context) -> bool:
        return told[0].task_id == cqt.id

    stored = look.delay()
    (claimed,) = claims.claim(worker, "default", 1)
    outcome = runner.run(claimed, buffer, told.append)
    assert outcome is not None
    recorder.record([outcome])

    assert (status_of(stored), stored.result) == (S, True)
