"""Does anything stick, leak or grow while everything happens at once, and workers are killed?"""

from __future__ import annotations

import random
import subprocess
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from statistics import median
from time import monotonic, sleep
from typing import Any

import pytest
from django.db import connection
from django.db.models import F

from cq.models import RepeatingTask, Task, schedule_task
from cq.process import memory
from cq.states import DONE, Cause

from . import effects
from . import fleet as workers
from .fleet import Fleet, children, say, until
from .tasks import (
    add,
    add_at_last,
    add_with_children,
    fail,
    lead,
    leak,
    rest,
    rest_on_loop,
    spread,
    talk,
)

RATE = 15.0
SETTLED = 60.0
SAMPLE = 2.0
MEGABYTE = 1_048_576

pytestmark = pytest.mark.full

LOAD: tuple[Callable[[str, float], Any], ...] = (
    lambda name, part: add.delay(name, part * 0.05),
    lambda name, part: add.delay(name, part * 2.0) if part > 0.7 else rest.delay(part),
    lambda name, _part: fail.delay(name),
    lambda name, _part: add_at_last.delay(name),
    lambda name, _part: add_with_children.delay(name),
    lambda name, _part: spread.delay(name),
    lambda name, _part: lead.delay(name),
    lambda name, part: talk.delay(name, int(part * 40)),
    lambda _name, part: rest_on_loop.delay(part),
    lambda name, part: add.using(run_after=part * 5).delay(name),
)
LEAKING = (*LOAD, lambda _name, _part: leak.delay())
WITH_EFFECT = (add, add_at_last, add_with_children, talk)


@dataclass
class Witness:
    """A worker that nobody kills, and what its process holds, sample by sample."""

    supervisor: subprocess.Popen[bytes]
    files: list[int] = field(default_factory=list)
    bytes: list[int] = field(default_factory=list)
    sessions: list[int] = field(default_factory=list)

    def look(self) -> None:
        (pid,) = children(self.supervisor.pid)
        self.files.append(len(list(Path(f"/proc/{pid}/fd").iterdir())))
        self.bytes.append(memory(pid))
        self.sessions.append(_sessions())

    def growth(self) -> dict[str, float]:
        """What each grew by, from its first third to its last."""
        return {
            "files": _growth(self.files),
            "megabytes": _growth(self.bytes) / MEGABYTE,
            "sessions": _growth(self.sessions),
        }

    def __str__(self) -> str:
        found = ", ".join(f"{name} {grown:+.1f}" for name, grown in self.growth().items())
        return f"{found} (at the end {self.files[-1]} files, {self.bytes[-1] / MEGABYTE:.0f} MB)"


def _growth(samples: list[int]) -> float:
    third = len(samples) // 3
    return median(samples[-third:]) - median(samples[:third])


def _sessions() -> int:
    """How many sessions the database has, of whomever."""
    if connection.vendor == "sqlite":
        return 0
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute(
                "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database()"
            )
        else:
            cursor.execute(
                "SELECT COUNT(*) FROM information_schema.processlist WHERE db = DATABASE()"
            )
        return int(cursor.fetchone()[0])


def soak(
    fleet: Fleet,
    chance: random.Random,
    seconds: float,
    load: tuple[Callable[[str, float], Any], ...] = LOAD,
    **environment: Any,
) -> Witness:
    """Load four workers, of which three are killed again and again, for so many seconds."""
    RepeatingTask.objects.all().delete()
    schedule_task(RepeatingTask, "* * * * *", add, ("tick",), coalesce=False, overlap=True)
    witness = Witness(fleet.start(scheduler=True, **environment))
    for _number in range(3):
        fleet.start(scheduler=True, **environment)
    until(lambda: workers.are_registered(4), 60, "the workers")
    began = monotonic()
    number, killed, kill_due, sample_due = 0, 0, began, began + min(SETTLED, seconds / 4)
    while (now := monotonic()) < began + seconds:
        number += 1
        chance.choice(load)(f"task {number}", chance.random())
        if now > kill_due:
            kill_due = now + chance.uniform(1.0, 6.0)
            killed += bool(fleet.kill_one(chance, spared=witness.supervisor, **environment))
        if now > sample_due:
            sample_due = now + SAMPLE
            witness.look()
        sleep(max(0.0, began + number / RATE - monotonic()))
    say(f"{seconds:.0f} s of mixed load, {number} calls, {killed} kills; {witness}")
    return witness


def still_moving() -> int:
    """Tasks that have not ended, those aside that wait behind a failure until it is mended."""
    rows = Task.objects.filter(status__in=workers.OPEN)
    return rows.exclude(status="P", cause=Cause.BLOCKED).count()


def succeeded() -> Counter[str]:
    """The names for which there shall be an effect."""
    names = [task.name for task in WITH_EFFECT]
    rows = Task.objects.filter(func_name__in=names, status="S")
    return Counter(row[0] for row in rows.values_list("args", flat=True))


def test_nothing_sticks_leaks_or_grows_in_ten_minutes_of_everything(
    fleet: Fleet, chance: random.Random
) -> None:
    witness = soak(fleet, chance, 600.0)

    took = until(lambda: not still_moving(), 120, f"the end of {workers.statuses()}")

    say(f"    all ended {took:.1f} s after the last call: {workers.statuses()}")
    assert effects.names() == succeeded()
    assert 9 <= effects.names()["tick"] <= 11
    assert not Task.objects.filter(status="L").exists()
    assert not Task.objects.filter(status__in=sorted(DONE), open_children__gt=0).exists()
    # Of a child the worker says when it ended, of a parent the database.
    late = F("parent__finished") + timedelta(seconds=1)
    assert not Task.objects.filter(finished__gt=late).exists()
    # Fewer are no leak: how long the sessions of the killed stay open varies with the load.
    grown = witness.growth()
    assert grown["files"] <= 3
    assert grown["sessions"] <= 6
    assert grown["megabytes"] <= 5


def test_control_a_leak_grows_and_without_a_rescue_tasks_stick(
    fleet: Fleet, chance: random.Random
) -> None:
    witness = soak(fleet, chance, 60.0, LEAKING, FAULTS_BROKEN="rescue")

    sleep(20.0)

    say(f"    control: {workers.statuses()}")
    assert still_moving()
    assert Task.objects.filter(status="R").exists()
    assert witness.growth()["files"] > 3
    assert witness.growth()["megabytes"] > 5
