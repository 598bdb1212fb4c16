"""On which thread or loop does a claimed task run?"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextlib import suppress
from queue import Empty
from time import monotonic, process_time, sleep
from typing import Any

from asgiref.sync import sync_to_async
from django.db import close_old_connections, connections

from .database import drop_broken, keep_transactions, leave_transaction
from .outcomes import Claimed

logger = logging.getLogger("cq")

# An idle thread gives its connections back, as Django does after a request.
IDLE_SECONDS = 5.0
# Shorter than a round trip to a server; so many threads run as many of them as can be recorded.
BRIEF_SECONDS = 0.0002
FEW = 2
# Of about the last so many tasks, how many must have been brief. Where threads queue for Python's
# lock, up to a third of them are interrupted, and look long.
MEMORY, MOSTLY = 64, 0.5
# Twice as many work when for so long nobody has taken a task, or this process has computed for less
# than so much of that time: then they wait for something else than the lock. Else one fewer.
LOOK_SECONDS, BUSY = 0.005, 0.6


class ThreadPool:
    """A fixed number of threads that run claimed tasks in the order of their claims.

    All of them work, except on tasks so brief that they cannot have waited for anything: those
    keep Python's one lock busy by themselves, and more threads would only queue for it.
    """

    def __init__(
        self, threads: int, run: Callable[[Claimed], None], on_taken: Callable[[], None]
    ) -> None:
        self.size = threads
        self.busy = 0
        self._run = run
        self._on_taken = on_taken
        self._waiting: deque[Claimed] = deque()
        self._lock = threading.Lock()
        # Whoever waits for a task sits here; the last one to come is the first to be called.
        self._seats: list[_Seat] = []
        self._working = threads
        self._has_lookout = False
        # So many work on brief tasks.
        self._few = FEW
        self._is_stopping = False
        # How many have been started, ever.
        self.taken = 0
        self._brevity = _Brevity()
        self._threads = [
            threading.Thread(target=self._work, name=f"cq-task-{number}", daemon=True)
            for number in range(threads)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    @property
    def queued(self) -> int:
        """Claimed, not started."""
        return len(self._waiting)

    @property
    def is_idle(self) -> bool:
        return not self.busy and not self.queued

    def submit(self, claimed: Iterable[Claimed]) -> None:
        self._waiting.extend(claimed)
        with self._lock:
            self._call_workers()

    def withdraw(self) -> list[Claimed]:
        """Take back what has not been started."""
        withdrawn: list[Claimed] = []
        with suppress(IndexError):
            while True:
                withdrawn.append(self._waiting.popleft())
        return withdrawn

    def stop(self, timeout: float) -> bool:
        """Let the threads end after what they run; False when some still run at *timeout*."""
        with self._lock:
            self._is_stopping = True
            while self._seats:
                self._call()
        deadline = monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, deadline - monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _work(self) -> None:
        keep_transactions()
        try:
            while not self._has_ended():
                pass
        finally:
            with self._lock:
                self._working -= 1
            connections.close_all()

    def _has_ended(self) -> bool:
        """Run the next task, or wait for one; True when there will be none."""
        try:
            claimed = self._next()
        except Empty:
            close_old_connections()
            return False
        if claimed is None:
            return True
        with self._lock:
            self.busy += 1
            self.taken += 1
        self._on_taken()
        began = monotonic()
        try:
            self._run(claimed)
        except Exception:
            logger.exception("worker fault task=%s", claimed.id)
        finally:
            self._brevity.saw(monotonic() - began)
            with self._lock:
                self.busy -= 1
            drop_broken()
        return False

    def _next(self) -> Claimed | None:
        """The next one; None when the pool stops; raises `Empty` when none comes for seconds."""
        while True:
            if not self._is_surplus():
                with suppress(IndexError):
                    return self._waiting.popleft()
            leave_transaction()
            seat = _Seat()
            with self._lock:
                if self._waiting and not self._is_surplus():
                    continue
                if self._is_stopping:
                    return None
                self._working -= 1
                if self._waiting and not self._has_lookout:
                    self._has_lookout = seat.is_lookout = True
                else:
                    self._seats.append(seat)
            if not seat.is_lookout and not seat.wait(IDLE_SECONDS) and self._gets_up(seat):
                raise Empty
            if seat.is_lookout:
                self._look_out()
                with suppress(IndexError):
                    return self._waiting.popleft()

    def _is_surplus(self) -> bool:
        """Do enough others work on brief tasks, or does nobody look out for them?"""
        if self._working <= FEW or self._is_stopping or not self._brevity.is_usual:
            return False
        return not self._has_lookout or self._working > self._few

    def _gets_up(self, seat: _Seat) -> bool:
        """Wait no more; False when the call has just come."""
        with self._lock:
            if seat not in self._seats:
                return False
            self._seats.remove(seat)
            self._working += 1
            return True

    def _look_out(self) -> None:
        """Let others work; return to work when they do not get on, or when nothing is left."""
        waits = 0
        while True:
            taken, computed, began = self.taken, process_time(), monotonic()
            sleep(LOOK_SECONDS)
            has_waited = process_time() - computed < BUSY * (monotonic() - began)
            # Once may be by chance: somebody else has had the processor.
            waits = waits + 1 if has_waited else 0
            with self._lock:
                is_stuck = waits > 1 or self.taken == taken
                is_over = not self._waiting or self._is_stopping or not self._brevity.is_usual
                if is_stuck and not is_over:
                    self._few = min(self.size, 2 * max(self._working, 1))
                elif not has_waited:
                    self._few = max(FEW, self._few - 1)
                if is_stuck or is_over:
                    self._working += 1
                    self._has_lookout = False
                    self._call_workers()
                    return

    def _call_workers(self) -> None:
        """Call as many as there is work for, or few and a lookout; under the lock."""
        needed = min(self.size, self._working + len(self._waiting))
        wanted = min(needed, self._few) if self._brevity.is_usual else needed
        while self._seats and self._working < wanted:
            self._call()
        if self._seats and self._working < needed and not self._has_lookout:
            self._has_lookout = True
            self._call(is_lookout=True)

    def _call(self, *, is_lookout: bool = False) -> None:
        self._working += not is_lookout
        self._seats.pop().call(is_lookout=is_lookout)


class _Seat:
    """Where a thread waits until it is called, once."""

    def __init__(self) -> None:
        self.is_lookout = False
        self._called = threading.Lock()
        self._called.acquire()

    def wait(self, seconds: float) -> bool:
        """Was it called within so many *seconds*?"""
        return self._called.acquire(timeout=seconds)

    def call(self, *, is_lookout: bool) -> None:
        self.is_lookout = is_lookout
        self._called.release()


class _Brevity:
    """Are tasks usually brief? A few that take long by chance do not change that."""

    def __init__(self) -> None:
        self._share = 0.0

    @property
    def is_usual(self) -> bool:
        return self._share > MOSTLY

    def saw(self, seconds: float) -> None:
        self._share += ((seconds < BRIEF_SECONDS) - self._share) / MEMORY


class AsyncPool:
    """One event loop on a thread of its own, for async tasks."""

    def __init__(self, concurrency: int, run: Callable[[Claimed], Any]) -> None:
        self.size = concurrency
        self._run = run
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._work, name="cq-async", daemon=True)
        self._running: set[Future[Any]] = set()
        self._lock = threading.Lock()

    def start(self) -> None:
        self._thread.start()

    @property
    def busy(self) -> int:
        return len(self._running)

    def submit(self, claimed: Claimed) -> None:
        future = asyncio.run_coroutine_threadsafe(self._run(claimed), self._loop)
        with self._lock:
            self._running.add(future)
        future.add_done_callback(self._done)

    def call(self, function: Callable[[], object]) -> None:
        """Call *function* on the loop soon, unless it has ended."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function)

    def stop(self, timeout: float) -> bool:
        """Wait for what runs; False when something still runs at *timeout*."""
        deadline = monotonic() + timeout
        while self._running and monotonic() < deadline:
            threading.Event().wait(0.02)
        has_ended = not self._running
        if has_ended:
            # Those of the one thread on which async tasks do their queries.
            closing = asyncio.run_coroutine_threadsafe(_close_connections(), self._loop)
            # At the interpreter's end no thread can be asked any more: they end with the process.
            with suppress(TimeoutError, RuntimeError):
                closing.result(1.0)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(1.0)
        return has_ended

    def _done(self, future: Future[Any]) -> None:
        with self._lock:
            self._running.discard(future)
        if not future.cancelled() and future.exception() is not None:
            logger.error("worker fault", exc_info=future.exception())

    def _work(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        connections.close_all()
        if not self._running:
            self._loop.close()


async def _close_connections() -> None:
    await sync_to_async(connections.close_all)()
