"""Can a worker that slept through its lease still change what others have finished?"""

from __future__ import annotations

import os
import signal
from time import monotonic, sleep
from typing import Any

import pytest
from django.db import connection

from . import effects
from . import fleet as workers
from .fleet import FULL, Fleet, children, until
from .tasks import write_and_wait

LEASE = 2.0

pytestmark = pytest.mark.skipif(
    connection.vendor == "sqlite", reason="on SQLite a lease ends only with its process"
)


def written(fleet: Fleet) -> list[int]:
    """The processes that have written for the task, and now wait for their gate."""
    return [int(file.suffix[1:]) for file in fleet.folder.glob("written.*")]


@pytest.mark.parametrize(
    ("of_zombie", "of_rescuer", "times"),
    [
        # The fence alone, the zombie's open transaction being left as it is.
        ("", "sessions", 1),
        # The control: without the fence both have their effect. The short form shows it elsewhere.
        pytest.param("fence", "sessions", 2, marks=pytest.mark.full("postgresql")),
        *([("", "", 1)] if FULL else []),
    ],
)
def test_a_zombie_changes_nothing_unless_there_is_no_fence(
    fleet: Fleet, of_zombie: str, of_rescuer: str, times: int
) -> None:
    lease: dict[str, Any] = {"FAULTS_LEASE": str(LEASE), "FAULTS_HEARTBEAT": "0.4"}
    write_and_wait.delay("task", str(fleet.folder))
    supervisor = fleet.start(threads=1, FAULTS_BROKEN=of_zombie, **lease)
    until(lambda: written(fleet), 60, "the zombie's first write")
    (zombie,) = children(supervisor.pid)
    os.kill(supervisor.pid, signal.SIGSTOP)
    os.kill(zombie, signal.SIGSTOP)
    stopped = monotonic()

    fleet.start(threads=1, FAULTS_BROKEN=of_rescuer, **lease)
    until(lambda: len(written(fleet)) == 2, 120, "the rescuer's first write")
    (rescuer,) = set(written(fleet)) - {zombie}
    (fleet.folder / f"gate.{rescuer}").touch()
    until(lambda: not workers.open_tasks(), 180, "the end of the task")
    sleep(max(0.0, stopped + 3 * LEASE - monotonic()))
    (fleet.folder / f"gate.{zombie}").touch()
    os.kill(zombie, signal.SIGCONT)
    if of_zombie:
        until(lambda: effects.seen().counter == times, 60, "the zombie's second effect")
    else:
        until(lambda: "lost lease" in fleet.log(), 60, "the zombie's end")

    assert workers.statuses() == {"S": 1}
    assert effects.seen() == effects.Effects(rows=times, keys=1, counter=times)


@pytest.mark.full
@pytest.mark.parametrize(("broken", "is_replaced"), [("", True), ("beat", False)])
def test_a_woken_supervisor_replaces_the_process_that_lost_its_lease(
    fleet: Fleet, broken: str, is_replaced: bool
) -> None:
    lease: dict[str, Any] = {"FAULTS_LEASE": str(LEASE), "FAULTS_HEARTBEAT": "0.4"}
    supervisor = fleet.start(threads=1, FAULTS_BROKEN=broken, **lease)
    until(lambda: workers.are_registered(1), 60, "the first worker")
    asleep = [supervisor.pid, *children(supervisor.pid)]
    for pid in asleep:
        os.kill(pid, signal.SIGSTOP)
    fleet.start(threads=1, **lease)
    until(lambda: "rescued the tasks of dead" in fleet.log(), 60, "the rescue")

    for pid in asleep:
        os.kill(pid, signal.SIGCONT)

    if not is_replaced:
        sleep(5 * LEASE)
        assert children(supervisor.pid) == asleep[1:]
        return
    until(lambda: children(supervisor.pid) not in ([], asleep[1:]), 60, "the replacement")
    until(lambda: workers.are_registered(2), 60, "both workers")
