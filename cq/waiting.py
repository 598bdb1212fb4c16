"""How does somebody wait for a task to end?"""

from __future__ import annotations

import asyncio
import threading
from time import monotonic

from asgiref.sync import sync_to_async

from . import conf, hints
from .database import connection
from .exceptions import WaitInTransaction
from .models import Task

# Between two looks when no hint comes; the first ones are closer together.
FIRST_PAUSE, LAST_PAUSE = 0.02, 0.5


def wait(task: Task, timeout: float | None) -> Task:
    """Block until *task* has finished or is blocked; see `Task.wait`."""
    if connection().in_atomic_block:
        raise WaitInTransaction(task.pk)
    woken = threading.Event()
    subscription = hints.Subscription(hints.tree_group(task.root_id), lambda _message: woken.set())
    subscription.start()
    deadline = None if timeout is None else monotonic() + timeout
    pause = FIRST_PAUSE
    try:
        while not _has_ended(task):
            left = LAST_PAUSE if deadline is None else deadline - monotonic()
            if left <= 0:
                raise TimeoutError(f"Task {task.pk} has not finished within {timeout} s.")
            woken.wait(min(pause, left))
            woken.clear()
            pause = min(pause * 1.5, LAST_PAUSE)
    finally:
        subscription.stop()
    return task


async def await_(task: Task, timeout: float | None) -> Task:
    """The async twin of `wait`."""
    woken = asyncio.Event()
    loop = asyncio.get_running_loop()

    def wake(_message: object) -> None:
        loop.call_soon_threadsafe(woken.set)

    if await sync_to_async(lambda: connection().in_atomic_block)():
        raise WaitInTransaction(task.pk)
    subscription = hints.Subscription(hints.tree_group(task.root_id), wake)
    subscription.start()
    deadline = None if timeout is None else monotonic() + timeout
    pause = FIRST_PAUSE
    try:
        while not await sync_to_async(_has_ended)(task):
            left = LAST_PAUSE if deadline is None else deadline - monotonic()
            if left <= 0:
                raise TimeoutError(f"Task {task.pk} has not finished within {timeout} s.")
            try:
                async with asyncio.timeout(min(pause, left)):
                    await woken.wait()
            except TimeoutError:
                pause = min(pause * 1.5, LAST_PAUSE)
            woken.clear()
    finally:
        subscription.stop()
    return task


def _has_ended(task: Task) -> bool:
    task.refresh_from_db(using=conf.get().database)
    return task.is_finished or task.is_blocked
