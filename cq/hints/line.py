"""Over which layer and on which event loop does this process speak, and is the layer there?"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import threading
from time import monotonic
from typing import Any

from channels.layers import InMemoryChannelLayer, channel_layers
from django.conf import settings

from .. import conf

logger = logging.getLogger("cq.hints")

_LONGEST_WAIT = 2.0
# After an outage connections that lay in a pool meanwhile fail once more, each.
_SETTLING = 1.0


def layer() -> Any:
    """Return the channel layer, or None when the project has none."""
    return _line.layer()


def loop() -> asyncio.AbstractEventLoop:
    """Return the loop that speaks to the layer; its thread is started by the first call."""
    return _line.loop()


def give_loop(given: asyncio.AbstractEventLoop | None) -> None:
    _line.given = given


def has_own_thread() -> bool:
    return _line.thread is not None


def close(timeout: float) -> None:
    """Stop the own loop with all that runs on it, waiting at most *timeout* seconds."""
    _line.close(timeout)


def start_anew() -> None:
    """Forget loop, thread and layer: a forked child has none of them, new settings have others."""
    global _line, _outage
    _line, _outage = _Line(), _Outage()


class Patience:
    """How long to wait after failures in a row; reports the outage from the second one on."""

    def __init__(self) -> None:
        self._failures = 0

    async def wait(self, error: Exception) -> None:
        self._failures += 1
        # The first is tried again before it is reported: after a restart of Redis every pooled
        # connection fails once.
        if self._failures > 1:
            _outage.begin(error)
        ceiling = min(_LONGEST_WAIT, 0.05 * 2 ** min(self._failures, 10))
        await asyncio.sleep(random.uniform(ceiling / 2, ceiling))  # noqa: S311

    def reset(self) -> None:
        self._failures = 0
        _outage.end()


class _Line:
    def __init__(self) -> None:
        self.given: asyncio.AbstractEventLoop | None = None
        self.thread: threading.Thread | None = None
        self._own: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()
        self._layer: Any = None
        self._resolved = False

    def layer(self) -> Any:
        if not self._resolved:
            with self._lock:
                if not self._resolved:
                    self._layer = _make_layer()
                    self._resolved = True
        return self._layer

    def loop(self) -> asyncio.AbstractEventLoop:
        if self.given is not None and isinstance(self.layer(), InMemoryChannelLayer):
            return self.given
        with self._lock:
            if self._own is None:
                self._own = asyncio.new_event_loop()
                self.thread = threading.Thread(
                    target=_run, args=(self._own,), name="cq-hints", daemon=True
                )
                self.thread.start()
            return self._own

    def close(self, timeout: float) -> None:
        own, thread = self._own, self.thread
        if own is not None and thread is not None and thread.is_alive():
            own.call_soon_threadsafe(own.stop)
            thread.join(timeout)


class _Outage:
    """Says once that the layer is gone, and once that it is back."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._ended = -_SETTLING

    def begin(self, error: Exception) -> None:
        if self._since is None and monotonic() - self._ended >= _SETTLING:
            self._since = monotonic()
            logger.warning(
                "hints paused: channel layer %r cannot be reached (%s: %s). "
                "Tasks run all the same; workers look once a poll interval.",
                conf.get().channel_layer,
                type(error).__name__,
                error,
            )

    def end(self) -> None:
        if self._since is not None:
            self._ended = monotonic()
            seconds, self._since = self._ended - self._since, None
            logger.warning("hints recovered after %.1f s", seconds)


def _make_layer() -> Any:
    alias = conf.get().channel_layer
    if alias not in (getattr(settings, "CHANNEL_LAYERS", None) or {}):
        return None
    try:
        shared = channel_layers[alias]
        if isinstance(shared, InMemoryChannelLayer):
            return shared
        # An instance of our own: one RedisChannelLayer cannot receive on two loops, and the
        # shared one belongs to the loop of the websockets.
        return channel_layers.make_backend(alias)
    except Exception:  # its backend is the project's, and fails as it likes
        logger.exception("no hints: channel layer %r cannot be made", alias)
        return None


def _run(own: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(own)
    try:
        own.run_forever()
    finally:
        # Twice: what was called for in the last moment may start another one meanwhile.
        for _turn in range(2):
            running = asyncio.all_tasks(own)
            for task in running:
                task.cancel()
            if running:
                own.run_until_complete(asyncio.wait(running, timeout=0.5))
        own.close()


_line = _Line()
_outage = _Outage()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=start_anew)
