"""Who pays when a task kills the process that runs it, or never lets go of it?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from cq import operations
from cq.models import Attempt, Task
from cq.supervisor import GRACE

from . import effects
from . import fleet as workers
from .fleet import FULL, Fleet, children, say, until
from .tasks import add, end_session, fault, leave, loop, rest, stick_in_c

pytestmark = pytest.mark.full("mysql", "sqlite")


def test_a_poison_pill_alone_is_lost_and_its_neighbours_finish(fleet: Fleet) -> None:
    number = 300 if FULL else 40
    add.delay_many([(f"task {n}", 0.02) for n in range(number // 2)])
    pills = [leave.delay(0), fault.delay()]
    others = [] if connection.vendor == "sqlite" else [end_session.delay()]
    add.delay_many([(f"task {n}", 0.02) for n in range(number // 2, number)])

    # In the full form it waits as long as it does in life.
    pause: dict[str, Any] = {} if FULL else {"FAULTS_PAUSE": "0.2"}
    supervisor = fleet.start(FAULTS_MAX_LOST="2", **pause)
    took = until(lambda: not workers.open_tasks(), 180, "the end of all tasks")

    say(f"{number} neighbours, {workers.statuses()} in {took:.1f} s")
    lost = Task.objects.filter(status="L")
    assert {task.pk for task in lost} == {pill.pk for pill in pills}
    assert {task.deaths for task in lost} == {2}
    assert Attempt.objects.filter(outcome="L").count() == 2
    for pill in others:
        pill.refresh_from_db()
        assert "session of this task ended in each of" in pill.error
    assert workers.statuses() == {"S": number, "L": 2} | ({"F": 1} if others else {})
    assert effects.seen() == effects.exactly_once(number)
    until(lambda: len(children(supervisor.pid)) == 1 and workers.are_registered(1), 60, "the pool")


@pytest.mark.full
@pytest.mark.parametrize(("broken", "innocents_lost"), [("charge", True), ("", False)])
def test_a_neighbour_of_a_poison_pill_is_lost_only_by_a_rule_that_charges_all(
    fleet: Fleet, broken: str, innocents_lost: bool
) -> None:
    rest.delay_many([(1.0,)] * 3)
    leave.delay(1)

    fleet.start(FAULTS_MAX_LOST="1", FAULTS_BROKEN=broken)
    until(lambda: not workers.open_tasks(), 180, "the end of all tasks")

    assert (workers.statuses()["L"] > 1) is innocents_lost


def test_a_task_stuck_in_c_is_replaced_and_its_neighbours_run_again_once(fleet: Fleet) -> None:
    grace: dict[str, Any] = {} if FULL else {"FAULTS_GRACE": "1"}
    fleet.start(threads=4, **grace)
    until(lambda: workers.are_registered(1), 60, "the worker")
    add.delay_many([(f"task {n}", 1.5) for n in range(3)])
    until(lambda: Task.objects.filter(status="R").count() == 3, 60, "the start of the neighbours")
    stuck = stick_in_c.delay(60)

    took = until(lambda: not workers.open_tasks(), 120, "the end of all tasks")

    stuck.refresh_from_db()
    say(f"replaced and finished in {took:.1f} s")
    assert (stuck.status, stuck.attempts) == ("F", 1)
    assert "overran its timeout" in stuck.error
    assert "killing a task process" in fleet.log()
    neighbours = Task.objects.exclude(pk=stuck.pk)
    assert set(neighbours.values_list("status", "deaths", "suspect")) == {("S", 0, False)}
    assert effects.seen() == effects.exactly_once(3)


@pytest.mark.full
def test_control_a_task_stuck_in_c_stays_while_no_process_is_replaced(fleet: Fleet) -> None:
    fleet.start(threads=2, FAULTS_BROKEN="overrun")
    stuck = stick_in_c.delay(120)
    until(lambda: Task.objects.filter(status="R").count() == 1, 60, "the start of the stuck one")
    stuck.cancel()

    # Its timeout is one second, and a cancel alone does not reach it either.
    with pytest.raises(AssertionError, match="did not come to pass"):
        until(lambda: not workers.open_tasks(), 1 + GRACE + 10, "the end of the stuck one")


def test_what_answers_no_cancel_ends_when_its_process_is_replaced(
    fleet: Fleet, tmp_path: Path
) -> None:
    fleet.start(threads=2)
    stuck = stick_in_c.using(timeout=600).delay(600)
    until(lambda: Task.objects.filter(status="R").count() == 1, 60, "the start of the stuck one")
    stuck.cancel()

    affected = operations.replace_process([stuck], reason="stuck")
    until(lambda: not workers.open_tasks(), 120, "the end of the stuck one")

    stuck.refresh_from_db()
    assert affected.done == [stuck.pk]
    assert (stuck.status, stuck.deaths) == ("E", 0)


@pytest.mark.full
@pytest.mark.parametrize(("ending", "status"), [("timeout", "F"), ("cancel", "E")])
def test_a_pure_python_loop_is_ended_without_its_process(
    fleet: Fleet, tmp_path: Path, ending: str, status: str
) -> None:
    supervisor = fleet.start()
    started = tmp_path / "started"
    task = loop.using(timeout=1 if ending == "timeout" else 60).delay(str(started))
    until(started.exists, 60, "the start of the loop")
    processes = children(supervisor.pid)

    if ending == "cancel":
        task.cancel()
    took = until(lambda: not workers.open_tasks(), 60, "the end of the loop")

    say(f"{ending} after {took:.1f} s on {connection.vendor}")
    task.refresh_from_db()
    assert task.status == status
    assert children(supervisor.pid) == processes


@pytest.mark.full
def test_control_a_loop_that_is_not_interrupted_costs_its_process(
    fleet: Fleet, tmp_path: Path
) -> None:
    supervisor = fleet.start(FAULTS_BROKEN="interrupts")
    started = tmp_path / "started"
    loop.using(timeout=1).delay(str(started))
    until(started.exists, 60, "the start of the loop")
    processes = children(supervisor.pid)

    until(lambda: not workers.open_tasks(), 60, "the end of the loop")

    until(lambda: len(children(supervisor.pid)) == 1, 60, "the replacement")
    assert children(supervisor.pid) != processes
