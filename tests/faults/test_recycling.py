"""Is nothing lost, and nothing done twice, when a worker renews its processes by itself?"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from cq import task
from cq.models import Attempt, Task, Worker
from cq.process import memory

from . import effects
from . import fleet as workers
from .fleet import FULL, Fleet, children, say, until
from .tasks import add, add_and_leak, rest

MEGABYTE = 1_048_576
# What a process may gain before it is renewed, and what each of its tasks takes.
ROOM, LEAK = 60, 5
PATIENCE = 30.0


def own_memory(fleet: Fleet) -> int:
    """The megabytes that a process has before anything leaks."""
    rest.delay_many([(0.01,)] * 20)
    supervisor = fleet.start()
    until(lambda: not workers.open_tasks(), 60, "the first tasks")
    (pid,) = children(supervisor.pid)
    found = memory(pid) // MEGABYTE
    fleet.stop()
    Task.objects.all().delete()
    return found


@pytest.mark.parametrize(
    ("is_limited", "holds"),
    [
        pytest.param(True, True, marks=pytest.mark.full("postgresql", "mysql")),
        pytest.param(False, False, marks=pytest.mark.full),
    ],
)
def test_processes_above_their_memory_are_renewed_under_load_and_no_effect_is_lost(
    fleet: Fleet, is_limited: bool, holds: bool
) -> None:
    number = 200 if FULL and is_limited else 40
    limit = own_memory(fleet) + ROOM
    add_and_leak.delay_many([(f"task {n}", LEAK) for n in range(number)])
    before = Worker.objects.count()

    options = ["--max-memory", str(limit)] if is_limited else []
    supervisor = fleet.start(patience=PATIENCE, options=options)
    most = 0

    def has_ended() -> bool:
        nonlocal most
        most = max([most, *(memory(pid) // MEGABYTE for pid in children(supervisor.pid))])
        return not workers.open_tasks()

    until(has_ended, 300, "the end of all tasks")

    renewed = Worker.objects.count() - before - 1
    say(
        f"{number} tasks that keep {LEAK} MB each, limit {options or 'none'}: renewed {renewed} "
        f"times, at most {most} MB: {workers.statuses()}"
    )
    assert workers.statuses() == {"S": number}, workers.errors()
    assert effects.seen() == effects.exactly_once(number)
    # Finished, or handed back uncharged: nobody was killed.
    assert not Attempt.objects.exists()
    assert not Task.objects.filter(attempts__gt=1).exists()
    assert supervisor.poll() is None
    assert (renewed >= max(1, number * LEAK // ROOM // 4)) is holds
    assert (most < limit + number * LEAK // 2) is holds


CODE = """
import time
from cq import task
from faults import effects

@task("fresh.add")
def add(cqt, name):
    effects.insert(name)
    time.sleep(0.2)
    effects.increment()
    return {version}
"""


def change_code(package: Path, version: int) -> None:
    """In one step: a file that is half written is another change, and no module."""
    written = package / "tasks.new"
    written.write_text(CODE.format(version=version))
    written.replace(package / "tasks.py")


@pytest.mark.full
@pytest.mark.parametrize("patience", [PATIENCE, 0.0])
def test_code_that_changes_while_tasks_run_loses_none_and_doubles_none(
    fleet: Fleet, tmp_path: Path, patience: float
) -> None:
    @task("fresh.add")
    def fresh_add(cqt: Any, name: str) -> None:
        raise AssertionError("the one of the worker runs")

    package = tmp_path / "fresh"
    package.mkdir()
    (package / "__init__.py").touch()
    change_code(package, 1)
    number = 200
    fresh_add.delay_many([(f"task {n}",) for n in range(number)])

    supervisor = fleet.start(
        patience=patience,
        options=["--reload"],
        FAULTS_APPS="fresh",
        PYTHONPATH=os.pathsep.join([str(tmp_path), fleet.environment["PYTHONPATH"]]),
        # Two versions within one second must not share their byte code.
        PYTHONDONTWRITEBYTECODE="1",
    )
    for version in (2, 3):
        before = effects.seen().rows
        until(lambda: effects.seen().rows > before + 20, 60, "some effects")  # noqa: B023
        change_code(package, version)
    until(lambda: not workers.open_tasks(), 120, "the end of all tasks")

    results = Task.objects.values_list("result", flat=True)
    say(f"{number} tasks over three versions of their code: {workers.statuses()}")
    assert workers.statuses() == {"S": number}, workers.errors()
    assert effects.seen() == effects.exactly_once(number)
    assert set(results) == {1, 2, 3}
    assert supervisor.poll() is None
    assert Worker.objects.count() >= 3


@pytest.mark.full
def test_processes_that_stop_after_a_number_of_tasks_are_renewed_and_nothing_is_lost(
    fleet: Fleet,
) -> None:
    number = 500
    add.delay_many([(f"task {n}", 0.01) for n in range(number)])

    supervisor = fleet.start(processes=2, patience=PATIENCE, options=["--max-tasks", "50"])
    until(lambda: not workers.open_tasks(), 200, "the end of all tasks")

    say(f"{number} tasks, 50 for each process: {Worker.objects.count()} processes")
    assert workers.statuses() == {"S": number}, workers.errors()
    assert effects.seen() == effects.exactly_once(number)
    assert not Task.objects.filter(attempts__gt=1).exists()
    assert Worker.objects.count() >= 8
    assert supervisor.poll() is None
