"""How does a project test its tasks without a worker beside the test?

``run_pending()`` runs what is due in the test's own thread, also inside the transaction of
``TestCase``::

    def test_a_new_order_is_confirmed(self):
        place_order(42)
        run_pending()
        self.assertEqual(len(mail.outbox), 1)

Within ``with inline():`` every ``delay()`` runs at once, without a row.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from asgiref.sync import async_to_sync
from django.db import transaction
from django.test.utils import override_settings

from . import claims, conf, leases, maintenance, registry, runner, surveys
from .buffers import RecordBuffer
from .context import Run
from .database import connection
from .exceptions import RunInTransaction
from .models import Worker
from .outcomes import Claimed, Outcome
from .statistics import Tally

__all__ = ["inline", "run_pending"]


def run_pending(limit: int | None = None, queues: Iterable[str] | None = None) -> int:
    """Run every task that is due, here and now, and record it as a worker would.

    Goes on until nothing is due: subtasks, followers and retries without a delay run too. What
    is scheduled for later, paused or held stays. With *limit* it ends after so many runs; without
    *queues* it serves all of them. Returns how many runs there were; an attempt that failed is one.
    Raises `RunInTransaction` inside ``atomic()`` on the task database, but for that of `TestCase`.
    """
    _refuse_transaction()
    with _PassingWorker(queues) as worker:
        runs = 0
        while limit is None or runs < limit:
            claimed = worker.claim_next()
            if claimed is None:
                break
            worker.run(claimed)
            runs += 1
    return runs


def _refuse_transaction() -> None:
    try:
        with transaction.atomic(using=conf.get().database, durable=True):
            pass
    except RuntimeError as error:
        if not connection().in_atomic_block:
            # A test runner's refusal, say.
            raise
        raise RunInTransaction from error


def inline() -> AbstractContextManager[Any]:
    """Let every ``delay()`` inside run at once and serially, as ``CQ_SERIAL = True`` does."""
    return override_settings(CQ_SERIAL=True)


class _PassingWorker:
    """A worker of one thread, the caller's, for the length of a ``with`` block."""

    def __init__(self, queues: Iterable[str] | None) -> None:
        self._queues = None if queues is None else frozenset(queues)

    def __enter__(self) -> _PassingWorker:
        self.row: Worker = leases.register(
            queues=sorted(self._queues or ()), threads=1, is_embedded=False, is_scheduler=False
        )
        self._tally = Tally(self.row.pk)
        self._buffer = RecordBuffer(self._tally, self._on_recorded)
        return self

    def __exit__(self, *_exception: object) -> None:
        self._tally.flush()
        leases.end(self.row)

    def claim_next(self) -> Claimed | None:
        """The most urgent task that is due; of several queues they take turns by name."""
        maintenance.expire()
        found = surveys.survey()
        served: Collection[str] = found.queues - found.paused
        if found.has_due:
            served = {*served, *(surveys.release_due() - found.paused)}
        if self._queues is not None:
            served = self._queues & set(served)
        for queue in sorted(served):
            for suspects in (False, True):
                claimed = claims.claim(self.row, queue, 1, held=found.held, suspects=suspects)
                if claimed:
                    return claimed[0]
        return None

    def run(self, claimed: Claimed) -> None:
        try:
            outcome = self._outcome(claimed)
            if outcome is not None and outcome.is_recorded:
                self._buffer.count([outcome])
            elif outcome is not None:
                self._buffer.add(outcome)
        finally:
            self._buffer.flush()

    def _outcome(self, claimed: Claimed) -> Outcome | None:
        if registry.is_registered(claimed.func_name):
            definition = registry.get(claimed.func_name)
            if definition.is_async:
                return async_to_sync(runner.run_async)(
                    claimed, definition, self._buffer, self._on_started
                )
        return runner.run(claimed, self._buffer, self._on_started)

    def _on_started(self, run: Run) -> None:
        """Nobody else could cancel it."""

    def _on_recorded(self, outcomes: Sequence[Outcome]) -> None:
        """Nobody waits for it."""
