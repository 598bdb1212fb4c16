"""What happened to a task: its attempts, who did what to it, and what is known once it is gone?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from django.db.models import Q
from django.utils import timezone

from cq.models import ActItem, Attempt, RepeatingRun, Task

from .. import arguments, hostile, statuses, store

ATTEMPTS_SHOWN = 50
ACTS_SHOWN = 100
FRAMES_SHOWN = 100


@dataclass(frozen=True, slots=True)
class Frame:
    file: str
    line: int
    function: str
    code: str
    is_own: bool
    skipped: int
    """How many frames were not kept before this one."""


@dataclass(frozen=True, slots=True)
class AttemptShown:
    number: int
    status: str
    word: str
    glyph: str
    worker: str
    started: datetime | None
    finished: datetime
    duration: timedelta | None
    error: str
    engine: tuple[Frame, ...]
    """The engine's way to the task's function, before all other frames."""
    frames: tuple[Frame, ...]
    traceback: str


@dataclass(frozen=True, slots=True)
class ActShown:
    at: datetime
    by: str
    way: str
    verb: str
    reason: str
    done: int
    skipped: str
    is_own: bool


@dataclass(frozen=True, slots=True)
class RunShown:
    entry: str
    created: datetime
    outcome: str


def attempts(task: Task) -> list[AttemptShown]:
    """The attempts that did not succeed, the newest first."""
    rows = store.rows(Attempt).filter(task_id=task.id).order_by("-number", "-id")[:ATTEMPTS_SHOWN]
    return [_shown(row) for row in rows]


def last_traceback(task: Task) -> AttemptShown | None:
    """The last attempt that did not succeed."""
    row = store.rows(Attempt).filter(task_id=task.id).order_by("-number", "-id").first()
    return _shown(row) if row else None


def acts(task_id: UUID) -> list[ActShown]:
    """Who did what to the task, or to the tree that it heads, the newest first."""
    rows = (
        store.rows(ActItem)
        .filter(Q(task_id=task_id) | Q(root_id=task_id))
        .select_related("act")
        .order_by("-id")[:ACTS_SHOWN]
    )
    return [
        ActShown(
            at=row.act.at,
            by=row.act.by_name,
            way=row.act.way,
            verb=row.act.verb,
            reason=hostile.one_line(row.act.reason),
            done=row.act.done,
            skipped=row.skipped,
            is_own=row.task_id == task_id,
        )
        for row in rows
    ]


def runs_of(task_id: UUID) -> list[RunShown]:
    """The tick that a task came from; it outlives the task."""
    rows = store.rows(RepeatingRun).filter(task_id=task_id).select_related("entry")[:10]
    return [RunShown(str(row.entry), row.created, row.get_outcome_display()) for row in rows]


def made_at(task_id: UUID) -> datetime | None:
    """When an id of this project was made; None when it is not one, or lies in the future."""
    if task_id.version != 7:
        return None
    made = datetime.fromtimestamp((task_id.int >> 80) / 1000, tz=UTC)
    return made if made < timezone.now() + timedelta(minutes=1) else None


def _shown(row: Attempt) -> AttemptShown:
    engine, frames = _apart(_frames(row.frames))
    return AttemptShown(
        number=row.number,
        status=row.outcome,
        word=statuses.word(row.outcome),
        glyph=statuses.GLYPHS[row.outcome],
        worker=row.worker_name,
        started=row.started,
        finished=row.finished,
        duration=row.duration,
        error=hostile.visible(arguments.safe_text(row.error), hostile.BLOCK),
        engine=engine,
        frames=frames,
        traceback=hostile.visible(arguments.safe_text(row.traceback), hostile.BLOCK),
    )


def _frames(stored: Sequence[Mapping[str, Any]]) -> tuple[Frame, ...]:
    if not isinstance(stored, list):
        return ()
    return tuple(
        Frame(
            hostile.one_line(str(frame.get("file", "")), 300),
            int(frame.get("line") or 0),
            hostile.one_line(str(frame.get("function", "")), 200),
            hostile.one_line(arguments.safe_text(str(frame.get("code") or "")), 300),
            bool(frame.get("own")),
            int(frame.get("skipped") or 0),
        )
        for frame in stored[-FRAMES_SHOWN:]
        if isinstance(frame, Mapping)
    )


def _apart(frames: tuple[Frame, ...]) -> tuple[tuple[Frame, ...], tuple[Frame, ...]]:
    """The engine's frames that stand first, and what they led to.

    What failed in the engine itself led to nothing: then all are what a reader looks for.
    """
    first = next((n for n, frame in enumerate(frames) if not _is_engine(frame)), 0)
    return frames[:first], frames[first:]


def _is_engine(frame: Frame) -> bool:
    # Relative to its root, and not own: what a project has called cq as well is its own.
    return frame.file.startswith("cq/") and not frame.is_own
