"""What goes into a run, and what came out of it, as values that nobody changes?

Each task makes one of either: tuples, which are made three times as fast as frozen dataclasses.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from time import monotonic
from typing import Any, NamedTuple
from uuid import UUID

from .states import Cause, Status


class Claimed(NamedTuple):
    """A task that is leased to this worker."""

    id: UUID
    func_name: str
    args: list[Any]
    kwargs: dict[str, Any]
    queue: str
    attempt: int
    attempts_before: int
    claim: int
    worker_id: int
    worker_name: str
    parent_id: UUID | None
    previous_id: UUID | None
    root_id: UUID
    has_followers: bool
    depth: int
    retries: int | None
    timeout: float | None
    suspect: bool
    run_at: datetime
    # The database's time at the claim, and this process's monotonic clock then.
    leased_at: datetime
    leased_monotonic: float

    def now(self) -> datetime:
        """The database's time, without asking it."""
        return self.leased_at + timedelta(seconds=monotonic() - self.leased_monotonic)


@dataclass(frozen=True, slots=True)
class Problem:
    """Why an attempt did not succeed, ready to be stored: bounded, masked, encodable."""

    exception: str
    message: str
    traceback: str = ""
    frames: list[dict[str, Any]] = field(default_factory=list)
    frame: str = ""
    fingerprint: str = ""


class Outcome(NamedTuple):
    """What became of a claimed task; only the recorder writes it down.

    *status* is what the run itself came to: succeeded, failed, retrying, revoked, lost, or queued
    for one that is handed back. The row may become *waiting* instead, while children are open.
    """

    claimed: Claimed
    status: Status
    started: datetime
    finished: datetime
    is_atomic: bool = False
    result: Any = None
    cause: Cause | str = ""
    reason: str = ""
    problem: Problem | None = None
    retry_after: float = 0.0
    adopted: UUID | None = None
    # Rows of `cqt.chain` and `cqt.errorback`, not stored yet.
    followers: tuple[Any, ...] = ()
    # Children stored in the run's own transaction, which no row counts yet.
    uncounted: int = 0
    has_children: bool = False
    # It was committed together with what the task did on the task database.
    is_recorded: bool = False

    @property
    def is_plain_success(self) -> bool:
        """Does nothing but the task's own row change with it?"""
        return (
            self.status == Status.SUCCESS
            and not self.has_children
            and not self.followers
            and self.adopted is None
        )
