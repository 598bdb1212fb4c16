"""The processes: who starts them, beats for them, and takes back what a dead one held?"""

from __future__ import annotations

import gc
import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from time import monotonic
from typing import Any

from django.db import DatabaseError, InterfaceError, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created
from django.utils.autoreload import get_child_arguments

from . import conf, hints, leases, process, recorder, registry, runner
from .board import Board, Running
from .database import end_with_silence, leave_pools
from .exceptions import CQError
from .models import Task
from .models.worker import Ask
from .outcomes import Claimed
from .reloading import CodeWatch
from .states import Status
from .worker import WorkerLoop, WorkerOptions

logger = logging.getLogger("cq")

CHILD_VARIABLE = "CQ_TASK_PROCESS"
LOOK_INTERVAL = 0.1
# After its timeout a task may tidy up for so long before its process is replaced.
GRACE = 5.0
# A process that dies before it has registered, so often in a row, will never live.
MAX_STILLBORN = 5
# With --reload it is tried again when the code changes, at the latest after so many seconds.
STILLBORN_PATIENCE = 10.0
# So many objects more than there were; Python's own threshold is 700, and 2,000 from 3.13 on.
COLLECT_AFTER = 10_000


class TaskProcessFails(CQError):
    def __init__(self, code: int | None) -> None:
        super().__init__(
            f"The task process ended {MAX_STILLBORN} times before it could start (exit code "
            f"{code}). Its own output above says why; `manage.py check` may say more."
        )


@dataclass(slots=True)
class _Child:
    """One task process, with what it shows and the pipe whose end tells it that we are gone."""

    popen: subprocess.Popen[bytes]
    board: Board
    pipe: int
    beat_due: float = field(default_factory=monotonic)
    is_doomed: bool = False


@dataclass(frozen=True, slots=True)
class _Dead:
    """A task process that has ended, and what it was running then."""

    worker_id: int
    running: list[Running]
    # We killed it ourselves, for those of them that are overdue.
    is_doomed: bool


class Supervisor:
    """Keeps task processes alive until `stop`: `run` blocks meanwhile.

    They are started fresh, never forked from a process with connections. With *reload* each ends,
    as at a graceful stop, when its code has changed, and another one begins with the new code.
    """

    def __init__(self, options: WorkerOptions, processes: int, *, reload: bool = False) -> None:
        self.options = options
        self.processes = processes
        self.reload = reload
        self._children: list[_Child] = []
        self._stopping = threading.Event()
        self._stillborn = 0
        self._replace: set[int] = set()
        self._unburied: list[_Dead] = []
        self._bury_due = 0.0
        own = process.own()
        self._name = f"{own.pid}:{own.pid_started}"

    def run(self) -> None:
        """Raises `TaskProcessFails` when task processes cannot even start."""
        control = hints.Subscription(hints.CONTROL_GROUP, self._on_control)
        control.start()
        connection_created.connect(_on_connection)
        try:
            self._children = [self._start() for _number in range(self.processes)]
            while not self._stopping.wait(LOOK_INTERVAL):
                self._look_after_children()
        finally:
            control.stop()
            self._end_children()
            connections.close_all()

    def stop(self) -> None:
        """Let the task processes finish, then end."""
        self._stopping.set()

    def _start(self) -> _Child:
        options = self.options
        board = Board.create(options.threads + options.async_concurrency)
        reading, writing = os.pipe()
        told = {
            "board": board.fd,
            "slots": board.slots,
            "pipe": reading,
            "supervisor": self._name,
            "reload": self.reload,
        }
        popen = subprocess.Popen(  # noqa: S603 - our own command line
            get_child_arguments(),
            env={**os.environ, CHILD_VARIABLE: json.dumps(told | {"options": asdict(options)})},
            pass_fds=(board.fd, reading),
            # A Ctrl-C in the terminal reaches us alone; we tell them.
            start_new_session=True,
        )
        os.close(reading)
        logger.info("started task process pid=%s", popen.pid)
        return _Child(popen, board, writing)

    def _look_after_children(self) -> None:
        if self._unburied and monotonic() >= self._bury_due:
            self._bury_all()
        for position, child in enumerate(self._children):
            if child.popen.poll() is not None:
                self._children[position] = self._replace_dead(child)
                continue
            try:
                self._look_after(child)
            except (DatabaseError, InterfaceError) as error:
                logger.warning("supervisor waits for the database: %s", error)
                connections.close_all()
        # Every supervisor hears of every process that shall be replaced.
        self._replace.intersection_update(child.board.worker_id for child in self._children)

    def _look_after(self, child: _Child) -> None:
        overdue = [one for one in child.board.running() if one.is_overdue(GRACE)]
        worker_id = child.board.worker_id
        if overdue or worker_id in self._replace:
            self._replace.discard(worker_id)
            logger.warning(
                "killing a task process pid=%s overdue=%s", child.popen.pid, len(overdue)
            )
            child.is_doomed = True
            child.popen.kill()
            child.popen.wait()
            return
        if worker_id and monotonic() >= child.beat_due:
            began = monotonic()
            child.beat_due = began + conf.get().heartbeat
            running = len(child.board.running())
            asked = leases.beat(worker_id, running, process.memory(child.popen.pid))
            if asked is None:
                # Others have taken its tasks back; its claims count no more.
                child.popen.kill()
                return
            child.board.beat(began, asked)
            if asked == Ask.REPLACE:
                self._replace.add(worker_id)

    def _replace_dead(self, child: _Child) -> _Child:
        self._bury(child)
        if child.board.worker_id:
            self._stillborn = 0
        else:
            self._stillborn += 1
            if self.reload:
                # The code has just been broken; nobody else looks at it while it is mended.
                watch = CodeWatch()
                logger.error("the task process could not start: waiting for the code to change")
                watch.wait(self._stopping, STILLBORN_PATIENCE)
            elif self._stillborn >= MAX_STILLBORN:
                raise TaskProcessFails(child.popen.returncode)
        _close(child)
        return self._start()

    def _bury(self, child: _Child) -> None:
        """Take back what a dead process held: charge what it was running, and nobody else."""
        if child.board.worker_id:
            dead = _Dead(child.board.worker_id, child.board.running(), child.is_doomed)
            self._unburied.append(dead)
            self._bury_all()

    def _bury_all(self) -> None:
        """Bury who is dead; while the database is away or locked, they wait for the next time.

        Nobody else does it as long as we live: on SQLite never, elsewhere after a lease, and
        without our knowledge of what they were running.
        """
        try:
            while self._unburied:
                _bury(self._unburied[0])
                del self._unburied[0]
        except (DatabaseError, InterfaceError) as error:
            logger.warning("could not bury worker id=%s: %s", self._unburied[0].worker_id, error)
            connections.close_all()
            self._bury_due = monotonic() + conf.get().poll_interval

    def _on_control(self, message: Mapping[str, Any]) -> None:
        if message.get("verb") == "worker" and message.get("asked") == Ask.REPLACE:
            self._replace.add(int(message["worker"]))

    def _end_children(self) -> None:
        for child in self._children:
            if child.popen.poll() is None:
                child.popen.terminate()
        deadline = monotonic() + self.options.shutdown_timeout + GRACE
        for child in self._children:
            try:
                child.popen.wait(max(0.1, deadline - monotonic()))
            except subprocess.TimeoutExpired:
                child.is_doomed = True
                child.popen.kill()
                child.popen.wait()
            self._bury(child)
            _close(child)


def _on_connection(*, connection: BaseDatabaseWrapper, **_kwargs: Any) -> None:
    """Nobody looks after the children while a query waits for a server that has vanished."""
    if connection.alias == conf.get().database:
        end_with_silence(connection, conf.get().lease)


def is_task_process() -> bool:
    """Was this process started by a supervisor?"""
    return CHILD_VARIABLE in os.environ


def run_task_process() -> None:
    """Run tasks for the supervisor that started this process, until it stops or is gone."""
    told = json.loads(os.environ.pop(CHILD_VARIABLE))
    options = told["options"]
    options["queues"] = tuple(options["queues"])
    worker = WorkerLoop(
        WorkerOptions(**options),
        board=Board(told["board"], told["slots"]),
        supervisor=told["supervisor"],
    )
    leave_pools()
    threading.Thread(target=_end_with, args=(told["pipe"],), name="cq-leash", daemon=True).start()
    if told["reload"]:
        CodeWatch().call_when_changed(worker.stop)
    stop_on_signals(worker.stop)
    _collect_less_often()
    worker.run()


def _collect_less_often() -> None:
    """Look for garbage after some hundred tasks, not after a few: what they leave needs no search.

    Whoever set a higher threshold, or none, keeps it.
    """
    if 0 < gc.get_threshold()[0] < COLLECT_AFTER:
        gc.set_threshold(COLLECT_AFTER, *gc.get_threshold()[1:])


def stop_on_signals(stop: Any) -> None:
    """Call *stop* at the first SIGTERM or SIGINT; a second one ends the process at once."""

    def handle(_number: int, _frame: Any) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handle)


def _end_with(pipe: int) -> None:
    """End this process when the supervisor's end of the pipe closes, however that came about."""
    os.read(pipe, 1)
    logger.warning("the supervisor is gone: ending")
    sys.stderr.flush()
    os._exit(1)


def _bury(dead: _Dead) -> None:
    if not dead.is_doomed:
        leases.bury(dead.worker_id, running={one.task_id for one in dead.running})
        return
    # The neighbours of the overdue ones are no suspects.
    for one in dead.running:
        if one.is_overdue(GRACE):
            _record_timeout(one, dead.worker_id)
    leases.bury(dead.worker_id, running=())


def _record_timeout(one: Running, worker_id: int) -> None:
    """Let the attempt that overran its timeout fail; its process is dead."""
    row = Task.objects.using(conf.get().database).filter(
        pk=one.task_id, status=Status.RUNNING, worker_id=worker_id, claim=one.claim
    )
    for task in row.select_related("worker"):
        claimed = claimed_again(task)
        if registry.is_registered(task.func_name):
            definition = registry.get(task.func_name)
            recorder.record([runner.timed_out(claimed, definition)], skip_locked=False)


def claimed_again(task: Task) -> Claimed:
    """What the claim of a running task returned, as far as its row still tells."""
    worker = task.worker
    started = task.started or task.run_at
    return Claimed(
        id=task.pk,
        func_name=task.func_name,
        args=task.args,
        kwargs=task.kwargs,
        queue=task.queue,
        attempt=task.attempts,
        attempts_before=task.attempts_before,
        claim=task.claim,
        worker_id=worker.pk if worker else 0,
        worker_name=worker.name if worker else "",
        parent_id=task.parent_id,
        previous_id=task.previous_id,
        root_id=task.root_id,
        has_followers=task.has_followers,
        depth=task.depth,
        retries=task.retries,
        timeout=task.timeout,
        suspect=task.suspect,
        run_at=task.run_at,
        leased_at=started,
        leased_monotonic=monotonic(),
    )


def _close(child: _Child) -> None:
    os.close(child.pipe)
    child.board.close()
