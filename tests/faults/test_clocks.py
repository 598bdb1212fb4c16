"""Whose clock decides when a lease has run out, and what if it is set?"""

from __future__ import annotations

import random
from time import sleep
from typing import Any

import pytest
from django.db import connection

from cq.models import RepeatingRun, RepeatingTask, Task, schedule_task

from . import effects
from . import fleet as workers
from .fleet import FULL, Fleet, say, until
from .servers import COMPILER, PostgresServer
from .tasks import add, rest

NUMBER = 600 if FULL else 80
STEPS = 8
LEASE = 10.0

pytestmark = pytest.mark.full


@pytest.mark.skipif(connection.vendor == "sqlite", reason="its clock is that of all")
@pytest.mark.parametrize(("broken", "is_rescued"), [("", False), ("clock,vigil", True)])
def test_workers_whose_clocks_are_a_minute_apart_lose_no_lease(
    fleet: Fleet, broken: str, is_rescued: bool
) -> None:
    for wrong in ("30", "-30"):
        fleet.start(FAULTS_CLOCK=wrong, FAULTS_LEASE=str(LEASE), FAULTS_BROKEN=broken)
    until(lambda: workers.are_registered(2) or "rescued" in fleet.log(), 60, "both workers")
    add.delay_many([(f"task {n}", 0.1) for n in range(NUMBER)])

    until(lambda: not workers.open_tasks(), 600, "the end of all tasks")

    assert ("rescued the tasks of dead worker" in fleet.log()) is is_rescued
    assert effects.seen() == effects.exactly_once(NUMBER)


@pytest.mark.skipif(connection.vendor != "postgresql", reason="starts a PostgreSQL of its own")
@pytest.mark.skipif(not COMPILER, reason="no C compiler, for the clock of the server")
@pytest.mark.parametrize("broken", ["", "vigil", "tick"])
def test_a_database_whose_clock_is_set_loses_no_lease_and_doubles_no_tick(
    own_server: PostgresServer, fleet: Fleet, chance: random.Random, broken: str
) -> None:
    RepeatingTask.objects.all().delete()
    every: dict[str, Any] = {"missed": "all", "overlap": True, "coalesce": False}
    entry = schedule_task(RepeatingTask, "* * * * *", rest, (0.0,), **every)
    for _number in range(2):
        fleet.start(scheduler=True, FAULTS_LEASE=str(LEASE), FAULTS_BROKEN=broken)
    until(lambda: workers.are_registered(2), 60, "both workers")
    add.delay_many([(f"task {n}", 0.1) for n in range(NUMBER)])

    offsets = [chance.uniform(-300.0, 300.0) for _step in range(STEPS)]
    for offset in offsets:
        own_server.set_clock(offset)
        sleep(4.0)
    # Later than ever before: nothing is left in the future.
    own_server.set_clock(600.0)
    fired = Task.objects.filter(func_name=rest.name)
    until(lambda: fired.count() >= 10, 120, "the ticks")
    until(lambda: not workers.open_tasks(), 120, "the end of all tasks")

    ticks = list(RepeatingRun.objects.filter(entry=entry).values_list("tick", flat=True))
    say(f"clock set {STEPS + 1} times, broken: {broken or 'nothing'}; {fired.count()} ticks fired")
    assert ("rescued the tasks of dead worker" in fleet.log()) is (broken == "vigil")
    assert effects.seen() == effects.exactly_once(NUMBER)
    assert (fired.count() > len(ticks)) is (broken == "tick")
    assert fired.count() >= len(ticks) == len(set(ticks))
