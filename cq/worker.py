"""The loop: how does one process claim, run and record tasks until it is told to stop?"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any
from uuid import UUID

from django.db import DatabaseError, InterfaceError, connections

from . import chores, claims, conf, hints, leases, maintenance, process, registry, runner, surveys
from .board import Board
from .buffers import RecordBuffer
from .database import is_conflict
from .executors import AsyncPool, ThreadPool
from .membership import Membership
from .models import Task, Worker
from .models.worker import Ask
from .outcomes import Claimed, Outcome
from .prefetch import Prefetch
from .runs import Lease, Runs
from .states import Cause, Status
from .statistics import Tally
from .vigil import Vigil

logger = logging.getLogger("cq")

CONSOLE_QUEUE = "cq.console"
# Beyond this backlog the recorder, not the claim, is what tasks wait for.
BACKLOG = 2_000


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """How a worker runs. Without *queues* it serves all of them; times are in seconds."""

    queues: tuple[str, ...] = ()
    threads: int = 8
    async_concurrency: int = 100
    shutdown_timeout: float = 30.0
    burst: bool = False
    scheduler: bool = True
    embedded: bool = False
    max_tasks: int = 0
    max_memory: int = 0  # bytes; 0: no limit


@dataclass(frozen=True, slots=True)
class _Wanted:
    """So many tasks, without those of some functions, or only of some."""

    limit: int
    without: frozenset[str] = frozenset()
    only: frozenset[str] = frozenset()


class WorkerLoop:
    """One worker: `run` blocks until `stop` is called from another thread or a signal handler."""

    def __init__(
        self, options: WorkerOptions, *, board: Board | None = None, supervisor: str = ""
    ) -> None:
        self.options = options
        self._is_scheduler = options.scheduler and conf.get().scheduler
        self._membership = Membership(
            queues=options.queues,
            threads=options.threads,
            is_embedded=options.embedded,
            is_scheduler=self._is_scheduler,
            board=board,
            supervisor=supervisor,
        )
        self._schedule = threading.Event()
        self._finished = 0
        # How many tasks had been started at the last beat.
        self._taken = 0
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self._quiet = False
        self._lock = threading.Lock()
        self._runs = Runs(board)
        self._woken: set[str] = set()
        self._candidates: list[str] = []
        self._prefetch = Prefetch(options.threads)
        self._survey_due = 0.0
        self._paused: frozenset[str] = frozenset()
        self._held: frozenset[str] = frozenset()
        # Leased and not recorded yet, with the claim number.
        self._leased: set[tuple[UUID, int]] = set()
        self._strays_due = 0.0
        self._has_suspects = False
        # The queues whose wakes are received; one that only calls name is learnt from the table.
        self._hinted = {CONSOLE_QUEUE, *(options.queues or registry.queues())}
        self._pool = ThreadPool(options.threads, self._run_one, self._on_taken)
        self._async_pool = AsyncPool(options.async_concurrency, self._run_one_async)

    @property
    def is_registered(self) -> bool:
        """Has it a `row` yet? Not while the database cannot be reached."""
        return self._membership.is_registered

    @property
    def row(self) -> Worker:
        """The row that it is registered as; another one after a lost lease."""
        return self._membership.worker

    def run(self) -> None:
        """Run tasks until told to stop; then finish what runs, and hand back the rest."""
        self._membership.join(self._stopping)
        self._buffer = RecordBuffer(Tally(self.row.pk), self._on_recorded)
        self._receiver = self._new_receiver()
        threads = self._threads_beside()
        self._buffer.start()
        self._pool.start()
        self._async_pool.start()
        self._receiver.start()
        for thread in threads:
            thread.start()
        try:
            self._loop()
        finally:
            self._shut_down()
            for thread in threads:
                thread.join(1.0)
            connections.close_all()

    def _threads_beside(self) -> list[threading.Thread]:
        def beside(name: str, function: Callable[..., None], *args: Any) -> threading.Thread:
            return threading.Thread(target=function, args=args, name=f"cq-{name}", daemon=True)

        threads = [
            beside("heart", self._membership.keep, self._stopping, self._count, self._on_beat),
            beside("housekeeping", chores.keep_house, self._stopping),
            beside("watch", self._runs.keep_watch, self._stopping),
        ]
        if self._is_scheduler:
            threads.append(
                beside("scheduler", chores.keep_schedule, self._stopping, self._schedule)
            )
        return threads

    def _count(self) -> int:
        return self._pool.busy + self._async_pool.busy

    def stop(self) -> None:
        """Claim nothing more, and end when what runs has ended."""
        self._stopping.set()
        self._wake.set()
        self._runs.wake()
        self._schedule.set()

    def listen_anew(self) -> None:
        """Receive hints on the loop that `hints.use_loop` has named since."""
        receiver = getattr(self, "_receiver", None)
        if receiver is not None:
            receiver.stop()
            self._receiver = self._new_receiver()
            self._receiver.start()

    def _new_receiver(self) -> hints.Receiver:
        return hints.Receiver(self._hinted, self._on_wake, self._on_control)

    # Claiming

    def _loop(self) -> None:
        has_rescued = False
        while not self._stopping.is_set():
            self._wake.clear()
            try:
                if not has_rescued:
                    # Those that are certainly gone; whose lease has run out takes a longer look.
                    leases.rescue(Vigil())
                    has_rescued = True
                has_claimed = self._claim_round()
            except (DatabaseError, InterfaceError) as error:
                if is_conflict(error):
                    logger.info("claims again after a conflict: %s", error)
                    continue
                logger.warning("worker waits for the database: %s", error)
                connections.close_all()
                self._strays_due = 0.0
                self._stopping.wait(conf.get().poll_interval)
                continue
            if has_claimed or self._stopping.is_set():
                continue
            if self.options.burst and self._has_nothing_left():
                break
            self._wake.wait(conf.get().poll_interval)

    def _claim_round(self) -> bool:
        """Claim once; False when there is nothing to claim, or no room for it."""
        wanted = self._wanted()
        self._receiver.listening = bool(wanted)
        if not wanted:
            return False
        if monotonic() >= self._strays_due:
            self._hand_back_strays()
        self._look_around()
        if self._has_suspects:
            return self._claim_suspect()
        return self._claim_from_candidates(wanted)

    def _hand_back_strays(self) -> None:
        """Hand back what this worker holds without knowing it.

        The answer to the commit of a claim was lost, or the lease had run out before a start.
        """
        # Known before the look: what is recorded meanwhile was no stray.
        leases.hand_back_others(self.row, frozenset(self._leased))
        # Once more later: a commit whose answer was lost may still have been on its way. Beyond
        # that there is nothing to find unless something fails, and then it looks at once.
        rounds = 2 if self._strays_due else 1
        self._strays_due = monotonic() + rounds * conf.get().lease

    def _claim_from_candidates(self, wanted: Sequence[_Wanted]) -> bool:
        for _candidate in tuple(self._candidates):
            queue = self._candidates[0]
            is_full = has_claimed = False
            for kind in wanted:
                claimed = self._claim(queue, kind)
                self._start(claimed)
                is_full |= len(claimed) == kind.limit
                has_claimed |= bool(claimed)
            # Not before: a claim that met a conflict is made again.
            self._candidates.pop(0)
            if is_full or len(wanted) < self._kinds():
                # There is more, or may be of the kind that there was no room for. Its own next
                # claim begins with another queue, so that none starves.
                self._candidates.append(queue)
            if is_full:
                # Another worker shall look, too.
                hints.wake(queue)
            if has_claimed:
                return True
        return False

    def _claim(self, queue: str, kind: _Wanted) -> list[Claimed]:
        held = self._held | kind.without
        return claims.claim(self.row, queue, kind.limit, held=held, only=kind.only)

    def _claim_suspect(self) -> bool:
        """Try one task that may have killed a worker, while nothing else runs here."""
        if self._leased:
            return False
        self._has_suspects = False
        self._survey_due = 0.0
        for queue in list(self._served(surveys.survey().queues)):
            claimed = claims.claim(self.row, queue, 1, held=self._held, suspects=True)
            if claimed:
                self._start(claimed)
                while self._leased and not self._stopping.is_set():
                    self._wake.wait(0.05)
                    self._wake.clear()
                return True
        return False

    def _look_around(self) -> None:
        """Learn which queues have work: from hints at once, from the table at every poll."""
        now = monotonic()
        with self._lock:
            woken, self._woken = self._woken, set()
        if now >= self._survey_due:
            self._survey_due = now + conf.get().poll_interval
            found = surveys.survey()
            woken |= found.queues
            # What operators stop takes effect at once through a hint, without hints after this.
            self._paused, self._held = found.paused, found.held
            self._has_suspects = found.has_suspects
            unheard = self._served(found.queues) - self._hinted
            if unheard:
                self._hinted |= unheard
                self._receiver.serve(self._hinted)
            if found.has_due:
                woken |= surveys.release_due()
            if found.has_expired:
                maintenance.expire()
            if found.has_ticks:
                self._schedule.set()
        # What was paused since is no candidate any more.
        served = self._served(woken | set(self._candidates))
        self._candidates = [queue for queue in self._candidates if queue in served]
        self._candidates += sorted(served - set(self._candidates))

    def _served(self, queues: set[str] | frozenset[str]) -> set[str]:
        served = set(queues) - self._paused
        if self.options.queues:
            served &= {*self.options.queues, CONSOLE_QUEUE}
        return served

    def _wanted(self) -> list[_Wanted]:
        """How many tasks of which kind there is room for; empty: for none at all."""
        if self._quiet or self._buffer.backlog > BACKLOG:
            self._prefetch.low_water = 0
            return []
        room = self._prefetch.room(self._pool.busy, self._pool.queued)
        on_loop = registry.async_names()
        if not on_loop:
            return [_Wanted(room)] if room else []
        room_on_loop = max(0, self._async_pool.size - self._async_pool.busy)
        kinds = (_Wanted(room, without=on_loop), _Wanted(room_on_loop, only=on_loop))
        return [kind for kind in kinds if kind.limit]

    @staticmethod
    def _kinds() -> int:
        """Of how many kinds are the tasks: for the threads, and for the loop if any is async."""
        return 2 if registry.async_names() else 1

    def _has_nothing_left(self) -> bool:
        if not self._is_idle() or not self._buffer.drain(self.options.shutdown_timeout):
            return False
        if self._leased:
            # A thread has just taken it, and does not look busy yet.
            return False
        maintenance.expire()
        found = surveys.survey()
        return not self._served(found.queues) and not found.has_due

    def _is_idle(self) -> bool:
        return self._pool.is_idle and not self._async_pool.busy

    # Running

    def _start(self, claimed: Sequence[Claimed]) -> None:
        for_threads = []
        for one in claimed:
            self._leased.add((one.id, one.claim))
            if registry.is_registered(one.func_name) and registry.get(one.func_name).is_async:
                self._async_pool.submit(one)
            else:
                for_threads.append(one)
        self._pool.submit(for_threads)

    def _run_one(self, claimed: Claimed) -> None:
        if not self._may_start(claimed):
            return
        began = monotonic()
        shown = self._runs.show(claimed)
        try:
            outcome = runner.run(claimed, self._buffer, shown.start)
        except Exception as error:
            # Left alone the row would stay running for as long as this worker lives.
            logger.exception("worker fault task=%s", claimed.id)
            outcome = runner.fault(claimed, error)
        finally:
            shown.end()
        self._prefetch.saw(monotonic() - began)
        self._done(claimed, outcome)

    async def _run_one_async(self, claimed: Claimed) -> None:
        if not self._may_start(claimed):
            return
        definition = registry.get(claimed.func_name)
        shown = self._runs.show(claimed, self._async_pool.call, asyncio.current_task())
        try:
            outcome = await runner.run_async(claimed, definition, self._buffer, shown.start)
        except Exception as error:
            logger.exception("worker fault task=%s", claimed.id)
            outcome = runner.fault(claimed, error)
        finally:
            shown.end()
        self._done(claimed, outcome)

    def _done(self, claimed: Claimed, outcome: Outcome | None) -> None:
        if outcome is not None and not outcome.is_recorded:
            self._buffer.add(outcome)
        else:
            self._leased.discard((claimed.id, claimed.claim))
            if outcome is not None:
                self._buffer.count([outcome])
        self._finished += 1
        if self.options.max_tasks and self._finished >= self.options.max_tasks:
            self.stop()
        if not self._pool.queued:
            self._wake.set()

    def _may_start(self, claimed: Claimed) -> bool:
        """Not when it was cancelled meanwhile, nor when the lease has run out."""
        if monotonic() > self._membership.lease_deadline:
            logger.warning("lease ran out before start task=%s", claimed.id)
            self._leased.discard((claimed.id, claimed.claim))
            self._strays_due = 0.0
            return False
        if not self._runs.was_cancelled(claimed):
            return True
        now = claimed.now()
        self._buffer.add(
            Outcome(claimed, Status.REVOKED, now, now, cause=Cause.CANCELLED, reason="cancelled")
        )
        return False

    def _on_taken(self) -> None:
        if self._pool.queued <= self._prefetch.low_water and not self._wake.is_set():
            self._wake.set()

    def _on_recorded(self, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            claimed = outcome.claimed
            self._leased.discard((claimed.id, claimed.claim))
        self._runs.forget(outcome.claimed for outcome in outcomes)
        # Where all that was claimed has run, the next claim may have waited for this record.
        if self._has_suspects or not self._pool.queued:
            self._wake.set()

    # Hints

    def _on_wake(self, queue: str) -> None:
        with self._lock:
            self._woken.add(queue)
        self._wake.set()

    def _on_control(self, message: Mapping[str, Any]) -> None:
        verb = message.get("verb")
        if verb == "cancel":
            self._runs.cancel(Lease(UUID(str(message["task"])), int(message["claim"])))
        elif verb == "held back":
            self._survey_due = 0.0
            self._wake.set()
        elif verb == "schedule":
            self._schedule.set()
        elif verb == "worker" and message.get("worker") == self.row.pk:
            self._obey(str(message.get("asked", "")))

    def _obey(self, asked: str) -> None:
        self._quiet = asked == Ask.QUIET
        if asked == Ask.STOP:
            self.stop()
        self._wake.set()

    # Beside the loop

    def _on_beat(self, asked: str) -> None:
        if asked or self._quiet:
            self._obey(asked)
        self._look_for_cancels()
        self._share_what_does_not_start()
        self._runs.warn_of_long_transactions(conf.get().long_transaction)
        limit = self.options.max_memory
        if limit and process.memory() > limit:
            logger.warning("memory above its limit: stopping")
            self.stop()

    def _share_what_does_not_start(self) -> None:
        """Hand back what was claimed for threads that take longer than those before it did."""
        before, self._taken = self._taken, self._pool.taken
        if self._taken == before and self._pool.queued:
            self._prefetch.forget()
            self._hand_back_what_waits()

    def _hand_back_what_waits(self) -> None:
        for claimed in self._pool.withdraw():
            now = claimed.now()
            self._buffer.add(Outcome(claimed, Status.QUEUED, now, now))

    def _look_for_cancels(self) -> None:
        """Find the cancel requests whose hint was lost."""
        rows = Task.objects.using(conf.get().database).filter(
            status=Status.RUNNING, worker_id=self.row.pk, cancel_requested__isnull=False
        )
        if self._runs:
            for task_id, claim in rows.values_list("id", "claim"):
                self._runs.cancel(Lease(task_id, claim))

    def _shut_down(self) -> None:
        """Finish what runs within the time given, hand back the rest, record everything."""
        self._stopping.set()
        self._schedule.set()
        self._receiver.stop()
        self._hand_back_what_waits()
        has_ended = self._pool.stop(self.options.shutdown_timeout)
        has_ended &= self._async_pool.stop(self.options.shutdown_timeout if has_ended else 0.0)
        if not has_ended:
            logger.warning("handing back what still runs after %s s", self.options.shutdown_timeout)
        self._buffer.drain(5.0)
        self._buffer.stop(5.0)
        self._membership.leave()
