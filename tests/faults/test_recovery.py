"""How long does it take until what a worker held runs again?"""

from __future__ import annotations

import subprocess
from time import monotonic
from typing import Any

import pytest
from django.db import connection

from cq.models import Task, Worker

from . import fleet as workers
from .fleet import Fleet, children, say, until
from .tasks import rest

# Measured on a machine that does nothing else; a busy one must pass as well.
SLACK = 8.0

pytestmark = pytest.mark.full("mysql", "sqlite")


# A control has failed when nothing has come to pass; its leases are out of reach.
NEVER = "did not come to pass"
LONG_LEASE: dict[str, Any] = {"FAULTS_LEASE": "600"}


def rows_of(pids: list[int]) -> int:
    return Task.objects.filter(status="R", worker__pid__in=pids).count()


def start_with_a_long_task(fleet: Fleet, **environment: Any) -> Task:
    task = rest.delay(60.0)
    supervisor = fleet.start(threads=1, **environment)
    until(lambda: rows_of(children(supervisor.pid)), 60, "the start of the task")
    return task


def test_a_task_runs_again_soon_after_its_worker_was_killed_and_restarted(fleet: Fleet) -> None:
    start_with_a_long_task(fleet)
    killed = monotonic()

    registered = Worker.objects.exclude(pk__in=list(Worker.objects.values_list("pk", flat=True)))
    fleet.kill(fleet.supervisors[0])
    supervisor = fleet.start(threads=1)
    until(registered.exists, 60, "the new worker")

    took = until(lambda: rows_of(children(supervisor.pid)), 3 + SLACK, "the second start")
    total = monotonic() - killed
    say(
        f"killed and restarted on the same host: {total:.1f} s (bound: 3 s), of which {took:.1f} s "
        "were not the start of its process"
    )


@pytest.mark.full
def test_control_without_a_look_at_processes_it_waits_for_the_lease(fleet: Fleet) -> None:
    start_with_a_long_task(fleet, **LONG_LEASE)
    fleet.kill(fleet.supervisors[0])
    began = Worker.objects.count()

    supervisor = fleet.start(threads=1, FAULTS_BROKEN="processes", **LONG_LEASE)
    until(lambda: Worker.objects.count() > began, 60, "the new worker")

    with pytest.raises(AssertionError, match=NEVER):
        until(lambda: rows_of(children(supervisor.pid)), 3 + SLACK, "the second start")


@pytest.mark.full
@pytest.mark.skipif(connection.vendor == "sqlite", reason="a lease ends only with its process")
def test_a_task_runs_again_one_lease_after_its_machine_was_lost(fleet: Fleet) -> None:
    lease = 3.0
    times: dict[str, Any] = {"FAULTS_LEASE": str(lease)}
    start_with_a_long_task(fleet, **times)
    # Another machine: nobody here can tell whether its processes live.
    Worker.objects.update(boot_id="another")
    rescuer = fleet.start(threads=1, **times)
    until(lambda: workers.are_registered(2), 60, "the other worker")
    killed = monotonic()

    fleet.kill(fleet.supervisors[0])

    until(lambda: rows_of(children(rescuer.pid)), lease + 5 + SLACK, "the second start")
    say(f"killed elsewhere: {monotonic() - killed:.1f} s (lease: {lease} s, bound: +5 s)")


@pytest.mark.full
@pytest.mark.skipif(connection.vendor == "sqlite", reason="a lease ends only with its process")
def test_control_without_an_end_of_leases_a_lost_machine_keeps_its_task(fleet: Fleet) -> None:
    lease = 3.0
    times: dict[str, Any] = {"FAULTS_LEASE": str(lease), "FAULTS_BROKEN": "expiry"}
    start_with_a_long_task(fleet, **times)
    Worker.objects.update(boot_id="another")
    rescuer = fleet.start(threads=1, **times)
    until(lambda: workers.are_registered(2), 60, "the other worker")

    fleet.kill(fleet.supervisors[0])

    with pytest.raises(AssertionError, match=NEVER):
        until(lambda: rows_of(children(rescuer.pid)), lease + 5 + SLACK, "the second start")


def start_with_prefetched_tasks(
    fleet: Fleet, number: int, **environment: Any
) -> subprocess.Popen[bytes]:
    supervisor = fleet.start(threads=1, patience=20.0, **environment)
    until(lambda: workers.are_registered(1), 60, "the worker")
    # Short ones first: it then prefetches.
    rest.delay_many([(0.001,)] * 30)
    until(lambda: not workers.open_tasks(), 180, "the end of the short tasks")
    rest.delay_many([(1.5,)] * number)
    until(lambda: rows_of(children(supervisor.pid)) > 1, 10, "prefetched tasks")
    return supervisor


def has_handed_back() -> bool:
    return Task.objects.filter(status="R").count() <= 1


def test_a_stopped_worker_hands_back_at_once_what_it_has_not_started(fleet: Fleet) -> None:
    supervisor = start_with_prefetched_tasks(fleet, 20)

    stopped = monotonic()
    supervisor.terminate()
    took = until(has_handed_back, 1 + SLACK, "the return")

    say(f"SIGTERM handed back after {took:.2f} s (bound: 1 s)")
    supervisor.wait(20)
    say(f"SIGTERM to the end: {monotonic() - stopped:.2f} s")
    assert supervisor.returncode == 0
    assert set(Task.objects.filter(status="Q").values_list("attempts", flat=True)) == {0}
    assert not Task.objects.filter(status="R").exists()


@pytest.mark.full
def test_control_what_is_not_withdrawn_is_not_handed_back(fleet: Fleet) -> None:
    supervisor = start_with_prefetched_tasks(fleet, 20, FAULTS_BROKEN="withdrawal")

    supervisor.terminate()

    with pytest.raises(AssertionError, match=NEVER):
        until(has_handed_back, 1 + SLACK, "the return")
