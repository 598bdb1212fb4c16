"""What is still to be said to the other processes, and when does it go out?"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from dataclasses import dataclass, field
from math import inf
from time import monotonic
from typing import Any

from channels.exceptions import ChannelFull

from . import line
from .names import CONTROL_GROUP, OVERVIEW_GROUP, TREE_PREFIX, TREES_GROUP, channel_name

NUDGE_INTERVAL = 0.5
# A worker that is woken claims a batch: what is queued right behind can wait for the next wake.
WAKE_INTERVAL = 0.005
# Naming a tree costs two round trips, and as much time as two tasks, even when nobody watches it.
NAMED_TREES = 8
KEPT = 256
CONTROL_MAX_AGE = 10.0

_SEND_TIMEOUT = 2.0


@dataclass(frozen=True)
class Hint:
    """One message on its way out; *target* is a queue for a wake, else a group."""

    kind: str
    target: str
    message: dict[str, Any]
    born: float = field(default_factory=monotonic)


class _Pending(dict[str, None]):
    """What is to be said, each at most once an interval: the first at once, the last always."""

    def __init__(self, interval: float) -> None:
        super().__init__()
        self._interval = interval
        self.sent_at: dict[str, float] = {}

    def add(self, key: str) -> None:
        self[key] = None
        if len(self) > KEPT:
            del self[next(iter(self))]

    def due(self, key: str) -> float:
        """When *key* may be sent, by the monotonic clock; a time that has passed: at once."""
        sent = self.sent_at.get(key)
        return 0.0 if sent is None else sent + self._interval

    def take(self, now: float, *, is_closing: bool) -> str | None:
        """Take out one that may be sent; whoever closes sends what is not due yet, too."""
        for key, sent in list(self.sent_at.items()):
            if now - sent >= self._interval:
                del self.sent_at[key]
        for key in self:
            if is_closing or self.due(key) <= now:
                del self[key]
                self.sent_at[key] = now
                return key
        return None

    def put_back(self, key: str) -> None:
        self.setdefault(key)
        self.sent_at.pop(key, None)


class _Nudges(_Pending):
    """Nudges to groups; of all trees only so many are named in an interval."""

    def due(self, key: str) -> float:
        due = super().due(key)
        if not due and key.startswith(TREE_PREFIX) and len(self.sent_at) >= NAMED_TREES:
            return min(self.sent_at.values()) + self._interval
        return due


class Outbox:
    """Hints to be sent: bounded, without duplicates, emptied by one coroutine.

    Every public method may be called from any thread, returns at once, and never raises.
    """

    def __init__(self) -> None:
        self.wakes = _Pending(WAKE_INTERVAL)
        self.nudges = _Nudges(NUDGE_INTERVAL)
        self._controls: deque[Hint] = deque(maxlen=KEPT)
        self._lock = threading.Lock()
        # True from the moment a drain is asked for until it finds nothing to do: through a whole
        # outage too, so that callers then touch only a dict.
        self._draining = False
        self._idle = threading.Event()
        self._closing = False
        self._timer: asyncio.TimerHandle | None = None
        # When the timer drains anyway, by the monotonic clock.
        self._drains_at = inf
        self._drains: set[asyncio.Task[None]] = set()

    def add_wake(self, queue: str) -> None:
        # One that is pending covers this call as well: it goes out after the caller's commit.
        if queue not in self.wakes and line.layer() is not None:
            self._add(self.wakes, queue)

    def add_nudge(self, group: str) -> None:
        if line.layer() is None:
            return
        if len(self.nudges) >= NAMED_TREES and group != OVERVIEW_GROUP:
            group = TREES_GROUP
        self._add(self.nudges, group)

    def add_control(self, message: dict[str, Any]) -> None:
        if line.layer() is None:
            return
        with self._lock:
            self._controls.append(Hint("control", CONTROL_GROUP, message))
        self._drain_soon()

    def flush(self, timeout: float) -> None:
        """Send what is pending, nudges before their time too; give up after *timeout* seconds."""
        self._closing = True
        if self._draining or self.wakes or self.nudges or self._controls:
            self._drain_soon()
            self._idle.wait(timeout)

    def _add(self, box: _Pending, key: str) -> None:
        with self._lock:
            box.add(key)
            # Waking the loop costs as much as a task: not for what has to wait for the timer.
            if self._draining or box.due(key) >= self._drains_at:
                return
        self._drain_soon()

    def _drain_soon(self) -> None:
        with self._lock:
            if self._draining:
                return
            self._draining = True
            self._drains_at = inf
            self._idle.clear()
        try:
            line.loop().call_soon_threadsafe(self._start_drain)
        except RuntimeError as error:
            # The loop is closed (its server has stopped) or no thread can be started any more:
            # there is nobody left to send this, and nothing may be left to wait for it.
            line.logger.debug("dropped hints: %s", error)
            with self._lock:
                self._draining = False
                self.wakes.clear()
                self.nudges.clear()
                self._controls.clear()

    def _start_drain(self) -> None:
        drain = asyncio.ensure_future(self._drain())
        self._drains.add(drain)
        drain.add_done_callback(self._drains.discard)

    async def _drain(self) -> None:
        patience, loop = line.Patience(), asyncio.get_running_loop()
        while True:
            with self._lock:
                hint = self._take()
                if hint is None:
                    self._draining = False
                    self._plan()
                    self._idle.set()
                    return
            try:
                async with asyncio.timeout(_SEND_TIMEOUT):
                    await _send(hint)
                patience.reset()
            except ChannelFull:
                patience.reset()  # as many wakes as anybody needs lie there already
            except (TypeError, ValueError, AssertionError):
                line.logger.exception("dropped a hint that the channel layer refuses: %r", hint)
            except Exception as error:  # noqa: BLE001 - each layer fails in its own way
                if not loop.is_running():
                    # Its loop has ended, and the collector closes what is left of it, in whatever
                    # thread: no lock may be waited for. The next hint finds another loop.
                    self._draining = False
                    return
                self._put_back(hint)
                await patience.wait(error)
            except BaseException:
                # Cancelled with its loop; the next hint finds another one.
                self._draining = False
                raise

    def _take(self) -> Hint | None:
        now = monotonic()
        while self._controls:
            hint = self._controls.popleft()
            if now - hint.born < CONTROL_MAX_AGE:
                return hint
        queue = self.wakes.take(now, is_closing=self._closing)
        if queue is not None:
            return Hint("wake", queue, {"type": "cq.wake", "queue": queue})
        group = self.nudges.take(now, is_closing=self._closing)
        if group is None:
            return None
        root = group.removeprefix(TREE_PREFIX) if group.startswith(TREE_PREFIX) else ""
        return Hint("nudge", group, {"type": "cq.nudge", "root": root})

    def _plan(self) -> None:
        """Drain again when the first of those that are not due yet is."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        dues = [box.due(key) for box in (self.wakes, self.nudges) for key in box]
        if dues:
            self._drains_at = min(dues)
            delay = max(0.0, self._drains_at - monotonic())
            self._timer = asyncio.get_running_loop().call_later(delay, self._drain_soon)

    def _put_back(self, hint: Hint) -> None:
        with self._lock:
            if hint.kind == "wake":
                self.wakes.put_back(hint.target)
            elif hint.kind == "nudge":
                self.nudges.put_back(hint.target)
            elif len(self._controls) < KEPT:
                self._controls.appendleft(hint)


async def _send(hint: Hint) -> None:
    layer = line.layer()
    if hint.kind == "wake":
        await layer.send(channel_name(hint.target), hint.message)
    else:
        await layer.group_send(hint.target, hint.message)


def outbox() -> Outbox:
    return _outbox


def start_anew() -> None:
    """Forget what is pending: a forked child leaves that to its parent."""
    global _outbox
    _outbox = Outbox()


_outbox = Outbox()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=start_anew)
