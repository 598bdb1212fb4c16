"""Is the engine well? Queues, workers, ticks, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.db.models import Count, Min, Q
from django.db.models.functions import Now
from django.utils import timezone as clock

from . import conf, registry
from .models import Queue, RepeatingTask, Task, Worker
from .states import CLAIMABLE, Status

# A tick that nobody took for so long says that no scheduler runs.
TICK_LATE = timedelta(seconds=60)
NEXT_TICKS = 5


@dataclass(frozen=True, slots=True)
class QueueStatus:
    name: str
    ready: int
    running: int
    scheduled: int
    oldest: float | None  # seconds that the first ready task has waited
    is_paused: bool


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    name: str
    queues: tuple[str, ...]  # empty: every queue
    running: int
    threads: int
    heard: float  # seconds since its heartbeat
    is_late: bool
    is_scheduler: bool


@dataclass(frozen=True, slots=True)
class TickStatus:
    entry: str
    next_run: datetime
    error: str


@dataclass(frozen=True, slots=True)
class OpenTransaction:
    """An atomic task that is running: its transaction has been open for so many seconds."""

    task: UUID
    func_name: str
    seconds: float


@dataclass(frozen=True, slots=True)
class EngineStatus:
    queues: tuple[QueueStatus, ...]
    workers: tuple[WorkerStatus, ...]
    ticks: tuple[TickStatus, ...]
    oldest_transaction: OpenTransaction | None
    problems: tuple[str, ...]


def current() -> EngineStatus:
    """Look at queues, workers and repeating tasks, by the database's clock."""
    alias = conf.get().database
    now = database_now()
    queues = _queues(alias, now)
    workers = _workers(alias, now)
    entries = RepeatingTask.objects.using(alias).filter(enabled=True, next_run__isnull=False)
    ticks = tuple(
        TickStatus(str(entry), entry.next_run, entry.error)
        for entry in entries.order_by("next_run")[:NEXT_TICKS]
        if entry.next_run is not None
    )
    oldest = oldest_transaction()
    return EngineStatus(
        queues=queues,
        workers=workers,
        ticks=ticks,
        oldest_transaction=oldest,
        problems=(*_problems(queues, workers, ticks, now), *_long_transactions(oldest)),
    )


def database_now() -> datetime:
    """The database's time; this host's while no worker has ever been there to ask it by."""
    rows = Worker.objects.using(conf.get().database).order_by("-id")
    return rows.values_list(Now(), flat=True).first() or clock.now()


def oldest_transaction() -> OpenTransaction | None:
    """The atomic task that has run longest; it holds back the database's clearing up."""
    running = Task.objects.using(conf.get().database).filter(status=Status.RUNNING)
    rows = running.order_by("started", "id").values_list("pk", "func_name", "started", Now())
    for task_id, func_name, started, now in rows.iterator():
        if registry.is_registered(func_name) and registry.get(func_name).atomic and started:
            return OpenTransaction(task_id, func_name, (now - started).total_seconds())
    return None


def _long_transactions(oldest: OpenTransaction | None) -> list[str]:
    limit = conf.get().long_transaction
    if oldest is None or oldest.seconds <= limit:
        return []
    text = (
        f"Task {oldest.task} ({oldest.func_name}) is atomic and has run for "
        f"{oldest.seconds:.0f} s: its transaction keeps the database from clearing up. Declare it "
        f"atomic=False, or raise CQ_LONG_TRANSACTION ({limit:g} s)."
    )
    return [text]


def _queues(alias: str, now: datetime) -> tuple[QueueStatus, ...]:
    paused = set(
        Queue.objects.using(alias).filter(paused__isnull=False).values_list("name", flat=True)
    )
    live = Task.objects.using(alias).filter(status__in=sorted({*CLAIMABLE, Status.RUNNING}))
    rows = live.values("queue").annotate(
        ready_count=Count("id", filter=Q(ready=True)),
        running_count=Count("id", filter=Q(status=Status.RUNNING)),
        scheduled_count=Count("id", filter=Q(ready__isnull=True) & ~Q(status=Status.RUNNING)),
        oldest=Min("run_at", filter=Q(ready=True)),
    )
    found = [
        QueueStatus(
            name=row["queue"],
            ready=row["ready_count"],
            running=row["running_count"],
            scheduled=row["scheduled_count"],
            oldest=(now - row["oldest"]).total_seconds() if row["oldest"] else None,
            is_paused=row["queue"] in paused,
        )
        for row in rows.order_by("queue")
    ]
    idle = sorted(paused - {queue.name for queue in found})
    return (*found, *(QueueStatus(name, 0, 0, 0, None, is_paused=True) for name in idle))


def _workers(alias: str, now: datetime) -> tuple[WorkerStatus, ...]:
    alive = Worker.objects.using(alias).filter(stopped__isnull=True, lease_expires_at__gt=now)
    late = timedelta(seconds=2 * conf.get().heartbeat)
    return tuple(
        WorkerStatus(
            name=worker.name,
            queues=tuple(worker.queues),
            running=worker.running,
            threads=worker.threads,
            heard=(now - worker.heartbeat).total_seconds(),
            is_late=now - worker.heartbeat > late,
            is_scheduler=worker.is_scheduler,
        )
        for worker in alive.order_by("id")
    )


def _problems(
    queues: Sequence[QueueStatus],
    workers: Sequence[WorkerStatus],
    ticks: Sequence[TickStatus],
    now: datetime,
) -> list[str]:
    found = []
    for queue in queues:
        is_served = any(not worker.queues or queue.name in worker.queues for worker in workers)
        if queue.ready and not queue.is_paused and not is_served:
            found.append(
                f"Nobody serves queue {queue.name!r}, where {queue.ready} tasks wait: "
                f"manage.py cq_runworker --queues {queue.name}"
            )
    found += [
        f"Worker {worker.name} is late: {worker.heard:.0f} s"
        for worker in workers
        if worker.is_late
    ]
    late = [tick for tick in ticks if now - tick.next_run > TICK_LATE]
    if late:
        found.append(
            f"No scheduler took the tick of {late[0].entry!r} at {late[0].next_run:%H:%M:%S}: "
            "start a worker without --no-scheduler."
        )
    found += [f"Repeating task {tick.entry!r}: {tick.error}" for tick in ticks if tick.error]
    return found
