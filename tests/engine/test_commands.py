"""Do the commands select, refuse and say what they did?"""

from __future__ import annotations

import json
import re
import uuid
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db.models.functions import Now

from cq import operations, task
from cq.models import Act, RepeatingTask, Task, TaskLog
from cq.states import Status
from cq.testing import run_pending

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def nothing_repeats(db: None) -> None:
    # The demo's entries are overdue once the suite has run for some minutes.
    RepeatingTask.objects.all().delete()


@task("commands.fail", queue="bulk")
def fail(cqt: Any, number: int) -> None:
    cqt.log("about to fail")
    raise ValueError(number)


@task("commands.work")
def work(cqt: Any, number: int) -> int:
    cqt.log("working")
    return number


@task("commands.work_loosely", atomic=False)
def work_loosely(cqt: Any, number: int) -> int:
    return number


def said(name: str, *args: str) -> str:
    out = StringIO()
    call_command(name, *args, stdout=out)
    return out.getvalue()


def test_status_names_the_queue_that_nobody_serves_and_exits_with_1() -> None:
    work.delay(3)
    out = StringIO()

    with pytest.raises(SystemExit) as exited:
        call_command("cq_status", stdout=out)

    assert exited.value.code == 1
    assert "queue default: 1 ready" in out.getvalue()
    assert "manage.py cq_runworker --queues default" in out.getvalue()


def test_status_as_json_is_quiet_about_a_paused_queue() -> None:
    work.delay(3)
    operations.pause_queue("default")

    found = json.loads(said("cq_status", "--json"))

    assert found["problems"] == []
    assert found["queues"] == [
        {
            "name": "default",
            "ready": 1,
            "running": 0,
            "scheduled": 0,
            "oldest": pytest.approx(0, abs=60),
            "is_paused": True,
        }
    ]


def test_status_names_the_oldest_atomic_task_and_what_to_do_about_it() -> None:
    older, oldest, loose = work.delay(1), work.delay(2), work_loosely.delay(3)
    for stored, seconds in ((older, 70), (oldest, 90), (loose, 900)):
        Task.objects.filter(pk=stored.pk).update(
            status=Status.RUNNING, ready=None, started=Now() - timedelta(seconds=seconds)
        )
    out = StringIO()

    with pytest.raises(SystemExit):
        call_command("cq_status", stdout=out)

    assert f"longest atomic task: {oldest.pk} commands.work, 9" in out.getvalue()
    assert "raise CQ_LONG_TRANSACTION (60 s)" in out.getvalue()


def test_status_does_not_mind_an_atomic_task_within_the_setting(settings: Any) -> None:
    settings.CQ_LONG_TRANSACTION = 600
    stored = work.delay(1)
    Task.objects.filter(pk=stored.pk).update(
        status=Status.RUNNING, ready=None, started=Now() - timedelta(seconds=90)
    )

    found = json.loads(said("cq_status", "--json"))

    assert found["problems"] == []
    assert found["oldest_transaction"] == {
        "task": str(stored.pk),
        "func_name": "commands.work",
        "seconds": pytest.approx(90, abs=60),
    }


def test_retry_needs_ids_or_failed() -> None:
    with pytest.raises(CommandError, match="--failed"):
        call_command("cq_retry")


def test_retry_of_failed_ones_by_function_leaves_the_others_alone() -> None:
    failed, other = fail.delay(1), fail.using(queue="else").delay(2)
    run_pending()

    assert "1 tasks would be retried" in said(
        "cq_retry", "--failed", "--queue", "bulk", "--dry-run"
    )
    assert "1 retried, 0 skipped" in said(
        "cq_retry", "--failed", "--queue", "bulk", "--since", "1h"
    )

    failed.refresh_from_db()
    other.refresh_from_db()
    assert (failed.status, other.status) == (Status.QUEUED, Status.FAILURE)
    assert Act.objects.get().way == "shell"


def test_retry_says_why_it_skipped_a_task() -> None:
    done = work.delay(3)
    run_pending()

    assert f"{done.pk}: it is succeeded" in said("cq_retry", str(done.pk))


@pytest.mark.parametrize("since", ["yesterday", "-1d", "1.5h", "9" * 30 + "w", "999999999w", "٣d"])
def test_since_wants_a_span_of_time(since: str) -> None:
    with pytest.raises(CommandError, match="30m, 12h or 7d"):
        call_command("cq_retry", "--failed", f"--since={since}")


@pytest.mark.parametrize("name", ["cq_retry", "cq_cancel"])
def test_ids_are_all_known_or_nothing_is_done(name: str) -> None:
    stored = work.delay(1)
    unknown = uuid.uuid4()

    with pytest.raises(CommandError, match="not all ids"):
        said(name, str(stored.pk), "nonsense")
    with pytest.raises(CommandError, match=f"No task is stored as {unknown}"):
        said(name, str(stored.pk), str(unknown))

    stored.refresh_from_db()
    assert stored.status == Status.QUEUED


@pytest.mark.parametrize("name", ["cq_retry", "cq_cancel"])
def test_tasks_are_named_by_ids_or_by_filters(name: str) -> None:
    with pytest.raises(CommandError, match="--queue, not by both"):
        said(name, str(work.delay(1).pk), "--queue", "bulk")


def test_cancel_needs_to_be_told_what() -> None:
    with pytest.raises(CommandError, match="--func, --queue or --since"):
        said("cq_cancel")


def test_cancel_says_why_it_skipped_a_task() -> None:
    done = work.delay(3)
    run_pending()

    assert f"{done.pk}: it has ended: succeeded" in said("cq_cancel", str(done.pk))


def test_cancel_since_leaves_what_is_older_alone() -> None:
    old, young = work.delay(1), work.delay(2)
    Task.objects.filter(pk=old.pk).update(submitted=Now() - timedelta(hours=3))

    assert "1 tasks would be cancelled" in said("cq_cancel", "--since", "2h", "--dry-run")
    assert "1 cancelled" in said("cq_cancel", "--since", "2h")

    old.refresh_from_db()
    young.refresh_from_db()
    assert (old.status, young.status) == (Status.QUEUED, Status.REVOKED)


def test_cancel_by_queue_revokes_what_waits_there() -> None:
    waiting, other = fail.delay(1), work.delay(2)

    assert "1 cancelled" in said("cq_cancel", "--queue", "bulk", "--reason", "wrong file")

    waiting.refresh_from_db()
    other.refresh_from_db()
    assert (waiting.status, waiting.reason) == (Status.REVOKED, "cancelled: wrong file")
    assert other.status == Status.QUEUED


def test_clear_keeps_failed_trees_unless_told() -> None:
    done, failed = work.delay(1), fail.delay(2)
    run_pending()

    said("cq_maintenance", "--clear")
    kept = set(Task.objects.values_list("pk", flat=True))
    said("cq_maintenance", "--clear", "--failed")

    assert kept == {failed.pk}
    assert not Task.objects.filter(pk__in=[done.pk, failed.pk]).exists()


def test_clear_with_prior_keeps_what_is_younger() -> None:
    old, young = work.delay(1), work.delay(2)
    run_pending()
    Task.objects.filter(pk=old.pk).update(submitted=Now() - timedelta(days=4))

    assert "1 trees would be removed" in said(
        "cq_maintenance", "--clear", "--prior", "3", "--dry-run"
    )
    said("cq_maintenance", "--clear", "--prior", "3")

    assert list(Task.objects.values_list("pk", flat=True)) == [young.pk]


@pytest.mark.parametrize("option", ["--failed", "--lost", "--pending", "--dry-run", "--prior=3"])
def test_what_goes_with_clear_is_refused_without_it(option: str) -> None:
    with pytest.raises(CommandError, match="goes with --clear"):
        said("cq_maintenance", option)


@pytest.mark.parametrize("name", ["cq_maintenance", "cq_clear_logs"])
@pytest.mark.parametrize("days", ["-1", "1.5", "many", "1" * 30])
def test_prior_takes_a_number_of_days(name: str, days: str) -> None:
    with pytest.raises(CommandError, match="not a number of days"):
        said(name, f"--prior={days}")


def test_clear_takes_lost_and_pending_ones_when_told() -> None:
    lost, pending = work.delay(1), work.delay_args(submit=False)
    Task.objects.filter(pk=lost.pk).update(status=Status.LOST, ready=None, finished=Now())

    said("cq_maintenance", "--clear", "--lost")
    kept = set(Task.objects.values_list("pk", flat=True))
    said("cq_maintenance", "--clear", "--pending")

    assert kept == {pending.pk}
    assert not Task.objects.exists()


def test_maintenance_does_the_rounds_of_a_worker(settings: Any) -> None:
    settings.CQ_LOG_LIMIT = 1
    old, kept = work.delay(1), work.delay(2)
    run_pending()
    Task.objects.filter(pk=old.pk).update(finished=Now() - timedelta(days=1))
    TaskLog.objects.create(root=kept, task=kept, message="newest", created=Now())
    first = work.delay(3)
    forgotten = first.chain(work, (4,))
    Task.objects.filter(pk=first.pk).update(status=Status.SUCCESS, ready=None)
    work.using(expires=0).delay(5)

    text = said("cq_maintenance")

    assert text == (
        "0 dead workers, 1 expired tasks, 1 forgotten ones; 1 tasks removed, 1 log lines trimmed.\n"
    )
    assert [line.message for line in kept.logs] == ["newest"]
    forgotten.refresh_from_db()
    assert forgotten.status == Status.QUEUED


def test_clear_logs_keeps_the_tasks_and_the_lines_of_those_that_run() -> None:
    done = work.delay(1)
    run_pending()
    waiting = work.delay(2)
    TaskLog.objects.create(root=waiting, task=waiting, message="early", created=Now())

    said("cq_clear_logs")

    assert Task.objects.filter(pk=done.pk).exists()
    assert list(TaskLog.objects.values_list("message", flat=True)) == ["early"]


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--threads=0"], "--threads takes a number above 0."),
        (["--processes=0"], "--processes takes a number above 0."),
        (["--async-concurrency=0"], "--async-concurrency takes a number above 0."),
        (["--max-tasks=-1"], "--max-tasks takes 0 or more."),
        (["--max-memory=-1"], "--max-memory takes 0 or more."),
        (["--shutdown-timeout=-1"], "--shutdown-timeout takes 0 or more."),
        (["--shutdown-timeout=nan"], "--shutdown-timeout takes 0 or more."),
        (["--shutdown-timeout=inf"], "--shutdown-timeout takes 0 or more."),
        (["--burst", "--processes=2"], "--burst runs in one process"),
        (["--burst", "--reload"], "--burst runs in one process"),
        (["--queues=mail;reports"], "must be a name of letters, digits"),
    ],
)
def test_a_worker_is_not_started_with_flags_that_make_no_sense(flags: list[str], says: str) -> None:
    with pytest.raises(CommandError, match=re.escape(says)):
        call_command("cq_runworker", *flags)


def test_a_worker_is_not_started_with_settings_that_make_no_sense(settings: Any) -> None:
    settings.CQ_LEASE = "long"

    with pytest.raises(CommandError, match="CQ_LEASE must be a number above 0"):
        call_command("cq_runworker", "--burst")
