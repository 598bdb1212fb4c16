"""Can a project test its tasks in the test's own thread and transaction?"""

from __future__ import annotations

import threading
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.db import transaction
from django.test import TestCase, TransactionTestCase

from cq import task
from cq.context import Context
from cq.exceptions import RunInTransaction
from cq.models import Statistic, Task, Worker
from cq.states import Status
from cq.testing import inline, run_pending
from engine.looking import status_of


@task
def make_group(cqt: Context, name: str) -> Any:
    Group.objects.create(name=name)
    return name


class InsideTestCase(TestCase):
    def test_a_task_runs_inside_the_transaction_of_the_test(self) -> None:
        stored = make_group.delay("editors")

        runs = run_pending()

        assert runs == 1
        assert Group.objects.filter(name="editors").exists()
        assert status_of(stored) == Status.SUCCESS
        assert stored.result == "editors"

    def test_a_failure_inside_the_transaction_of_the_test_leaves_it_usable(self) -> None:
        Group.objects.create(name="editors")
        stored = make_group.delay("editors")

        run_pending()

        assert status_of(stored) == Status.FAILURE
        assert "IntegrityError" in stored.error
        assert Group.objects.count() == 1

    def test_what_the_tested_code_has_not_committed_is_not_run(self) -> None:
        with transaction.atomic():
            stored = make_group.delay("editors")
            with pytest.raises(RunInTransaction, match="after the block"):
                run_pending()

        assert run_pending() == 1
        assert status_of(stored) == Status.SUCCESS


class InsideTransactionTestCase(TransactionTestCase):
    def test_a_task_runs_where_commits_are_real(self) -> None:
        stored = make_group.delay("editors")

        assert run_pending() == 1
        assert status_of(stored) == Status.SUCCESS


@pytest.mark.django_db
def test_run_pending_goes_on_until_nothing_is_due() -> None:
    ran: list[Any] = []

    @task
    def leaf(cqt: Context, number: int) -> Any:
        ran.append(number)

    @task(retries=1, backoff=0)
    def flaky(cqt: Context) -> Any:
        ran.append(f"flaky {cqt.attempt}")
        if cqt.attempt == 1:
            raise ValueError("not yet")

    @task
    def root(cqt: Context) -> Any:
        cqt.subtask(leaf, 1)
        cqt.subtask(flaky)

    stored = root.delay()
    stored.chain(leaf, (2,))

    runs = run_pending()

    assert runs == 5
    assert ran == [1, "flaky 1", "flaky 2", 2]
    assert status_of(stored) == Status.SUCCESS


@pytest.mark.django_db
def test_run_pending_stops_at_its_limit() -> None:
    ran: list[Any] = []

    @task
    def step(cqt: Context, number: int) -> Any:
        ran.append(number)

    step.delay_many([(number,) for number in range(5)])

    assert run_pending(limit=3) == 3
    assert ran == [0, 1, 2]
    assert Task.objects.filter(status=Status.QUEUED).count() == 2


@pytest.mark.django_db
def test_run_pending_serves_only_the_queues_it_is_told() -> None:
    @task
    def step(cqt: Context) -> Any:
        return cqt.id.hex

    mail = step.using(queue="mail").delay()
    bulk = step.using(queue="bulk").delay()

    assert run_pending(queues=["mail"]) == 1
    assert status_of(mail) == Status.SUCCESS
    assert status_of(bulk) == Status.QUEUED


@pytest.mark.django_db
def test_run_pending_leaves_what_is_scheduled_for_later() -> None:
    later = make_group.using(run_after=3600).delay("editors")

    assert run_pending() == 0
    assert status_of(later) == Status.QUEUED


@pytest.mark.django_db
def test_run_pending_uses_the_thread_of_the_test() -> None:
    threads: list[Any] = []

    @task
    def step(cqt: Context) -> Any:
        threads.append(threading.current_thread())

    step.delay()
    run_pending()

    assert threads == [threading.current_thread()]


@pytest.mark.django_db
def test_run_pending_runs_async_tasks() -> None:
    @task
    async def fetch(cqt: Context, url: str) -> Any:
        cqt.log(f"reading {url}")
        return len(url)

    stored = fetch.delay("https://example.org/")

    run_pending()

    assert status_of(stored) == Status.SUCCESS
    assert stored.result == 20
    assert [line.message for line in stored.logs] == ["reading https://example.org/"]


@pytest.mark.django_db
def test_run_pending_counts_what_it_ran_and_leaves_no_live_worker() -> None:
    make_group.delay("editors")

    run_pending()

    assert Statistic.objects.get().succeeded == 1
    assert not Worker.objects.filter(stopped__isnull=True).exists()


@pytest.mark.django_db
def test_inline_runs_at_delay_and_stores_no_row() -> None:
    with inline():
        done = make_group.delay("editors")

    assert done.result == "editors"
    assert done.status == Task.STATUS_COMPLETE
    assert Group.objects.filter(name="editors").exists()
    assert not Task.objects.exists()

    make_group.delay("authors")
    assert Task.objects.count() == 1


def test_a_test_without_a_database_is_told_so_by_its_runner() -> None:
    with pytest.raises(RuntimeError, match="Database access not allowed"):
        run_pending()
