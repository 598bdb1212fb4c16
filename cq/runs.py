"""Which tasks run in this process right now, and how is one of them stopped?"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterable
from time import monotonic
from typing import Any, NamedTuple
from uuid import UUID

from .board import Board
from .context import Run
from .exceptions import TaskCancelled, TaskTimeout
from .outcomes import Claimed

logger = logging.getLogger("cq")

# Of the cancels for tasks that have not started here, most of them run elsewhere.
REMEMBERED_CANCELS = 1_000
STOPPING_PAUSE = 0.1


class Lease(NamedTuple):
    """One claim of one task."""

    task_id: UUID
    claim: int

    @classmethod
    def of(cls, claimed: Claimed) -> Lease:
        return cls(claimed.id, claimed.claim)


class Runs:
    """The tasks that run here, shown to the supervisor, and interrupted from a thread of its own.

    That thread, and not the one that brings a cancel: breaking off a query may wait for the server.
    """

    def __init__(self, board: Board | None) -> None:
        self._board = board
        self._shown: dict[UUID, Shown] = {}
        self._cancelled: dict[Lease, None] = {}
        self._wake = threading.Event()

    def __bool__(self) -> bool:
        return bool(self._shown)

    def show(
        self,
        claimed: Claimed,
        call_on_loop: Callable[[Callable[[], object]], None] | None = None,
        task: asyncio.Task[Any] | None = None,
    ) -> Shown:
        """Show a task that is about to run; an async one with its loop and asyncio's task."""
        return Shown(self, claimed, call_on_loop, task)

    def cancel(self, lease: Lease) -> None:
        """Stop a task that runs here, or is about to; one that runs elsewhere is not harmed.

        By its lease: retried, it may run here later, and the cancel was not meant for that.
        """
        shown = self._shown.get(lease.task_id)
        if shown is not None and shown.lease == lease:
            shown.cancel()
            self._wake.set()
            return
        self._cancelled[lease] = None
        if len(self._cancelled) > REMEMBERED_CANCELS:
            self._cancelled.pop(next(iter(self._cancelled)), None)

    def was_cancelled(self, claimed: Claimed) -> bool:
        return Lease.of(claimed) in self._cancelled

    def forget(self, ended: Iterable[Claimed]) -> None:
        """Their ends are recorded: a cancel that comes now comes too late."""
        for claimed in ended:
            self._cancelled.pop(Lease.of(claimed), None)

    def keep_watch(self, stopping: threading.Event) -> None:
        """Interrupt what was cancelled or has overrun its timeout, until all has ended."""
        while not stopping.is_set() or self._shown:
            left = [shown.interrupt_if_due() for shown in list(self._shown.values())]
            pauses = [seconds for seconds in left if seconds is not None]
            if stopping.is_set():
                pauses.append(STOPPING_PAUSE)
            self._wake.wait(min(pauses, default=None))
            self._wake.clear()

    def warn_of_long_transactions(self, limit: float) -> None:
        """Name, once each, the atomic tasks that have run for longer than *limit* seconds."""
        for shown in list(self._shown.values()):
            shown.warn_if_longer(limit)

    def wake(self) -> None:
        """Let `keep_watch` look again."""
        self._wake.set()

    def _begin(self, shown: Shown, claimed: Claimed, run: Run) -> int | None:
        self._shown[claimed.id] = shown
        if shown.lease in self._cancelled:
            shown.cancel()
            self._wake.set()
        elif run.deadline:
            self._wake.set()
        return self._board.take(claimed.id, claimed.claim, run.deadline) if self._board else None

    def _end(self, claimed: Claimed, slot: int | None) -> None:
        self._shown.pop(claimed.id, None)
        if slot is not None and self._board is not None:
            self._board.release(slot)


class Shown:
    """One task that runs here."""

    def __init__(
        self,
        runs: Runs,
        claimed: Claimed,
        call_on_loop: Callable[[Callable[[], object]], None] | None,
        task: asyncio.Task[Any] | None,
    ) -> None:
        self._runs = runs
        self._claimed = claimed
        self.lease = Lease.of(claimed)
        self._call_on_loop = call_on_loop
        self._task = task
        self._run: Run | None = None
        self._slot: int | None = None
        self._has_warned = False

    def start(self, run: Run) -> None:
        """A run of it begins; after a database conflict another one does."""
        is_first = self._run is None
        self._run = run
        if is_first:
            self._slot = self._runs._begin(self, self._claimed, run)
        elif self._runs.was_cancelled(self._claimed):
            self.cancel()

    def end(self) -> None:
        self._runs._end(self._claimed, self._slot)

    def cancel(self) -> None:
        if self._run is not None:
            self._run.is_cancelled = True

    def warn_if_longer(self, limit: float) -> None:
        run = self._run
        if run is None or not run.is_atomic or self._has_warned:
            return
        seconds = monotonic() - self._claimed.leased_monotonic
        if seconds > limit:
            self._has_warned = True
            logger.warning(
                "long transaction task=%s func=%s: open for %.0f s, it keeps the database from "
                "clearing up. Declare it atomic=False, or raise CQ_LONG_TRANSACTION",
                self._claimed.id,
                self._claimed.func_name,
                seconds,
            )

    def interrupt_if_due(self) -> float | None:
        """Stop it when it was cancelled or is overdue; returns the seconds left, if it has some."""
        run = self._run
        if run is None:
            return None
        if run.is_cancelled:
            if self._task is not None and self._call_on_loop is not None:
                self._call_on_loop(self._task.cancel)
            else:
                run.interrupt.send(TaskCancelled)
            return None
        if not run.deadline:
            return None
        left = run.deadline - monotonic()
        if left > 0:
            return left
        # An async task is stopped by its loop.
        if self._task is None:
            run.interrupt.send(TaskTimeout)
        return None
