"""How do three databases lock rows, begin to write, and report a conflict?"""

from __future__ import annotations

import os
import select
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from time import monotonic
from typing import Any, TypeVar

from django.conf import settings
from django.db import (
    DatabaseError,
    InterfaceError,
    OperationalError,
    connections,
    models,
    transaction,
)
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created
from django.dispatch import receiver

from . import conf

# The statement's own time, in SQL.
NOW = {
    "postgresql": "STATEMENT_TIMESTAMP()",
    "mysql": "CURRENT_TIMESTAMP(6)",
    "sqlite": "STRFTIME('%Y-%m-%d %H:%M:%f', 'NOW')",
}

ModelT = TypeVar("ModelT", bound=models.Model)

_CONFLICT_SQLSTATES = frozenset({"40001", "40P01", "55P03"})
_CONFLICT_MYSQL_CODES = frozenset({1205, 1213})
_CONFLICT_SQLITE_WORDS = ("database is locked", "database table is locked")


def connection() -> BaseDatabaseWrapper:
    """This thread's connection to the database that holds the tasks."""
    return connections[conf.get().database]


def leave_pools() -> bool:
    """Let every thread of this process keep a connection of its own; was there a pool to leave?

    The threads of a worker live long and work all the time: in a pool they would hold more
    connections than it has, and the next one would wait until it fails.
    """
    has_left = False
    for alias in connections:
        options = connections[alias].settings_dict.get("OPTIONS", {})
        if options.pop("pool", None):
            has_left = True
            connections[alias].close()
    return has_left


@contextmanager
def write_transaction(*, durable: bool = False) -> Iterator[BaseDatabaseWrapper]:
    """A transaction that will write.

    On SQLite it takes the write lock at once: one that read first and then writes beside another
    writer fails with "database is locked", however long it was told to wait.
    """
    current = connection()
    is_lite = current.vendor == "sqlite" and not current.in_atomic_block
    turn = _in_turn() if is_lite else nullcontext()
    with turn, immediate(current), transaction.atomic(using=current.alias, durable=durable):
        yield current


# Whose turn it is to write to SQLite, within this process. SQLite has no queue for its lock: who
# does not get it sleeps, up to 25 ms at a time, while the lock may long be free again.
_turn = threading.RLock()
# A turn is a courtesy, and nobody waits for it for ever: the hooks of a commit run within it, and
# may wait for another thread that writes.
TURN_SECONDS = 0.1


@contextmanager
def _in_turn() -> Iterator[None]:
    has_turn = _turn.acquire(timeout=TURN_SECONDS)
    try:
        yield
    finally:
        if has_turn:
            _turn.release()


@contextmanager
def immediate(current: BaseDatabaseWrapper) -> Iterator[None]:
    """Transactions begun inside take SQLite's write lock; elsewhere nothing changes."""
    if current.vendor != "sqlite" or current.in_atomic_block:
        yield
        return
    # Connecting resets the mode to that of the settings.
    current.ensure_connection()
    lite: Any = current
    mode, lite.transaction_mode = lite.transaction_mode, "IMMEDIATE"
    try:
        yield
    finally:
        lite.transaction_mode = mode


def locked(rows: models.QuerySet[ModelT], *, skip_locked: bool = False) -> models.QuerySet[ModelT]:
    """*rows*, locked until the transaction ends; nothing on SQLite, which has one write lock.

    With *skip_locked* rows that another transaction holds are left out, without waiting.
    """
    features = connections[rows.db].features
    if not features.has_select_for_update:
        return rows
    # Not the key: references to the row (a log line of an open task) need not wait.
    return rows.select_for_update(
        skip_locked=skip_locked, no_key=features.has_select_for_no_key_update
    )


def can_pipeline() -> bool:
    """Can statements be sent ahead of answers? Not where a wrapper wants to see both at once."""
    current = connection()
    if current.vendor != "postgresql" or current.execute_wrappers:
        return False
    import psycopg

    return psycopg.Pipeline.is_supported()


@contextmanager
def pipelined() -> Iterator[None]:
    """Send statements to PostgreSQL without waiting for the answers to those before.

    What is refused raises when rows are fetched, or at the end.
    """
    current = connection()
    current.ensure_connection()
    driver: Any = current.connection
    with current.wrap_database_errors, driver.pipeline():
        yield


def is_true(column: str) -> str:
    """The condition that *column* is true, in the words of the partial indexes on it.

    SQLite uses one only if it finds its condition in the query, word for word. Django up to 6.0
    names the column in it, and from then on compares it: a table has the words of the Django that
    made it.
    """
    vendor = connection().vendor
    if vendor == "sqlite":
        return f"{column} AND {column} = 1"
    # MariaDB's indexes serve no bare column.
    return f"{column} = 1" if vendor == "mysql" else column


def read_by(model: type[models.Model], index: str) -> str:
    """The table of *model* in a FROM clause, read by *index*.

    SQLite alone must be told. It does not count its rows by itself, and takes one of two statuses
    to be rarer than half of all times, however many rows wait.
    """
    current = connection()
    table = current.ops.quote_name(model._meta.db_table)
    return f"{table} INDEXED BY {index}" if current.vendor == "sqlite" else table


def update_each(
    model: type[models.Model], rows: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]
) -> int:
    """Update many rows of *model*, each with values of its own, by one prepared statement.

    Each of *rows* says which values a row must still have and which it gets, by field; all name
    the same fields. Returns how many rows were as they must be.
    """
    if not rows:
        return 0
    current = connection()
    quote = current.ops.quote_name
    meta: Any = model._meta
    expected, changes = ([meta.get_field(name) for name in names] for names in rows[0])
    sets = ", ".join(f"{quote(field.column)} = %s" for field in changes)
    where = " AND ".join(f"{quote(field.column)} = %s" for field in expected)
    with current.cursor() as cursor:
        cursor.executemany(
            f"UPDATE {quote(meta.db_table)} SET {sets} WHERE {where}",
            [
                [
                    field.get_db_prep_save(values[field.name], current)
                    for fields, values in ((changes, new), (expected, old))
                    for field in fields
                ]
                for old, new in rows
            ],
        )
        return int(cursor.rowcount)


def is_conflict(error: BaseException | None) -> bool:
    """Did the database give up one of two transactions that stood in each other's way?

    A deadlock, a serialization failure, a lock that did not come in time: the transaction left no
    trace, and running it again is right.
    """
    if not isinstance(error, DatabaseError):
        return False
    cause = error.__cause__
    if getattr(cause, "sqlstate", None) in _CONFLICT_SQLSTATES:
        return True
    if error.args and error.args[0] in _CONFLICT_MYSQL_CODES:
        return True
    return any(word in str(error) for word in _CONFLICT_SQLITE_WORDS)


def is_connection_lost(error: BaseException | None, current: BaseDatabaseWrapper) -> bool:
    """Did *error* come from a connection that is gone?"""
    if not isinstance(error, (OperationalError, InterfaceError)) or is_conflict(error):
        return False
    return current.connection is None or not current.is_usable()


def is_reachable(current: BaseDatabaseWrapper) -> bool:
    """Does the server answer now, on a connection that is opened for this if need be?"""
    try:
        with current.cursor() as cursor:
            cursor.execute("SELECT 1")
    except (DatabaseError, InterfaceError):
        current.close()
        return False
    return True


def end_with_silence(current: BaseDatabaseWrapper, seconds: float) -> None:
    """Let a query fail that a vanished server or network leaves unanswered for about *seconds*.

    The kernel asks whether the other end is there; a query that merely takes long is not touched.
    By itself it would ask after two hours, and a worker would wait as long.
    """
    if current.vendor not in ("postgresql", "mysql") or not hasattr(socket, "TCP_USER_TIMEOUT"):
        return
    with socket.socket(fileno=os.dup(_socket_of(current))) as wire:
        if wire.family not in (socket.AF_INET, socket.AF_INET6):
            return
        pause = max(1, round(seconds / 4))
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, pause)
        wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, pause)
        wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
        wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(seconds * 1000))


def drop_ended(current: BaseDatabaseWrapper) -> None:
    """Close an idle connection that the server has ended; the next query opens another.

    A server says so unasked: without a query underway nothing else waits to be read.
    """
    driver: Any = current.connection
    if current.vendor not in ("postgresql", "mysql") or driver is None or current.in_atomic_block:
        return
    is_closed = current.vendor == "postgresql" and driver.closed
    waiting = select.poll()
    if not is_closed:
        waiting.register(_socket_of(current), select.POLLIN)
    if is_closed or waiting.poll(0):
        current.close()


def drop_broken() -> None:
    """Let the next task of this thread not inherit a connection on which one met an error."""
    for current in connections.all(initialized_only=True):
        if current.errors_occurred and not current.in_atomic_block:
            current.close_if_unusable_or_obsolete()


def _socket_of(current: BaseDatabaseWrapper) -> int:
    driver: Any = current.connection
    return int(driver.pgconn.socket if current.vendor == "postgresql" else driver.fileno())


ResultT = TypeVar("ResultT")


def until_no_conflict(act: Callable[[], ResultT]) -> ResultT:
    """Run *act*, a whole transaction, again as long as it meets a conflict."""
    while True:
        try:
            return act()
        except DatabaseError as error:
            if not is_conflict(error):
                raise


def again_after_conflicts(act: Callable[[], ResultT]) -> ResultT:
    """The same for a caller who may stand in a transaction: that is then the caller's to repeat."""
    return act() if connection().in_atomic_block else until_no_conflict(act)


@receiver(connection_created)
def _speak_utc(*, connection: BaseDatabaseWrapper, **_kwargs: Any) -> None:
    """Let MariaDB's clock answer in UTC, in which Django stores times.

    Django leaves the session's time zone as the server has it, and every comparison with
    CURRENT_TIMESTAMP would be off by that.
    """
    if connection.vendor == "mysql" and settings.USE_TZ:
        with connection.cursor() as cursor:
            cursor.execute("SET time_zone = '+00:00'")


class Watch:
    """Sees whether a block of code sent a query, and whether one met a conflict.

    An execute wrapper does not see raw driver cursors; `was_used` therefore also asks PostgreSQL
    for the state of the transaction and SQLite for the number of changed rows.
    """

    def __init__(self, current: BaseDatabaseWrapper) -> None:
        self.connection = current
        self.has_queried = False
        self.conflict: BaseException | None = None
        # When the block took SQLite's write lock, by the monotonic clock; None: it did not.
        self.wrote_at: float | None = None
        self._changes = 0
        self._is_sqlite = current.vendor == "sqlite"

    def __call__(
        self, execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any
    ) -> Any:
        if not self.has_queried:
            self.has_queried = True
            _stop_tracing(self.connection)
        began = monotonic() if self._is_sqlite and self.wrote_at is None else 0.0
        try:
            result = execute(sql, params, many, context)
            if began and self._has_changed():
                self.wrote_at = began
            return result
        except DatabaseError as error:
            if is_conflict(error):
                self.conflict = error
            raise

    def __enter__(self) -> Watch:
        if self.connection.vendor == "sqlite" and self.connection.connection is not None:
            self._changes = self.connection.connection.total_changes
        self.connection.execute_wrappers.append(self)
        return self

    def __exit__(self, *_error: object) -> None:
        self.connection.execute_wrappers.pop()

    def was_used(self) -> bool:
        """Must the task's outcome commit together with what it did on this connection?"""
        driver = self.connection.connection
        if self._is_sqlite:
            # Reads alone hold a snapshot; upgrading it to a write would fail beside a writer.
            return driver is None or self._has_changed()
        if self.has_queried:
            return True
        if self.connection.vendor == "postgresql" and driver is not None:
            return bool(driver.pgconn.transaction_status != IDLE)
        return False

    def _has_changed(self) -> bool:
        driver = self.connection.connection
        return driver is not None and bool(driver.total_changes != self._changes)


# A PostgreSQL session to which no statement was sent since its transaction was declared, one that
# is within it, and one of which the server refuses everything but a rollback.
IDLE, IN_TRANSACTION, IN_ERROR = 0, 2, 3


class _Kept(threading.local):
    """What this thread keeps from one atomic task to the next."""

    is_allowed = False
    block: transaction.Atomic | None = None
    # Was a statement sent in it that no execute wrapper saw? Known of SQLite, which is traced.
    has_unseen = False

    def see(self, _statement: str) -> None:
        self.has_unseen = True


_kept = _Kept()


def keep_transactions() -> None:
    """Let this thread's `TaskTransaction` be used again as long as nothing is sent in it.

    Whoever allows it calls `leave_transaction` before anything else uses the connection, and before
    the thread waits.
    """
    _kept.is_allowed = True


def leave_transaction() -> None:
    """End the transaction that this thread has kept for its next task, if there is one."""
    block, _kept.block = _kept.block, None
    if block is None:
        return
    _stop_tracing(connection())
    try:
        block.__exit__(None, None, None)
    except (DatabaseError, InterfaceError):
        # There was nothing to lose; the next task finds out whether the server is there.
        connection().close()


class TaskTransaction:
    """`transaction.atomic()` around one task.

    Beginning and ending one costs more than an empty task. One that `is_unused` has neither
    changed nor seen anything, so the thread's next task goes on in it, where that can be told
    apart: PostgreSQL knows whether a statement was sent, and SQLite tells of each one. It does not
    tell who opens a blob by the driver, or sets a trace of his own: after such a task the next one
    may read what that one saw, but not write: SQLite refuses that on an old snapshot.
    """

    def __init__(self, current: BaseDatabaseWrapper) -> None:
        self._connection = current
        self._block: transaction.Atomic
        # Set by whoever has watched it to its end.
        self.is_unused = False

    def __enter__(self) -> TaskTransaction:
        block, _kept.block = _kept.block, None
        if block is None:
            block = transaction.atomic(using=self._connection.alias)
            block.__enter__()
            _trace(self._connection)
        self._block = block
        return self

    def __exit__(self, *error: Any) -> None:
        if error[0] is None and self.is_unused and self._can_be_kept():
            self._connection.run_on_commit.clear()
            _kept.block = self._block
        else:
            _stop_tracing(self._connection)
            self._block.__exit__(*error)

    def _can_be_kept(self) -> bool:
        current = self._connection
        return (
            _kept.is_allowed
            and not _kept.has_unseen
            and current.vendor in ("postgresql", "sqlite")
            and current.atomic_blocks == [self._block]
            # The runner's own callback is the first.
            and len(current.run_on_commit) <= 1
        )


def _trace(current: BaseDatabaseWrapper) -> None:
    """Let SQLite tell of statements that come by a raw cursor, which may have read something."""
    _kept.has_unseen = False
    if _kept.is_allowed and current.vendor == "sqlite":
        driver: Any = current.connection
        driver.set_trace_callback(_kept.see)


def _stop_tracing(current: BaseDatabaseWrapper) -> None:
    driver: Any = current.connection
    if _kept.is_allowed and current.vendor == "sqlite" and driver is not None:
        driver.set_trace_callback(None)
