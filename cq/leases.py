"""How does a worker show that it lives, and how is a dead one's work taken back?"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import timedelta
from time import monotonic
from typing import Any
from uuid import UUID
from weakref import WeakKeyDictionary

from django.db import OperationalError
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Q
from django.db.models.functions import Now

from . import conf, process, workflow
from .database import connection, locked, write_transaction
from .models import Attempt, Task, Worker
from .states import Cause, Status
from .vigil import Vigil

logger = logging.getLogger("cq")

# Rows of workers that have ended stay for the console, as long as statistics of quarter hours.
KEEP_WORKERS = timedelta(days=8)
BATCH = 500
# What killed a worker alone waits before it is tried again, each time longer. A storm that kills
# whatever runs would else meet the same innocent in each process that comes up, until it is lost.
FIRST_PAUSE, LONGEST_PAUSE = timedelta(seconds=2), timedelta(seconds=60)


def register(
    *,
    queues: list[str],
    threads: int,
    is_embedded: bool,
    is_scheduler: bool,
    supervisor: str = "",
) -> Worker:
    """Store this process as a worker that lives for one lease from now."""
    worker = Worker(
        **asdict(process.own()),
        queues=queues,
        threads=threads,
        is_embedded=is_embedded,
        is_scheduler=is_scheduler,
        supervisor=supervisor,
        memory=process.memory(),
        lease_expires_at=Now() + _lease(),
    )
    worker.save(force_insert=True, using=conf.get().database)
    logger.info("registered worker=%s id=%s", worker.name, worker.pk)
    return worker


def beat(worker_id: int, running: int, memory: int) -> str | None:
    """Extend the lease; returns what an operator asked for, None when the lease was lost."""
    rows = Worker.objects.using(conf.get().database).filter(pk=worker_id, stopped__isnull=True)
    beaten = {
        "heartbeat": Now(),
        "lease_expires_at": Now() + _lease(),
        "running": running,
        "memory": memory,
    }
    if rows.filter(asked="").update(**beaten):
        return ""
    if not rows.update(**beaten):
        return None
    return rows.values_list("asked", flat=True).first()


def end(worker: Worker) -> None:
    """Say that this worker has stopped; what it still held comes back."""
    _bury(worker, running=())


def bury(worker_id: int, running: Collection[UUID]) -> None:
    """Take back what a dead process held; *running* is what it was running when it died.

    Those come back as suspects, each to be tried alone; the others as if never claimed.
    """
    worker = Worker.objects.using(conf.get().database).filter(pk=worker_id).first()
    if worker is None:
        return
    if worker.stopped is None:
        logger.warning("buried worker=%s id=%s running=%s", worker.name, worker.pk, len(running))
        _end_sessions(worker)
    # One that has said goodbye may have claimed before it knew that it was taken for dead.
    _bury(worker, running=running)


def hand_back_others(worker: Worker, known: Collection[tuple[UUID, int]]) -> int:
    """Queue again what *worker* holds beside the claims that it knows of; returns how many."""
    held = Task.objects.using(conf.get().database).filter(
        status=Status.RUNNING, worker_id=worker.pk
    )
    strays = [row[0] for row in held.values_list("id", "claim") if row not in known]
    if strays:
        logger.warning("handing back unknown claims worker=%s: %s", worker.name, len(strays))
        _take_back(worker, running=(), only=strays)
    return len(strays)


def rescue(vigil: Vigil | None = None) -> int:
    """Take back what dead workers held; returns how many of them there were.

    A worker is dead when its process is gone from this host, or its lease has run out: by the
    database's clock, and, for who looks again and again with the same *vigil*, by its silence too.
    On SQLite, where everything shares a host, only the former counts.
    """
    began = monotonic()
    running = Task.objects.using(conf.get().database).filter(status=Status.RUNNING)
    workers = list(
        Worker.objects.using(conf.get().database)
        # Whoever buried the latter did not finish, or they claimed before they knew that they
        # were dead.
        .filter(
            Q(stopped__isnull=True)
            | Q(stopped__lt=Now() - _lease(), pk__in=running.values("worker_id"))
        )
        .annotate(database_now=Now())
    )
    if vigil is not None and monotonic() - began > conf.get().heartbeat:
        # The database did not answer: nobody could beat.
        vigil.forget()
    live = [worker for worker in workers if worker.stopped is None]
    expired = set() if connection().vendor == "sqlite" else _expired(live, vigil)
    dead = [
        worker
        for worker in workers
        if worker.stopped is not None or worker.pk in expired or _is_gone(worker)
    ]
    for worker in dead:
        logger.warning("rescued the tasks of dead worker=%s id=%s", worker.name, worker.pk)
        _end_sessions(worker)
        _bury(worker, running=None)
    return len(dead)


def _expired(live: Sequence[Any], vigil: Vigil | None) -> set[int]:
    """Whose lease has run out?"""
    late = {worker.pk for worker in live if worker.lease_expires_at < worker.database_now}
    if vigil is None:
        return late
    lease, heartbeat = conf.get().lease, conf.get().heartbeat
    silent = vigil.look({worker.pk: worker.heartbeat for worker in live}, monotonic())
    return {
        pk
        for pk, seconds in silent.items()
        # The latter also when its clock was set back.
        if (pk in late and seconds >= 2 * heartbeat) or seconds >= lease
    }


def forget_old_workers() -> None:
    Worker.objects.using(conf.get().database).filter(stopped__lt=Now() - KEEP_WORKERS).delete()


def _bury(worker: Worker, *, running: Collection[UUID] | None) -> None:
    """End *worker* and queue its tasks again; None: nobody knows what it was running."""
    rows = Worker.objects.using(conf.get().database).filter(pk=worker.pk)
    rows.filter(stopped__isnull=True).update(stopped=Now(), running=0, asked="")
    while _take_back(worker, running):
        pass


def _take_back(
    worker: Worker, running: Collection[UUID] | None, only: Collection[UUID] | None = None
) -> int:
    held = Task.objects.using(conf.get().database).filter(
        status=Status.RUNNING, worker_id=worker.pk
    )
    if only is not None:
        held = held.filter(pk__in=only)
    moves = workflow.Moves()
    with write_transaction():
        found = list(
            locked(held.order_by("-depth", "id")).only(
                "id",
                "queue",
                "root_id",
                "attempts",
                "claim",
                "open_children",
                "suspect",
                "deaths",
                "started",
                "depth",
                "cancel_requested",
                "parent_id",
                "parent_claim",
                "status",
                "cause",
                "reason",
            )[:BATCH]
        )
        ended = []
        for task in found:
            moves.roots.add(task.root_id)
            may_be_guilty = running is None or task.pk in running
            end = _come_back(task, worker, moves, may_be_guilty=may_be_guilty)
            if end is not None:
                ended.append(end)
        workflow.settle(ended, moves)
        moves.announce()
    return len(found)


def _come_back(
    task: Task, worker: Worker, moves: workflow.Moves, *, may_be_guilty: bool
) -> workflow.Ended | None:
    # Only a suspect ran alone: its worker's death is charged to it, and to nobody else.
    deaths = task.deaths + (1 if task.suspect and may_be_guilty else 0)
    rows = Task.objects.using(conf.get().database).filter(
        pk=task.pk, status=Status.RUNNING, claim=task.claim
    )
    status = Status.QUEUED
    values: dict[str, object] = {}
    if task.cancel_requested is not None:
        status = Status.REVOKED
        values = {"cause": Cause.CANCELLED}
    elif deaths >= conf.get().max_lost:
        status = Status.LOST
        values = {"error": f"Lost: {deaths} workers died while they ran this task alone."}
    if status != Status.QUEUED:
        Attempt.objects.using(conf.get().database).create(
            task_id=task.pk,
            number=task.attempts,
            outcome=status,
            worker_name=worker.name,
            started=task.started,
            error=str(values.get("error", task.reason)),
        )
    if task.open_children:
        # A non-atomic task had made subtasks: they end first.
        ends_as = Status.RETRY if status == Status.QUEUED else status
        values |= {"status": Status.WAITING, "ends_as": ends_as, "returned": False}
    elif status == Status.QUEUED:
        values |= {"status": status, "worker": None}
        if deaths > task.deaths:
            values |= {"ready": None, "run_at": Now() + pause_after(deaths)}
        else:
            values |= {"ready": True}
            moves.queues.add(task.queue)
    else:
        values |= {"status": status, "finished": Now()}
    rows.update(
        **values,
        deaths=deaths,
        # Who does not run again is none: a suspect is somebody who is to be tried alone.
        suspect=status == Status.QUEUED and (may_be_guilty or task.suspect),
        attempts=max(task.attempts - (status == Status.QUEUED), 0),
    )
    if status == Status.QUEUED or task.open_children:
        return None
    return workflow.Ended(
        task.pk, status, str(values.get("cause", "")), task.parent_id, task.parent_claim
    )


def pause_after(deaths: int) -> timedelta:
    """How long a suspect waits that so many workers died of; four times as long each time."""
    pause: timedelta = FIRST_PAUSE * 4 ** min(deaths - 1, 8)
    return min(pause, LONGEST_PAUSE)


def _end_sessions(worker: Worker) -> None:
    """End a dead worker's database sessions, whose open transactions hold locks on its tasks."""
    current = connection()
    with current.cursor() as cursor:
        if current.vendor == "postgresql":
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = %s AND pid <> pg_backend_pid()"
                " AND datname = current_database()",
                [session_name(worker)],
            )
        elif current.vendor == "mysql":
            # By number and port: after a restart the numbers are given away again.
            cursor.execute(
                "SELECT id, host FROM information_schema.processlist WHERE id <> CONNECTION_ID()"
            )
            for session, host in cursor.fetchall():
                if f"{session} {host}" in worker.sessions:
                    # One that has ended by itself meanwhile is no error.
                    with suppress(OperationalError):
                        cursor.execute(f"KILL CONNECTION {int(session)}")


def session_name(worker: Worker) -> str:
    """What a worker's PostgreSQL sessions are called, so that they can be found and ended."""
    return f"cq:{worker.pk}"


def note_session(worker: Worker, current: BaseDatabaseWrapper) -> None:
    """Let *current*, just opened by this process, be ended when *worker* is found dead."""
    if current.vendor == "postgresql":
        with current.cursor() as cursor:
            cursor.execute(
                "SELECT set_config('application_name', %s, false)", [session_name(worker)]
            )
    elif current.vendor == "mysql":
        with _noting, current.cursor() as cursor:
            cursor.execute(
                "SELECT id, host FROM information_schema.processlist WHERE id = CONNECTION_ID()"
            )
            _sessions[current] = "{} {}".format(*cursor.fetchone())
            worker.sessions = sorted(set(_sessions.values()))
            # On this connection, whichever one Worker.objects would use in this thread.
            cursor.execute(
                "UPDATE cq_worker SET sessions = %s WHERE id = %s",
                [json.dumps(worker.sessions), worker.pk],
            )


_noting = threading.Lock()
# Each thread's connection with its last session on MariaDB, which cannot be named.
_sessions: WeakKeyDictionary[BaseDatabaseWrapper, str] = WeakKeyDictionary()


def _is_gone(worker: Worker) -> bool:
    """Is its process gone, and nobody left who knows better what it was running?"""
    own = process.Identity(
        worker.host, worker.pid, worker.boot_id, worker.pid_namespace, worker.pid_started
    )
    if not process.is_dead(own) or not worker.supervisor:
        return process.is_dead(own)
    pid, _colon, started = worker.supervisor.partition(":")
    return process.is_dead(replace(own, pid=int(pid), pid_started=started))


def _lease() -> timedelta:
    return timedelta(seconds=conf.get().lease)
