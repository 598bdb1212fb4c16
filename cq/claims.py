"""Which due tasks does a worker lease next?"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import md5
from time import monotonic
from typing import Any
from uuid import UUID

from django.db import DatabaseError, DataError
from django.db.models.functions import Now

from . import conf, prepared
from .database import NOW, connection, is_true, locked, read_by, write_transaction
from .ids import from_hex
from .models import Task, Worker
from .outcomes import Claimed
from .states import Cause, Status

# What a claim returns of each task on every database; the times are told apart from these.
_RETURNED = (
    "id",
    "func_name",
    "args",
    "kwargs",
    "attempts",
    "attempts_before",
    "claim",
    "parent_id",
    "previous_id",
    "root_id",
    "depth",
    "retries",
    "timeout",
    "suspect",
    "has_followers",
)
# What it sets; the time of the start follows.
_LEASE = (
    f"status = '{Status.RUNNING.value}', ready = NULL, coalesce_key = NULL, worker_id = %s,"
    f" claim = claim + 1, attempts = attempts + 1, returned = false, ends_as = '',"
    f" adopted_id = NULL, open_children = 0, started = "
)


def claim(
    worker: Worker,
    queue: str,
    limit: int,
    *,
    held: Collection[str] = (),
    only: Collection[str] = (),
    suspects: bool = False,
) -> list[Claimed]:
    """Lease up to *limit* due tasks of *queue* to *worker*, most urgent first.

    Two workers never get the same task: rows that another claim has locked are skipped. What has
    expired is revoked instead. *held* functions are passed over; with *only*, all but those are. A
    suspect, a task that may have killed a worker, is leased only with *suspects*, and then alone.
    """
    wanted = _Wanted(queue, 1 if suspects else limit, tuple(held), tuple(only), suspects)
    if connection().vendor == "postgresql":
        return _lease_at_once(worker, wanted)
    if connection().vendor == "sqlite":
        return _lease_under_the_write_lock(worker, wanted)
    return _lease_in_steps(worker, wanted)


@dataclass(frozen=True, slots=True)
class _Wanted:
    queue: str
    limit: int
    held: tuple[str, ...]
    only: tuple[str, ...]
    suspects: bool


def _lease_at_once(worker: Worker, wanted: _Wanted) -> list[Claimed]:
    """One statement and one round trip, however many tasks; PostgreSQL alone can."""
    condition, parameters = _condition(wanted)
    statement = _claim_at_once(condition)
    # A suspect or a rare function has an index of its own, and few rows to sort.
    ask = prepared.rows if wanted.suspects or wanted.only else prepared.rows_by_index
    found = ask(statement, [*parameters, wanted.limit, worker.pk])
    leased = monotonic()
    expired = [row[3] for row in found if row[0] is None]
    if expired:
        with write_transaction(durable=True):
            _expire(expired)
    # An UPDATE keeps no order. Numbers, not times: a time is parsed ten times as slowly.
    due = sorted((-row[0], row[1], row[3], row) for row in found if row[0] is not None)
    return [
        Claimed(
            id=task_id,
            func_name=row[4],
            args=_decode(row[5])[0],
            kwargs=_decode(row[6])[0],
            queue=wanted.queue,
            attempt=row[7],
            attempts_before=row[8],
            claim=row[9],
            worker_id=worker.pk,
            worker_name=worker.name,
            parent_id=row[10],
            previous_id=row[11],
            root_id=row[12],
            depth=row[13],
            retries=row[14],
            timeout=row[15],
            suspect=row[16],
            has_followers=row[17],
            run_at=datetime.fromtimestamp(run_at, UTC),
            leased_at=datetime.fromtimestamp(row[2], UTC),
            leased_monotonic=leased,
        )
        for _priority, run_at, task_id, row in due
    ]


@lru_cache(16)
def _claim_at_once(condition: str) -> prepared.Statement:
    table = connection().ops.quote_name(Task._meta.db_table)
    return prepared.Statement(
        # A name for each condition: which functions are held or excepted is part of it.
        f"cq_claim_{md5(condition.encode(), usedforsecurity=False).hexdigest()[:12]}",
        (*["text"] * condition.count("%s"), "int8", "int8"),
        f"WITH due AS MATERIALIZED (SELECT id, priority, expires_at IS NOT NULL"
        f" AND started IS NULL AND expires_at <= STATEMENT_TIMESTAMP() AS has_expired"
        f" FROM {table} WHERE {condition} AND run_at <= STATEMENT_TIMESTAMP()"
        f" ORDER BY priority DESC, run_at, id LIMIT %s FOR NO KEY UPDATE SKIP LOCKED),"
        f" leased AS (UPDATE {table} AS t SET {_LEASE}STATEMENT_TIMESTAMP() FROM due"
        f" WHERE t.id = due.id AND NOT due.has_expired"
        f" RETURNING due.priority, EXTRACT(EPOCH FROM t.run_at)::float8,"
        f" EXTRACT(EPOCH FROM t.started)::float8,"
        f" {', '.join(f't.{name}' for name in _RETURNED)})"
        # Not joined with what is due: the planner, who takes both for few, would compare each
        # row with each.
        f" SELECT * FROM leased UNION ALL SELECT NULL, NULL, NULL, id{_NOTHING_ELSE}"
        f" FROM due WHERE has_expired",
    )


# Without a look for what stands around it: the server wrote it.
_decode = json.JSONDecoder().raw_decode
_NOTHING_ELSE = ", NULL" * (len(_RETURNED) - 1)


def _condition(wanted: _Wanted) -> tuple[str, list[Any]]:
    """Which rows are ready for *wanted*, and its parameters; not yet whether they are due."""
    is_suspect = is_true("suspect") if wanted.suspects else "NOT suspect"
    condition = f"{is_true('ready')} AND {is_suspect} AND queue = %s"
    parameters: list[Any] = [wanted.queue]
    for names, operator in ((wanted.held, "NOT IN"), (wanted.only, "IN")):
        if names:
            condition += f" AND func_name {operator} ({', '.join(['%s'] * len(names))})"
            parameters += names
    return condition, parameters


def _lease_under_the_write_lock(worker: Worker, wanted: _Wanted) -> list[Claimed]:
    """All rows as one text: the driver lets go of Python's lock before each row that it fetches,
    and waits for it behind all running tasks."""
    try:
        found = _lease_and_expire(worker, wanted)
    except DataError:
        # More than a text can hold.
        half = wanted.limit // 2
        if not half:
            raise
        first = _lease_under_the_write_lock(worker, replace(wanted, limit=half))
        if len(first) < half:
            return first
        try:
            rest = _lease_under_the_write_lock(worker, replace(wanted, limit=wanted.limit - half))
        except DatabaseError:
            # Those are leased; the next claim meets it again.
            rest = []
        return first + rest
    if not found:
        return []
    leased = monotonic()
    leased_at = datetime.fromisoformat(found[0][-1]).replace(tzinfo=UTC)
    return [
        Claimed(
            id=(task_id := from_hex(row[2])),
            func_name=row[3],
            args=row[4],
            kwargs=row[5],
            queue=wanted.queue,
            attempt=row[6] + 1,
            attempts_before=row[7],
            claim=row[8] + 1,
            worker_id=worker.pk,
            worker_name=worker.name,
            parent_id=row[9] and from_hex(row[9]),
            previous_id=row[10] and from_hex(row[10]),
            root_id=task_id if row[11] == row[2] else from_hex(row[11]),
            depth=row[12],
            retries=row[13],
            timeout=row[14],
            suspect=bool(row[15]),
            has_followers=bool(row[16]),
            run_at=datetime.fromisoformat(row[1]).replace(tzinfo=UTC),
            leased_at=leased_at,
            leased_monotonic=leased,
        )
        for row in found
    ]


# Beside parameters a percent sign stands for itself only when it is doubled.
_NOW_LITE = NOW["sqlite"].replace("%", "%%")


def _lease_and_expire(worker: Worker, wanted: _Wanted) -> list[Any]:
    condition, parameters = _condition(wanted)
    with write_transaction(durable=True) as current, current.cursor() as cursor:
        table = current.ops.quote_name(Task._meta.db_table)
        found = _due_rows(cursor, condition, [*parameters, wanted.limit])
        if found:
            cursor.execute(
                f"UPDATE {table} SET {_LEASE}%s WHERE id IN (SELECT value FROM json_each(%s))",
                [worker.pk, found[0][-1], json.dumps([row[2] for row in found])],
            )
        # What is leased by now does not expire any more, however long that took.
        if len(found) < wanted.limit:
            cursor.execute(
                f"SELECT id FROM {table} WHERE {condition} AND run_at <= {_NOW_LITE}"
                f" AND started IS NULL AND expires_at <= {_NOW_LITE} LIMIT %s",
                [*parameters, wanted.limit],
            )
            expired = [from_hex(row[0]) for row in cursor.fetchall()]
            if expired:
                _expire(expired)
    return found


def _due_rows(cursor: Any, condition: str, parameters: list[Any]) -> list[Any]:
    returned = ", ".join(f"json({n})" if n in ("args", "kwargs") else n for n in _RETURNED)
    cursor.execute(
        f"SELECT json_group_array(json_array(-priority, run_at, {returned}, {_NOW_LITE}))"
        f" FROM (SELECT priority, run_at, {', '.join(_RETURNED)}"
        f" FROM {read_by(Task, 'cq_task_for_claim')}"
        f" WHERE {condition} AND run_at <= {_NOW_LITE}"
        f" AND (expires_at IS NULL OR started IS NOT NULL OR expires_at > {_NOW_LITE})"
        f" ORDER BY priority DESC, run_at, id LIMIT %s)",
        parameters,
    )
    return sorted(json.loads(cursor.fetchone()[0]))


def _lease_in_steps(worker: Worker, wanted: _Wanted) -> list[Claimed]:
    rows = Task.objects.using(conf.get().database)
    due = rows.filter(ready=True, queue=wanted.queue, run_at__lte=Now(), suspect=wanted.suspects)
    if wanted.held:
        due = due.exclude(func_name__in=wanted.held)
    if wanted.only:
        due = due.filter(func_name__in=wanted.only)
    due = due.order_by("-priority", "run_at", "id")
    with write_transaction(durable=True):
        found = list(
            locked(due, skip_locked=True).values_list(*_RETURNED, *_TIMES, Now())[: wanted.limit]
        )
        if not found:
            return []
        now: datetime = found[0][-1]
        expired = [row[0] for row in found if _has_expired(row, now)]
        if expired:
            _expire(expired)
            gone = set(expired)
            found = [row for row in found if row[0] not in gone]
        _lease(worker, [row[0] for row in found])
    leased = monotonic()
    return [
        Claimed(
            id=row[0],
            func_name=row[1],
            args=row[2],
            kwargs=row[3],
            queue=wanted.queue,
            attempt=row[4] + 1,
            attempts_before=row[5],
            claim=row[6] + 1,
            worker_id=worker.pk,
            worker_name=worker.name,
            parent_id=row[7],
            previous_id=row[8],
            root_id=row[9],
            depth=row[10],
            retries=row[11],
            timeout=row[12],
            suspect=row[13],
            has_followers=row[14],
            run_at=row[15],
            leased_at=now,
            leased_monotonic=leased,
        )
        for row in found
    ]


_TIMES = ("run_at", "expires_at", "started")


def _lease(worker: Worker, task_ids: Sequence[UUID]) -> None:
    current = connection()
    key: Any = Task._meta.pk
    ids = [key.get_db_prep_value(task_id, current) for task_id in task_ids]
    if not ids:
        return
    with current.cursor() as cursor:
        cursor.execute(
            f"UPDATE {current.ops.quote_name(Task._meta.db_table)}"
            f" SET {_LEASE}{NOW[current.vendor]} WHERE id IN ({', '.join(['%s'] * len(ids))})",
            [worker.pk, *ids],
        )


def _has_expired(row: Sequence[object], now: datetime) -> bool:
    expires_at, started = row[16], row[17]
    return isinstance(expires_at, datetime) and started is None and expires_at <= now


def _expire(task_ids: Collection[UUID]) -> None:
    from . import workflow

    workflow.revoke(task_ids, Cause.EXPIRED, "expired before it was started")
