"""How are the engine's most frequent statements prepared, and in which sessions may they be?

Planned anew each time, such a statement takes PostgreSQL about twice as long. Django prepares
nothing, because a pooler may hand the next transaction to a session that does not know the
statement; so only a session that is the connection's own gets one.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import BuiltinFunctionType
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from django.conf import settings

from .database import IDLE, IN_ERROR, IN_TRANSACTION

# What these results are called in psycopg.pq, which is not imported where it is not installed.
DONE, ROWS = 1, 2
NOT_PREPARED = b"26000"
_SQLSTATE = ord("C")
_GUARD = "cq_prepare"


class Statement(NamedTuple):
    """*sql* has its parameters as ``$1``, ``$2``, each of the type in *types*."""

    name: str
    types: tuple[str, ...]
    sql: str


@dataclass(slots=True)
class _Session:
    """What is known of one session; *is_own* is None until somebody has asked."""

    is_own: bool | None = None
    names: set[str] = field(default_factory=set)
    uses: int = 0


_sessions: WeakKeyDictionary[Any, _Session] = WeakKeyDictionary()


def is_ready(statement: Statement, driver: Any, *, after: int = 0) -> bool:
    """Is *statement* prepared in the session of *driver*, a psycopg connection? If not, do so.

    Not before it was asked for *after* times, for sessions that live for one request only. An open
    transaction stays as it is.
    """
    session = _sessions.get(driver)
    if session is None:
        session = _sessions[driver] = _Session()
    if statement.name in session.names:
        return True
    session.uses += 1
    if session.is_own is False or session.uses <= after:
        return False
    server = driver.pgconn
    guarded = server.transaction_status == IN_TRANSACTION
    if guarded:
        server.exec_(f"SAVEPOINT {_GUARD}".encode())
    session.is_own = _is_own(server) and _prepare(statement, server)
    if session.is_own:
        session.names.add(statement.name)
    if guarded and server.transaction_status == IN_ERROR:
        server.exec_(f"ROLLBACK TO SAVEPOINT {_GUARD}".encode())
    return session.is_own


def forget(statement: Statement, driver: Any) -> None:
    """Somebody has deallocated it (DISCARD ALL, say); it is prepared anew when it is next asked."""
    if driver in _sessions:
        _sessions[driver].names.discard(statement.name)


def run(statement: Statement, driver: Any, values: Sequence[bytes | None]) -> Any | None:
    """The rows of *statement*, which `is_ready`; None when it was refused and did nothing.

    Through libpq itself: what psycopg does around each query takes as long as the query.
    """
    answer = driver.pgconn.exec_prepared(statement.name.encode(), values)
    if answer.status == ROWS:
        return answer
    if sqlstate(answer) == NOT_PREPARED:
        forget(statement, driver)
    return None


def sqlstate(answer: Any) -> bytes | None:
    state: bytes | None = answer.error_field(_SQLSTATE)
    return state


def may_go_alone(current: Any) -> bool:
    """May a statement that is no part of a transaction go past Django on *current*?

    On a connection of PostgreSQL that is known to be well; not where somebody watches the queries,
    by a wrapper or by DEBUG, nor where Django would refuse one, or convert its times.
    """
    return (
        current.vendor == "postgresql"
        and not current.in_atomic_block
        and current.connection is not None
        and current.connection.pgconn.transaction_status == IDLE
        and current.connection.autocommit
        and (current.health_check_done or not current.health_check_enabled)
        and not (current.execute_wrappers or current.queries_logged)
        and settings.USE_TZ
        and _may_wait()
    )


def _may_wait() -> bool:
    """May this thread wait in C? Not where a loop or other greenlets live in it."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return isinstance(select.select, BuiltinFunctionType)
    return False


def _is_own(server: Any) -> bool:
    # A pooler answers with a process id of its own making (BackendKeyData in
    # https://www.postgresql.org/docs/current/protocol-flow.html).
    answer = server.exec_(b"SELECT pg_backend_pid()")
    return bool(answer.status == ROWS and int(answer.get_value(0, 0)) == server.backend_pid)


def _prepare(statement: Statement, server: Any) -> bool:
    answer = server.exec_(
        f"PREPARE {statement.name} ({', '.join(statement.types)}) AS {statement.sql}".encode()
    )
    return bool(answer.status == DONE)
