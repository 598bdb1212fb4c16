"""Which moves does a task make, and what does a follower do when its predecessor has ended?"""

from __future__ import annotations

import pytest

from cq.models import Task
from cq.states import (
    ACTIVE,
    DONE,
    MOVES,
    Cause,
    Condition,
    Status,
    Verdict,
    may_move,
    verdict,
)


def test_every_status_has_its_row_in_the_table_of_moves() -> None:
    assert set(MOVES) == set(Status)


def test_every_status_is_either_active_or_done() -> None:
    assert set(Status) == ACTIVE | DONE
    assert not ACTIVE & DONE


def test_a_success_is_final() -> None:
    assert not [after for after in Status if may_move(Status.SUCCESS, after)]


def test_a_task_runs_only_when_it_was_queued_or_retrying() -> None:
    before = {status for status in Status if may_move(status, Status.RUNNING)}

    assert before == {Status.QUEUED, Status.RETRY}


def test_every_done_status_is_reached_and_every_active_one_left() -> None:
    reached = {after for moves in MOVES.values() for after in moves}

    assert reached >= DONE
    assert all(MOVES[status] for status in ACTIVE)


def test_an_incomplete_task_never_runs_its_own_function_again() -> None:
    assert MOVES[Status.INCOMPLETE] == {Status.WAITING}


TABLE = [
    # status, cause, on success, always, on failure
    (Status.SUCCESS, "", Verdict.RUNS, Verdict.RUNS, Verdict.NOT_NEEDED),
    (Status.FAILURE, "", Verdict.BLOCKED, Verdict.RUNS, Verdict.RUNS),
    (Status.LOST, "", Verdict.BLOCKED, Verdict.RUNS, Verdict.RUNS),
    (Status.INCOMPLETE, "", Verdict.BLOCKED, Verdict.RUNS, Verdict.RUNS),
    (Status.REVOKED, Cause.CANCELLED, *[Verdict.CANCELLED] * 3),
    (Status.REVOKED, Cause.EXPIRED, Verdict.BLOCKED, Verdict.RUNS, Verdict.NOT_NEEDED),
    (Status.REVOKED, Cause.DISCARDED, Verdict.BLOCKED, Verdict.RUNS, Verdict.NOT_NEEDED),
]


@pytest.mark.parametrize(("status", "cause", "success", "always", "failure"), TABLE)
def test_what_a_follower_does_when_its_predecessor_ends(
    status: Status, cause: str, success: Verdict, always: Verdict, failure: Verdict
) -> None:
    assert verdict(status, cause, Condition.SUCCESS) == success
    assert verdict(status, cause, Condition.ALWAYS) == always
    assert verdict(status, cause, Condition.FAILURE) == failure


@pytest.mark.parametrize("status", sorted(ACTIVE))
def test_there_is_no_verdict_on_a_task_that_has_not_ended(status: Status) -> None:
    with pytest.raises(ValueError, match="has not ended"):
        verdict(status, "", Condition.SUCCESS)


def test_the_letters_are_those_of_old_and_complete_is_success() -> None:
    letters = {name: Task.__dict__[f"STATUS_{name}"] for name in Status.__members__}

    assert letters == {
        "PENDING": "P",
        "QUEUED": "Q",
        "RUNNING": "R",
        "WAITING": "W",
        "RETRY": "Y",
        "SUCCESS": "S",
        "FAILURE": "F",
        "INCOMPLETE": "I",
        "LOST": "L",
        "REVOKED": "E",
    }
    assert Task.STATUS_COMPLETE == "S"
