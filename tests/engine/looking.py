"""How do the tests of the engine read what is stored, and wait for what others do?"""

from __future__ import annotations

import time
from collections.abc import Callable

from cq.models import Task
from cq.states import Status


def status_of(task: Task) -> Status:
    """The status that is stored now."""
    task.refresh_from_db()
    return Status(task.status)


def statuses_of(*tasks: Task) -> list[Status]:
    return [status_of(task) for task in tasks]


def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait for *condition*; fail when it does not come to pass."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.005)
