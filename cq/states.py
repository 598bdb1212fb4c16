"""Which statuses may a task have, and which moves between them are allowed?"""

from __future__ import annotations

from django.db import models


class Status(models.TextChoices):
    """The letters that a task's row stores; they are those of django-cq 0.3."""

    PENDING = "P", "pending"
    QUEUED = "Q", "queued"
    RUNNING = "R", "running"
    WAITING = "W", "waiting"
    RETRY = "Y", "retrying"
    SUCCESS = "S", "succeeded"
    FAILURE = "F", "failed"
    INCOMPLETE = "I", "incomplete"
    LOST = "L", "lost"
    REVOKED = "E", "revoked"


class Cause(models.TextChoices):
    """Why a task is revoked, or held pending."""

    CANCELLED = "cancelled", "cancelled"
    EXPIRED = "expired", "expired"
    DISCARDED = "discarded", "discarded"
    NOT_NEEDED = "not needed", "not needed"
    COALESCED = "coalesced", "coalesced"
    BLOCKED = "blocked", "blocked"


class Condition(models.TextChoices):
    """On which end of its predecessor a chained task runs."""

    SUCCESS = "success", "on success"
    ALWAYS = "always", "always"
    FAILURE = "failure", "on failure"


DONE = frozenset({Status.SUCCESS, Status.FAILURE, Status.INCOMPLETE, Status.LOST, Status.REVOKED})
ERROR = frozenset({Status.FAILURE, Status.INCOMPLETE, Status.LOST, Status.REVOKED})
FAILED = frozenset({Status.FAILURE, Status.INCOMPLETE, Status.LOST})
ACTIVE = frozenset({Status.PENDING, Status.QUEUED, Status.RUNNING, Status.WAITING, Status.RETRY})
CLAIMABLE = frozenset({Status.QUEUED, Status.RETRY})

# A child that ended this way leaves its parent INCOMPLETE; the other causes do not.
HARMFUL_CAUSES = frozenset({Cause.CANCELLED, Cause.EXPIRED})

MOVES: dict[Status, frozenset[Status]] = {
    Status.PENDING: frozenset({Status.QUEUED, Status.REVOKED}),
    Status.QUEUED: frozenset({Status.RUNNING, Status.REVOKED}),
    Status.RETRY: frozenset({Status.RUNNING, Status.REVOKED}),
    Status.RUNNING: frozenset(
        {
            Status.SUCCESS,
            Status.FAILURE,
            Status.INCOMPLETE,
            Status.LOST,
            Status.REVOKED,
            Status.WAITING,
            Status.RETRY,
            Status.QUEUED,  # handed back, or rescued from a dead worker
        }
    ),
    Status.WAITING: frozenset(
        {
            Status.SUCCESS,
            Status.FAILURE,
            Status.INCOMPLETE,
            Status.LOST,
            Status.REVOKED,
            Status.RETRY,
        }
    ),
    Status.SUCCESS: frozenset(),
    Status.FAILURE: frozenset({Status.QUEUED}),
    Status.LOST: frozenset({Status.QUEUED}),
    Status.INCOMPLETE: frozenset({Status.WAITING}),
    Status.REVOKED: frozenset({Status.QUEUED, Status.PENDING, Status.WAITING}),
}


def may_move(before: Status, after: Status) -> bool:
    """Is *after* a status that a task may take when it is in *before*?"""
    return after in MOVES[before]


class Verdict(models.TextChoices):
    """What a chained task does when its predecessor has ended."""

    RUNS = "runs"
    BLOCKED = "blocked"
    NOT_NEEDED = "not needed"
    CANCELLED = "cancelled"


def verdict(status: Status, cause: str, condition: Condition) -> Verdict:
    """Answer the table *predecessor ends* of the design for one follower.

    *status* and *cause* are those that the predecessor ended with.
    """
    if status not in DONE:
        raise ValueError(f"A task that is {status.label} has not ended.")
    if status == Status.REVOKED and cause == Cause.CANCELLED:
        return Verdict.CANCELLED
    if condition == Condition.ALWAYS:
        return Verdict.RUNS
    if condition == Condition.SUCCESS:
        return Verdict.RUNS if status == Status.SUCCESS else Verdict.BLOCKED
    return Verdict.RUNS if status in FAILED else Verdict.NOT_NEEDED
