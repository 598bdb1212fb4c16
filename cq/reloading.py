"""When has the code changed under a worker? (`cq_runworker --reload`, for development)"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from time import monotonic

from django.utils import autoreload

LOOK_INTERVAL = 1.0


class CodeWatch:
    """Looks at the files that this process has imported, and at those that Django watches.

    It knows them as they were when it was made, and others since it saw them first.
    """

    def __init__(self) -> None:
        self._reloader = autoreload.StatReloader()
        # Django's own receivers add the folders of templates and translations.
        autoreload.autoreload_started.send(sender=self._reloader)
        self._known: dict[Path, float] = dict(self._reloader.snapshot_files())

    def has_changed(self) -> bool:
        now: dict[Path, float] = dict(self._reloader.snapshot_files())
        has_changed = any(now.get(path) != at for path, at in self._known.items())
        self._known = now
        return has_changed

    def wait(self, stopping: threading.Event, seconds: float = float("inf")) -> bool:
        """Wait for a change; False when told to stop, or when *seconds* are over."""
        deadline = monotonic() + seconds
        while monotonic() < deadline and not stopping.wait(LOOK_INTERVAL):
            if self.has_changed():
                return True
        return False

    def call_when_changed(self, act: Callable[[], None]) -> None:
        """Watch on a thread, and call *act* at the first change."""

        def watch() -> None:
            if self.wait(threading.Event()):
                act()

        threading.Thread(target=watch, name="cq-reload", daemon=True).start()
