"""How does PostgreSQL plan the engine's most frequent statements, and how often?

Planned anew each time, such a statement takes PostgreSQL about twice as long. Django prepares
nothing, because a pooler may hand the next transaction to a session that does not know the
statement; so only a session that is the connection's own gets one.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import inf
from time import monotonic
from types import BuiltinFunctionType
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from django.conf import settings
from django.db import OperationalError, ProgrammingError

from .database import IDLE, IN_ERROR, IN_TRANSACTION, connection

# What these results are called in psycopg.pq, which is not imported where it is not installed.
DONE, ROWS = 1, 2
NOT_PREPARED = b"26000"
_SQLSTATE = ord("C")
_BINARY = 1
_GUARD = "cq_prepare"
END_SECONDS = 5.0


# A plan that is kept was perhaps made when the table was small, and reads all of it when it has
# grown; nothing makes PostgreSQL plan anew before the table is next analyzed.
PLAN_SECONDS = 2.0


class Statement(NamedTuple):
    """*sql* has a ``%s`` for each parameter, of the type that *types* gives it."""

    name: str
    types: tuple[str, ...]
    sql: str
    # For how long its plan is good; without end where there is nothing to choose.
    seconds: float = PLAN_SECONDS

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
    # Its process and since when that lives: process ids come again.
    process: tuple[int, str] | None = None
    # Until when what is prepared may be used, and when it was last asked for.
    names: dict[str, float] = field(default_factory=dict)
    asked: dict[str, float] = field(default_factory=dict)
    uses: int = 0


_sessions: WeakKeyDictionary[Any, _Session] = WeakKeyDictionary()


def _session(driver: Any) -> _Session:
    session = _sessions.get(driver)
    if session is None:
        session = _sessions[driver] = _Session()
    return session


def is_own(driver: Any) -> bool:
    """Is the session of *driver*, a psycopg connection, its own? An open transaction stays open.

    Not behind a pooler, nor where nobody may wait in C to find out.
    """
    session = _session(driver)
    if session.is_own is None and has_own_thread():
        session.is_own = _guarded(driver, lambda server: _names_its_process(server, session))
    return bool(session.is_own)


def is_ready(statement: Statement, driver: Any, *, after: int = 0) -> bool:
    """Is *statement* prepared in the session of *driver*? If it is worth that, it is prepared now.

    Not before *after* statements were asked for, for sessions that live for one request only, nor
    when it is asked for so seldom that its plan would be too old the next time.
    """
    session, now = _session(driver), monotonic()
    if now < session.names.get(statement.name, 0.0):
        return True
    before = session.asked.get(statement.name, -inf)
    session.asked[statement.name] = now
    session.uses += 1
    is_rare = statement.seconds < inf and now - before > statement.seconds
    if session.uses <= after or is_rare or not is_own(driver):
        return False
    is_prepared = _guarded(
        driver, lambda server: _prepare(statement, server, again=statement.name in session.names)
    )
    if is_prepared:
        session.names[statement.name] = now + statement.seconds
    else:
        session.is_own = False
    return is_prepared


def forget(statement: Statement, driver: Any) -> None:
    """Somebody has deallocated it (DISCARD ALL, say); it is prepared anew when it is next asked."""
    _session(driver).names.pop(statement.name, None)


def outlive(statement: Statement, driver: Any) -> None:
    """Use its plan no more, nor make another one at once."""
    session = _session(driver)
    session.asked.pop(statement.name, None)
    if statement.name in session.names:
        session.names[statement.name] = 0.0


def run(statement: Statement, driver: Any, values: Sequence[bytes | None]) -> Any | None:
    """The rows of *statement*, which `is_ready`; None when it was refused and did nothing.

    Values go there as text and come back in PostgreSQL's binary form. Through libpq itself: what
    psycopg does around each query takes as long as the query.
    """
    import psycopg

    try:
        with driver.lock:
            answer = driver.pgconn.exec_prepared(
                statement.name.encode(), values, result_format=_BINARY
            )
    except psycopg.Error:
        # The connection is gone, as whoever uses it next will hear.
        return None
    if answer.status == ROWS:
        return answer
    if sqlstate(answer) == NOT_PREPARED:
        forget(statement, driver)
    return None


def rows(statement: Statement, values: Sequence[Any]) -> list[Any]:
    """What *statement* returns, planned for these values by what the statistics say."""
    with connection().cursor() as cursor:
        cursor.execute(statement.with_values(["%s"] * len(values)), values)
        found: list[Any] = cursor.fetchall()
    return found


def rows_by_index(statement: Statement, values: Sequence[Any]) -> list[Any]:
    """What *statement* returns, read by indexes and in their order until its LIMIT.

    By statistics that are older than a backlog there is next to nothing to read, and to read and
    sort it all looks as cheap as to stop at the limit. Within somebody's transaction, whose
    statements may be better off otherwise, it is planned as they are.
    """
    current: Any = connection()
    if current.in_atomic_block or current.features.uses_server_side_binding:
        return rows(statement, values)
    with current.cursor() as cursor:
        if not _executed(statement, cursor, values, current.connection):
            marks = ["%s"] * len(values)
            cursor.execute(f"{BY_INDEX}{statement.with_values(marks)}", values)
        while cursor.nextset():
            pass
        found: list[Any] = cursor.fetchall()
    if len(found) > _FEW:
        # A batch is worth a plan of its own.
        outlive(statement, current.connection)
    return found


_FEW = 10


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


# They end with the transaction. What is planned for any LIMIT looks expensive enough to compile.
BY_INDEX = "SET LOCAL jit = off; " + "".join(
    f"SET LOCAL enable_{way} = off; " for way in ("seqscan", "sort", "hashjoin", "mergejoin")
)
_PLANNED_ONCE = "SET LOCAL plan_cache_mode = force_generic_plan; "
# Who uses a statement less often in a session does not have it prepared.
_RARE = 2


def sqlstate(answer: Any) -> bytes | None:
    state: bytes | None = answer.error_field(_SQLSTATE)
    return state


def end_session(driver: Any) -> None:
    """End the session that *driver* was connected to, before what it was last sent is judged.

    Its last message may still be under way; once this returns, it has taken effect or never will.
    Nothing happens for one whose process is not known: it was sent no such message. Raises
    `OperationalError` when it does not end within `END_SECONDS`.
    """
    session = _sessions.get(driver) if driver is not None else None
    if session is None or session.process is None:
        return
    with connection().cursor() as cursor:
        cursor.execute(_TERMINATE, [int(1000 * END_SECONDS), *session.process])
        if cursor.fetchone() == (False,):
            raise OperationalError(f"session {session.process[0]} does not end")


_TERMINATE = (
    "SELECT pg_terminate_backend(pid, %s) FROM pg_stat_activity"
    " WHERE pid = %s AND backend_start = %s"
)


def may_go_alone(current: Any) -> bool:
    """May a statement that is no part of a transaction go past Django on *current*?

    On a connection of PostgreSQL that is known to be well; not where somebody watches the queries,
    by a wrapper or by DEBUG, nor where Django would refuse one, or convert its times.
    """
    if current.vendor != "postgresql" or current.in_atomic_block or _is_on_loop():
        return False
    # Test runners put their refusals here.
    current.ensure_connection()
    if "cursor" in current.__dict__ or "connect" in current.__dict__:
        return False
    current.validate_thread_sharing()
    return bool(
        current.connection.pgconn.transaction_status == IDLE
        and is_free(current.connection)
        and current.connection.autocommit
        and (current.health_check_done or not current.health_check_enabled)
        and not (current.execute_wrappers or current.queries_logged)
        and settings.USE_TZ
        and has_own_thread()
    )


def is_free(driver: Any) -> bool:
    """Does *driver* answer statements one by one? In a pipeline it does not."""
    return bool(driver.pgconn.pipeline_status == 0)


def has_own_thread() -> bool:
    """May who runs here wait in C? Not where other greenlets live in this thread."""
    return isinstance(select.select, BuiltinFunctionType)


def _is_on_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _guarded(driver: Any, act: Callable[[Any], bool]) -> bool:
    """Let *act* send statements; what it does to an open transaction is undone when it fails."""
    import psycopg

    server = driver.pgconn
    try:
        with driver.lock:
            is_open = server.transaction_status == IN_TRANSACTION
            if is_open:
                server.exec_(f"SAVEPOINT {_GUARD}".encode())
            is_done = act(server)
            if is_open and server.transaction_status == IN_ERROR:
                server.exec_(f"ROLLBACK TO SAVEPOINT {_GUARD}".encode())
    except psycopg.Error:
        return False
    return is_done


def _prepare(statement: Statement, server: Any, *, again: bool) -> bool:
    marks = [f"${number}" for number in range(1, len(statement.types) + 1)]
    answer = server.exec_(
        f"{f'DEALLOCATE {statement.name}; ' if again else ''}"
        f"PREPARE {statement.name} ({', '.join(statement.types)})"
        f" AS {statement.with_values(marks)}".encode()
    )
    return bool(answer.status == DONE)


def _names_its_process(server: Any, session: _Session) -> bool:
    # A pooler answers with a process id of its own making (BackendKeyData in
    # https://www.postgresql.org/docs/current/protocol-flow.html).
    answer = server.exec_(
        b"SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()"
    )
    if answer.status != ROWS or not answer.ntuples:
        return False
    pid = int(answer.get_value(0, 0))
    if pid != server.backend_pid:
        return False
    session.process = (pid, answer.get_value(0, 1).decode())
    return True
