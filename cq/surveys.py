"""What is there to do: which queues have work, whose time has come, and what is stopped?"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from . import conf
from .database import NOW, connection, is_true, locked, read_by, write_transaction
from .models import HeldFunction, Queue, RepeatingTask, Task
from .states import CLAIMABLE

_CLAIMABLE = ", ".join(f"'{status.value}'" for status in sorted(CLAIMABLE))


@dataclass(frozen=True, slots=True)
class Survey:
    """What one look at the table found to do."""

    queues: frozenset[str]
    has_suspects: bool
    has_due: bool
    # Something was not started before its time; something repeats now, or was enabled.
    has_expired: bool
    has_ticks: bool
    # What operators stopped: queues, and functions.
    paused: frozenset[str]
    held: frozenset[str]


def survey() -> Survey:
    """Which queues have a task to claim, does a suspect wait, whose time has come, what is stopped?

    One statement, whose cost is a probe of an index for each queue: an idle worker asks it again
    and again.
    """
    current = connection()
    quote = current.ops.quote_name
    ready = read_by(Task, "cq_task_for_claim")
    is_ready, is_suspect = is_true("ready"), is_true("suspect")
    from_nothing = " FROM DUAL" if current.vendor == "mysql" else ""
    now = NOW[current.vendor]
    # A loose index scan: DISTINCT would read every ready row. Ordered, not EXISTS: most rows have
    # a run_at in the past, so PostgreSQL expects to meet a due one soon and reads them all.
    with current.cursor() as cursor:
        cursor.execute(
            f"WITH RECURSIVE found(queue) AS ("
            f"SELECT (SELECT MIN(queue) FROM {ready} WHERE {is_ready})"
            f" UNION ALL SELECT (SELECT MIN(queue) FROM {ready}"
            f" WHERE {is_ready} AND queue > found.queue)"
            f" FROM found WHERE found.queue IS NOT NULL)"
            f" SELECT 'queue', queue FROM found WHERE queue IS NOT NULL"
            f" UNION ALL SELECT 'paused', name FROM {quote(Queue._meta.db_table)}"
            f" WHERE paused IS NOT NULL"
            f" UNION ALL SELECT 'held', func_name FROM {quote(HeldFunction._meta.db_table)}"
            f" UNION ALL SELECT 'suspect', ''{from_nothing} WHERE 1 ="
            f" (SELECT 1 FROM {read_by(Task, 'cq_task_suspects')} WHERE {is_ready} AND {is_suspect}"
            f" ORDER BY queue LIMIT 1)"
            f" UNION ALL SELECT 'due', ''{from_nothing} WHERE 1 = ({_due('1', 1)})"
            f" UNION ALL SELECT 'expired', ''{from_nothing} WHERE 1 = ({_expired('1', 1)})"
            f" UNION ALL SELECT 'tick', ''{from_nothing} WHERE 1 ="
            f" (SELECT 1 FROM {quote(RepeatingTask._meta.db_table)} WHERE {is_true('enabled')}"
            f" AND (next_run <= {now} OR (next_run IS NULL AND error = '')) LIMIT 1)"
        )
        found: dict[str, set[str]] = {}
        for kind, name in cursor.fetchall():
            found.setdefault(kind, set()).add(name)
    return Survey(
        queues=frozenset(found.get("queue", ())),
        has_suspects="suspect" in found,
        has_due="due" in found,
        has_expired="expired" in found,
        has_ticks="tick" in found,
        paused=frozenset(found.get("paused", ())),
        held=frozenset(found.get("held", ())),
    )


def release_due(limit: int = 500) -> set[str]:
    """Let what was scheduled for a time that has come be claimed; returns the queues it is in."""
    due = _found(_due("id", limit))
    if not due:
        return set()
    rows = Task.objects.using(conf.get().database).filter(
        pk__in=due, ready__isnull=True, status__in=sorted(CLAIMABLE)
    )
    with write_transaction(durable=True):
        found = dict(locked(rows, skip_locked=True).values_list("id", "queue"))
        Task.objects.using(conf.get().database).filter(pk__in=found).update(ready=True)
    return set(found.values())


def expired(limit: int) -> list[UUID]:
    """Up to *limit* tasks that were not started before their time."""
    return _found(_expired("id", limit))


def _due(column: str, limit: int) -> str:
    """Select *column* of what waits for nothing but the time that has come, longest due first."""
    return (
        f"SELECT {column} FROM {read_by(Task, 'cq_task_for_due')} WHERE ready IS NULL"
        f" AND status IN ({_CLAIMABLE}) AND run_at <= {NOW[connection().vendor]}"
        f" ORDER BY run_at LIMIT {limit:d}"
    )


def _expired(column: str, limit: int) -> str:
    return (
        f"SELECT {column} FROM {read_by(Task, 'cq_task_for_expiry')}"
        f" WHERE expires_at IS NOT NULL AND started IS NULL AND status IN ({_CLAIMABLE})"
        f" AND expires_at <= {NOW[connection().vendor]} ORDER BY expires_at LIMIT {limit:d}"
    )


def _found(select: str) -> list[UUID]:
    with connection().cursor() as cursor:
        cursor.execute(select)
        return [row[0] if isinstance(row[0], UUID) else UUID(row[0]) for row in cursor.fetchall()]
