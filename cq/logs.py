"""How do the records of Python logging reach the log of the task that is running?"""

from __future__ import annotations

import logging
import sys


class TaskHandler(logging.Handler):
    """Forwards what is logged inside a task to that task's log; everything else it lets pass.

    For ``LOGGING``: ``{"class": "cq.logs.TaskHandler", "level": "INFO"}``. It sees the thread, or
    the async task, in which the function runs, not threads that this starts itself.
    """

    def emit(self, record: logging.LogRecord) -> None:
        # Named in settings, this module is imported before the models can be.
        workflow = sys.modules.get("cq.workflow")
        run = workflow.current_run.get() if workflow is not None else None
        # The engine's own records; those of `cqt.log` are in the log already.
        if run is None or record.name == "cq" or record.name.startswith("cq."):
            return
        try:
            run.say(self.format(record), record.levelno)
        except Exception:  # noqa: BLE001 - logging must not break what it tells of
            self.handleError(record)
