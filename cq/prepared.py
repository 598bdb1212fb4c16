"""How does PostgreSQL plan the engine's most frequent statements, and how often?

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
from django.db import ProgrammingError

from .database import IDLE, IN_ERROR, IN_TRANSACTION, connection

# What these results are called in psycopg.pq, which is not imported where it is not installed.
DONE, ROWS = 1, 2
NOT_PREPARED = b"26000"
_SQLSTATE = ord("C")
_GUARD = "cq_prepare"


class Statement(NamedTuple):
    """*sql* has a ``%s`` for each parameter, of the type that *types* gives it."""

    name: str
    types: tuple[str, ...]
    sql: str

    def with_values(self, values: Sequence[str]) -> str:
        """The statement by itself, with SQL expressions as its values."""
        return self.sql % tuple(values)

    def execution(self, values: Sequence[str]) -> str:
        """The call of what was prepared, with the same."""
        return f"EXECUTE {self.name} ({', '.join(values)})"


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
    import psycopg

    try:
        answer = driver.pgconn.exec_prepared(statement.name.encode(), values)
    except psycopg.Error:
        # The connection is gone, as whoever uses it next will hear.
        return None
    if answer.status == ROWS:
        return answer
    if sqlstate(answer) == NOT_PREPARED:
        forget(statement, driver)
    return None


def rows_by_index(statement: Statement, values: Sequence[Any]) -> list[Any]:
    """What *statement* returns, read by indexes and in their order until its LIMIT.

    By statistics that are older than a backlog there is next to nothing to read, and to read and
    sort it all looks as cheap as to stop at the limit. Within somebody's transaction, whose
    statements may be better off otherwise, it is planned as they are.
    """
    current: Any = connection()
    is_alone = not (current.in_atomic_block or current.features.uses_server_side_binding)
    marks = ["%s"] * len(values)
    with current.cursor() as cursor:
        if not is_alone:
            cursor.execute(statement.with_values(marks), values)
        elif not _executed(statement, cursor, values, current.connection):
            cursor.execute(f"{BY_INDEX}{statement.with_values(marks)}", values)
        while is_alone and cursor.nextset():
            pass
        rows: list[Any] = cursor.fetchall()
    return rows


def _executed(statement: Statement, cursor: Any, values: Sequence[Any], driver: Any) -> bool:
    """Execute what is prepared; False when it is not, and nothing was done."""
    if not is_ready(statement, driver, after=_RARE):
        return False
    execution = statement.execution(["%s"] * len(values))
    try:
        cursor.execute(f"{BY_INDEX}{_PLANNED_ONCE}{execution}", values)
    except ProgrammingError as error:
        if getattr(error.__cause__, "sqlstate", "") != NOT_PREPARED.decode():
            raise
        forget(statement, driver)
        return False
    return True


# They end with the transaction. A plan that is kept was perhaps made while the table was empty,
# and may be followed when it has grown, until it is next analyzed.
NO_SCANS = "SET LOCAL enable_seqscan = off; "
BY_INDEX = NO_SCANS + "".join(
    f"SET LOCAL enable_{way} = off; " for way in ("sort", "hashjoin", "mergejoin")
)
_PLANNED_ONCE = "SET LOCAL plan_cache_mode = force_generic_plan; "
# Who uses a statement less often in a session does not have it prepared.
_RARE = 2


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
        f"PREPARE {statement.name} ({', '.join(statement.types)}) AS "
        f"{statement.with_values(_numbered(statement))}".encode()
    )
    return bool(answer.status == DONE)


def _numbered(statement: Statement) -> list[str]:
    return [f"${number}" for number in range(1, len(statement.types) + 1)]
