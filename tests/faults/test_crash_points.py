"""Is every effect there exactly once when a process dies between two named steps?"""

from __future__ import annotations

import pytest

from cq.models import Attempt, Task

from . import effects
from . import fleet as workers
from .fleet import FULL, Fleet, say, until
from .injection import POINTS
from .tasks import add, add_at_least_once, add_with_callback, add_with_children, rest, spread

NEIGHBOURS = 20


def deaths(fleet: Fleet) -> dict[str, int]:
    """How often a process died at each point."""
    return {point: len(list(fleet.folder.glob(f"{point.replace(' ', '-')}.*"))) for point in POINTS}


@pytest.mark.full("mysql", "sqlite")
def test_a_death_at_any_step_neither_loses_nor_doubles_an_effect(fleet: Fleet) -> None:
    times = 50 if FULL else 1
    rest.delay_many([(0.05,)] * NEIGHBOURS)
    add.delay_many([(f"task {n}",) for n in range(2 * times)])
    add_with_callback.delay_many([(f"callback {n}",) for n in range(2 * times)])
    add_with_children.delay_many([(f"family {n}",) for n in range(2 * times)])
    everything = 2 * times * (1 + 1 + 4)

    for _number in range(2):
        fleet.start(FAULTS_CRASH=",".join(POINTS), FAULTS_TIMES=str(times))
    until(lambda: not workers.open_tasks(), 3_600 if FULL else 300, "the end of all tasks")

    say(f"deaths {deaths(fleet)}, {effects.seen()}, {workers.statuses()}")
    assert all(number >= times for number in deaths(fleet).values())
    assert effects.seen() == effects.exactly_once(everything)
    assert workers.statuses() == {"S": everything + NEIGHBOURS}
    assert not Attempt.objects.filter(outcome="L").exists()


@pytest.mark.full
def test_control_at_least_once_doubles_the_effect_of_a_death(fleet: Fleet) -> None:
    add_at_least_once.delay("task", 1.0)
    until_dead = fleet.start()

    until(lambda: effects.seen().rows, 60, "the effect")
    fleet.kill(until_dead)
    fleet.start()
    until(lambda: not workers.open_tasks(), 180, "the end of the task")

    assert effects.seen() == effects.Effects(rows=2, keys=1, counter=2)


@pytest.mark.full
def test_subtasks_of_a_process_that_died_among_them_all_end(fleet: Fleet) -> None:
    task = spread.delay("spread")
    fleet.start(FAULTS_CRASH="among children", FAULTS_TIMES="1")

    until(lambda: not workers.open_tasks(), 120, "the end of all tasks")

    # The two that were visible already, and the three of the second run.
    assert Task.objects.filter(parent=task, status="S").count() == 5
    assert Task.objects.get(pk=task.pk).status == "S"
