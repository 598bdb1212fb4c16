"""On which thread or loop does a claimed task run?"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextlib import suppress
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any

from asgiref.sync import sync_to_async
from django.db import close_old_connections, connections

from .database import drop_broken, keep_transactions, leave_transaction
from .outcomes import Claimed

logger = logging.getLogger("cq")

# An idle thread gives its connections back, as Django does after a request.
IDLE_SECONDS = 5.0


class ThreadPool:
    """A fixed number of threads that run claimed tasks in the order of their claims."""

    def __init__(
        self, threads: int, run: Callable[[Claimed], None], on_taken: Callable[[], None]
    ) -> None:
        self.size = threads
        self.busy = 0
        self._run = run
        self._on_taken = on_taken
        self._queue: SimpleQueue[Claimed | None] = SimpleQueue()
        self._lock = threading.Lock()
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
        return self._queue.qsize()

    @property
    def is_idle(self) -> bool:
        return not self.busy and not self.queued

    def submit(self, claimed: Iterable[Claimed]) -> None:
        for one in claimed:
            self._queue.put(one)

    def withdraw(self) -> list[Claimed]:
        """Take back what has not been started."""
        withdrawn: list[Claimed] = []
        while True:
            try:
                one = self._queue.get_nowait()
            except Empty:
                return withdrawn
            if one is not None:
                withdrawn.append(one)

    def stop(self, timeout: float) -> bool:
        """Let the threads end after what they run; False when some still run at *timeout*."""
        for _thread in self._threads:
            self._queue.put(None)
        deadline = monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, deadline - monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _work(self) -> None:
        keep_transactions()
        while True:
            try:
                claimed = self._next()
            except Empty:
                close_old_connections()
                continue
            if claimed is None:
                leave_transaction()
                break
            with self._lock:
                self.busy += 1
            self._on_taken()
            try:
                self._run(claimed)
            except Exception:
                logger.exception("worker fault task=%s", claimed.id)
            finally:
                drop_broken()
                with self._lock:
                    self.busy -= 1
        connections.close_all()

    def _next(self) -> Claimed | None:
        """The next one in the queue; raises `Empty` when none comes for some seconds."""
        try:
            return self._queue.get_nowait()
        except Empty:
            leave_transaction()
            return self._queue.get(timeout=IDLE_SECONDS)


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
