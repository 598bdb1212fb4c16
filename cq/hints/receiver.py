"""How do hints reach a worker, or anybody else who waits for one?"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterable, Mapping
from time import monotonic
from typing import Any

from . import line
from .names import CONTROL_GROUP, channel_name
from .outbox import outbox

Message = Mapping[str, Any]

# Memberships expire after a day, and are lost without a disconnect when Redis is flushed.
REJOIN_INTERVAL = 30.0

_STOP_TIMEOUT = 1.0


class Receiver:
    """Brings wakes and control messages to a worker.

    The callbacks run on the loop's thread: they must return at once (set an event). A wake is
    taken only while ``listening`` is on, so that it goes to a worker with a free slot; one that
    arrives just after it was switched off is sent on. ``listening`` may be set from any thread,
    as often as one likes.
    """

    def __init__(
        self,
        queues: Iterable[str],
        on_wake: Callable[[str], None],
        on_control: Callable[[Message], None],
    ) -> None:
        self._queues = frozenset(queues)
        self._on_wake = on_wake
        self._control = Subscription(CONTROL_GROUP, on_control)
        self._tasks = _Tasks()
        self._served: dict[str, asyncio.Task[None]] = {}
        self._listening = True
        self._parked = 0
        self._open = asyncio.Event()

    @property
    def listening(self) -> bool:
        return self._listening

    @listening.setter
    def listening(self, value: bool) -> None:
        self._listening = value
        if value and self._parked:
            self._tasks.call(self._open.set)

    def start(self) -> None:
        """Begin to receive; without a channel layer nothing ever comes."""
        if line.layer() is not None:
            self._control.start()
            self._tasks.start(self._serve())

    def serve(self, queues: Iterable[str]) -> None:
        """Receive the wakes of *queues* instead of those so far."""
        self._queues = frozenset(queues)
        if line.layer() is not None:
            self._tasks.start(self._serve())

    def stop(self) -> None:
        """End receiving. No callback comes afterwards, unless this is called on an event loop.

        There it does not wait for the end: a callback that has begun may still finish.
        """
        self._control.stop()
        self._tasks.stop()

    async def _serve(self) -> None:
        for queue, listener in list(self._served.items()):
            if listener.done() or queue not in self._queues:
                listener.cancel()
                del self._served[queue]
        for queue in self._queues - self._served.keys():
            self._served[queue] = self._tasks.spawn(self._listen(queue))

    async def _listen(self, queue: str) -> None:
        layer, channel, patience = line.layer(), channel_name(queue), line.Patience()
        while True:
            await self._until_listening()
            try:
                message = await _receive(layer, channel)
            except Exception as error:  # noqa: BLE001 - each layer fails in its own way
                await patience.wait(error)
                continue
            patience.reset()
            if message is None:
                continue
            if self._listening:
                _call(self._on_wake, queue)
            elif not _reaches_everybody(layer):
                outbox().add_wake(queue)

    async def _until_listening(self) -> None:
        while not self._listening:
            # Parked before the second look: the setter writes `listening` first and looks at
            # `parked` then, so that one of the two always sees the other.
            self._open.clear()
            self._parked += 1
            try:
                if not self._listening:
                    await self._open.wait()
            finally:
                self._parked -= 1


class Subscription:
    """Calls *on_message* with every message to *group*, from start to stop.

    The callback runs on the loop's thread: it must return at once (set an event).
    """

    def __init__(self, group: str, on_message: Callable[[Message], None]) -> None:
        self._group = group
        self._on_message = on_message
        self._tasks = _Tasks()

    def start(self) -> None:
        if line.layer() is not None:
            self._tasks.start(self._follow())

    def stop(self) -> None:
        self._tasks.stop()

    async def _follow(self) -> None:
        layer, patience = line.layer(), line.Patience()
        while True:
            try:
                # A new membership after each failure: a restarted Redis has forgotten the old one.
                channel = await layer.new_channel("cq")
                await layer.group_add(self._group, channel)
                patience.reset()
                await self._receive_all(layer, channel)
            except Exception as error:  # noqa: BLE001 - each layer fails in its own way
                await patience.wait(error)

    async def _receive_all(self, layer: Any, channel: str) -> None:
        keeper = asyncio.ensure_future(self._stay_member(layer, channel))
        try:
            while True:
                message = await _receive(layer, channel)
                if message is not None:
                    _call(self._on_message, message)
        finally:
            keeper.cancel()
            await self._leave(layer, channel)

    async def _stay_member(self, layer: Any, channel: str) -> None:
        while True:
            await asyncio.sleep(REJOIN_INTERVAL)
            try:
                await layer.group_add(self._group, channel)
            except Exception as error:  # noqa: BLE001 - each layer fails in its own way
                line.logger.debug("could not stay in group %s: %s", self._group, error)

    async def _leave(self, layer: Any, channel: str) -> None:
        try:
            async with asyncio.timeout(0.5):
                await layer.group_discard(self._group, channel)
        except Exception as error:  # noqa: BLE001 - each layer fails in its own way
            line.logger.debug("could not leave group %s: %s", self._group, error)


class _Tasks:
    """Coroutines on the loop of the hints that end together."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._running: set[asyncio.Task[None]] = set()

    def start(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run *coroutine* on the loop, from any thread."""
        self._loop = line.loop()
        if not self.call(lambda: self.spawn(coroutine)):
            coroutine.close()

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(coroutine)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    def call(self, function: Callable[[], object]) -> bool:
        """Call *function* on the loop soon; False when the loop has ended."""
        if self._loop is None:
            return False
        try:
            self._loop.call_soon_threadsafe(function)
        except RuntimeError:
            return False
        return True

    def stop(self) -> None:
        """End all of them, and wait for that unless it would hold up an event loop."""
        loop, ended = self._loop, threading.Event()

        async def end() -> None:
            running = [task for task in self._running if task is not asyncio.current_task()]
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            ended.set()

        if loop is None or not loop.is_running():
            return
        if self.call(lambda: self.spawn(end())) and not _is_on_a_loop():
            ended.wait(_STOP_TIMEOUT)


async def _receive(layer: Any, channel: str) -> Message | None:
    """Return the next message, or None when there was none for some seconds."""
    began = monotonic()
    try:
        message: Message = await layer.receive(channel)
    except Exception as error:
        # redis-py 8 gives a blocking read up after 5 s unless the settings of the host say
        # otherwise. One that comes at once is a connection that could not be made.
        if _is_redis_timeout(error) and monotonic() - began > 1.0:
            return None
        raise
    return message


def _is_redis_timeout(error: Exception) -> bool:
    return any(
        cls.__name__ == "TimeoutError" and cls.__module__.startswith("redis.")
        for cls in type(error).__mro__
    )


def _reaches_everybody(layer: Any) -> bool:
    """Does a channel of this layer reach all who listen, so that nobody need send it on?"""
    return type(layer).__name__ == "RedisPubSubChannelLayer"


def _is_on_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _call(callback: Callable[[Any], None], value: object) -> None:
    try:
        callback(value)
    except Exception:  # noqa: BLE001 - a callback's error must not end the receiving
        line.logger.exception("a receiver of hints failed on %r", value)
