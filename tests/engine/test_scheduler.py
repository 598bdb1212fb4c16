"""Does every tick of a repeating task fire exactly once, whatever schedulers and clocks do?"""

from __future__ import annotations

import os
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from time import monotonic, process_time, sleep
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.core.exceptions import ValidationError
from django.db import IntegrityError, connection, connections
from django.db.migrations.loader import MigrationLoader
from django.db.models import DateTimeField, Expression, Value
from django.db.models.functions import Cast
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from cq import enqueue, history, operations, scheduler, task, ticks
from cq.context import Context
from cq.exceptions import InvalidCrontab, InvalidOption
from cq.models import Act, RepeatingRun, RepeatingTask, Task, schedule_task
from cq.states import Status
from cq.testing import run_pending
from cq.worker import WorkerLoop, WorkerOptions

FULL = bool(os.environ.get("CQ_TEST_FULL"))
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
DAY = timedelta(days=1)
MINUTE = timedelta(minutes=1)
RAN: list[Any] = []


@task("scheduled.note")
def note(cqt: Context, *args: Any, **kwargs: Any) -> None:
    RAN.append((args, kwargs))


@task("scheduled.fail", queue="broken")
def fail(cqt: Context) -> None:
    raise ValueError("no")


class Clock:
    """The database's clock, which the test moves."""

    def __init__(self, now: datetime) -> None:
        self.now = now

    def value(self) -> Expression:
        # MariaDB would give a literal back as text.
        literal = Value(self.now, output_field=DateTimeField())
        return Cast(literal, DateTimeField()) if connection.vendor == "mysql" else literal


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock(NOON)
    monkeypatch.setattr("cq.scheduler.Now", made.value)
    monkeypatch.setattr("cq.models.repeating.Now", made.value)
    monkeypatch.setattr("django.utils.timezone.now", lambda: made.now)
    return made


@pytest.fixture(autouse=True)
def _nothing_else(db: None) -> None:
    RepeatingTask.objects.all().delete()
    RAN.clear()


def entry(crontab: str = "0 * * * *", at: datetime = NOON, **fields: Any) -> RepeatingTask:
    """An entry whose next tick is *at*."""
    values: dict[str, Any] = {"func_name": "scheduled.note", "timezone": "UTC", "coalesce": False}
    made = RepeatingTask.objects.create(crontab=crontab, **{**values, **fields})
    RepeatingTask.objects.filter(pk=made.pk).update(next_run=at)
    made.refresh_from_db()
    return made


def ticks_of(made: RepeatingTask) -> list[datetime | None]:
    """The ticks that queued a task, in the order in which they did."""
    runs = RepeatingRun.objects.filter(entry=made, task_id__isnull=False)
    return list(runs.order_by("id").values_list("tick", flat=True))


def tick_at(clock: Clock, moment: datetime) -> float:
    clock.now = moment
    return scheduler.Ticker().tick()


class TestOnce:
    def test_a_tick_becomes_one_task_and_one_run(self, clock: Clock) -> None:
        made = entry(args=[4], kwargs={"to": "x"}, queue="night", priority=7, result_ttl=60)

        tick_at(clock, NOON + timedelta(seconds=2))

        run = RepeatingRun.objects.get()
        stored = Task.objects.get()
        assert (run.entry_id, run.tick, run.task_id) == (made.pk, NOON, stored.pk)
        assert (stored.args, stored.kwargs) == ([4], {"to": "x"})
        assert (stored.queue, stored.priority, stored.result_ttl) == ("night", 7, 60)
        made.refresh_from_db()
        assert (made.next_run, made.last_run) == (NOON + timedelta(hours=1), NOON)

    def test_a_tick_that_was_taken_meanwhile_is_left_alone_and_the_others_fire(
        self, clock: Clock
    ) -> None:
        taken, other = entry(), entry()

        def take(execute: Any, sql: str, *rest: Any) -> Any:
            # Between the look at the entries and the fence of the one that fires them.
            if sql.startswith("UPDATE") and "last_run" in sql:
                RepeatingTask.objects.filter(pk=taken.pk).update(next_run=None)
            return execute(sql, *rest)

        with connection.execute_wrapper(take):
            tick_at(clock, NOON)

        assert ticks_of(taken) == []
        assert ticks_of(other) == [NOON]
        assert Task.objects.count() == 1

    def test_a_scheduler_that_comes_second_takes_nothing(self, clock: Clock) -> None:
        made = entry()

        for _ in range(2):
            tick_at(clock, NOON)

        assert ticks_of(made) == [NOON]

    def test_an_entry_has_one_run_for_a_tick(self) -> None:
        made = entry()
        RepeatingRun.objects.create(entry=made, tick=NOON)

        with pytest.raises(IntegrityError):
            RepeatingRun.objects.create(entry=made, tick=NOON)

    def test_a_tick_that_is_in_the_history_is_passed_over(self, clock: Clock) -> None:
        made = entry()
        RepeatingRun.objects.create(entry=made, tick=NOON, outcome="skipped")

        tick_at(clock, NOON)

        made.refresh_from_db()
        assert not Task.objects.exists()
        assert made.next_run == NOON + timedelta(hours=1)

    def test_run_now_takes_no_tick(self, clock: Clock) -> None:
        made = entry()

        operations.run_now(made)
        tick_at(clock, NOON)

        assert ticks_of(made) == [None, NOON]

    def test_a_skipped_tick_is_in_the_history_and_the_one_after_it_fires(
        self, clock: Clock
    ) -> None:
        made = entry()

        operations.skip_next(made, reason="stocktaking")
        tick_at(clock, NOON)
        tick_at(clock, NOON + timedelta(hours=1))

        assert ticks_of(made) == [NOON + timedelta(hours=1)]
        skipped = RepeatingRun.objects.get(tick=NOON)
        assert (skipped.outcome, skipped.reason) == ("skipped", "stocktaking")

    def test_saving_an_old_copy_brings_back_no_tick(self, clock: Clock) -> None:
        made = entry()
        old = RepeatingTask.objects.get()
        tick_at(clock, NOON)

        old.name = "renamed"
        old.save()
        tick_at(clock, NOON)

        made.refresh_from_db()
        assert ticks_of(made) == [NOON]
        assert (made.name, made.last_run) == ("renamed", NOON)
        assert made.next_run == NOON + timedelta(hours=1)

    def test_the_pause_ends_when_the_next_tick_is_due(self, clock: Clock) -> None:
        entry(at=NOON + timedelta(seconds=7))

        assert tick_at(clock, NOON) == pytest.approx(7)


class Killed(BaseException):
    """The scheduler's process is gone in the middle of what it did."""


@pytest.mark.django_db(transaction=True)
def test_eight_schedulers_with_wrong_clocks_that_are_killed_fire_what_the_oracle_says(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    count, hours = (500, 3) if FULL else (40, 1)
    chance = random.Random(20261123)
    start = datetime(2026, 10, 25, 0, 30, tzinfo=UTC)  # Berlin sets its clock back at one
    clock.now = start
    expected = entries_with_oracle(count, start, timedelta(hours=hours), chance)
    skew = threading.local()
    monkeypatch.setattr(
        "django.utils.timezone.now", lambda: clock.now + getattr(skew, "by", timedelta())
    )
    # No task runs here: how they end is another question.
    monkeypatch.setattr("cq.history.note_outcomes", lambda after: history.Noted())
    kills = Counter[str]()

    def live(seed: int) -> None:
        own = random.Random(seed)
        skew.by = timedelta(seconds=own.uniform(-30, 30))
        try:
            with connection.execute_wrapper(partial(maybe_kill, own, kills)):
                scheduler.Ticker().tick()
        except Killed:
            connection.close()
        finally:
            kills["ticks"] += 1

    with ThreadPoolExecutor(8) as pool:
        while clock.now < start + timedelta(hours=hours):
            clock.now += timedelta(seconds=chance.uniform(5, 55))
            list(pool.map(live, [chance.getrandbits(32) for _ in range(8)]))
            # One of them is left, else it would be a downtime.
            scheduler.Ticker().tick()
        together = threading.Barrier(8)

        def leave(_number: int) -> None:
            together.wait()
            connections.close_all()

        list(pool.map(leave, range(8)))

    fired = Counter(RepeatingRun.objects.values_list("entry_id", "tick"))
    end = clock.now
    due = {(pk, tick) for pk, ticks in expected.items() for tick in ticks if tick <= end}
    assert kills["killed"] > 10
    assert set(fired.values()) == {1}
    assert set(fired) == due
    assert Task.objects.count() == len(due)
    assert set(RepeatingRun.objects.values_list("task_id", flat=True)) == set(
        Task.objects.values_list("pk", flat=True)
    )


def maybe_kill(
    chance: random.Random, kills: Counter[str], execute: Any, sql: str, *rest: Any
) -> Any:
    """Run the query, and perhaps be killed before or after it."""
    if chance.random() < 0.004:
        kills["killed"] += 1
        raise Killed
    result = execute(sql, *rest)
    if chance.random() < 0.004:
        kills["killed"] += 1
        raise Killed
    return result


def entries_with_oracle(
    count: int, start: datetime, length: timedelta, chance: random.Random
) -> dict[int, list[datetime]]:
    """Entries with simple minute columns, and the ticks that a walk over the minutes finds."""
    expected = {}
    zones = ["UTC", "Europe/Berlin", "Asia/Kathmandu", "Australia/Lord_Howe"]
    minutes = [start + MINUTE * n for n in range(1, int(length / MINUTE) + 3)]
    for number in range(count):
        named = set(chance.sample(range(60), chance.choice([1, 2, 6, 12])))
        zone = zones[number % len(zones)]
        made = RepeatingTask.objects.create(
            name=str(number),
            crontab=f"{','.join(map(str, sorted(named)))} * * * *",
            timezone=zone,
            func_name="scheduled.note",
            coalesce=False,
        )
        expected[made.pk] = [
            minute for minute in minutes if minute.astimezone(ZoneInfo(zone)).minute in named
        ]
    return expected


class TestManyAtOnce:
    def fire(self, clock: Clock, count: int) -> int:
        """Fire *count* entries that are due at one instant; returns the number of statements."""
        RepeatingTask.objects.all().delete()
        for number in range(count):
            entry(coalesce=number % 2 == 0, overlap=number % 3 > 0)
        clock.now = NOON
        with CaptureQueriesContext(connection) as sent:
            scheduler.Ticker().tick()
        assert RepeatingRun.objects.count() == count
        return len(sent)

    def test_many_entries_cost_no_more_statements_than_one(self, clock: Clock) -> None:
        assert self.fire(clock, 60) == self.fire(clock, 6)

    def test_more_entries_than_a_transaction_takes_all_fire(
        self, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(scheduler, "BATCH", 3)
        made = [entry() for _ in range(8)]

        tick_at(clock, NOON)

        assert [ticks_of(one) for one in made] == [[NOON]] * 8

    def test_a_day_of_ticks_is_queued_in_transactions_of_some(
        self, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(scheduler, "TICKS", 10)
        stored: list[int] = []
        store = enqueue.store

        def note(tasks: list[Task]) -> None:
            stored.append(len(tasks))
            store(tasks)

        monkeypatch.setattr(enqueue, "store", note)
        made = [entry("0 */4 * * *", missed="all") for _ in range(5)]

        tick_at(clock, NOON + DAY)

        assert [len(ticks_of(one)) for one in made] == [7] * 5
        assert stored == [14, 14, 7]

    def test_one_that_the_database_refuses_stops_and_hurts_no_other(
        self, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bad, *good = entry(queue="bad"), entry(), entry()
        store = enqueue.store

        def refuse(tasks: list[Task]) -> None:
            store(tasks)
            if any(one.queue == "bad" for one in tasks):
                raise IntegrityError("not this one")

        monkeypatch.setattr(enqueue, "store", refuse)

        tick_at(clock, NOON)

        bad.refresh_from_db()
        assert (bad.error, bad.next_run) == ("not this one", None)
        assert ticks_of(bad) == []
        assert [ticks_of(one) for one in good] == [[NOON]] * 2
        assert Task.objects.count() == 2


class TestDowntime:
    @pytest.mark.parametrize(
        ("missed", "fired"),
        [
            ("skip", []),
            ("latest", [NOON + DAY]),
            ("all", [NOON + timedelta(hours=n) for n in range(25)]),
        ],
    )
    def test_ticks_missed_in_a_day_without_scheduler(
        self, clock: Clock, missed: str, fired: list[datetime]
    ) -> None:
        made = entry("0 * * * *", missed=missed)

        tick_at(clock, NOON + DAY + timedelta(minutes=10))

        made.refresh_from_db()
        assert ticks_of(made) == fired
        assert made.next_run == NOON + DAY + timedelta(hours=1)

    def test_the_history_says_what_was_missed(self, clock: Clock) -> None:
        entry("0 * * * *", missed="skip")

        tick_at(clock, NOON + DAY)

        run = RepeatingRun.objects.get()
        assert (run.tick, run.outcome) == (NOON + DAY, "skipped")
        assert run.reason == "missed: no scheduler ran"

    def test_of_very_many_missed_ticks_the_newest_run(self, clock: Clock) -> None:
        made = entry("* * * * *", missed="all")

        tick_at(clock, NOON + DAY)

        fired = ticks_of(made)
        assert len(fired) == ticks.MAX_MISSED
        assert (fired[0], fired[-1]) == (NOON + DAY - 99 * MINUTE, NOON + DAY)

    @pytest.mark.parametrize("missed", ["skip", "latest", "all"])
    def test_ticks_that_are_only_late_all_fire(self, clock: Clock, missed: str) -> None:
        made = entry("* * * * *", missed=missed)

        tick_at(clock, NOON + timedelta(seconds=70))

        assert ticks_of(made) == [NOON, NOON + MINUTE]

    def test_ten_years_of_missed_minutes_are_looked_through_at_once(self, clock: Clock) -> None:
        made = entry("* * * 1 *", missed="all")
        began = process_time()

        tick_at(clock, NOON + 3650 * DAY)

        assert process_time() - began < 3
        assert len(ticks_of(made)) == ticks.MAX_MISSED

    def test_while_paused_nothing_is_missed(self, clock: Clock) -> None:
        made = entry("0 * * * *", missed="all", enabled=False)

        clock.now = NOON + DAY
        made.enabled = True
        made.save()
        tick_at(clock, NOON + DAY)

        made.refresh_from_db()
        assert ticks_of(made) == []
        assert made.next_run == NOON + DAY + timedelta(hours=1)


class TestWhileOneIsThere:
    def test_a_tick_is_skipped_while_one_of_this_entry_waits(self, clock: Clock) -> None:
        made = entry("* * * * *", coalesce=True)

        tick_at(clock, NOON)
        tick_at(clock, NOON + MINUTE)

        assert ticks_of(made) == [NOON]
        skipped = RepeatingRun.objects.get(tick=NOON + MINUTE)
        assert (skipped.outcome, skipped.reason) == ("skipped", "the last one still waits")

    def test_entries_of_the_same_function_do_not_coalesce_with_each_other(
        self, clock: Clock
    ) -> None:
        one, other = entry(coalesce=True, args=[1]), entry(coalesce=True, args=[1])

        tick_at(clock, NOON)

        assert ticks_of(one) == ticks_of(other) == [NOON]

    def test_a_running_one_lets_the_next_tick_fire(self, clock: Clock) -> None:
        made = entry("* * * * *", coalesce=True)
        tick_at(clock, NOON)

        run_pending()
        tick_at(clock, NOON + MINUTE)

        assert ticks_of(made) == [NOON, NOON + MINUTE]

    @pytest.mark.parametrize("status", [Status.QUEUED, Status.RUNNING, Status.WAITING])
    def test_without_overlap_a_tick_is_skipped_until_the_last_one_has_ended(
        self, clock: Clock, status: Status
    ) -> None:
        made = entry("* * * * *", overlap=False)
        tick_at(clock, NOON)
        Task.objects.update(status=status, ready=None)

        tick_at(clock, NOON + MINUTE)
        Task.objects.update(status=Status.FAILURE)
        tick_at(clock, NOON + 2 * MINUTE)

        assert ticks_of(made) == [NOON, NOON + 2 * MINUTE]
        assert RepeatingRun.objects.get(tick=NOON + MINUTE).reason == "the last one still runs"

    def test_a_run_by_hand_does_not_hide_one_that_still_runs(self, clock: Clock) -> None:
        made = entry("* * * * *", overlap=False)
        tick_at(clock, NOON)
        by_hand = operations.run_now(made).made[0]
        Task.objects.filter(pk=by_hand.pk).update(status=Status.SUCCESS, ready=None)

        tick_at(clock, NOON + MINUTE)

        assert ticks_of(made) == [NOON, None]


class TestBroken:
    def test_an_entry_whose_function_has_vanished_says_so_and_hurts_no_other(
        self, clock: Clock
    ) -> None:
        gone = entry("* * * * *", func_name="scheduled.notee")
        good = entry("* * * * *")

        tick_at(clock, NOON)
        tick_at(clock, NOON + MINUTE)

        gone.refresh_from_db()
        assert "No task is registered as 'scheduled.notee'. Did you mean" in gone.error
        assert ticks_of(gone) == []
        assert ticks_of(good) == [NOON, NOON + MINUTE]
        assert [run.outcome for run in gone.runs.all()] == ["refused"]

    def test_it_goes_on_when_its_function_is_back(self, clock: Clock) -> None:
        made = entry("* * * * *", func_name="scheduled.later")
        tick_at(clock, NOON)

        @task("scheduled.later")
        def later(cqt: Context) -> None: ...

        tick_at(clock, NOON + MINUTE)

        made.refresh_from_db()
        assert made.error == ""
        assert ticks_of(made) == [NOON + MINUTE]

    @pytest.mark.parametrize(
        "broken",
        [
            {"args": [1, 2, 3], "func_name": "scheduled.fail"},
            {"args": 5},
            {"queue": "not a queue name!"},
            {"priority": 3000},
        ],
    )
    def test_arguments_and_options_are_checked_when_it_runs(
        self, clock: Clock, broken: dict[str, Any]
    ) -> None:
        made, good = entry(), entry()
        RepeatingTask.objects.filter(pk=made.pk).update(**broken)

        tick_at(clock, NOON)

        made.refresh_from_db()
        assert made.error
        assert ticks_of(made) == []
        assert ticks_of(good) == [NOON]

    @pytest.mark.parametrize(
        "broken", [{"crontab": "61 * * * *"}, {"timezone": "Mars/Crater"}, {"missed": "never"}]
    )
    def test_an_entry_that_cannot_be_read_stops_and_hurts_no_other(
        self, clock: Clock, broken: dict[str, str]
    ) -> None:
        made, good = entry(), entry()
        RepeatingTask.objects.filter(pk=made.pk).update(**broken)

        pause = tick_at(clock, NOON)

        made.refresh_from_db()
        assert made.error
        assert made.next_run is None
        assert ticks_of(good) == [NOON]
        assert pause > 1

    def test_mending_it_clears_the_error_and_starts_it_again(self, clock: Clock) -> None:
        made = entry()
        RepeatingTask.objects.filter(pk=made.pk).update(crontab="61 * * * *")
        tick_at(clock, NOON)

        made.refresh_from_db()
        made.crontab = "1 * * * *"
        made.save()

        made.refresh_from_db()
        assert (made.error, made.next_run) == ("", NOON + MINUTE)

    def test_one_that_was_enabled_by_an_update_starts_too(self, clock: Clock) -> None:
        made = entry("5 * * * *", enabled=False)
        RepeatingTask.objects.filter(pk=made.pk).update(enabled=True, next_run=None)

        tick_at(clock, NOON)

        made.refresh_from_db()
        assert made.next_run == NOON + 5 * MINUTE


class TestHistory:
    @pytest.mark.parametrize(
        ("status", "outcome"),
        [
            (Status.SUCCESS, "succeeded"),
            (Status.FAILURE, "failed"),
            (Status.INCOMPLETE, "failed"),
            (Status.LOST, "failed"),
            (Status.REVOKED, "cancelled"),
            (Status.RUNNING, "queued"),
        ],
    )
    def test_it_tells_how_the_task_ended(self, clock: Clock, status: Status, outcome: str) -> None:
        entry()
        tick_at(clock, NOON)
        took = timedelta(seconds=8)
        Task.objects.update(status=status, started=NOON, finished=NOON + took, ready=None)

        tick_at(clock, NOON)

        run = RepeatingRun.objects.get()
        assert run.outcome == outcome
        if outcome != "queued":
            assert run.finished is not None
            assert run.started is not None
            assert run.finished - run.started == took

    def test_it_stays_when_the_task_is_removed(self, clock: Clock) -> None:
        made = entry(func_name="scheduled.fail")
        tick_at(clock, NOON)
        run_pending()
        tick_at(clock, NOON)

        Task.objects.all().delete()
        tick_at(clock, NOON)

        assert [run.outcome for run in made.runs.all()] == ["failed"]

    def test_one_that_was_removed_unseen_is_not_called_a_success(self, clock: Clock) -> None:
        made = entry()
        tick_at(clock, NOON)
        Task.objects.all().delete()

        tick_at(clock, NOON)

        assert [run.outcome for run in made.runs.all()] == ["gone"]

    def test_open_runs_beyond_the_first_page_are_seen_too(
        self, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(history, "NOTED_AT_ONCE", 2)
        made = entry()
        for _ in range(4):
            task_id = operations.run_now(made).made[0].pk
        last = RepeatingRun.objects.get(task_id=task_id)
        Task.objects.filter(pk=task_id).update(status=Status.SUCCESS, ready=None)
        ticker = scheduler.Ticker()

        for _ in range(3):
            ticker.tick()

        last.refresh_from_db()
        assert last.outcome == "succeeded"

    def test_it_is_bounded(self, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(history, "KEEP_RUNS", 3)
        made, other = entry("* * * * *"), entry("* * * * *")
        ticker = scheduler.Ticker()

        for minute in range(6):
            clock.now = NOON + minute * MINUTE
            ticker.tick()

        # Each time one of them is trimmed, by turns.
        assert ticks_of(made)[-3:] == ticks_of(other)[-3:] == [NOON + n * MINUTE for n in (3, 4, 5)]
        assert RepeatingRun.objects.count() < 12


class TestScheduleTask:
    def historical(self) -> type[RepeatingTask]:
        """The model as a data migration gets it: columns, no methods."""
        state = MigrationLoader(connection).project_state(("cq", "0001_initial"))
        model: type[RepeatingTask] = state.apps.get_model("cq", "RepeatingTask")
        assert "submit" not in vars(model)
        return model

    def test_it_works_in_a_data_migration(self, clock: Clock) -> None:
        schedule_task(
            self.historical(),
            "30 12 * * *",
            note,
            args=(1,),
            kwargs={"b": 2},
            name="from a migration",
            timezone="UTC",
            queue="night",
        )

        made = RepeatingTask.objects.get()
        assert (made.func_name, made.args, made.kwargs) == ("scheduled.note", [1], {"b": 2})
        assert (made.name, made.queue) == ("from a migration", "night")
        assert made.next_run == NOON + 30 * MINUTE

    def test_names_are_resolved_and_arguments_checked_when_it_runs(self, clock: Clock) -> None:
        made = schedule_task(self.historical(), "* * * * *", "not.there.yet", args=[1, 2])

        tick_at(clock, NOON + MINUTE)

        stored = RepeatingTask.objects.get(pk=made.pk)
        assert "not.there.yet" in stored.error

    def test_a_wrong_crontab_is_refused_at_once(self) -> None:
        with pytest.raises(InvalidCrontab, match="day of month"):
            schedule_task(self.historical(), "0 0 30 2 *", note)

    @pytest.mark.parametrize("is_there", [False, True])
    def test_a_mistyped_column_is_refused_at_once(self, is_there: bool) -> None:
        if is_there:
            schedule_task(RepeatingTask, "* * * * *", note, queue="night")

        with pytest.raises(InvalidOption, match=r"'quue' is not .*Did you mean 'queue'"):
            schedule_task(RepeatingTask, "* * * * *", note, quue="day")

        assert list(RepeatingTask.objects.values_list("queue", flat=True)) == ["night"] * is_there

    @pytest.mark.parametrize("given", [{"id": 999}, {"func_name": "other"}, {"next_run": NOON}])
    def test_what_is_not_for_people_to_set_is_refused(self, given: dict[str, Any]) -> None:
        with pytest.raises(InvalidOption, match="is not an option here"):
            schedule_task(RepeatingTask, "* * * * *", note, **given)

    @pytest.mark.parametrize("is_historical", [True, False])
    def test_scheduling_it_again_neither_doubles_it_nor_loses_a_due_tick(
        self, clock: Clock, is_historical: bool
    ) -> None:
        model = self.historical() if is_historical else RepeatingTask
        for _ in range(2):
            clock.now += MINUTE
            schedule_task(model, "1 * * * *", note, timezone="UTC")

        assert RepeatingTask.objects.get().next_run == NOON + timedelta(hours=1, minutes=1)
        clock.now = NOON + timedelta(hours=1, minutes=1, seconds=1)
        schedule_task(model, "1 * * * *", note, timezone="UTC")
        scheduler.Ticker().tick()
        assert Task.objects.count() == 1

    def test_the_model_refuses_what_never_fires(self) -> None:
        with pytest.raises(ValidationError, match="never fires"):
            RepeatingTask(crontab="0 0 30 2 *", func_name="scheduled.note").full_clean()


class TestOperators:
    def test_run_now_may_have_other_arguments(self) -> None:
        made = entry(args=[1])

        operations.run_now(made, args=[2], kwargs={"c": 3})

        stored = Task.objects.get()
        assert (stored.args, stored.kwargs) == ([2], {"c": 3})
        assert Act.objects.get().verb == "run now"

    def test_upcoming_tells_the_next_times_after_now_or_after_a_moment(self) -> None:
        made = entry("30 2 * * *", timezone="Europe/Berlin")
        moment = datetime(2026, 10, 24, 12, tzinfo=UTC)

        assert made.upcoming(2, after=moment) == [
            datetime(2026, 10, 25, 0, 30, tzinfo=UTC),
            datetime(2026, 10, 26, 1, 30, tzinfo=UTC),
        ]
        (next_one,) = made.upcoming(1)
        assert timedelta() < next_one - timezone.now() <= timedelta(hours=25)

    def test_submit_runs_it_now(self) -> None:
        made = entry(args=["x"])

        made.submit()
        run_pending()

        assert RAN == [(("x",), {})]


@pytest.mark.django_db(transaction=True)
class TestInAWorker:
    @pytest.fixture
    def worker(self, settings: Any) -> Iterator[WorkerLoop]:
        # A heartbeat during which nothing would happen by itself.
        settings.CQ_HEARTBEAT, settings.CQ_LEASE = 60.0, 300.0
        loop = WorkerLoop(WorkerOptions(threads=1, shutdown_timeout=1.0))
        thread = threading.Thread(target=loop.run)
        thread.start()
        until(lambda: hasattr(loop, "row"))
        yield loop
        loop.stop()
        thread.join(10)

    def test_a_new_entry_takes_effect_at_once_and_fires_within_a_second(
        self, worker: WorkerLoop
    ) -> None:
        until(lambda: any(thread.name == "cq-scheduler" for thread in threading.enumerate()))
        due = timezone.now() + timedelta(seconds=1.5)
        made = entry(at=due)
        made.name = "saved"
        made.save()

        until(RepeatingRun.objects.exists)

        run = RepeatingRun.objects.get()
        assert run.tick == due
        assert timedelta() <= run.created - due < timedelta(seconds=1)

    @pytest.mark.parametrize(("setting", "option"), [(False, True), (True, False), (True, True)])
    def test_a_worker_ticks_unless_the_setting_or_its_option_says_no(
        self, settings: Any, setting: bool, option: bool
    ) -> None:
        settings.CQ_SCHEDULER = setting
        made = entry(at=timezone.now() - timedelta(seconds=1))
        loop = WorkerLoop(WorkerOptions(threads=1, scheduler=option))
        thread = threading.Thread(target=loop.run)
        thread.start()
        until(lambda: hasattr(loop, "row"))
        if setting and option:
            until(RepeatingRun.objects.filter(entry=made).exists)
        else:
            # As long as the one that ticks takes, and more.
            sleep(0.5)
        names = {thread.name for thread in threading.enumerate()}
        loop.stop()
        thread.join(10)

        assert ("cq-scheduler" in names) is (setting and option)
        assert loop.row.is_scheduler is (setting and option)
        assert RepeatingRun.objects.exists() is (setting and option)

    def test_a_disabled_entry_does_not_fire(self, worker: WorkerLoop) -> None:
        made = entry(at=timezone.now() + timedelta(seconds=1))
        made.enabled = False
        made.save()
        other = entry(at=timezone.now() + timedelta(seconds=1.5))
        other.save()

        until(RepeatingRun.objects.exists)

        assert [run.entry_id for run in RepeatingRun.objects.all()] == [other.pk]


def until(condition: Callable[[], object], seconds: float = 10) -> None:
    """Wait for *condition*."""
    deadline = monotonic() + seconds
    while not condition():
        assert monotonic() < deadline
        sleep(0.02)
