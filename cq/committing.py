"""How does PostgreSQL record a task's success and commit its effects in one round trip?"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from . import prepared
from .database import IN_ERROR, IN_TRANSACTION, connection
from .models import Task
from .successes import BY_ID_ALONE, DONE, Success, result_text


def can_commit() -> bool:
    """Is this thread in a transaction of PostgreSQL that has begun, and ends with the task?"""
    current = connection()
    # Within another block, as in a test's, COMMIT would end that one too.
    is_outermost = current.in_atomic_block and not current.savepoint_ids
    driver: Any = current.connection
    return bool(
        current.vendor == "postgresql"
        and is_outermost
        and driver is not None
        and driver.pgconn.transaction_status == IN_TRANSACTION
        and prepared.is_free(driver)
        and prepared.has_own_thread()
    )


def write_and_commit(row: Success, root_id: UUID) -> bool:
    """Record a success that changes nothing but its own row, and commit this transaction.

    False: nothing was done, and the transaction stands as before. The session is not known to be
    this connection's own, or somebody has a say in it: the lease was lost, a cancel was asked for,
    a parent or follower has come since the claim. What COMMIT raises is raised; when its answer is
    lost, only `prepared.end_session` makes sure that nothing is under way any more.
    """
    current = connection()
    driver: Any = current.connection
    if not prepared.is_own(driver):
        return False
    is_ready = prepared.is_ready(_END, driver)
    server = driver.pgconn
    with current.wrap_database_errors, driver.lock:
        given = _literals(row, root_id, server)
        statement = _END.execution(given) if is_ready else _END.with_values(given)
        # As one message: what follows an error in it is not carried out.
        answer = server.exec_(f"{_SAVEPOINT}; {statement}; COMMIT".encode())
        if answer.command_status == b"COMMIT":
            return True
        if server.transaction_status != IN_ERROR:
            # COMMIT itself was refused, or nobody is there to tell.
            raise _error(answer, driver)
        if prepared.sqlstate(answer) == prepared.NOT_PREPARED:
            prepared.forget(_END, driver)
        server.exec_(_BACK)
    return False


def _literals(row: Success, root_id: UUID, server: Any) -> list[str]:
    from psycopg.pq import Escaping

    result = result_text(row)
    return [
        f"'{row.started.isoformat()}'",
        f"'{row.finished.isoformat()}'",
        "NULL" if result is None else Escaping(server).escape_literal(result.encode()).decode(),
        f"'{row.id}'",
        str(row.worker_id),
        str(row.claim),
        f"'{root_id}'",
    ]


def _error(answer: Any, driver: Any) -> Exception:
    from psycopg import OperationalError
    from psycopg.errors import error_from_result

    if prepared.sqlstate(answer) is None:
        return OperationalError("the server closed the connection before it answered COMMIT")
    return error_from_result(answer, encoding=driver.info.encoding)


_SAVEPOINT = "SAVEPOINT cq_end"
_BACK = b"ROLLBACK TO SAVEPOINT cq_end"
_END = prepared.Statement(
    "cq_end",
    ("timestamptz", "timestamptz", "text", "uuid", "int8", "int4", "uuid"),
    f'WITH ended AS (UPDATE "{Task._meta.db_table}" SET {DONE}, started = %s,'
    f" finished = %s, result = (%s)::jsonb WHERE id = %s AND worker_id = %s AND claim = %s"
    # Not by the index of roots either.
    f" AND {BY_ID_ALONE} AND (root_id = %s) IS TRUE AND parent_id IS NULL AND NOT has_followers"
    # An error if there is none, which keeps the COMMIT behind it from being carried out.
    f" RETURNING id) SELECT 1 / COUNT(*) FROM ended",
)
