"""How does a process become a worker, and how does it stay one?"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any

from django.db import DatabaseError, InterfaceError, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

from . import conf, leases, process
from .board import Board
from .database import end_with_silence, is_connection_lost
from .models import Worker

logger = logging.getLogger("cq")


class Membership:
    """One worker's row and lease.

    A process with a *board* has a supervisor, which beats for it.
    """

    def __init__(
        self,
        *,
        queues: Sequence[str],
        threads: int,
        is_embedded: bool,
        is_scheduler: bool,
        board: Board | None,
        supervisor: str,
    ) -> None:
        self.worker: Worker
        # Past this, by the monotonic clock, others may have taken its tasks back.
        self.lease_deadline = 0.0
        self._board = board
        self._describe: dict[str, Any] = {
            "queues": list(queues),
            "threads": threads,
            "is_embedded": is_embedded,
            "is_scheduler": is_scheduler,
            "supervisor": supervisor,
        }

    @property
    def is_registered(self) -> bool:
        return hasattr(self, "worker")

    def join(self, stopping: threading.Event) -> None:
        """Register, waiting for a database that is not there."""
        connection_created.connect(self._on_connection)
        while True:
            try:
                return self._register()
            except (DatabaseError, InterfaceError) as error:
                current = connections[conf.get().database]
                if not is_connection_lost(error, current) or stopping.is_set():
                    raise
                logger.warning("worker waits for the database: %s", error)
                current.close()
                stopping.wait(conf.get().poll_interval)

    def keep(
        self,
        stopping: threading.Event,
        count_running: Callable[[], int],
        on_beat: Callable[[str], None],
    ) -> None:
        """Extend the lease until told to stop; *on_beat* is told what an operator asked for."""
        while not stopping.wait(conf.get().heartbeat):
            try:
                on_beat(self._beat(count_running()))
            except (DatabaseError, InterfaceError) as error:
                logger.warning("heartbeat failed: %s", error)
                connections.close_all()
            except Exception:
                logger.exception("heartbeat fault")
        connections.close_all()

    def leave(self) -> None:
        """Say that this worker has stopped; what it still held comes back."""
        connection_created.disconnect(self._on_connection)
        try:
            leases.end(self.worker)
        except (DatabaseError, InterfaceError) as error:
            logger.warning("could not say goodbye: %s", error)

    def _register(self) -> None:
        self.worker = leases.register(**self._describe)
        if self._board is not None:
            self._board.worker_id = self.worker.pk
        self.lease_deadline = monotonic() + conf.get().lease
        # Connections opened before had no name yet.
        connections[conf.get().database].close()

    def _beat(self, running: int) -> str:
        """Extend the lease, or see that the supervisor has."""
        if self._board is not None:
            self.lease_deadline = self._board.beaten_at + conf.get().lease
            return self._board.asked
        began = monotonic()
        asked = leases.beat(self.worker.pk, running, process.memory())
        if asked is None:
            logger.error("lost its lease worker=%s id=%s", self.worker.name, self.worker.pk)
            self.lease_deadline = 0.0
            self._register()
            return ""
        self.lease_deadline = began + conf.get().lease
        return asked

    def _on_connection(self, *, connection: BaseDatabaseWrapper, **_kwargs: Any) -> None:
        if connection.alias != conf.get().database:
            return
        # Past its lease a worker may as well connect anew.
        end_with_silence(connection, conf.get().lease)
        if self.is_registered:
            # Let the sessions of this worker be ended when it is found dead.
            leases.note_session(self.worker, connection)
