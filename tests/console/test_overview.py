"""Does the overview say whether it is fine, and if not, what to do?"""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from console.conftest import Make, Staff
from cq.folding import start_of
from cq.models import Queue, RepeatingTask, Statistic, Task, Worker
from cq.states import Status
from cq_console.views import overview as overviews

HEARTBEAT = "demo.census.tasks.heartbeat"


@pytest.fixture
def worker(db: None) -> Worker:
    now = timezone.now()
    return Worker.objects.create(
        host="build-2",
        pid=4711,
        heartbeat=now,
        lease_expires_at=now + timedelta(seconds=30),
        is_scheduler=True,
    )


@pytest.fixture(autouse=True)
def nothing_repeats(db: None) -> None:
    RepeatingTask.objects.all().delete()


def sentence(client: Client) -> str:
    html = client.get("/admin/cq/").content.decode()
    found = re.search(r'class="cq-sentence">([^<]+)<', html)
    assert found
    return found[1]


def overview(client: Client) -> str:
    return client.get("/admin/cq/").content.decode()


def test_all_is_well(worker: Worker, operator: Client) -> None:
    assert sentence(operator) == "All is well: 1 worker, nothing failed."


def test_a_failing_function_needs_a_person(worker: Worker, make: Make, operator: Client) -> None:
    for _ in range(3):
        make(Status.FAILURE, error="ConnectionError: refused", func_name="shop.tasks.charge")

    html = overview(operator)

    assert sentence(operator) == "One thing needs you."
    assert "3 tasks of charge have failed." in html
    assert "Show 3 failed" in html
    assert "status%3Afailed+func%3Ashop.tasks.charge" in html


def test_work_without_a_worker_needs_a_person(make: Make, operator: Client) -> None:
    make(Status.QUEUED, func_name=HEARTBEAT)

    assert sentence(operator) == "One thing needs you."
    assert "No worker is alive." in overview(operator)


def test_a_queue_that_no_worker_serves_needs_a_person(
    worker: Worker, make: Make, operator: Client
) -> None:
    Worker.objects.update(queues=["default"])
    make(Status.QUEUED, queue="mail")

    html = overview(operator)

    assert "No worker listens to queue mail." in html
    assert "manage.py cq_runworker --queues mail" in html


def test_a_paused_queue_is_nobodys_alarm(worker: Worker, make: Make, operator: Client) -> None:
    Worker.objects.update(queues=["default"])
    Queue.objects.create(name="mail", paused=timezone.now(), paused_by="olga", reason="migration")
    make(Status.QUEUED, queue="mail", func_name=HEARTBEAT)

    html = overview(operator)

    assert sentence(operator).startswith("All is well")
    assert "paused" in html
    assert "migration" in html


def test_a_dead_scheduler_is_seen_within_a_minute_of_its_tick(
    worker: Worker, operator: Client
) -> None:
    entry = RepeatingTask.objects.create(
        crontab="* * * * *", timezone="UTC", func_name="demo.census.tasks.heartbeat"
    )
    RepeatingTask.objects.filter(pk=entry.pk).update(
        next_run=timezone.now() - timedelta(seconds=61)
    )

    assert "No scheduler has fired for 1 min." in overview(operator)


def repeat_tonight() -> None:
    entry = RepeatingTask.objects.create(crontab="0 3 * * *", timezone="UTC", func_name=HEARTBEAT)
    tonight = timezone.now() + timedelta(hours=9)
    RepeatingTask.objects.filter(pk=entry.pk).update(next_run=tonight)


def test_a_dead_scheduler_is_seen_before_the_nightly_job_is_missed(
    worker: Worker, operator: Client
) -> None:
    repeat_tonight()
    assert sentence(operator).startswith("All is well")

    Worker.objects.update(is_scheduler=False)
    overviews.forget()

    assert "No scheduler is alive: nothing repeats." in overview(operator)


def test_what_repeats_needs_a_worker(operator: Client) -> None:
    assert sentence(operator) == "Nothing to do, and no worker is alive."

    repeat_tonight()
    overviews.forget()

    assert sentence(operator) == "One thing needs you."
    assert "manage.py cq_runworker" in overview(operator)


def test_when_something_last_failed_is_said(worker: Worker, make: Make, operator: Client) -> None:
    assert "Nothing has failed yet." in overview(operator)

    make(Status.FAILURE, now=timezone.now() - timedelta(days=3))
    overviews.forget()

    html = overview(operator).partition('id="cq-failing"')[2]
    assert re.search(r"Nothing failed since <time [^>]*>\d+ \w{3} \d\d:\d\d</time>\.", html)


def test_a_lost_worker_is_named(worker: Worker, operator: Client) -> None:
    Worker.objects.update(lease_expires_at=timezone.now() - timedelta(seconds=1))

    assert "Worker build-2:4711 was last heard" in overview(operator)


def test_a_repeating_task_that_cannot_run_is_named(worker: Worker, operator: Client) -> None:
    RepeatingTask.objects.create(
        name="Nightly",
        crontab="0 3 * * *",
        timezone="UTC",
        func_name="gone.task",
        error="No task is registered as 'gone.task'.",
    )

    html = overview(operator)

    assert "Repeating task Nightly cannot run." in html


def test_queues_show_depth_and_the_last_hour(worker: Worker, make: Make, operator: Client) -> None:
    make(Status.QUEUED, queue="mail")
    make(Status.QUEUED, queue="mail", ready=None)
    make(Status.RUNNING, queue="mail")
    minute = timezone.now().replace(second=0, microsecond=0)
    Statistic.objects.create(
        bucket=minute - timedelta(minutes=5),
        length=1,
        queue="mail",
        func_name="f",
        worker=1,
        started=40,
        succeeded=30,
        failed=10,
    )

    html = overview(operator)
    row = html.partition('data-queue="mail"')[2].partition("</tr>")[0]
    words = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", row.partition(">")[2]))

    assert words.split()[:4] == ["mail", "1", "1", "1"]
    assert "40" in words
    assert "25.0%" in words


def test_who_may_not_see_tasks_sees_no_numbers(make: Make, staff: Staff) -> None:
    make(Status.FAILURE, func_name="shop.tasks.charge")
    client = staff("view_worker")

    assert "charge" not in overview(client)


def test_workers_and_queues_have_pages(worker: Worker, staff: Staff) -> None:
    client = staff("view_worker", "view_queue")

    workers = client.get("/admin/cq/worker/").content.decode()
    queues = client.get("/admin/cq/queue/").content.decode()

    assert 'data-worker="build-2:4711" data-state="alive"' in workers
    assert 'data-queue="default"' in queues


def statistic(**values: object) -> None:
    counts = {"runs": [0] * 12, "waits": [0] * 12, "worker": 1, "func_name": HEARTBEAT}
    Statistic.objects.create(**{**counts, "queue": "mail", **values})


def test_a_task_that_runs_much_longer_than_usual_needs_a_person(
    worker: Worker, make: Make, operator: Client
) -> None:
    now = timezone.now()
    runs = [0, 0, 0, 0, 0, 0, 0, 100, 0, 0, 0, 0]
    statistic(bucket=now - timedelta(hours=1), length=15, started=100, runs=runs)
    make(Status.RUNNING, func_name=HEARTBEAT, started=now - timedelta(minutes=3), worker=worker)

    html = overview(operator)

    assert "1 task runs much longer than usual." in html
    assert "?q=is%3Along" in html


def test_work_that_waits_while_workers_are_idle_needs_a_person(
    worker: Worker, make: Make, operator: Client
) -> None:
    long_ago = timezone.now() - timedelta(minutes=2)
    make(Status.QUEUED, queue="mail", func_name=HEARTBEAT, run_at=long_ago)

    assert "A task of queue mail has waited for 2 min while workers are idle." in overview(operator)


@pytest.mark.parametrize(
    "busy", [{"running": 1, "threads": 1}, {"asked": "quiet"}, {"queues": ["other", "mail"]}]
)
def test_work_that_waits_for_a_busy_worker_is_nobodys_alarm(
    worker: Worker, make: Make, operator: Client, busy: dict[str, object]
) -> None:
    if "queues" in busy:
        busy = {**busy, "running": 1}
    Worker.objects.update(**busy)
    long_ago = timezone.now() - timedelta(minutes=2)
    make(Status.QUEUED, queue="mail", func_name=HEARTBEAT, run_at=long_ago)

    assert "workers are idle" not in overview(operator)


def test_a_function_that_nobody_knows_here_needs_a_person(
    worker: Worker, make: Make, operator: Client
) -> None:
    make(Status.QUEUED, func_name="shop.tasks.renamed")
    make(Status.SUCCESS, func_name="shop.tasks.gone_long_ago")

    html = overview(operator)

    assert "shop.tasks.renamed is not a task that this process knows." in html
    assert "gone_long_ago" not in html


def test_each_thing_that_needs_a_person_has_one_button(make: Make, operator: Client) -> None:
    make(Status.FAILURE, func_name=HEARTBEAT)
    make(Status.QUEUED, func_name="shop.tasks.renamed")
    RepeatingTask.objects.create(crontab="* * * * *", func_name="gone", error="No such task.")

    needs = overview(operator).partition('class="cq-needs"')[2].partition("</ul>")[0]

    assert needs.count("<li>") == 4
    assert needs.count('class="cq-button"') == 4


@pytest.mark.parametrize(
    ("span", "finished"), [("hour", "3"), ("day", "1,103"), ("week", "21,103"), ("evil", "3")]
)
def test_numbers_reach_back_an_hour_a_day_or_a_week_and_count_nothing_twice(
    worker: Worker, operator: Client, span: str, finished: str
) -> None:
    now = timezone.now()
    quarter = start_of(now, 15)
    hour = start_of(now, 60)
    for minutes in (5, 3, 2):
        statistic(bucket=start_of(now, 1) - timedelta(minutes=minutes), length=1, succeeded=1)
    # Folded: the minutes of these quarters are counted with them.
    folded = quarter - timedelta(hours=3)
    statistic(bucket=folded, length=15, worker=0, succeeded=1_000, failed=100)
    statistic(bucket=folded, length=1, succeeded=1_000, failed=100)
    old = hour - timedelta(days=2)
    statistic(bucket=old, length=60, worker=0, succeeded=20_000)
    statistic(bucket=old, length=15, worker=0, succeeded=20_000)

    html = operator.get("/admin/cq/", {"span": span}).content.decode()

    row = html.partition('data-queue="mail"')[2].partition("</tr>")[0]
    assert f">{finished}</a>" in row


def test_viewers_share_what_was_computed_a_moment_ago(
    worker: Worker, make: Make, operator: Client, staff: Staff
) -> None:
    first = overview(operator)
    make(Status.FAILURE, func_name=HEARTBEAT)

    with CaptureQueriesContext(connection) as queries:
        second = overview(operator)

    assert "All is well" in first
    assert "All is well" in second
    assert not [query for query in queries if "cq_statistic" in query["sql"]]
    # Another set of permissions is another page.
    assert "heartbeat has failed" in overview(staff("view_task"))


def test_rows_that_the_host_hides_from_one_are_not_shared_with_others(
    worker: Worker, make: Make, operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(Status.FAILURE, func_name="shop.tasks.secret", queue="secret")
    overview(operator)
    monkeypatch.setattr(
        "cq_console.admin.TaskAdmin.get_queryset",
        lambda self, request: Task.objects.exclude(queue="secret"),
    )

    assert "secret has failed" not in overview(operator)


@pytest.mark.parametrize("count", [1, 12])
def test_the_number_of_queries_does_not_grow(
    worker: Worker, make: Make, operator: Client, count: int
) -> None:
    for number in range(count):
        make(Status.FAILURE, func_name=f"{HEARTBEAT}", queue=f"q{number}")
        make(Status.RUNNING, worker=worker, func_name=HEARTBEAT)
        statistic(bucket=start_of(timezone.now(), 1), length=1, func_name=f"f{number}")
    overview(operator)
    overviews.forget()

    with CaptureQueriesContext(connection) as queries:
        overview(operator)

    assert len(queries) <= 22
    assert not [q["sql"] for q in queries if "OFFSET" in q["sql"] or "DISTINCT" in q["sql"]]
