"""Is every effect there exactly once after workers were killed at random all the time?"""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from time import monotonic, sleep
from typing import Any

import pytest
from django.db import connection

from cq.models import Task

from . import effects
from . import fleet as workers
from .fleet import FULL, Fleet, say, until
from .tasks import add, add_at_least_once

TASKS = {"postgresql": (2_000, 10_000), "mysql": (300, 3_000), "sqlite": (300, 1_000)}
KILLS = {"postgresql": 6, "mysql": 4, "sqlite": 4}
PROCESSES = {"postgresql": 4, "mysql": 2, "sqlite": 2}

# The storm kills each process after it has tried some ten suspects, so that one in ten tries ends
# with it, and one suspect in a thousand would be lost, although every death is the storm's doing.
NOBODY_IS_LOST: dict[str, Any] = {"FAULTS_MAX_LOST": "1000"}


def storm(
    fleet: Fleet, chance: random.Random, processes: int, kills: float, **environment: Any
) -> Counter[str]:
    """Kill somebody every half second until all is done; returns who was killed."""
    environment = NOBODY_IS_LOST | environment
    for _number in range(processes):
        fleet.start(**environment)
    killed: Counter[str] = Counter()
    deadline = monotonic() + 3_600
    while workers.open_tasks():
        assert monotonic() < deadline
        if killed.total() < kills and (victim := fleet.kill_one(chance, **environment)):
            killed[victim] += 1
        sleep(0.5)
    return killed


def deaths_alone() -> dict[int, int]:
    """How many tasks met so many deaths while they ran alone."""
    rows = Task.objects.filter(deaths__gt=0).values_list("deaths", flat=True)
    return dict(sorted(Counter(rows).items()))


def test_every_task_has_its_effect_exactly_once_in_a_kill_storm(
    fleet: Fleet, chance: random.Random
) -> None:
    number = TASKS[connection.vendor][FULL]
    add.delay_many([(f"task {n}", chance.uniform(0, 0.03)) for n in range(number)])
    began = monotonic()

    processes = 4 if FULL else PROCESSES[connection.vendor]
    kills = math.inf if FULL else KILLS[connection.vendor]

    killed = storm(fleet, chance, processes, kills)

    took = monotonic() - began
    say(f"{number} tasks, killed {dict(killed)} in {took:.0f} s: {workers.statuses()}")
    say(f"    suspects by deaths alone: {deaths_alone()}")
    assert killed
    assert workers.statuses() == {"S": number}
    assert effects.seen() == effects.exactly_once(number)


A_POOL = {"OPTIONS": {"pool": {"min_size": 1, "max_size": 2, "timeout": 1}}}


@pytest.mark.full
@pytest.mark.skipif(connection.vendor == "sqlite", reason="SQLite has no connections to keep")
@pytest.mark.parametrize(
    "kept",
    [
        pytest.param(
            A_POOL,
            marks=pytest.mark.skipif(
                "connection.vendor != 'postgresql'", reason="pools are psycopg's"
            ),
        ),
        {"CONN_MAX_AGE": None},
        {"CONN_MAX_AGE": 60, "CONN_HEALTH_CHECKS": True},
        {"CONN_MAX_AGE": 1},
    ],
    ids=lambda kept: "pool" if "OPTIONS" in kept else "kept {CONN_MAX_AGE} s".format(**kept),
)
def test_effects_are_there_once_however_the_project_keeps_its_connections(
    fleet: Fleet, chance: random.Random, kept: dict[str, Any]
) -> None:
    number = 2_000
    add.delay_many([(f"task {n}", chance.uniform(0, 0.03)) for n in range(number)])

    killed = storm(fleet, chance, 2, math.inf, FAULTS_CONNECTIONS=json.dumps(kept))

    say(f"{number} tasks, {kept}, killed {dict(killed)}: {workers.statuses()}")
    assert killed
    assert workers.statuses() == {"S": number}
    assert effects.seen() == effects.exactly_once(number)
    assert "couldn't get a connection" not in fleet.log()


@pytest.mark.full
@pytest.mark.skipif(connection.vendor != "postgresql", reason="pools are psycopg's")
def test_control_threads_that_share_a_pool_wait_for_its_connections_in_vain(fleet: Fleet) -> None:
    add.delay_many([(f"task {n}", 0.03) for n in range(100)])

    fleet.start(FAULTS_CONNECTIONS=json.dumps(A_POOL), FAULTS_BROKEN="pools")

    until(lambda: "couldn't get a connection" in fleet.log(), 60, "an exhausted pool")


@pytest.mark.full
def test_control_at_least_once_doubles_effects_in_a_kill_storm(
    fleet: Fleet, chance: random.Random
) -> None:
    add_at_least_once.delay_many([(f"task {n}", 0.3) for n in range(24)])

    killed = storm(fleet, chance, 1, 2)

    say(f"24 tasks, killed {dict(killed)}: {effects.seen()}")
    assert Task.objects.filter(status="S").count() == 24
    assert effects.seen().rows > 24
    assert effects.seen().keys == 24
