"""How does one process tell the others to look now?

The database row is the truth. A hint only says where to look: it may be lost, come late, or come
twice, and nobody may rely on more. Sending never raises and never waits for the network; without
a channel layer it does nothing.
"""

from __future__ import annotations

import asyncio
import atexit
import threading
from collections.abc import Mapping
from time import monotonic
from typing import Any
from uuid import UUID

from django.core.signals import setting_changed

from . import line
from . import outbox as _outbox
from .names import CONTROL_GROUP, OVERVIEW_GROUP, TREES_GROUP, channel_name, tree_group
from .receiver import Message, Receiver, Subscription

__all__ = [
    "CONTROL_GROUP",
    "OVERVIEW_GROUP",
    "TREES_GROUP",
    "Message",
    "Receiver",
    "Subscription",
    "channel_name",
    "control",
    "nudge",
    "nudge_overview",
    "tree_group",
    "use_loop",
    "wake",
]

_FLUSH_AT_EXIT = 0.1


def wake(queue: str) -> None:
    """Tell one idle worker that serves *queue* to look for due tasks."""
    _outbox.outbox().add_wake(queue)


def control(message: Mapping[str, str | int | bool | None]) -> None:
    """Tell every worker what an operator has asked for, e.g. ``{"verb": "cancel", "task": hex}``.

    It may come late or twice: who receives it asks the row before it acts.
    """
    _outbox.outbox().add_control({**message, "type": "cq.control"})


def nudge(root_id: UUID) -> None:
    """Tell the consoles that show the tree of *root_id* to fetch what is new.

    The first nudge of a tree goes out at once, then at most two a second; the last is always
    sent. When very many trees change at once, one nudge to ``TREES_GROUP`` stands for the rest.
    """
    box = _outbox.outbox()
    if TREES_GROUP in box.nudges:
        return
    group = tree_group(root_id)
    if group not in box.nudges:
        box.add_nudge(group)


def nudge_overview() -> None:
    """Tell the consoles that show the overview to fetch what is new; at most twice a second."""
    box = _outbox.outbox()
    if OVERVIEW_GROUP not in box.nudges:
        box.add_nudge(OVERVIEW_GROUP)


def use_loop(loop: asyncio.AbstractEventLoop | None) -> None:
    """Speak to an in-memory layer on *loop*: the one on which the consumers of this process live.

    A message that another loop puts into that layer does not wake its receivers. Layers that
    reach other processes keep a loop and a thread of their own.
    """
    line.give_loop(loop)
    _outbox.start_anew()


def _start_anew_when_settings_change(*, setting: str, **_: Any) -> None:
    if setting in ("CHANNEL_LAYERS", "CQ_CHANNEL_LAYER"):
        line.close(timeout=1.0)
        line.start_anew()
        _outbox.start_anew()


def _flush_at_exit() -> None:
    if line.has_own_thread():
        deadline = monotonic() + _FLUSH_AT_EXIT
        _outbox.outbox().flush(_FLUSH_AT_EXIT)
        line.close(max(0.0, deadline - monotonic()))


setting_changed.connect(_start_anew_when_settings_change)
# Where the interpreter lets us, before concurrent.futures ends its threads: asyncio needs them to
# resolve a host name for a first connection. That door has no public name.
getattr(threading, "_register_atexit", atexit.register)(_flush_at_exit)
