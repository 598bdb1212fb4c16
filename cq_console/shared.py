"""How do many viewers of one page cost as much as one?"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from threading import Lock
from time import monotonic
from typing import Generic, TypeVar

SECONDS = 1.0
KEPT = 200

ValueT = TypeVar("ValueT")


class Shared(Generic[ValueT]):
    """Values that are computed at most once a second for each key, however many ask at once."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._locks: dict[Hashable, Lock] = {}
        self._known: dict[Hashable, tuple[float, ValueT]] = {}

    def of(self, key: Hashable, compute: Callable[[], ValueT]) -> ValueT:
        """The value of *key*, at most a second old."""
        with self._lock:
            lock = self._locks.setdefault(key, Lock())
        # Who comes meanwhile waits for the one that computes, and takes its answer.
        with lock:
            known = self._known.get(key)
            if known is not None and monotonic() - known[0] < SECONDS:
                return known[1]
            value = compute()
            self._store(key, value)
            return value

    def forget(self) -> None:
        with self._lock:
            self._known.clear()

    def _store(self, key: Hashable, value: ValueT) -> None:
        with self._lock:
            if len(self._known) >= KEPT:
                self._known.clear()
                self._locks = {key: self._locks[key]}
            self._known[key] = (monotonic(), value)
