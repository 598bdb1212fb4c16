"""For how long has a worker been silent, by a clock that nobody can set?"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime


class Vigil:
    """What this process has seen of the others' heartbeats, look by look.

    When the database's clock is set forward, or the database was away, every lease has run out at
    once although everybody lives; only who watches for a while can tell.
    """

    def __init__(self) -> None:
        # Each worker's last heartbeat, and when it was first seen.
        self._seen: dict[int, tuple[datetime, float]] = {}

    def look(self, heartbeats: Mapping[int, datetime], now: float) -> dict[int, float]:
        """Seconds for which each of *heartbeats*, by worker, has been seen unchanged.

        *now* is the monotonic time. A heartbeat that is another one counts, earlier or later.
        """
        before, self._seen = self._seen, {}
        for worker_id, heartbeat in heartbeats.items():
            known = before.get(worker_id)
            is_known = known is not None and known[0] == heartbeat
            self._seen[worker_id] = known if known and is_known else (heartbeat, now)
        return {worker_id: now - first for worker_id, (_beat, first) in self._seen.items()}

    def forget(self) -> None:
        """Begin anew: while nobody could reach the database, nobody could beat."""
        self._seen.clear()
