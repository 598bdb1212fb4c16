"""How does a database come to hold a million tasks, ten million log lines, and a busy day?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

FUNCTIONS = 20
QUEUES = ("default", "mail", "bulk", "reports", "media")
TREE = 10_000
DAYS = 7


@dataclass(frozen=True)
class Crowd:
    """What stands out of the crowd: the ids that pages are asked for."""

    tasks: int
    lines: int
    tree: UUID
    logged: UUID


def fill(tasks: int, lines: int) -> Crowd:
    """Insert *tasks* tasks of the last week and *lines* log lines, half of them in one log.

    Every thousandth failed, one tree has ten thousand tasks, a fifth stand in trees of ten.
    """
    from django.db import connection

    from cq.ids import uuid7

    tree, logged = uuid7(), uuid7()
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            _fill_postgresql(cursor, tasks, lines, tree, logged)
        else:
            _fill_in_python(cursor, tasks, lines, tree, logged)
    _statistics()
    return Crowd(tasks, lines, tree, logged)


_COLUMNS = (
    "id, root_id, parent_id, depth, status, func_name, queue, args, kwargs, named, priority,"
    " run_at, submitted, started, finished, fingerprint, error, attempts"
)


def _fill_postgresql(cursor: Any, tasks: int, lines: int, tree: UUID, logged: UUID) -> None:
    cursor.execute("SET synchronous_commit = off")
    made = f"now() - interval '{DAYS} days' + n * interval '{DAYS} days' / {tasks}"

    def id_of(number: str) -> str:
        moment = made.replace(" n *", f" ({number}) *")
        return (
            f"(lpad(to_hex((extract(epoch FROM {moment}) * 1000)::bigint), 12, '0')"
            f" || '70008000' || lpad(to_hex({number}), 12, '0'))::uuid"
        )

    functions = f"'shop.tasks.f' || n % {FUNCTIONS}"
    queues = "(ARRAY[" + ",".join(f"'{name}'" for name in QUEUES) + f"])[1 + n % {len(QUEUES)}]"
    failed = "n % 1000 = 7"
    # Of the last fifth every ten make a tree.
    in_tree = f"n > {tasks} * 4 / 5 AND n % 10 > 0"
    cursor.execute(
        f"INSERT INTO cq_task ({_COLUMNS}) SELECT {id_of('n')},"
        f" CASE WHEN {in_tree} THEN {id_of('n - n % 10')} ELSE {id_of('n')} END,"
        f" CASE WHEN {in_tree} THEN {id_of('n - n % 10')} END,"
        f" CASE WHEN {in_tree} THEN 1 ELSE 0 END,"
        f" CASE WHEN {failed} THEN 'F' ELSE 'S' END, {functions}, {queues}, '[]', '{{}}',"
        f" jsonb_build_object('order_id', n, 'country', 'at'), 0, {made}, {made},"
        f" {made} + interval '1 s', {made} + (n % 60) * interval '1 s',"
        f" CASE WHEN {failed} THEN 'cause' || n % 50 ELSE '' END,"
        f" CASE WHEN {failed} THEN 'ConnectionError: refused' ELSE '' END, 1"
        f" FROM generate_series(1, {tasks}) AS n"
    )
    child = (
        "(lpad(to_hex((extract(epoch FROM now()) * 1000)::bigint + n), 12, '0')"
        " || '70008001' || lpad(to_hex(n), 12, '0'))::uuid"
    )
    cursor.execute(
        f"INSERT INTO cq_task ({_COLUMNS}, open_children) SELECT"
        f" CASE WHEN n = 0 THEN '{tree}'::uuid ELSE {child} END, '{tree}'::uuid,"
        f" CASE WHEN n > 0 THEN '{tree}'::uuid END, CASE WHEN n > 0 THEN 1 ELSE 0 END,"
        f" CASE WHEN n = 0 THEN 'W' WHEN n % 100 = 7 THEN 'F' ELSE 'S' END, 'shop.tasks.part',"
        f" 'bulk', '[]', '{{}}', jsonb_build_object('part', n), 0, now() - interval '1 hour',"
        f" now() - interval '1 hour', now() - interval '1 hour',"
        f" CASE WHEN n > 0 THEN now() END, '', '', 1, CASE WHEN n = 0 THEN 1 ELSE 0 END"
        f" FROM generate_series(0, {TREE}) AS n"
    )
    cursor.execute(
        f"INSERT INTO cq_task ({_COLUMNS}) VALUES ('{logged}', '{logged}', NULL, 0, 'S',"
        f" 'shop.tasks.talk', 'bulk', '[]', '{{}}', '{{}}', 0, now(), now(), now(), now(), '',"
        f" '', 1)"
    )
    # A tenth of the lines, and all of the last tenth but one in ten, stand in one log.
    in_log = f"n % 10 = 0 OR n > {lines} * 9 / 10"
    cursor.execute(
        f"INSERT INTO cq_tasklog (root_id, task_id, created, level, message) SELECT"
        f" CASE WHEN {in_log} THEN '{logged}'::uuid ELSE {id_of(f'1 + n % {tasks}')} END,"
        f" CASE WHEN {in_log} THEN '{logged}'::uuid ELSE {id_of(f'1 + n % {tasks}')} END,"
        f" now() - ({lines} - n) * interval '1 ms', CASE WHEN n % 500 = 0 THEN 30 ELSE 20 END,"
        f" 'line ' || n || ' of what there is to say'"
        f" FROM generate_series(1, {lines}) AS n"
    )
    cursor.execute("RESET synchronous_commit")
    cursor.execute("VACUUM ANALYZE cq_task")
    cursor.execute("VACUUM ANALYZE cq_tasklog")


def _fill_in_python(cursor: Any, tasks: int, lines: int, tree: UUID, logged: UUID) -> None:
    from datetime import timedelta

    from django.utils import timezone

    from cq.ids import uuid7_many
    from cq.models import Task, TaskLog

    now = timezone.now()
    start = now - timedelta(days=DAYS)
    ids = []

    def stored(id: UUID, number: int, **fields: Any) -> Task:
        made = start + (now - start) * (number / tasks)
        ended = made + timedelta(seconds=number % 60)
        values = {
            "root_id": id,
            "status": "F" if number % 1000 == 7 else "S",
            "func_name": f"shop.tasks.f{number % FUNCTIONS}",
            "queue": QUEUES[number % len(QUEUES)],
            "named": {"order_id": number, "country": "at"},
            "fingerprint": f"cause{number % 50}" if number % 1000 == 7 else "",
        }
        return Task(
            id=id, run_at=made, submitted=made, started=made, finished=ended, attempts=1,
            **{**values, **fields},
        )  # fmt: skip

    def batch(numbers: range) -> list[Task]:
        made = []
        for number in numbers:
            moment = start + (now - start) * (number / tasks)
            id = UUID(int=(int(moment.timestamp() * 1000) << 80) + (0x7000 << 64) + number)
            ids.append(id)
            made.append(stored(id, number))
        return made

    for first in range(1, tasks + 1, 5_000):
        Task.objects.bulk_create(batch(range(first, min(first + 5_000, tasks + 1))))
    below = {"root_id": tree, "func_name": "shop.tasks.part", "queue": "bulk", "fingerprint": ""}
    Task.objects.bulk_create(
        [
            stored(tree, tasks, **below, status="W", open_children=1),
            stored(logged, tasks, func_name="shop.tasks.talk", status="S"),
        ]
    )
    Task.objects.bulk_create(
        [
            stored(id, tasks, **below, parent_id=tree, depth=1, status="F" if n % 100 == 7 else "S")
            for n, id in enumerate(uuid7_many(TREE))
        ],
        batch_size=5_000,
    )
    for first in range(0, lines, 10_000):
        TaskLog.objects.bulk_create(
            TaskLog(
                root_id=logged if n % 2 else ids[n % len(ids)],
                task_id=logged if n % 2 else ids[n % len(ids)],
                created=now - timedelta(milliseconds=lines - n),
                level=30 if n % 500 == 0 else 20,
                message=f"line {n} of what there is to say",
            )
            for n in range(first, min(first + 10_000, lines))
        )
    cursor.execute("ANALYZE")


def _statistics() -> None:
    """The minutes of two hours of four workers, and the quarters of a day, and causes."""
    from datetime import timedelta

    from django.utils import timezone

    from cq.folding import start_of
    from cq.models import FailureGroup, Statistic

    now = timezone.now()
    runs = [0, 900, 50, 20, 10, 10, 5, 5, 0, 0, 0, 0]
    spans = [(1, minutes, worker) for minutes in range(120) for worker in range(1, 5)]
    spans += [(15, 15 * quarters, 0) for quarters in range(2, 96)]
    Statistic.objects.bulk_create(
        [
            Statistic(
                bucket=start_of(now, length) - timedelta(minutes=age),
                length=length,
                queue=QUEUES[number % len(QUEUES)],
                func_name=f"shop.tasks.f{number}",
                worker=worker,
                started=1_000,
                succeeded=990,
                failed=10,
                waits=runs,
                runs=runs,
            )
            for length, age, worker in spans
            for number in range(FUNCTIONS)
        ],
        batch_size=2_000,
    )
    FailureGroup.objects.bulk_create(
        FailureGroup(
            fingerprint=f"cause{number}",
            exception="ConnectionError",
            message="refused",
            first_seen=now - timedelta(days=DAYS),
            last_seen=now - timedelta(minutes=number),
        )
        for number in range(50)
    )
