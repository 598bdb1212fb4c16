"""How many more tasks may a worker claim, so that it is never idle and never hoards?"""

from __future__ import annotations

from dataclasses import dataclass

# A worker holds what it can start within this time, and never more rows than two batches: one is
# claimed while the other runs.
SECONDS = 0.5
BATCH = 500


@dataclass(slots=True)
class Prefetch:
    """Measures what tasks took lately on *threads* threads; while unknown, one per free thread."""

    threads: int
    mean: float | None = None
    # At so few waiting tasks it is time to claim again.
    low_water: int = 0

    def saw(self, seconds: float) -> None:
        """A task took so long. One long task makes the worker careful at once."""
        mean = self.mean
        self.mean = seconds if mean is None else max(seconds, mean * 0.9 + seconds * 0.1)

    def forget(self) -> None:
        """What tasks took lately says nothing of those that run now."""
        self.mean = None

    def room(self, busy: int, waiting: int) -> int:
        """How many to claim while *busy* threads run and *waiting* claimed tasks wait for one."""
        free = self.threads - busy - waiting
        if self.mean is None:
            return max(0, free)
        startable = min(2 * BATCH, int(self.threads * SECONDS / max(self.mean, 1e-5)))
        self.low_water = startable // 2
        # In batches, not for every single task that has started.
        if waiting > self.low_water:
            return 0
        return max(0, min(BATCH, max(free, startable - waiting)))
