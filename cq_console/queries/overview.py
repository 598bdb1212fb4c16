"""Is it fine? What do queues, workers and repeating tasks say of themselves?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db.models import Count, Min, Q, QuerySet

from cq import registry
from cq.models import FailureGroup, HeldFunction, Queue, RepeatingTask, Task, Worker
from cq.states import CLAIMABLE, FAILED, Status

from .. import arguments, hostile, store
from . import jumps, numbers

COUNT_LIMIT = 10_000
QUEUES = 50
WORKERS = 200
RUNNING = 1_000
FUNCTIONS = 500
UNKNOWN = 5
FAILURES = 8
NEXT_RUNS = 8
# A tick is late when no scheduler took it within this time.
TICK_LATE = timedelta(seconds=60)
FAILING_SINCE = timedelta(hours=24)
# The queue of the console's own jobs is served by every worker.
CONSOLE_QUEUE = "cq.console"

Tasks = QuerySet[Task]


@dataclass(frozen=True, slots=True)
class QueueShown:
    name: str
    ready: int = 0
    running: int = 0
    scheduled: int = 0
    oldest: datetime | None = None
    paused: datetime | None = None
    paused_by: str = ""
    reason: str = ""
    finished: int = 0
    failed: int = 0
    points: tuple[tuple[int, int], ...] = ()
    is_served: bool = True
    # A worker that serves it has a free slot.
    has_idle: bool = False

    @property
    def failure_rate(self) -> float | None:
        return self.failed / self.finished if self.finished else None


@dataclass(frozen=True, slots=True)
class Running:
    """A task that a worker runs now."""

    id: UUID
    name: str
    brief: str
    started: datetime | None
    is_cancelling: bool


@dataclass(frozen=True, slots=True)
class WorkerShown:
    id: int
    name: str
    state: str
    queues: str
    threads: int
    running: int
    memory: int
    heartbeat: datetime
    started: datetime
    is_scheduler: bool
    is_embedded: bool
    asked: str
    tasks: tuple[Running, ...] = ()

    @property
    def is_alive(self) -> bool:
        return self.state in ("alive", "late")

    @property
    def is_idle(self) -> bool:
        """Has it a free slot, and may it claim?"""
        return self.state == "alive" and not self.asked and self.running < self.threads

    def serves(self, queue: str) -> bool:
        return not self.queues or queue == CONSOLE_QUEUE or queue in self.queues.split(", ")


@dataclass(frozen=True, slots=True)
class Failing:
    """A function that fails, since when, and of what at last."""

    func_name: str
    name: str
    count: int
    error: str
    last: datetime


@dataclass(frozen=True, slots=True)
class Unknown:
    """A function that is not registered here, and how many of its tasks wait."""

    func_name: str
    count: int


@dataclass(frozen=True, slots=True)
class NextRun:
    id: int
    name: str
    at: datetime | None
    error: str


def queues(
    tasks: Tasks,
    alive: Sequence[WorkerShown],
    now: datetime,
    window: numbers.Window = numbers.WINDOWS["hour"],
) -> list[QueueShown]:
    """Every queue that is known, with what waits in it and what it did in *window*."""
    found: dict[str, QueueShown] = {}

    def at(name: str) -> QueueShown:
        return found.setdefault(name, QueueShown(name))

    for name in _declared():
        at(name)
    for row in store.rows(Queue).order_by("name")[:QUEUES]:
        found[row.name] = replace(
            at(row.name),
            paused=row.paused,
            paused_by=row.paused_by,
            reason=hostile.one_line(row.reason, 200),
        )
    for name, changes in _depths(tasks).items():
        found[name] = replace(at(name), **changes)
    for name, done in numbers.done(window, now).items():
        found[name] = replace(
            at(name), finished=done.finished, failed=done.failed, points=done.points
        )
    return [
        replace(
            queue,
            is_served=any(worker.serves(queue.name) for worker in alive),
            has_idle=any(worker.is_idle for worker in alive if worker.serves(queue.name)),
        )
        for queue in sorted(found.values(), key=lambda queue: queue.name)[:QUEUES]
        if queue.name != CONSOLE_QUEUE or queue.ready or queue.running
    ]


def workers(now: datetime, heartbeat: float) -> list[WorkerShown]:
    """Workers that have not stopped, and those that were lost lately, the newest first."""
    rows = (
        store.rows(Worker)
        .filter(
            Q(stopped__isnull=True, lease_expires_at__gt=now - timedelta(days=1))
            | Q(stopped__gt=now - timedelta(minutes=10))
        )
        .order_by("-id")[:WORKERS]
    )
    return [
        WorkerShown(
            id=row.pk,
            name=row.name,
            state=_state(row, now, heartbeat),
            queues=", ".join(str(queue) for queue in row.queues or ()),
            threads=row.threads,
            running=row.running,
            memory=row.memory,
            heartbeat=row.heartbeat,
            started=row.started,
            is_scheduler=row.is_scheduler,
            is_embedded=row.is_embedded,
            asked=row.asked,
        )
        for row in rows
    ]


def with_tasks(tasks: Tasks, shown: Sequence[WorkerShown]) -> list[WorkerShown]:
    """*shown* with what each of them runs now, the longest first; only so many in all."""
    ids = [worker.id for worker in shown if worker.running or worker.is_alive]
    running = tasks.filter(status=Status.RUNNING, worker_id__in=ids).order_by("started")
    columns = ("id", "func_name", "named", "started", "cancel_requested", "worker_id")
    found: dict[int, list[Running]] = {}
    for task in running.only(*columns)[:RUNNING]:
        brief = arguments.brief(arguments.masked(task.named or {}), 60)
        name = arguments.name_of(task.func_name).short
        one = Running(task.id, name, brief, task.started, task.cancel_requested is not None)
        found.setdefault(task.worker_id or 0, []).append(one)
    return [replace(worker, tasks=tuple(found.get(worker.id, ()))) for worker in shown]


def held() -> list[HeldFunction]:
    """The functions that claims pass over."""
    return list(store.rows(HeldFunction).order_by("func_name")[:QUEUES])


def unknown_functions(tasks: Tasks) -> list[Unknown]:
    """Functions that this process does not know and that have tasks to run."""
    names = jumps.values(tasks, "func_name", FUNCTIONS)
    found = []
    for name in [name for name in names if not registry.is_registered(name)][:UNKNOWN]:
        waiting = tasks.filter(func_name=name, status__in=sorted(CLAIMABLE)).order_by()
        count = waiting.values("pk")[: COUNT_LIMIT + 1].count()
        if count:
            found.append(Unknown(name, count))
    return found


def failing(tasks: Tasks, now: datetime) -> list[Failing]:
    """The functions with tasks that have failed lately and were not healed, worst first."""
    since = now - FAILING_SINCE
    recent = tasks.filter(status__in=[Status.FAILURE, Status.LOST], finished__gt=since).order_by(
        "-finished", "-id"
    )
    rows = list(recent.values_list("func_name", "error", "finished")[:500])
    found: dict[str, Failing] = {}
    for func_name, error, finished in rows:
        if finished is None:
            continue
        known = found.get(func_name)
        if known is None:
            text = hostile.one_line(arguments.safe_text(error[:500]), 200)
            name = arguments.name_of(func_name).short
            found[func_name] = Failing(func_name, name, 1, text, finished)
        else:
            found[func_name] = replace(known, count=known.count + 1)
    return sorted(found.values(), key=lambda item: -item.count)[:FAILURES]


def last_failure(tasks: Tasks) -> datetime | None:
    """When a task last failed, of those that are kept; causes outlive their tasks."""
    kept = tasks.filter(status__in=sorted(FAILED), finished__isnull=False)
    newest = kept.order_by("-finished", "-id").values_list("finished", flat=True).first()
    seen = (
        store.rows(FailureGroup).order_by("-last_seen").values_list("last_seen", flat=True).first()
    )
    known = [moment for moment in (newest, seen) if moment is not None]
    return max(known) if known else None


def next_runs() -> list[NextRun]:
    """The repeating tasks that run next; first of all those that cannot."""
    broken = store.rows(RepeatingTask).filter(enabled=True).exclude(error="").order_by("id")
    due = (
        store.rows(RepeatingTask).filter(enabled=True, next_run__isnull=False).order_by("next_run")
    )
    rows = {row.pk: row for row in [*broken[:NEXT_RUNS], *due[:NEXT_RUNS]]}
    return [
        NextRun(row.pk, hostile.one_line(str(row), 120), row.next_run, row.error)
        for row in rows.values()
    ][:NEXT_RUNS]


def late_ticks(now: datetime) -> datetime | None:
    """The oldest tick that nobody took in time: the sign of a dead scheduler."""
    late = store.rows(RepeatingTask).filter(enabled=True, next_run__lt=now - TICK_LATE, error="")
    return late.order_by("next_run").values_list("next_run", flat=True).first()


def _declared() -> Iterable[str]:
    return {registry.get(name).options.queue for name in registry.names()}


def _depths(tasks: Tasks) -> dict[str, dict[str, Any]]:
    """Of each queue what is ready, running, scheduled; capped where there is very much."""
    open_rows = tasks.filter(status__in=sorted({*CLAIMABLE, Status.RUNNING})).order_by()
    found: dict[str, dict[str, Any]] = {}
    if open_rows.values("pk")[: COUNT_LIMIT + 1].count() > COUNT_LIMIT:
        return {name: _capped_depth(tasks, name) for name in names(tasks)}
    rows = open_rows.values_list("queue", "status", "ready").annotate(
        n=Count("id"), oldest=Min("run_at")
    )
    for name, status, ready, n, oldest in rows:
        depth = found.setdefault(name, {"ready": 0, "running": 0, "scheduled": 0, "oldest": None})
        kind = "running" if status == Status.RUNNING else "ready" if ready else "scheduled"
        depth[kind] += n
        if kind == "ready":
            depth["oldest"] = min(depth["oldest"] or oldest, oldest)
    return found


def _capped_depth(tasks: Tasks, name: str) -> dict[str, Any]:
    def count(rows: Tasks) -> int:
        return rows.order_by().values("pk")[: COUNT_LIMIT + 1].count()

    rows = tasks.filter(queue=name)
    ready = rows.filter(ready=True)
    oldest = ready.order_by("-priority", "run_at", "id").values_list("run_at", flat=True).first()
    return {
        "ready": count(ready),
        "running": count(rows.filter(status=Status.RUNNING)),
        "scheduled": count(rows.filter(ready__isnull=True, status__in=sorted(CLAIMABLE))),
        "oldest": oldest,
    }


def names(tasks: Tasks) -> list[str]:
    """The queues that hold tasks, of those that may be seen."""
    found = [str(name) for name in jumps.values(tasks, "queue", QUEUES)]
    if not tasks.query.has_filters():
        return found
    return [name for name in found if tasks.filter(queue=name).exists()]


def _state(row: Worker, now: datetime, heartbeat: float) -> str:
    if row.stopped is not None:
        return "stopped"
    if row.lease_expires_at <= now:
        return "lost"
    if row.heartbeat < now - timedelta(seconds=2 * heartbeat + 1):
        return "late"
    return "alive"
