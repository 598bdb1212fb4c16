"""How is code that runs in a thread stopped from outside?"""

from __future__ import annotations

import ctypes
import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from django.db import OperationalError
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created
from django.dispatch import receiver

from .exceptions import TaskCancelled, TaskTimeout

logger = logging.getLogger("cq")

# Python raises it at the next jump back; this is many.
ARRIVAL_BYTECODES = 100

ResultT = TypeVar("ResultT")
_set_async_exc = ctypes.pythonapi.PyThreadState_SetAsyncExc


class Interrupt:
    """Raises an exception in the thread that runs a task, only while the task's own code runs.

    One is sent at most; one that comes when the function has returned is dropped.
    """

    def __init__(self) -> None:
        self.sent: type[BaseException] | None = None
        self._lock = threading.Lock()
        self._thread_id: int | None = None
        self._database: BaseDatabaseWrapper | None = None

    def call(self, function: Callable[[], ResultT], database: BaseDatabaseWrapper) -> ResultT:
        """Call *function* in this thread so that `send` can reach it."""
        thread_id = threading.get_ident()
        with self._lock:
            self._thread_id, self._database = thread_id, database
        try:
            result = function()
        except BaseException as error:
            sent = self._disarm()
            if sent is not None and not isinstance(error, (TaskCancelled, TaskTimeout)):
                # A query that was broken off, or whatever the task made of the interruption.
                raise sent from error
            raise
        self._disarm()
        return result

    def send(self, kind: type[TaskCancelled] | type[TaskTimeout]) -> bool:
        """Raise *kind* in the task's thread; False when its code does not run there any more.

        Python raises it between two bytecodes: code that waits in the database is woken through
        the driver, code that is stuck in other C code does not see it.
        """
        with self._lock:
            if self.sent is not None or self._thread_id is None:
                return False
            self.sent = kind
            _set_async_exc(ctypes.c_ulong(self._thread_id), ctypes.py_object(kind))
            # Now, while its own code runs: the next task's connection may be another one.
            session = _Session.of(self._database) if self._database is not None else None
        if session is not None:
            _break_off_query(session)
        return True

    def _disarm(self) -> type[BaseException] | None:
        """Let nothing more be raised in this thread; returns what was sent to it."""
        with self._lock:
            self._thread_id = None
        if self.sent is not None:
            _let_it_arrive()
        return self.sent


def _let_it_arrive() -> None:
    """Drop an exception that is still on its way: it must not hit the recorder, or the next task.

    It is not taken back with SetAsyncExc(NULL): that leaves the interpreter's signal up, and
    CPython 3.11 then never gets past the next call in a thread that is traced.
    """
    try:
        for _bytecode in range(ARRIVAL_BYTECODES):
            pass
    except (TaskCancelled, TaskTimeout):
        return


@dataclass(frozen=True, slots=True)
class _Session:
    """The session that *database*, another thread's connection, has at one moment."""

    database: BaseDatabaseWrapper
    driver: Any
    number: int

    @classmethod
    def of(cls, database: BaseDatabaseWrapper) -> _Session | None:
        driver = database.connection
        return None if driver is None else cls(database, driver, _numbers.get(database, 0))


def _break_off_query(session: _Session) -> None:
    """Let the server give up the statement that another thread waits for; none when it has ended.

    That thread closes the session of a task that was interrupted, so no later one is met.
    """
    database: Any = session.database
    vendor = database.vendor
    try:
        if vendor == "postgresql":
            session.driver.cancel_safe(timeout=2.0)
        elif vendor == "sqlite":
            # Closed by the one thread that may use it: the exception was quicker.
            with suppress(database.Database.ProgrammingError):
                session.driver.interrupt()
        elif vendor == "mysql":
            _kill_query(session)
    except Exception as error:  # noqa: BLE001 - each driver fails in its own way
        logger.warning("could not break off a query: %s", error)


@receiver(connection_created)
def _note_session(*, connection: BaseDatabaseWrapper, **_kwargs: Any) -> None:
    """On MariaDB the driver tells no other thread anything while it waits for a query."""
    if connection.vendor == "mysql":
        driver: Any = connection.connection
        _numbers[connection] = driver.thread_id()


_UNKNOWN_THREAD = 1094
_numbers: WeakKeyDictionary[BaseDatabaseWrapper, int] = WeakKeyDictionary()


def _kill_query(session: _Session) -> None:
    helper = session.database.copy()
    try:
        with helper.cursor() as cursor:
            cursor.execute(f"KILL QUERY {int(session.number)}")
    except OperationalError as error:
        # The exception was quicker, and the task has ended with its session.
        if error.args[:1] != (_UNKNOWN_THREAD,):
            raise
    finally:
        helper.close()
