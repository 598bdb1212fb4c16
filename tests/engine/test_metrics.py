"""What does a scrape by Prometheus find?"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.db.models.functions import Now
from django.test import RequestFactory
from django.test.utils import CaptureQueriesContext
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from cq import leases, metrics, operations, status, task
from cq.models import RepeatingTask, Statistic, Task
from cq.states import Status

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def nothing_repeats(db: None) -> None:
    # The demo's entries are overdue once the suite has run for some minutes.
    RepeatingTask.objects.all().delete()


@task("metrics.work")
def work(cqt: Any) -> None: ...


def scrape() -> dict[tuple[str, ...], float]:
    """Each value by its name and the values of its labels, in the order of their names."""
    response = metrics.exposition(RequestFactory().get("/metrics"))
    assert response.headers["Content-Type"].startswith("text/plain")
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(response.content.decode())
        for sample in family.samples
    }


def test_it_tells_of_queues_workers_and_problems() -> None:
    leases.register(queues=["mail"], threads=7, is_embedded=False, is_scheduler=True)
    work.delay()
    work.using(queue="mail", run_after=600).delay()
    running = work.using(queue="mail").delay()
    Task.objects.filter(pk=running.pk).update(
        status=Status.RUNNING, ready=None, started=Now() - timedelta(seconds=90)
    )
    operations.pause_queue("mail")

    found = scrape()

    assert found["cq_queue_tasks", "default", "ready"] == 1
    assert found["cq_queue_tasks", "mail", "scheduled"] == 1
    assert found["cq_queue_tasks", "mail", "running"] == 1
    assert (found["cq_queue_paused", "mail"], found["cq_queue_paused", "default"]) == (1, 0)
    assert found["cq_queue_oldest_seconds", "default"] >= 0
    assert (found["cq_workers", "punctual"], found["cq_workers", "late"]) == (1, 0)
    assert found["cq_worker_threads",] == 7
    assert found["cq_oldest_transaction_seconds",] >= 90
    # Nobody serves "default", and a transaction is open past the setting.
    assert found["cq_problems",] == 2


def test_it_tells_what_tasks_came_to_in_the_last_five_whole_minutes() -> None:
    leases.register(queues=[], threads=1, is_embedded=False, is_scheduler=False)
    this_minute = status.database_now().replace(second=0, microsecond=0)
    for minutes_ago, worker in ((0, 1), (2, 1), (2, 2), (4, 1), (7, 1)):
        Statistic.objects.create(
            bucket=this_minute - timedelta(minutes=minutes_ago),
            length=1,
            queue="mail",
            func_name="metrics.work",
            worker=worker,
            succeeded=10,
            failed=1,
        )

    found = scrape()

    assert found["cq_recent_tasks", "metrics.work", "succeeded", "mail"] == 30
    assert found["cq_recent_tasks", "metrics.work", "failed", "mail"] == 3
    assert found["cq_recent_tasks", "metrics.work", "retried", "mail"] == 0


def test_an_empty_engine_is_told_of_too() -> None:
    found = scrape()

    assert found["cq_problems",] == 0
    assert found["cq_oldest_transaction_seconds",] == 0


def test_a_project_registers_the_collector_where_it_likes() -> None:
    registry = CollectorRegistry()

    with CaptureQueriesContext(connection) as captured:
        registry.register(metrics.Collector())

    assert not captured.captured_queries
    assert registry.get_sample_value("cq_workers", {"state": "late"}) == 0


def test_it_is_only_read() -> None:
    assert metrics.exposition(RequestFactory().post("/metrics")).status_code == 405
