"""How does a task look as a row of its tree?"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from django.urls import reverse
from django.utils import timezone
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from cq.models import Task
from cq.states import ACTIVE, CLAIMABLE, DONE, Condition, Status

from . import arguments, durations, lanes, statuses
from .live import LiveRow, fingerprint, render_cell
from .queries import tree

# The section that a row stands in: a task may stand in both.
FAILED_SECTION, ALL_SECTION = "f", "a"
SHORT_ID_LENGTH = 22

ARROWS = {Condition.SUCCESS: "→", Condition.ALWAYS: "⇢", Condition.FAILURE: "↯"}


@dataclass(frozen=True, slots=True)
class Scene:
    """What all rows of one tree share: its first task, the counts, the time axis."""

    root: Task
    family: tree.Family
    axis: lanes.Axis
    now: datetime
    is_open: bool
    heads: tuple[UUID, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """A task in the tree; *level* is what stands open below it."""

    live: LiveRow
    id: UUID
    name: arguments.Name
    brief: str
    arrow: str
    arrow_word: str
    section: str
    is_selected: bool
    level: LevelShown | None = None

    @property
    def key(self) -> str:
        return self.live.key

    @property
    def v(self) -> str:
        return self.live.v

    @property
    def cells(self) -> Mapping[str, SafeString]:
        return self.live.cells

    @property
    def url(self) -> str:
        return reverse("admin:cq_task_change", args=[self.id])

    @property
    def status(self) -> str:
        return self.live.state["status"]

    @property
    def leaf(self) -> str:
        return self.live.state["leaf"]


@dataclass(frozen=True, slots=True)
class LevelShown:
    """A page of rows below one task."""

    parent: UUID
    section: str
    rows: tuple[Row, ...]
    has_more: bool
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        return self.section + short(self.parent)

    @property
    def last(self) -> str:
        return short(self.rows[-1].id) if self.rows else ""

    @property
    def last_id(self) -> UUID | None:
        return self.rows[-1].id if self.rows else None

    @property
    def more_url(self) -> str:
        url = reverse("admin:cq_task_level", args=[self.parent])
        return f"{url}?section={self.section}&after={self.last_id}"


def short(id: UUID) -> str:
    """*id* in 22 characters that may stand in an element's id."""
    return base64.urlsafe_b64encode(id.bytes).decode().rstrip("=")


def long(text: str) -> UUID | None:
    """The id that `short` made *text* of; None when it did not."""
    if len(text) != SHORT_ID_LENGTH:
        return None
    try:
        return UUID(bytes=base64.urlsafe_b64decode(text + "=="))
    except ValueError:
        return None


def scene(tasks: QuerySet[Task], root: Task, now: datetime | None = None) -> Scene:
    """The scene of *root*'s tree, as it is at *now*."""
    now = now or timezone.now()
    heads = tree.heads(tasks, root.id)
    is_open = any(head.status in ACTIVE and not head.is_blocked for head in heads)
    ends = [head.finished for head in heads if head.finished]
    end = None if is_open or not ends else max(ends)
    start = root.submitted
    if root.started and root.attempts <= 1:
        ran = (end or now) - root.started
        # A root that waited much longer than it ran would squeeze its tree into a corner.
        start = max(start, root.started - ran / 20) if root.started - start > ran * 4 else start
    return Scene(
        root,
        tree.family(tasks, root.id),
        lanes.axis(start, end, now),
        now,
        is_open,
        tuple(head.id for head in heads),
    )


def level(
    scene: Scene,
    found: tree.Level,
    parent: UUID,
    section: str,
    *,
    open_levels: Mapping[UUID, LevelShown] | None = None,
    selected: UUID | None = None,
    direct: Mapping[UUID, tree.Counts] | None = None,
) -> LevelShown:
    """The rows of a page, with what stands open below them."""
    open_levels = open_levels or {}
    return LevelShown(
        parent,
        section,
        tuple(
            row(scene, node, section, open_levels.get(node.task.id), selected, direct)
            for node in found.nodes
        ),
        found.has_more,
    )


def row(
    scene: Scene,
    node: tree.Node,
    section: str,
    below: LevelShown | None = None,
    selected: UUID | None = None,
    direct: Mapping[UUID, tree.Counts] | None = None,
) -> Row:
    task = node.task
    condition = Condition(task.condition) if task.condition else None
    is_follower = condition is not None and task.previous_id is not None
    return Row(
        live=live_row(scene, task, section, node.retries, direct),
        id=task.id,
        name=arguments.name_of(task.func_name),
        brief=node.brief,
        arrow=ARROWS[condition] if condition and is_follower else "",
        arrow_word=_follows(condition) if condition and is_follower else "",
        section=section,
        is_selected=task.id == selected,
        level=below,
    )


def live_row(
    scene: Scene,
    task: Task,
    section: str,
    retries: tuple[datetime, ...],
    direct: Mapping[UUID, tree.Counts] | None = None,
) -> LiveRow:
    """The live cells of a row: status, roll-up, lane, duration."""
    counts = (direct or scene.family.below).get(task.id, {})
    folded = lanes.folded(counts)
    context = {
        "status": statuses.shown(task, scene.now),
        "segments": lanes.segments(folded, ("done", "failed", "running", "open"), lanes.BAR_WIDTH),
        "folded": folded,
        "total": sum(counts.values()),
        "lane": lanes.lane(
            scene.axis,
            kind=_lane_kind(task),
            submitted=task.submitted,
            started=task.started,
            finished=task.finished,
            retries=retries,
            now=scene.now,
        ),
        "duration": duration(task, scene.now),
    }
    cells = {name: render_cell(template, context) for name, template in _CELLS.items()}
    return LiveRow(
        section + short(task.id),
        cells,
        {"status": task.status, "leaf": "no" if counts else "yes"},
    )


def duration(task: Task, now: datetime) -> str:
    """How long *task* ran, or has been running."""
    # Between two attempts nothing runs.
    if task.started is None or task.status in CLAIMABLE:
        return ""
    return durations.said((task.finished or now) - task.started)


def known_rows(text: str) -> dict[str, str]:
    """Row key → fingerprint, from records of 23 and 6 characters one after the other."""
    size = 1 + SHORT_ID_LENGTH
    step = size + len(fingerprint(""))
    records = [text[start : start + step] for start in range(0, len(text), step)]
    return {record[:size]: record[size:] for record in records if len(record) == step}


_CELLS = {
    "s": "_node_status.html",
    "u": "_node_rollup.html",
    "l": "_node_lane.html",
    "t": "_node_time.html",
}


def _lane_kind(task: Task) -> str:
    if task.status in (Status.FAILURE, Status.LOST):
        return "failed"
    if task.status in DONE:
        return "done"
    return "running" if task.status == Status.RUNNING else "open"


def _follows(condition: Condition) -> str:
    words = {
        Condition.SUCCESS: _("on success"),
        Condition.ALWAYS: _("always"),
        Condition.FAILURE: _("on failure"),
    }
    return words[condition]
