"""On which channels and groups do hints travel?"""

from __future__ import annotations

import hashlib
import re
from uuid import UUID

CONTROL_GROUP = "cq-control"
OVERVIEW_GROUP = "cq-console"
# Every task page joins this one beside the group of its own tree: when more trees change than
# can be named one by one, a single nudge here reaches all of them.
TREES_GROUP = "cq-trees"
TREE_PREFIX = "cq-tree."

_PLAIN_NAME = re.compile(r"[a-zA-Z0-9\-_.]{1,80}")


def tree_group(root_id: UUID) -> str:
    """Return the group of the consoles that show the tree of *root_id*."""
    return f"{TREE_PREFIX}{root_id.hex}"


def channel_name(queue: str) -> str:
    """Return the channel that carries the wakes of *queue*.

    Channels takes at most 99 ASCII letters, digits, hyphens, underscores and full stops; any
    other queue name is shortened and told apart by a hash.
    """
    if queue == "default":
        return "cq-tasks"
    if _PLAIN_NAME.fullmatch(queue):
        return f"cq-tasks.{queue}"
    readable = re.sub(r"[^a-zA-Z0-9\-_.]", "-", queue[:40])
    digest = hashlib.sha256(queue.encode(errors="replace")).hexdigest()[:16]
    return f"cq-tasks.{readable}.{digest}"
