"""Where does a worker process die, and which of its safeties is off, by order of the environment?

FAULTS_CRASH   names of crash points, comma separated; each task dies at each of them once
FAULTS_TIMES   at most so many deaths at each point
FAULTS_FOLDER  where the deaths that have been died are noted
FAULTS_BROKEN  safeties that are switched off, for a control that must fail: fence, sessions,
               charge (a death is charged to all that the worker held), answer (a lost
               answer to COMMIT is taken for a failed COMMIT), late (the session of a lost answer
               is left to itself), clock (leases go by this
               process's clock, not by the database's), vigil (an expired lease alone is death),
               session (a task whose session was ended fails), rescue (what a dead worker held
               is not taken back), processes (nobody looks whether a process is gone), expiry (a
               lease never runs out), withdrawal (what has not been started is kept at a stop),
               overrun (no process is replaced), interrupts (no exception is raised in a running
               task), silence and silence of beats (the kernel is not told to give up a dead
               network; in a task process, and in its supervisor), pools (the threads of a worker
               share the project's pool), ended (a task inherits the
X is taken for kept)
FAULTS_CLOCK   seconds by which this process's clock is wrong
FAULTS_GRACE   seconds that a task which overran its timeout has to tidy up
FAULTS_PAUSE   seconds that what killed a worker waits before it is tried again
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable
from datetime import timedelta
from pathlib import Path
from time import sleep
from typing import Any
from unittest.mock import patch
from uuid import UUID

from django.db.models import Value
from django.db.models.functions import Now
from django.utils import timezone as clock

from cq import (
    board,
    claims,
    enqueue,
    executors,
    interrupts,
    leases,
    membership,
    prepared,
    recorder,
    runner,
    scheduler,
    supervisor,
    workflow,
)

POINTS = (
    "after claim",
    "before fence",
    "after fence",
    "after commit",
    "in on_commit",
    "among children",
)


def install() -> None:
    """Wrap what the crash points stand at, and switch off what is to be broken."""
    for point in _names("FAULTS_CRASH"):
        if point in _STANDS:
            module, name, moment, act = _STANDS[point]
            _wrap(module, name, **{moment: act})
    for safety in _names("FAULTS_BROKEN"):
        module, name, replacement = _SAFETIES[safety]
        patch.object(module, name, replacement).start()
    if "FAULTS_GRACE" in os.environ:
        patch.object(supervisor, "GRACE", float(os.environ["FAULTS_GRACE"])).start()
    if "FAULTS_PAUSE" in os.environ:
        pause = timedelta(seconds=float(os.environ["FAULTS_PAUSE"]))
        patch.object(leases, "FIRST_PAUSE", pause).start()
    if "FAULTS_CLOCK" in os.environ:
        wrong, right = timedelta(seconds=float(os.environ["FAULTS_CLOCK"])), clock.now
        patch.object(clock, "now", lambda: right() + wrong).start()


def die(point: str, task_id: UUID) -> None:
    """Kill this process as the kernel does, if this task shall die here and has not yet."""
    if point not in _names("FAULTS_CRASH"):
        return
    folder, stem = Path(os.environ["FAULTS_FOLDER"]), point.replace(" ", "-")
    if len(list(folder.glob(f"{stem}.*"))) >= int(os.environ["FAULTS_TIMES"]):
        return
    try:
        (folder / f"{stem}.{task_id}").touch(exist_ok=False)
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


def _names(variable: str) -> list[str]:
    return [name for name in os.environ.get(variable, "").split(",") if name]


def _wrap(
    module: Any,
    name: str,
    *,
    before: Callable[..., None] | None = None,
    after: Callable[..., None] | None = None,
) -> None:
    wrapped = getattr(module, name)

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        if before is not None:
            before(*args)
        result = wrapped(*args, **kwargs)
        if after is not None:
            after(*args, result)
        return result

    setattr(module, name, wrapper)


def _die_after_claim(*args: Any) -> None:
    claimed: Iterable[Any] = args[-1]
    for one in claimed:
        die("after claim", one.id)


def _die_before_fence(outcome: Any) -> None:
    die("before fence", outcome.claimed.id)


def _die_after_fence(outcome: Any, _result: None) -> None:
    die("after fence", outcome.claimed.id)


def _die_after_commit(*_args: Any) -> None:
    run = workflow.current_run.get()
    if run is not None:
        die("after commit", run.task_id)


def _charge_all(task: Any, *others: Any, **how: Any) -> Any:
    task.suspect = True
    return _come_back(task, *others, **how | {"may_be_guilty": True})


def _only_by_clock(live: Any, _vigil: Any) -> Any:
    return _expired(live, None)


def _beat_in_vain(*args: Any, **kwargs: Any) -> str:
    return _beat(*args, **kwargs) or ""


def _fire_what_was_read() -> bool:
    """Fire as one does who asks no row whether another has: no lock, no fence, no constraint."""
    due = scheduler._entries().filter(enabled=True, next_run__lte=Now())
    batch = list(due.annotate(database_now=Now()))
    # So long that every scheduler has looked before the first of them writes.
    sleep(2.0 if batch else 0.0)
    for firing in scheduler._readable(batch):
        scheduler._decide(firing, scheduler._Known(frozenset(), frozenset(), frozenset()))
        enqueue.store(firing.tasks)
        scheduler._runs().bulk_create(firing.runs, ignore_conflicts=True)
        scheduler._entries().filter(pk=firing.entry.pk).update(next_run=firing.due.next)
    return bool(batch)


def _run_again(*_what: Any) -> None:
    raise runner.RanAgain


_beat = leases.beat
_come_back = leases._come_back
_expired = leases._expired
# The other points are in the tasks themselves.
_STANDS: dict[str, tuple[Any, str, str, Callable[..., None]]] = {
    "after claim": (claims, "claim", "after", _die_after_claim),
    "before fence": (recorder, "record_within", "before", _die_before_fence),
    "after fence": (recorder, "record_within", "after", _die_after_fence),
    "after commit": (enqueue, "send_hints", "before", _die_after_commit),
}
_SAFETIES: dict[str, tuple[Any, str, Callable[..., Any]]] = {
    "fence": (recorder, "_owns", lambda _row, _claimed: True),
    "rescue": (leases, "_take_back", lambda *_args, **_kwargs: 0),
    "sessions": (leases, "_end_sessions", lambda _worker: None),
    "charge": (leases, "_come_back", _charge_all),
    "answer": (runner, "_after_lost_answer", _run_again),
    "late": (prepared, "end_session", lambda _driver: None),
    "session": (runner._Fence, "is_session_lost", lambda *_who: False),
    "clock": (leases, "Now", lambda: Value(clock.now())),
    "vigil": (leases, "_expired", _only_by_clock),
    "ended": (runner, "drop_ended", lambda _connection: None),
    "beat": (leases, "beat", _beat_in_vain),
    "processes": (leases, "_is_gone", lambda _worker: False),
    "expiry": (leases, "_expired", lambda _live, _vigil: set()),
    "withdrawal": (executors.ThreadPool, "withdraw", lambda _pool: []),
    "overrun": (board.Running, "is_overdue", lambda _running, _grace: False),
    "interrupts": (interrupts, "_set_async_exc", lambda _thread_id, _kind: 1),
    "tick": (scheduler, "_fire_batch", _fire_what_was_read),
    "pools": (supervisor, "leave_pools", lambda: False),
    "silence": (membership, "end_with_silence", lambda _connection, _seconds: None),
    "silence of beats": (supervisor, "end_with_silence", lambda _connection, _seconds: None),
}
