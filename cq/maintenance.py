"""What must be tidied up so that nothing is stuck and nothing is kept for ever?"""

from __future__ import annotations

from time import monotonic

from django.db import DatabaseError, InterfaceError
from django.utils import timezone as clock

from . import folding, leases, removal, surveys, workflow
from .database import write_transaction
from .mending import Mender
from .states import Cause
from .trimming import Trimmer
from .vigil import Vigil

BATCH = 500
# Seconds between two rounds of each worker. What an idle one sends is mostly these: the more of
# them there are, the oftener somebody looks.
TIDYING_INTERVAL = 120.0
THINNING_INTERVAL = 300.0
# One chore goes on for so long in one round; what is left is for the next, after the dead.
PATIENCE = 1.0


class Housekeeper:
    """Does the rounds of one worker: the dead often, what is old now and then."""

    def __init__(self) -> None:
        self._removal_due = 0.0
        self._tidying_due = 0.0
        self._thinning_due = 0.0
        self._place: removal.Place | None = None
        self._trimmer = Trimmer()
        self._mender = Mender()
        self._vigil = Vigil()

    def keep(self) -> None:
        try:
            self._keep()
        except (DatabaseError, InterfaceError):
            self._vigil.forget()
            raise

    def _keep(self) -> None:
        leases.rescue(self._vigil)
        if self._place is not None or monotonic() >= self._removal_due:
            self._remove()
        if monotonic() >= self._tidying_due:
            self._tidying_due = monotonic() + TIDYING_INTERVAL
            # Whoever looks for work expires what is due; a worker that is busy does not look.
            expire_all()
            self._mender.mend()
            self._trimmer.trim()
        if monotonic() >= self._thinning_due:
            self._thinning_due = monotonic() + THINNING_INTERVAL
            leases.forget_old_workers()
            folding.fold(clock.now())

    def _remove(self) -> None:
        """Walk on through what has finished, from the start once in a tidying interval."""
        if self._place is None:
            self._removal_due = monotonic() + TIDYING_INTERVAL
        deadline = monotonic() + PATIENCE
        while True:
            self._place = removal.remove_finished(self._place)
            if self._place is None or monotonic() > deadline:
                return


def expire(limit: int = BATCH) -> int:
    """Revoke what was not started before its time; returns how many."""
    due = surveys.expired(limit)
    if due:
        with write_transaction():
            workflow.revoke(due, Cause.EXPIRED, "expired before it was started")
    return len(due)


def expire_all() -> int:
    """Revoke everything that was not started before its time; returns how many."""
    total = 0
    while number := expire():
        total += number
    return total
