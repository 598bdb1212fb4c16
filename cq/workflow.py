"""Which followers and parents move when a task has ended, is cancelled, or comes back?"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, Protocol
from uuid import UUID

from django.db import models, transaction
from django.db.models import Exists, F, OuterRef, Q
from django.db.models.functions import Now

from . import bulk, conf, enqueue, registry, successes
from .database import again_after_conflicts, locked, write_transaction
from .exceptions import CQError, InvalidAdoption
from .models import Task, TaskLog
from .states import (
    ACTIVE,
    CLAIMABLE,
    DONE,
    FAILED,
    HARMFUL_CAUSES,
    Cause,
    Condition,
    Status,
    Verdict,
    verdict,
)

logger = logging.getLogger("cq")


class CurrentRun(Protocol):
    """What the workflow must know of the task that is running in this thread."""

    task_id: UUID
    is_atomic: bool

    def flush_children(self) -> None: ...
    def count_child(self) -> None: ...


current_run: ContextVar[CurrentRun | None] = ContextVar("cq_current_run", default=None)


class Ended(NamedTuple):
    """A task that has just taken its last status."""

    id: UUID
    status: Status
    cause: str
    parent_id: UUID | None
    parent_claim: int
    may_have_followers: bool = True


@dataclass(slots=True)
class Moves:
    """What to announce once the transaction has committed."""

    queues: set[str] = field(default_factory=set)
    roots: set[UUID] = field(default_factory=set)

    def announce(self) -> None:
        transaction.on_commit(
            partial(enqueue.send_hints, self.queues, self.roots),
            using=conf.get().database,
            robust=True,
        )


def tasks() -> models.QuerySet[Task]:
    return Task.objects.using(conf.get().database)


def chain(
    predecessor: Task,
    func: Any,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    condition: Condition,
) -> Task:
    """Store a follower of *predecessor*, which may have ended already.

    The predecessor is locked before the insert, so that either its record sees the follower, or
    the follower sees how it ended.
    """
    run = current_run.get()
    if run is not None:
        run.flush_children()
    call = registry.call(func, args, kwargs)
    return again_after_conflicts(partial(_chain, predecessor, call, condition, run))


def _chain(
    predecessor: Task, call: registry.Call, condition: Condition, run: CurrentRun | None
) -> Task:
    with write_transaction():
        before = locked(tasks().filter(pk=predecessor.pk)).only(*_PLACE_COLUMNS).first()
        if before is None:
            raise CQError(
                f"Nothing can be chained to task {predecessor.pk}: it is not stored, or was "
                "removed after its result_ttl."
            )
        parent = None
        if before.parent_id is not None and not _is_counted_by(run, before.parent_id):
            parent = locked(tasks().filter(pk=before.parent_id)).only(*_PLACE_COLUMNS).first()
        blocked = _why_blocked_behind(before, condition)
        # A parent that has ended is not opened again by what is chained behind its child. What is
        # blocked runs only after a retry, for which that parent waits.
        has_parent_ended = parent is not None and parent.status in DONE
        counts = 0 if has_parent_ended and not blocked else before.parent_claim
        follower = enqueue.build(
            call,
            place=enqueue.Place(
                parent_id=before.parent_id,
                parent_claim=counts,
                root_id=before.root_id,
                depth=before.depth,
                previous_id=before.pk,
                condition=condition,
            ),
            status=Status.PENDING,
        )
        if blocked:
            follower.cause, follower.reason = Cause.BLOCKED, blocked
        bulk.insert([follower])
        if not before.has_followers:
            tasks().filter(pk=before.pk).update(has_followers=True)
        if before.parent_id is not None and not blocked and counts:
            if run is not None and _is_counted_by(run, before.parent_id):
                run.count_child()
            elif parent is not None and parent.claim == counts:
                _count(parent.pk, 1)
        moves = Moves(roots={before.root_id})
        if before.status in DONE:
            _settle_behind(before, moves)
            follower.refresh_from_db()
        moves.announce()
    return follower


def _why_blocked_behind(before: Task, condition: Condition) -> str:
    """The reason for which a new follower of *before* is blocked; empty when it is not."""
    if before.is_blocked:
        return before.reason
    status = Status(before.status)
    if status in DONE and verdict(status, before.cause, condition) is Verdict.BLOCKED:
        return _blocked_by(status)
    return ""


def leave_behind(task: Task) -> None:
    """Let the parent of *task*, which ended well without it, wait for it and its chain no more."""
    chained = [task.pk, *(row.pk for row in _behind(task))]
    for start in range(0, len(chained), bulk.BATCH):
        some = chained[start : start + bulk.BATCH]
        tasks().filter(pk__in=some).update(parent_claim=0)


def settle(ended: Iterable[Ended], moves: Moves) -> None:
    """Move on what waited for *ended*: their followers, then their parents, up to the root.

    Call it in the transaction that wrote those ends. Parents are locked deepest first.
    """
    wave = list(ended)
    while wave:
        closed = _settle_followers(wave, moves)
        wave = _close_parents(closed, moves)


def settle_again(task_ids: Iterable[UUID]) -> int:
    """Let what is still pending behind ended tasks go on; returns behind how many something was."""
    number = 0
    for task_id in task_ids:
        moves = Moves()
        with write_transaction():
            before = locked(tasks().filter(pk=task_id)).only(*_PLACE_COLUMNS).first()
            if before is not None and before.status in DONE:
                number += bool(_followers([before.pk]))
                _settle_behind(before, moves)
            moves.announce()
    return number


def revoke_orphans(task_ids: Collection[UUID]) -> int:
    """End pending tasks whose predecessor is not stored any more; returns how many."""
    with write_transaction():
        gone = ~Exists(tasks().filter(pk=OuterRef("previous_id")))
        orphans = list(tasks().filter(gone, pk__in=task_ids).values_list("pk", flat=True))
        revoke(orphans, Cause.CANCELLED, "its predecessor was removed")
    return len(orphans)


def finish_forgotten(task_id: UUID) -> int:
    """End a waiting task that has no open child, whatever it has counted; returns 1 if it was so.

    Who ends a child or adds one locks its parent too, so nothing is missed under that lock.
    """
    moves = Moves()
    with write_transaction():
        waiting = tasks().filter(pk=task_id, status=Status.WAITING)
        parent = locked(waiting).only(*_PLACE_COLUMNS).first()
        if parent is None:
            return 0
        if open_children().filter(parent_id=parent.pk, parent_claim=parent.claim).exists():
            return 0
        moves.roots.add(parent.root_id)
        end = _finish_waiting(parent, moves)
        settle([end] if end else [], moves)
        moves.announce()
    return 1


def open_children() -> models.QuerySet[Task]:
    """Those that a parent waits for."""
    return tasks().filter(status__in=sorted(ACTIVE)).exclude(cause=Cause.BLOCKED)


def revoke(task_ids: Collection[UUID], cause: Cause, reason: str, by: str = "") -> Moves:
    """End tasks that are not running as REVOKED, and settle what waited for them.

    Only those that are pending, queued or retrying change. Call it in a transaction.
    """
    moves = Moves()
    movable = tasks().filter(pk__in=task_ids, status__in=sorted({Status.PENDING, *CLAIMABLE}))
    rows = list(locked(movable.order_by("-depth", "id")).only(*_PLACE_COLUMNS))
    moves.roots.update(row.root_id for row in rows)
    settle(_revoke(rows, cause, reason, by), moves)
    moves.announce()
    return moves


def adopt(parent: Task, task_id: UUID) -> int:
    """Make the chain of *task_id* children of *parent*, which returned it.

    Returns how many of them are still open. Raises `InvalidAdoption`.
    """
    child = tasks().filter(pk=task_id).only(*_PLACE_COLUMNS).first()
    if child is None:
        raise InvalidAdoption(f"The returned task {task_id} is not stored.")
    if child.parent_id == parent.pk:
        return 0
    if child.pk == parent.pk:
        raise InvalidAdoption("A task cannot return itself.")
    if child.parent_id is not None:
        raise InvalidAdoption(
            f"The returned task {child} has another parent. Return a task made with delay(), or "
            "a subtask of this one."
        )
    if child.root_id == parent.root_id:
        raise InvalidAdoption(
            f"The returned task {child} is an ancestor, or is chained to one; waiting for it "
            "would never end."
        )
    family = tasks().filter(root_id=child.root_id)
    chained = list(
        locked(family.filter(parent__isnull=True).order_by("-depth", "id")).only(*_PLACE_COLUMNS)
    )
    if child.pk not in {row.pk for row in chained}:
        # Somebody else adopted it between the look and the lock.
        return adopt(parent, task_id)
    lines = TaskLog.objects.using(conf.get().database).filter(root_id=child.root_id)
    move_lines = partial(lines.update, root_id=parent.root_id)
    move_lines()
    # Once more: what is being stored meanwhile is not seen yet.
    transaction.on_commit(move_lines, using=conf.get().database, robust=True)
    family.filter(parent__isnull=True).update(parent_id=parent.pk, parent_claim=parent.claim)
    # What one of them made while this statement ran is met by the next; then all of them are
    # locked, and who makes more waits and sees.
    while family.update(root_id=parent.root_id, depth=F("depth") + parent.depth + 1):
        continue
    return sum(_is_open(row) for row in chained)


def bring_along(task: Task, old_root_id: UUID) -> None:
    """Let what *task* made in its transaction follow it: it was adopted meanwhile."""
    made = tasks().filter(parent_id=task.pk, parent_claim=task.claim, root_id=old_root_id)
    made.update(root_id=task.root_id, depth=task.depth + 1)


def harmed(parent: Task) -> bool:
    """Did a child of this attempt of *parent* end so that the parent is incomplete?"""
    return (
        tasks()
        .filter(parent_id=parent.pk, parent_claim=parent.claim)
        .filter(
            Q(status__in=sorted(FAILED))
            | Q(status=Status.REVOKED, cause__in=sorted(HARMFUL_CAUSES))
        )
        .exists()
    )


def release(task_ids: Collection[UUID]) -> None:
    """Queue followers whose turn has come; their time to live counts from here."""
    rows = tasks().filter(pk__in=task_ids, status=Status.PENDING)
    for expires in set(rows.values_list("expires", flat=True)):
        rows.filter(expires=expires).update(
            status=Status.QUEUED, cause="", reason="", **enqueue.due_now_or_later(expires)
        )


_PLACE_COLUMNS = (
    "id",
    "status",
    "cause",
    "reason",
    "queue",
    "func_name",
    "parent_id",
    "parent_claim",
    "previous_id",
    "root_id",
    "depth",
    "condition",
    "has_followers",
    "claim",
    "open_children",
    "ends_as",
    "returned",
    "adopted_id",
)


def _settle_behind(before: Task, moves: Moves) -> None:
    """Move what is chained behind an ended task, which its parent has counted off already."""
    end = Ended(before.pk, Status(before.status), before.cause, None, 0)
    settle(_close_parents(_settle_followers([end], moves), moves), moves)


def _settle_followers(ended: Sequence[Ended], moves: Moves) -> Counter[tuple[UUID, int]]:
    """Decide about what is chained behind *ended*; returns how many children closed by parent."""
    closed: Counter[tuple[UUID, int]] = Counter()
    wave = list(ended)
    while wave:
        for end in wave:
            if end.parent_id is not None:
                closed[end.parent_id, end.parent_claim] += 1
        by_id = {end.id: end for end in wave if end.may_have_followers}
        wave = []
        runs, unneeded, cancelled = [], [], []
        for follower in _followers(by_id):
            end = by_id[follower.previous_id]  # type: ignore[index]
            moves.roots.add(follower.root_id)
            match verdict(end.status, end.cause, Condition(follower.condition)):
                case Verdict.RUNS:
                    runs.append(follower)
                    closed.subtract(_opened_parents([follower, *_unblock_behind(follower)]))
                case Verdict.BLOCKED:
                    closed.update(_block(follower, end))
                case Verdict.NOT_NEEDED:
                    unneeded.append(follower)
                case Verdict.CANCELLED:
                    cancelled.append(follower)
        wave += _revoke(unneeded, Cause.NOT_NEEDED, "not needed")
        wave += _revoke(cancelled, Cause.CANCELLED, "its predecessor was cancelled")
        if runs:
            release([follower.pk for follower in runs])
            moves.queues.update(follower.queue for follower in runs)
    return closed


def _followers(task_ids: Collection[UUID]) -> list[Task]:
    if not task_ids or not successes.have_followers(task_ids):
        return []
    rows = tasks().filter(previous_id__in=task_ids, status=Status.PENDING)
    return list(locked(rows.order_by("-depth", "id")).only(*_PLACE_COLUMNS))


def _close_parents(closed: Counter[tuple[UUID, int]], moves: Moves) -> list[Ended]:
    """Count *closed* children off their parents; returns the parents that ended with it."""
    changed = {lease: number for lease, number in closed.items() if number}
    if not changed:
        return []
    if len(changed) == 1:
        # Of a large family, all but its last children.
        (((parent_id, claim), number),) = changed.items()
        if successes.count_off(parent_id, claim, number):
            return []
    ended = []
    parent_ids = {parent_id for parent_id, _claim in changed}
    parents = locked(tasks().filter(pk__in=parent_ids).order_by("-depth", "id"))
    for parent in parents.only(*_PLACE_COLUMNS):
        moves.roots.add(parent.root_id)
        # Children of an earlier attempt no longer count.
        number = closed[parent.pk, parent.claim]
        if not number:
            continue
        left = parent.open_children - number
        if left < 0:
            logger.error("count below zero task=%s open=%s", parent.pk, left)
            left = 0
        parent.open_children = left
        if left or parent.status != Status.WAITING:
            tasks().filter(pk=parent.pk).update(open_children=left)
            continue
        end = _finish_waiting(parent, moves)
        if end is not None:
            ended.append(end)
    return ended


def _finish_waiting(parent: Task, moves: Moves) -> Ended | None:
    """Give a waiting task whose last child has ended the status that it waited to take."""
    status = Status(parent.ends_as or Status.SUCCESS)
    if status == Status.RETRY:
        tasks().filter(pk=parent.pk).update(status=status, open_children=0, returned=False)
        return None
    # One that waited to run again, and was cancelled meanwhile, may still be one.
    values: dict[str, Any] = {"suspect": False}
    if status == Status.SUCCESS:
        if harmed(parent):
            status = Status.INCOMPLETE
        if parent.adopted_id is not None:
            adopted = tasks().filter(pk=parent.adopted_id).values_list("result", flat=True)
            values["result"] = adopted.first()
    tasks().filter(pk=parent.pk).update(status=status, finished=Now(), open_children=0, **values)
    parent.status = status
    return _ended(parent)


def _block(follower: Task, end: Ended) -> Counter[tuple[UUID, int]]:
    """Hold *follower* and what is behind it; returns their parents' closed children."""
    if follower.is_blocked:
        return Counter()
    held = [follower, *_behind(follower)]
    tasks().filter(pk__in=[row.pk for row in held]).update(
        cause=Cause.BLOCKED, reason=_blocked_by(end.status)
    )
    return _opened_parents(held, was_open=True)


def _blocked_by(status: Status) -> str:
    return f"blocked: its predecessor {_WORDS[status]}"


def _unblock_behind(follower: Task) -> list[Task]:
    if not follower.is_blocked:
        return []
    behind = _behind(follower)
    tasks().filter(pk__in=[row.pk for row in behind]).update(cause="", reason="")
    return behind


def _opened_parents(rows: Iterable[Task], *, was_open: bool = False) -> Counter[tuple[UUID, int]]:
    """Children per parent among *rows* that were blocked; with *was_open*, that were not."""
    return Counter(
        (row.parent_id, row.parent_claim)
        for row in rows
        if row.parent_id is not None and row.is_blocked is not was_open
    )


def _behind(task: Task) -> list[Task]:
    """Everything chained behind a pending task, which is pending as well."""
    found: list[Task] = []
    wave = [task.pk]
    while wave:
        rows = tasks().filter(previous_id__in=wave, status=Status.PENDING).order_by("id")
        followers = list(locked(rows).only(*_PLACE_COLUMNS))
        found += followers
        wave = [row.pk for row in followers]
    return found


def _revoke(rows: Sequence[Task], cause: Cause, reason: str, by: str = "") -> list[Ended]:
    """End locked rows. One that was blocked does not keep its parent open any more."""
    for start in range(0, len(rows), bulk.BATCH):
        ids = [row.pk for row in rows[start : start + bulk.BATCH]]
        tasks().filter(pk__in=ids).update(
            status=Status.REVOKED,
            cause=cause,
            reason=reason,
            cancelled_by=by,
            ready=None,
            suspect=False,
            coalesce_key=None,
            finished=Now(),
        )
    ended = []
    for row in rows:
        parent = (None, 0) if row.is_blocked else (row.parent_id, row.parent_claim)
        row.status, row.cause = Status.REVOKED, cause
        ended.append(Ended(row.pk, Status.REVOKED, cause, *parent))
    return ended


def _count(parent_id: UUID, number: int) -> None:
    tasks().filter(pk=parent_id).update(open_children=F("open_children") + number)


def _ended(row: Task) -> Ended:
    status = Status(row.status)
    return Ended(row.pk, status, row.cause, row.parent_id, row.parent_claim, row.has_followers)


def _is_open(row: Task) -> bool:
    return row.status not in DONE and not row.is_blocked


def _is_counted_by(run: CurrentRun | None, parent_id: UUID) -> bool:
    """Does the running task count its children itself, until it records them?

    A write to its own row would keep that locked, and a cancel request waiting, until it ends.
    """
    return run is not None and run.is_atomic and run.task_id == parent_id


_WORDS = {
    Status.FAILURE: "failed",
    Status.LOST: "was lost",
    Status.INCOMPLETE: "is incomplete",
    Status.REVOKED: "was revoked",
}
