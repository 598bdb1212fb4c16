"""What keeps a page busy: states that change, lines that come, trees and logs that are large?"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.utils import timezone

from cq import task
from cq.ids import uuid7
from cq.models import Task, TaskLog
from cq.states import Status

if TYPE_CHECKING:
    from cq.context import Context


@task
def bustle(cqt: Context, children: int, pause: float, seconds: float, lines: int) -> None:
    """A subtask that fails, one that logs *lines* a second, and *children* that take time."""
    cqt.subtask(fall)
    cqt.subtask(chatter, seconds, lines)
    cqt.subtask_many(stir, [(number, pause) for number in range(children)])


@task
def fall(cqt: Context) -> None:
    raise ValueError("the floor is wet")


@task(atomic=False)
def stir(cqt: Context, number: int, pause: float) -> None:
    time.sleep(pause)


@task(atomic=False)
def chatter(cqt: Context, seconds: float, lines: int) -> None:
    end = time.monotonic() + seconds
    number = 0
    while time.monotonic() < end:
        for _ in range(max(lines // 10, 1)):
            number += 1
            cqt.log(f"line {number}", logging.WARNING if number % 50 == 0 else logging.INFO)
        time.sleep(0.1)


@task
def put_off(cqt: Context, children: int) -> None:
    """Subtasks that are due tomorrow: a branch that waits for as long as somebody looks."""
    cqt.subtask_many(stir.using(run_after=86_400), [(number, 0.0) for number in range(children)])


@task
def branch(cqt: Context, lines: int) -> None:
    """One that fails, one that logs, and a branch of its own that waits."""
    cqt.subtask(fall)
    cqt.subtask(chatter, 1.0, lines)
    cqt.subtask(put_off, 3)


@task
def reject(cqt: Context, text: str, number: int, deep: Any, note: str = "") -> None:
    """Fail, whatever it is given."""
    raise ValueError(text)


def fill(children: int, lines: int) -> UUID:
    """Store a finished tree of that many children whose log has that many lines; its id."""
    now = timezone.now()
    shared: dict[str, Any] = {"submitted": now, "run_at": now, "started": now, "finished": now}
    id = uuid7()
    root = Task(id=id, root_id=id, func_name="large.root", status=Status.INCOMPLETE, **shared)
    root.save(force_insert=True)
    for some in _batches(children):
        Task.objects.bulk_create(
            Task(
                id=uuid7(),
                root_id=id,
                parent_id=id,
                depth=1,
                func_name="large.child",
                args=[number],
                status=Status.FAILURE if number % 100 == 7 else Status.SUCCESS,
                error="ValueError: no" if number % 100 == 7 else "",
                **shared,
            )
            for number in some
        )
    for some in _batches(lines):
        TaskLog.objects.bulk_create(
            TaskLog(root_id=id, task_id=id, created=now, message=f"stored {number}")
            for number in some
        )
    return id


def _batches(number: int) -> Any:
    return (range(start, min(start + 5_000, number)) for start in range(0, number, 5_000))
