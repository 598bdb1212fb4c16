"""Which lines does a task leave, where, and who can read them when?"""

from __future__ import annotations

import logging
import threading
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.db import connection, connections
from django.utils import timezone

from cq import task
from cq.context import Context
from cq.ids import uuid7
from cq.models import Task, TaskLog
from cq.states import Status
from cq.testing import run_pending
from engine.looking import status_of

pytestmark = pytest.mark.django_db


def messages(stored: Task) -> list[str]:
    return [line.message for line in stored.logs]


@task
def child(cqt: Context, name: str) -> None:
    cqt.log(f"child {name}")


class TestCollection:
    def test_the_lines_of_a_tree_are_collected_at_its_root_with_their_origin(self) -> None:
        @task
        def parent(cqt: Context) -> None:
            cqt.log("parent")
            cqt.subtask(child, "a")
            cqt.subtask(child, "b")

        stored = parent.delay()
        run_pending()

        assert messages(stored) == ["parent", "child a", "child b"]
        first = Task.objects.get(args=["a"])
        assert messages(first) == ["child a"]
        origins = {line.message: line.task_id for line in stored.logs}
        assert origins["child a"] == first.pk
        assert origins["parent"] == stored.pk

    def test_the_lines_of_a_chain_are_collected_at_its_first_task(self) -> None:
        first = child.delay("a")
        last = first.chain(child, ("b",))
        run_pending()

        assert messages(first) == ["child a", "child b"]
        assert messages(last) == ["child b"]

    def test_a_line_has_time_and_level(self) -> None:
        @task
        def warn(cqt: Context) -> None:
            cqt.log("fine", level=logging.DEBUG)
            cqt.log("careful", level=logging.WARNING)

        stored = warn.delay()
        run_pending()

        fine, careful = stored.logs
        assert (fine.level, careful.level) == (logging.DEBUG, logging.WARNING)
        stored.refresh_from_db()
        assert stored.started is not None
        assert stored.finished is not None
        assert stored.started <= fine.created <= careful.created <= stored.finished
        text = stored.format_logs().splitlines()
        assert text[0].endswith(" fine")
        assert text[1].endswith(" WARNING careful")

    def test_anything_can_be_logged(self) -> None:
        @task
        def odd(cqt: Context) -> None:
            cqt.log({"a": 1})
            cqt.log("nul \x00, half \ud800, fox 🦊")
            cqt.log("x" * 300_000)

        stored = odd.delay()
        run_pending()

        first, second, third = messages(stored)
        assert first == "{'a': 1}"
        assert second == "nul \ufffd, half \ufffd, fox 🦊"
        assert third.startswith("xxx")
        assert "300000 characters" in third

    def test_secrets_are_masked(self) -> None:
        @task
        def leak(cqt: Context) -> None:
            cqt.log("calling with password=hunter2-and-more")

        stored = leak.delay()
        run_pending()

        assert "hunter2" not in messages(stored)[0]
        assert "password=" in messages(stored)[0]

    def test_lines_of_python_logging_carry_the_level(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        @task
        def warn(cqt: Context) -> None:
            cqt.log("careful", level=logging.ERROR)

        warn.delay()
        run_pending()

        record = next(one for one in caplog.records if one.message == "careful")
        assert (record.name, record.levelno) == ("cq", logging.ERROR)


class TestPublish:
    def test_lines_are_held_back_until_the_next_published_one(self) -> None:
        sunk: list[list[str]] = []

        @task
        def quiet(cqt: Context) -> None:
            sink = cqt._run.sink
            original = sink.add_lines

            def note(lines: Any) -> None:
                sunk.append([line.message for line in lines])
                original(lines)

            sink.add_lines = note  # type: ignore[method-assign]
            try:
                cqt.log("a", publish=False)
                cqt.log("b", publish=False)
                assert sunk == []
                cqt.log("c")
                assert sunk == [["a", "b", "c"]]
                cqt.log("d", publish=False)
            finally:
                sink.add_lines = original  # type: ignore[method-assign]

        stored = quiet.delay()
        run_pending()

        assert sunk == [["a", "b", "c"]]
        assert messages(stored) == ["a", "b", "c", "d"]

    def test_what_is_held_back_survives_a_failure(self) -> None:
        @task
        def quiet(cqt: Context) -> None:
            cqt.log("last words", publish=False)
            raise ValueError("broken")

        stored = quiet.delay()
        run_pending()

        assert messages(stored) == ["last words"]


class TestLimit:
    def test_only_the_last_lines_of_the_task_are_kept(self) -> None:
        @task
        def chatty(cqt: Context) -> None:
            for number in range(10):
                cqt.log(f"line {number}", limit=3)

        stored = chatty.delay()
        run_pending()

        assert messages(stored) == ["line 7", "line 8", "line 9"]

    def test_also_when_they_were_flushed_in_between(self) -> None:
        @task
        def chatty(cqt: Context) -> None:
            for number in range(5):
                cqt.log(f"line {number}", limit=2)
                cqt._run.sink._flush_lines()  # type: ignore[attr-defined]

        stored = chatty.delay()
        run_pending()

        assert messages(stored) == ["line 3", "line 4"]

    @pytest.mark.parametrize("is_flushed_between", [False, True])
    def test_it_drops_nothing_that_comes_after_it(self, is_flushed_between: bool) -> None:
        @task
        def chatty(cqt: Context) -> None:
            cqt.log("first")
            for number in range(4):
                cqt.log(f"step {number}", limit=2)
                if is_flushed_between:
                    cqt._run.sink._flush_lines()  # type: ignore[attr-defined]
            cqt.log("disk is full", level=logging.WARNING)
            cqt.progress(1, 2, "half")
            cqt.log("done")

        stored = chatty.delay()
        run_pending()

        assert messages(stored) == ["step 2", "step 3", "disk is full", "half", "done"]

    def test_lines_of_others_in_the_tree_are_left_alone(self) -> None:
        @task
        def chatty(cqt: Context) -> None:
            cqt.log("dropped", limit=1)
            cqt.log("kept", limit=1)

        @task
        def parent(cqt: Context) -> None:
            cqt.log("parent")
            cqt.subtask(chatty)
            cqt.subtask(child, "a")

        stored = parent.delay()
        run_pending()

        assert messages(stored) == ["parent", "kept", "child a"]

    def test_a_limit_of_zero_keeps_none(self) -> None:
        @task
        def chatty(cqt: Context) -> None:
            cqt.log("dropped", limit=0)

        stored = chatty.delay()
        run_pending()

        assert messages(stored) == []


class TestRollback:
    def test_lines_survive_the_rollback_of_an_atomic_task(self) -> None:
        @task(retries=1, backoff=0)
        def flaky(cqt: Context) -> None:
            Group.objects.create(name=f"attempt {cqt.attempt}")
            cqt.log(f"attempt {cqt.attempt}")
            raise ValueError("broken")

        stored = flaky.delay()
        run_pending()

        assert not Group.objects.exists()
        assert messages(stored) == ["attempt 1", "attempt 2"]


class TestProgress:
    def test_progress_takes_the_same_road(self) -> None:
        @task
        def steady(cqt: Context) -> None:
            for done in range(3):
                cqt.progress(done + 1, 3, f"file {done}")

        stored = steady.delay()
        run_pending()

        lines = [(line.done, line.total, line.message) for line in stored.logs]
        assert lines == [(1, 3, "file 0"), (2, 3, "file 1"), (3, 3, "file 2")]

    def test_numbers_that_no_column_holds_are_brought_to_its_end(self) -> None:
        @task
        def immense(cqt: Context) -> None:
            cqt.progress(10**30, 2.7)  # type: ignore[arg-type]
            cqt.log("level", level=10**9)
            cqt.log("level", level=-7)

        stored = immense.delay()
        run_pending()

        lines = [(line.done, line.total, line.level) for line in stored.logs]
        assert lines == [
            (2**63 - 1, 2, logging.INFO),
            (None, None, 2**15 - 1),
            (None, None, 0),
        ]

    @pytest.mark.parametrize(
        "say",
        [
            lambda cqt: cqt.progress("many", 3),
            lambda cqt: cqt.progress(1, float("inf")),
            lambda cqt: cqt.log("line", level="LOUD"),
            lambda cqt: cqt.log("line", limit=-1),
        ],
    )
    def test_what_is_no_number_fails_the_task_and_not_the_log(self, say: Any) -> None:
        @task
        def wrong(cqt: Context) -> None:
            cqt.log("before")
            say(cqt)

        stored = wrong.delay()
        run_pending()

        assert status_of(stored) == Status.FAILURE
        assert messages(stored) == ["before"]


class TestForwarding:
    def test_a_logging_handler_forwards_what_is_logged_inside_a_task(self) -> None:
        from cq.logs import TaskHandler

        library = logging.getLogger("some.library")
        handler = TaskHandler(level=logging.INFO)
        library.addHandler(handler)
        library.setLevel(logging.DEBUG)

        @task
        def use(cqt: Context) -> None:
            library.debug("too fine")
            library.warning("disk %s is %d%% full", "sda", 93)

        try:
            library.error("outside of any task")
            stored = use.delay()
            run_pending()
        finally:
            library.removeHandler(handler)

        (line,) = stored.logs
        assert (line.level, line.message) == (logging.WARNING, "disk sda is 93% full")

    def test_what_a_task_logs_itself_is_not_forwarded_twice(self) -> None:
        from cq.logs import TaskHandler

        root, handler = logging.getLogger(), TaskHandler()
        root.addHandler(handler)

        @task
        def chatty(cqt: Context) -> None:
            cqt.log("once", level=logging.WARNING)

        try:
            stored = chatty.delay()
            run_pending()
        finally:
            root.removeHandler(handler)

        assert messages(stored) == ["once"]


@pytest.mark.django_db(transaction=True)
def test_lines_are_visible_while_an_atomic_task_runs() -> None:
    """With a worker's own recorder thread; on SQLite until the first write of the task."""
    from cq import claims, leases, runner
    from cq.buffers import RecordBuffer
    from cq.statistics import Tally

    worker = leases.register(queues=[], threads=1, is_embedded=False, is_scheduler=False)
    buffer = RecordBuffer(Tally(worker.pk), lambda _outcomes: None)
    seen = threading.Event()

    @task
    def slow(cqt: Context) -> None:
        if connection.vendor != "sqlite":
            Group.objects.create(name="uncommitted")
        cqt.log("half way")
        assert seen.wait(10)

    stored = slow.delay()
    (claimed,) = claims.claim(worker, "default", 1)

    def watch() -> None:
        while not seen.is_set():
            if TaskLog.objects.filter(message="half way").exists():
                seen.set()
        connections.close_all()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    buffer.start()
    try:
        outcome = runner.run(claimed, buffer, lambda _run: None)
        assert outcome is not None
        if not outcome.is_recorded:
            buffer.add(outcome)
        assert buffer.drain(10)
    finally:
        buffer.stop(10)
        watcher.join(10)

    assert seen.is_set()
    assert status_of(stored) == Status.SUCCESS


@pytest.mark.django_db(transaction=True)
def test_a_line_that_the_database_refuses_holds_up_no_other() -> None:
    from dataclasses import replace

    from cq.buffers import RecordBuffer
    from cq.context import Line
    from cq.statistics import Tally

    stored = Task.objects.create(func_name="shop.tasks.ship", root_id=uuid7())
    fine = Line(stored.root_id, stored.pk, timezone.now(), logging.WARNING, "before")
    refused: Any = None  # the column takes no NULL
    buffer = RecordBuffer(Tally(0), lambda _outcomes: None)

    buffer.add_lines([fine, replace(fine, level=refused), replace(fine, message="after")])
    buffer.flush()

    assert messages(stored) == ["before", "after"]
