"""Which moments of a task's life can a project listen to?

Each is sent after the commit that made it true, in the process that made it so, with ``sender``
the function's name, ``task_id``, ``root_id`` and ``outcome``. What a receiver raises is logged.
"""

from __future__ import annotations

from django.dispatch import Signal

from .states import Status

task_finished = Signal()
task_failed = Signal()


def of(status: Status) -> Signal | None:
    """The signal for an outcome of *status*; none for one that will run again."""
    if status == Status.SUCCESS:
        return task_finished
    if status in (Status.FAILURE, Status.LOST):
        return task_failed
    return None
