"""How does a worker run inside the web server's process?"""

from __future__ import annotations

import asyncio
import atexit
import logging
import threading
from collections.abc import Awaitable, Callable
from typing import Any

from django.db import connections

from . import hints
from .database import leave_pools
from .worker import WorkerLoop, WorkerOptions

logger = logging.getLogger("cq")

Application = Callable[[Any, Any, Any], Awaitable[None]]

RESTART_PAUSE = 5.0
EXIT_PATIENCE = 2.0


def with_worker(application: Application, **options: Any) -> Application:
    """Return *application* with a worker beside it, in the same process.

    The worker starts now and stops with the process; *options* are those of `WorkerOptions`. Use
    it with one server process: SQLite has one writer, and each process would have a worker.
    """
    embedded = _Embedded(WorkerOptions(embedded=True, **options))
    embedded.start()
    is_on_loop = False

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        nonlocal is_on_loop
        if not is_on_loop:
            is_on_loop = True
            # The in-memory layer lives on one loop: that of the server and its websockets.
            hints.use_loop(asyncio.get_running_loop())
            embedded.listen_anew()
        await application(scope, receive, send)

    return serve


class _Embedded:
    """A worker on a thread, started again when it fails: the site goes on without it meanwhile."""

    def __init__(self, options: WorkerOptions) -> None:
        self._options = options
        self._worker = WorkerLoop(options)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cq-worker", daemon=True)

    def start(self) -> None:
        if leave_pools():
            logger.warning(
                "the embedded worker has taken this process out of its psycopg pool, which its "
                "threads would exhaust: run manage.py cq_runworker beside the server instead"
            )
        self._thread.start()
        atexit.register(self._stop)

    def listen_anew(self) -> None:
        self._worker.listen_anew()

    def _run(self) -> None:
        while True:
            try:
                return self._worker.run()
            except Exception:
                logger.exception("the embedded worker failed; another one starts in a moment")
                connections.close_all()
            if self._stopping.wait(RESTART_PAUSE):
                return None
            self._worker = WorkerLoop(self._options)

    def _stop(self) -> None:
        self._stopping.set()
        self._worker.stop()
        self._thread.join(EXIT_PATIENCE)
