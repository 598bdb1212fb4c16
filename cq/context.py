"""What can a running task ask and say? (`cqt`)"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Protocol
from uuid import UUID

from django.db.models import F, QuerySet

from . import bulk, conf, enqueue, redaction, registry, workflow
from .chaining import Chainable
from .database import again_after_conflicts, write_transaction
from .exceptions import LeaseLost, TaskCancelled
from .interrupts import Interrupt
from .loops import off_the_loop
from .models import Task
from .outcomes import Claimed
from .states import Condition, Status

logger = logging.getLogger("cq")

MESSAGE_LENGTH = 100_000
# What the columns of a line hold.
HIGHEST_LEVEL, HIGHEST_COUNT = 2**15 - 1, 2**63 - 1
_CONTROL = dict.fromkeys([0, *range(0xD800, 0xE000)], "\N{REPLACEMENT CHARACTER}")


@dataclass(frozen=True, slots=True)
class Line:
    """One log line on its way to the database; with *limit* only so many of its task are kept."""

    root_id: UUID
    task_id: UUID
    created: datetime
    level: int
    message: str
    done: int | None = None
    total: int | None = None
    limit: int | None = None


class LogSink(Protocol):
    """Takes lines without waiting for the database."""

    def add_lines(self, lines: Sequence[Line]) -> None: ...


class Run:
    """What one attempt has made so far, for the runner to turn into an outcome."""

    def __init__(self, claimed: Claimed, *, is_atomic: bool, sink: LogSink) -> None:
        self.claimed = claimed
        self.task_id = claimed.id
        # Where it stood when it looked last: who returns it adopts it, while it runs as well.
        self._root_id, self._depth = claimed.root_id, claimed.depth
        self.is_atomic = is_atomic
        self.sink = sink
        self.is_cancelled = False
        self.interrupt = Interrupt()
        # When it should have ended, by the monotonic clock; 0 for a task without timeout.
        self.deadline = 0.0
        self.followers: list[Task] = []
        self.has_children = False
        self.uncounted = 0
        self._children: list[Task] = []
        self._held_lines: list[Line] = []

    def add_children(self, calls: Iterable[registry.Call]) -> list[Task]:
        """Subtasks of an atomic parent commit with it; those of another are visible at once."""
        claimed = self.claimed
        place = enqueue.Place(
            parent_id=claimed.id,
            parent_claim=claimed.claim,
            root_id=self._root_id,
            depth=self._depth + 1,
        )
        children = [enqueue.build(call, place=place) for call in calls]
        if not children:
            return []
        self.has_children = True
        if self.is_atomic:
            self._children += children
            if len(self._children) >= bulk.BATCH:
                self.flush_children()
            return children
        store = partial(self._store_at_once, children)
        return off_the_loop(partial(again_after_conflicts, store))

    def _store_at_once(self, made: Sequence[Task]) -> list[Task]:
        children = [bulk.twin(child) for child in made]
        with write_transaction():
            while not self._count_open(len(children)):
                self._look_where_it_stands()
            for child in children:
                child.root_id, child.depth = self._root_id, self._depth + 1
            bulk.insert(children)
            enqueue.announce(children)
        return children

    def _count_open(self, number: int) -> bool:
        """Count children in the row at once, unless that was cancelled, lost, or adopted."""
        own = self._own_row().filter(cancel_requested__isnull=True, root_id=self._root_id)
        return bool(own.update(open_children=F("open_children") + number))

    def _look_where_it_stands(self) -> None:
        """A checkpoint, and the last one for a lost lease."""
        row = self._own_row().only("cancel_requested", "root_id", "depth").first()
        if row is None:
            raise LeaseLost(f"task={self.claimed.id} claim={self.claimed.claim}")
        if row.cancel_requested is not None:
            raise TaskCancelled
        self._root_id, self._depth = row.root_id, row.depth

    def _own_row(self) -> QuerySet[Task]:
        claimed = self.claimed
        return workflow.tasks().filter(pk=claimed.id, claim=claimed.claim, status=Status.RUNNING)

    def flush_children(self) -> None:
        """Store the children that were only collected so far."""
        children, self._children = self._children, []
        if children:
            bulk.insert(children)
            enqueue.announce(children)
            self.uncounted += len(children)

    def count_child(self) -> None:
        """A follower of one of its children was stored."""
        self.has_children = True
        self.uncounted += 1

    def say(
        self,
        message: object,
        level: int,
        *,
        publish: bool = True,
        limit: int | None = None,
        done: int | None = None,
        total: int | None = None,
    ) -> None:
        """Add a line to the task's log; see `Context.log`."""
        claimed = self.claimed
        self._held_lines.append(
            Line(
                root_id=claimed.root_id,
                task_id=claimed.id,
                created=claimed.now(),
                level=max(0, min(level, HIGHEST_LEVEL)),
                message=_text(message),
                done=done,
                total=total,
                limit=limit,
            )
        )
        if publish:
            self.flush_lines()

    def flush_lines(self) -> None:
        lines, self._held_lines = self._held_lines, []
        if lines:
            self.sink.add_lines(lines)


class Context(Chainable["Follower"]):
    """The first argument of every task: this run, as its function sees it."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._claimed = run.claimed

    @property
    def id(self) -> UUID:
        """The task's id; the same in every attempt, so it can serve as idempotency key."""
        return self._claimed.id

    @property
    def attempt(self) -> int:
        """1 on the first attempt."""
        return self._claimed.attempt

    @property
    def root_id(self) -> UUID:
        return self._claimed.root_id

    @property
    def parent(self) -> Task | None:
        return _get(self._claimed.parent_id)

    @property
    def previous(self) -> Task | None:
        """The task that this one is chained behind, with its `result` and `error`."""
        return _get(self._claimed.previous_id)

    def subtask(self, func: Any, *args: Any, **kwargs: Any) -> Task:
        """Store a task that this one waits for: it is not finished before its last descendant."""
        return self._run.add_children([registry.call(func, args, kwargs)])[0]

    def subtask_many(self, func: Any, argument_tuples: Iterable[Sequence[Any]]) -> list[Task]:
        """Store a subtask for each tuple of arguments, in bulk."""
        return self._run.add_children(registry.call(func, args, {}) for args in argument_tuples)

    def follow(
        self,
        func: Any,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        condition: Condition,
        previous_id: UUID | None = None,
    ) -> Follower:
        """A follower of this task, stored with its outcome, or one behind *previous_id*."""
        call = registry.call(func, args, kwargs)
        place = enqueue.Place(
            root_id=self._claimed.root_id,
            depth=self._claimed.depth,
            previous_id=previous_id,
            condition=condition,
        )
        row = enqueue.build(call, place=place, status=Status.PENDING)
        self._run.followers.append(row)
        return Follower(row.pk, self)

    def log(
        self,
        message: object,
        level: int = logging.INFO,
        publish: bool = True,
        limit: int | None = None,
    ) -> None:
        """Write a line to the log of this tree, and to Python logging.

        With ``publish=False`` it is held back until the next published one, at the latest the end
        of the attempt. *limit* keeps only the last so many lines of this task. A checkpoint.
        """
        if limit is not None and limit < 0:
            raise ValueError(f"limit is a number of lines, 0 or more, not {limit}.")
        logger.log(level, "%s", _text(message), extra={"cq_task_id": str(self.id)})
        self._run.say(message, level, publish=publish, limit=limit)
        self.checkpoint()

    def progress(self, done: int, total: int, message: object = "") -> None:
        """Say how many of how many are done. A checkpoint."""
        self._run.say(message, logging.INFO, done=_count(done), total=_count(total))
        self.checkpoint()

    @property
    def is_cancelled(self) -> bool:
        """Was a cancel asked for?"""
        return self._run.is_cancelled

    def checkpoint(self) -> None:
        """Raise `TaskCancelled` when a cancel was asked for."""
        if self._run.is_cancelled:
            raise TaskCancelled


class Follower(Chainable["Follower"]):
    """A follower that is stored when the running task is recorded; its id is final."""

    def __init__(self, follower_id: UUID, context: Context) -> None:
        self.id = follower_id
        self._context = context

    def follow(
        self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], condition: Condition
    ) -> Follower:
        return self._context.follow(func, args, kwargs, condition, self.id)


def _get(task_id: UUID | None) -> Task | None:
    if task_id is None:
        return None
    return off_the_loop(lambda: workflow.tasks().filter(pk=task_id).first())


def _count(number: float) -> int:
    """*number* as a whole one that is stored; a line that the database refuses would stop all."""
    try:
        return max(-HIGHEST_COUNT, min(int(number), HIGHEST_COUNT))
    except (TypeError, ValueError, OverflowError):
        raise TypeError(f"progress() takes two numbers, not {number!r}.") from None


def _text(message: object) -> str:
    """*message* bounded, masked, and without what a database refuses."""
    text = str(message)
    if len(text) > MESSAGE_LENGTH:
        text = f"{text[:MESSAGE_LENGTH]}… ({len(text)} characters)"
    return redaction.mask_text(text.translate(_CONTROL), conf.get().redact)
