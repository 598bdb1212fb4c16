"""How do the successes of many tasks reach each database in one statement?

Most tasks succeed and change nothing but their own row. The ORM would send a statement for each;
here all are fenced and written by one, and it says who waits for them.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from django.core.serializers.json import DjangoJSONEncoder
from django.db.backends.base.base import BaseDatabaseWrapper

from .database import connection
from .ids import from_hex
from .jsontext import writer
from .models import Task
from .states import Status


class Success(NamedTuple):
    """What is stored of a task that succeeded, and the lease under which it ran."""

    id: UUID
    worker_id: int
    claim: int
    started: datetime
    finished: datetime
    result: Any


class Written(NamedTuple):
    """Where a task that was written stands."""

    id: UUID
    root_id: UUID
    parent_id: UUID | None
    parent_claim: int
    has_followers: bool


def write(rows: Sequence[Success], *, skip_locked: bool) -> list[Written]:
    """Lock and end those that nothing stands in the way of, deepest first; returns these.

    Left out is who has lost its lease, is to be cancelled, or has open children; with
    *skip_locked* also who is locked. Call it in a transaction.
    """
    current = connection()
    table = current.ops.quote_name(Task._meta.db_table)
    if current.vendor == "postgresql" and len(rows) == 1 and not skip_locked:
        return _write_one(rows[0], current, table)
    if current.vendor == "postgresql":
        return _write_at_once(rows, current, table, skip_locked=skip_locked)
    if current.vendor == "sqlite":
        return _write_under_the_write_lock(rows, current, table)
    return _write_in_steps(rows, current, table, skip_locked=skip_locked)


def _write_in_steps(
    rows: Sequence[Success], current: BaseDatabaseWrapper, table: str, *, skip_locked: bool
) -> list[Written]:
    ids: dict[Any, Success] = {_stored_id(row.id, current): row for row in rows}
    lock = f" FOR UPDATE{' SKIP LOCKED' if skip_locked else ''}"
    with current.cursor() as cursor:
        cursor.execute(
            f"SELECT id, claim, worker_id, root_id, parent_id, parent_claim, has_followers"
            f" FROM {table} WHERE id IN ({', '.join(['%s'] * len(ids))}) AND {_UNDISTURBED}"
            f" ORDER BY depth DESC, id{lock}",
            list(ids),
        )
        found = [
            row
            for row in cursor.fetchall()
            if (ids[row[0]].claim, ids[row[0]].worker_id) == row[1:3]
        ]
        cursor.executemany(
            f"UPDATE {table} SET {DONE}, started = %s, finished = %s, result = %s WHERE id = %s",
            [
                (
                    current.ops.adapt_datetimefield_value(ids[row[0]].started),
                    current.ops.adapt_datetimefield_value(ids[row[0]].finished),
                    result_text(ids[row[0]]),
                    row[0],
                )
                for row in found
            ],
        )
    return [
        Written(ids[row[0]].id, _uuid(row[3]), row[4] and _uuid(row[4]), row[5], bool(row[6]))
        for row in found
    ]


def _write_under_the_write_lock(
    rows: Sequence[Success], current: BaseDatabaseWrapper, table: str
) -> list[Written]:
    # All as one text, there and back: a statement for each row takes six times as long, and before
    # each row that it fetches the driver lets go of Python's lock.
    own = {row.id.hex: row for row in rows}
    fenced = [(digits, row.worker_id, row.claim) for digits, row in own.items()]
    columns = ", ".join(f"t.{name}" for name in Written._fields)
    with current.cursor() as cursor:
        cursor.execute(
            f"SELECT json_group_array(json_array({columns}))"
            f" FROM json_each(%s) AS given CROSS JOIN {table} AS t"
            # A plus keeps a column out of the planner's indexes: the id alone shall find the row,
            # or each running task is compared with each value given.
            f" WHERE t.id = {_given(0)} AND +t.worker_id = {_given(1)} AND t.claim = {_given(2)}"
            f" AND +t.{_UNDISTURBED}",
            [json.dumps(fenced)],
        )
        found = json.loads(cursor.fetchone()[0])
        ended = [
            (
                digits,
                _time_text(own[digits].started, current),
                _time_text(own[digits].finished, current),
                result_text(own[digits]),
            )
            for digits, *_place in found
        ]
        cursor.execute(
            f"UPDATE {table} AS t SET {DONE}, started = {_given(1)}, finished = {_given(2)},"
            # json_each has columns of its own, an id among them.
            f" result = {_given(3)} FROM (SELECT value FROM json_each(%s)) AS given"
            f" WHERE t.id = {_given(0)}",
            [json.dumps(ended)],
        )
    return [
        Written(
            own_id := own[digits].id,
            own_id if root == digits else from_hex(root),
            parent and from_hex(parent),
            parent_claim,
            bool(has_followers),
        )
        for digits, root, parent, parent_claim, has_followers in found
    ]


def _time_text(value: datetime, current: BaseDatabaseWrapper) -> str:
    """As Django stores it on SQLite, without asking each time what kind of time it is."""
    return value.astimezone(current.timezone).replace(tzinfo=None).isoformat(" ")


def _given(place: int) -> str:
    """What stands at *place* of each row that SQLite is given as JSON."""
    return f"json_extract(given.value, '$[{place}]')"


def _write_one(row: Success, current: BaseDatabaseWrapper, table: str) -> list[Written]:
    # Planned by itself it takes a sixth of the time of the bulk form.
    import psycopg

    driver: Any = current.connection
    with current.wrap_database_errors, psycopg.Cursor(driver) as cursor:
        cursor.execute(
            f"UPDATE {table} SET {DONE}, started = %s, finished = %s, result = %s::jsonb"
            f" WHERE id = %s AND worker_id = %s::int8 AND claim = %s::int4 AND {BY_ID_ALONE}"
            f" RETURNING {', '.join(Written._fields)}",
            [row.started, row.finished, result_text(row), row.id, row.worker_id, row.claim],
        )
        return [Written._make(written) for written in cursor.fetchall()]


def _write_at_once(
    rows: Sequence[Success], current: BaseDatabaseWrapper, table: str, *, skip_locked: bool
) -> list[Written]:
    # One JSON text: arrays would be dumped element by element. Their results are texts within it,
    # so that what the server makes of them is what it makes of a parameter.
    ids = [str(row.id) for row in rows]
    given = json.dumps(
        [
            {
                "id": own_id,
                "worker_id": row.worker_id,
                "claim": row.claim,
                "started": row.started.isoformat(),
                "finished": row.finished.isoformat(),
                "result": result_text(row),
            }
            for own_id, row in zip(ids, rows, strict=True)
        ]
    )
    with current.cursor() as cursor:
        cursor.execute(
            f"WITH given AS MATERIALIZED (SELECT * FROM json_to_recordset(%s) AS"
            f" g(id uuid, worker_id int8, claim int4, started timestamptz, finished timestamptz,"
            f" result text)),"
            # By an array: its length is known to the planner, that of a record set is not.
            f" mine AS MATERIALIZED (SELECT id FROM {table}"
            f" WHERE id = ANY(%s::uuid[]) AND {BY_ID_ALONE} ORDER BY depth DESC, id"
            f" FOR NO KEY UPDATE{' SKIP LOCKED' if skip_locked else ''})"
            f" UPDATE {table} AS t SET {DONE}, started = given.started,"
            f" finished = given.finished, result = given.result::jsonb"
            f" FROM mine JOIN given USING (id) WHERE t.id = mine.id"
            f" AND t.worker_id = given.worker_id AND t.claim = given.claim"
            f" RETURNING {', '.join(f't.{name}' for name in Written._fields)}",
            [given, f"{{{','.join(ids)}}}"],
        )
        return [Written._make(row) for row in cursor.fetchall()]


_UNDISTURBED = (
    f"status = '{Status.RUNNING.value}' AND open_children = 0 AND cancel_requested IS NULL"
)
# The same, so worded that PostgreSQL can find the row by its id only. It takes running tasks to be
# few, and would read them all by their own index, with every version that has not been vacuumed.
BY_ID_ALONE = _UNDISTURBED.replace("status", "status || ''")
DONE = (
    f"status = '{Status.SUCCESS.value}', ends_as = '{Status.SUCCESS.value}', returned = true,"
    f" error = '', fingerprint = '', cause = '', reason = '', suspect = false"
)


def have_followers(task_ids: Collection[UUID]) -> bool:
    """Does anything wait behind one of *task_ids*? Much cheaper than to fetch nothing."""
    current = connection()
    table = current.ops.quote_name(Task._meta.db_table)
    is_postgresql = current.vendor == "postgresql"
    ids = [_stored_id(task_id, current) for task_id in task_ids]
    condition = "= ANY(%s)" if is_postgresql else f"IN ({', '.join(['%s'] * len(ids))})"
    with current.cursor() as cursor:
        cursor.execute(
            f"SELECT 1 FROM {table} WHERE previous_id {condition}"
            f" AND status = '{Status.PENDING.value}' LIMIT 1",
            [ids] if is_postgresql else ids,
        )
        return cursor.fetchone() is not None


def count_off(parent_id: UUID, claim: int, number: int) -> bool:
    """Count *number* ended children off a claim of a parent that has more; False: nothing done."""
    current = connection()
    with current.cursor() as cursor:
        cursor.execute(
            f"UPDATE {current.ops.quote_name(Task._meta.db_table)}"
            f" SET open_children = open_children - %s"
            f" WHERE id = %s AND claim = %s AND open_children > %s",
            [number, _stored_id(parent_id, current), claim, number],
        )
        return bool(cursor.rowcount == 1)


def _stored_id(task_id: UUID, current: BaseDatabaseWrapper) -> Any:
    """*task_id* as this database's driver takes and returns it."""
    if current.vendor == "postgresql":
        return task_id
    return str(task_id) if current.features.has_native_uuid_field else task_id.hex


def _uuid(value: Any) -> UUID:
    return value if isinstance(value, UUID) else UUID(value)


def result_text(row: Success) -> str | None:
    return None if row.result is None else _to_json(row.result)


_to_json = writer(DjangoJSONEncoder())
