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
    if current.vendor != "postgresql" or not is_outermost or current.connection is None:
        return False
    return bool(current.connection.pgconn.transaction_status == IN_TRANSACTION)


def write_and_commit(row: Success, root_id: UUID) -> bool:
    """Record a success that changes nothing but its own row, and commit this transaction.

    False: nothing was done, and the transaction stands as before. Somebody has a say in it: the
    lease was lost, a cancel was asked for, or a parent or follower has come since the claim. What
    COMMIT raises is raised.
    """
    current = connection()
    driver: Any = current.connection
    server = driver.pgconn
    with current.wrap_database_errors:
        given = _literals(row, root_id, server)
        if prepared.is_ready(_END, driver):
            statement = _END.execution(given)
        else:
            statement = _END.with_values(given)
        # As one message: what follows an error in it is not carried out.
        answer = server.exec_(f"{_SAVEPOINT}; {prepared.NO_SCANS}{statement}; COMMIT".encode())
        if answer.command_status == b"COMMIT":
            return True
        if server.transaction_status != IN_ERROR:
            # COMMIT itself was refused, or nobody is there to tell.
            raise _error(answer)
        if prepared.sqlstate(answer) == prepared.NOT_PREPARED:
            prepared.forget(_END, driver)
        server.exec_(_BACK)
    return False


def _literals(row: Success, root_id: UUID, server: Any) -> list[str]:
    from psycopg.pq import Escaping

    result = result_text(row)
    values = (
        row.started.isoformat(),
        row.finished.isoformat(),
        result and Escaping(server).escape_literal(result.encode()).decode(),
        row.id,
        row.worker_id,
        row.claim,
        root_id,
    )
    texts = [
        "NULL" if value is None else str(value) if place == _RESULT else f"'{value}'"
        for place, value in enumerate(values)
    ]
    return [f"{text}::{type_}" for text, type_ in zip(texts, _TYPES, strict=True)]


def _error(answer: Any) -> Exception:
    import psycopg

    message = answer.error_message.decode(errors="replace") if answer.error_message else "no answer"
    state = prepared.sqlstate(answer)
    kind: type[Exception] = psycopg.OperationalError
    if state is not None:
        try:
            kind = psycopg.errors.lookup(state.decode())
        except KeyError:
            kind = psycopg.DatabaseError
    return kind(message)


_SAVEPOINT = "SAVEPOINT cq_end"
_BACK = b"ROLLBACK TO SAVEPOINT cq_end"
_TYPES = ("timestamptz", "timestamptz", "text", "uuid", "int8", "int4", "uuid")
_RESULT = 2


_END = prepared.Statement(
    "cq_end",
    _TYPES,
    f'WITH ended AS (UPDATE "{Task._meta.db_table}" SET {DONE}, started = %s,'
    f" finished = %s, result = %s::jsonb WHERE id = %s AND worker_id = %s AND claim = %s"
    f" AND {BY_ID_ALONE} AND (root_id = %s) IS TRUE AND parent_id IS NULL AND NOT has_followers"
    # An error if there is none, which keeps the COMMIT behind it from being carried out.
    f" RETURNING id) SELECT 1 / COUNT(*) FROM ended",
)
