"""How does a task leave RUNNING? This is the only door out of it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any, NamedTuple
from uuid import UUID

from django.db import transaction
from django.db.models.functions import Now

from . import bulk, committing, conf, problems, signals, successes, workflow
from .database import locked, write_transaction
from .exceptions import InvalidAdoption, LeaseLost, TaskCancelled
from .models import Attempt, Task
from .outcomes import Claimed, Outcome, Problem
from .states import Cause, Condition, Status
from .workflow import Ended, Moves

logger = logging.getLogger("cq")


@dataclass(slots=True)
class Recorded:
    """What a batch came to."""

    written: list[Outcome] = field(default_factory=list)
    # Rows that another transaction held: to be recorded in the next round.
    left: list[Outcome] = field(default_factory=list)
    # Somebody else owns the task now; nothing was written.
    lost: list[Outcome] = field(default_factory=list)


class _Row(NamedTuple):
    """What the fence reads once it holds the row; never what the claim saw."""

    id: UUID
    status: str
    worker_id: int | None
    claim: int
    parent_id: UUID | None
    parent_claim: int
    root_id: UUID
    depth: int
    open_children: int
    is_cancelling: bool
    cancelled_by: str
    cancel_reason: str


_FENCE_COLUMNS = (
    "id",
    "status",
    "worker_id",
    "claim",
    "parent_id",
    "parent_claim",
    "root_id",
    "depth",
    "open_children",
    "cancel_requested",
    "cancelled_by",
    "reason",
)


def record_within(outcome: Outcome) -> bool:
    """Write *outcome* in the transaction that holds the task's own effects; is that committed too?

    Raises `LeaseLost` when somebody else owns the task now, and `TaskCancelled` when it was
    cancelled before this fence; either way everything must be rolled back.
    """
    if _commit_within(outcome):
        return True
    plain = _write_plain([outcome], skip_locked=False)
    if plain:
        _settle(plain)
        return False
    rows = _fence([outcome], skip_locked=False)
    row = rows.get(outcome.claimed.id)
    if row is None or not _owns(row, outcome.claimed):
        raise LeaseLost(f"task={outcome.claimed.id} claim={outcome.claimed.claim}")
    if row.is_cancelling:
        raise TaskCancelled
    _settle([], [(outcome, row)])
    return False


def record(outcomes: Sequence[Outcome], *, skip_locked: bool = True) -> Recorded:
    """Write *outcomes* in one transaction of their own, whoever of them still owns its task.

    With *skip_locked* nobody's open transaction stalls the others: rows that are locked are left.
    """
    recorded = Recorded()
    with write_transaction(durable=True):
        plain = _write_plain(outcomes, skip_locked=skip_locked)
        written = {id(outcome) for outcome, _row in plain}
        others = [outcome for outcome in outcomes if id(outcome) not in written]
        rows = _fence(others, skip_locked=skip_locked) if others else {}
        mine = []
        missing = []
        for outcome in others:
            row = rows.get(outcome.claimed.id)
            if row is None:
                missing.append(outcome)
            elif not _owns(row, outcome.claimed):
                recorded.lost.append(outcome)
            else:
                mine.append((_after_cancel(outcome, row), row))
        if missing:
            _sort_out(missing, recorded)
        _settle(plain, mine)
    recorded.written = [outcome for outcome, _row in (*plain, *mine)]
    for outcome in recorded.lost:
        logger.warning("lost lease task=%s claim=%s", outcome.claimed.id, outcome.claimed.claim)
    return recorded


def is_recorded(outcome: Outcome) -> bool | None:
    """Has this claim's end been recorded? None when somebody else owns the task now.

    Locks and waits as a record does.
    """
    claimed = outcome.claimed
    with write_transaction(durable=True):
        row = _fence([outcome], skip_locked=False).get(claimed.id)
        if row is None or (row.worker_id, row.claim) != (claimed.worker_id, claimed.claim):
            return None
        return row.status != Status.RUNNING


def _write_plain(
    outcomes: Sequence[Outcome], *, skip_locked: bool
) -> list[tuple[Outcome, successes.Written]]:
    """Write the successes that change nothing but their own row, and who waits for them.

    Most outcomes are such, so they are fenced and written by one statement; returns those. Of the
    others somebody else may have something to say: a lease that was lost, a lock, a cancel.
    """
    plain = {outcome.claimed.id: outcome for outcome in outcomes if outcome.is_plain_success}
    if not plain:
        return []
    rows = [_as_success(outcome) for outcome in plain.values()]
    return [(plain[row.id], row) for row in successes.write(rows, skip_locked=skip_locked)]


def _commit_within(outcome: Outcome) -> bool:
    """Commit it with the task's effects at once, where nobody else has a say in that."""
    claimed = outcome.claimed
    waits_for_nobody = claimed.parent_id is None and not claimed.has_followers
    if not (waits_for_nobody and outcome.is_plain_success and committing.can_commit()):
        return False
    if not committing.write_and_commit(_as_success(outcome), claimed.root_id):
        return False
    _announce(Moves(), [(outcome, claimed.root_id)])
    return True


def _as_success(outcome: Outcome) -> successes.Success:
    claimed = outcome.claimed
    return successes.Success(
        claimed.id,
        claimed.worker_id,
        claimed.claim,
        outcome.started,
        outcome.finished,
        outcome.result,
    )


def _fence(outcomes: Sequence[Outcome], *, skip_locked: bool) -> dict[UUID, _Row]:
    """Lock the rows, deepest first."""
    rows = workflow.tasks().filter(pk__in=[outcome.claimed.id for outcome in outcomes])
    if len(outcomes) > 1:
        rows = rows.order_by("-depth", "id")
    found = locked(rows, skip_locked=skip_locked).values_list(*_FENCE_COLUMNS)
    return {row[0]: _Row._make([*row[:9], row[9] is not None, *row[10:]]) for row in found}


def _owns(row: _Row, claimed: Claimed) -> bool:
    return (
        row.status == Status.RUNNING
        and row.worker_id == claimed.worker_id
        and row.claim == claimed.claim
    )


def _sort_out(missing: Sequence[Outcome], recorded: Recorded) -> None:
    """Tell rows that are locked from those that are somebody else's or gone."""
    there = {
        row[0]: row
        for row in workflow.tasks()
        .filter(pk__in=[outcome.claimed.id for outcome in missing])
        .values_list("id", "status", "worker_id", "claim")
    }
    for outcome in missing:
        claimed = outcome.claimed
        still_mine = (claimed.id, Status.RUNNING, claimed.worker_id, claimed.claim)
        is_left = there.get(claimed.id) == still_mine
        (recorded.left if is_left else recorded.lost).append(outcome)


def _after_cancel(outcome: Outcome, row: _Row) -> Outcome:
    """What *outcome* comes to when a cancel was asked for before it was recorded."""
    if not row.is_cancelling or outcome.status == Status.LOST:
        return outcome
    if outcome.status == Status.REVOKED:
        is_cancelled = outcome.cause == Cause.CANCELLED
        return outcome._replace(reason=row.cancel_reason) if is_cancelled else outcome
    if not outcome.is_atomic and outcome.status in (Status.SUCCESS, Status.FAILURE):
        # It has had its effects. What it would have let run does not.
        return outcome._replace(followers=())
    return outcome._replace(
        status=Status.REVOKED,
        cause=Cause.CANCELLED,
        reason=row.cancel_reason or "cancelled",
        result=None,
        followers=(),
        adopted=None,
        uncounted=0,
        has_children=outcome.has_children and not outcome.is_atomic,
    )


def _settle(
    plain: Sequence[tuple[Outcome, successes.Written]], fenced: Sequence[tuple[Outcome, _Row]] = ()
) -> None:
    """Write what is *fenced*, then move on what waited for it and for the *plain* successes."""
    if not plain and not fenced:
        return
    moves = Moves()
    ended = []
    finished = []
    for outcome, written in plain:
        parent = (written.parent_id, written.parent_claim)
        ended.append(Ended(written.id, Status.SUCCESS, "", *parent, written.has_followers))
        finished.append((outcome, written.root_id))
    for outcome, row in fenced:
        if row.root_id != outcome.claimed.root_id:
            workflow.bring_along(_as_task(row), outcome.claimed.root_id)
        end = _write_one(outcome, row, moves)
        if end is not None:
            ended.append(end)
        finished.append((outcome, row.root_id))
    workflow.settle(ended, moves)
    _announce(moves, finished)


def _announce(moves: Moves, finished: Sequence[tuple[Outcome, UUID]]) -> None:
    """On commit, tell of what has moved and of what is *finished*, each with its root."""
    moves.roots.update(root_id for _outcome, root_id in finished)
    moves.announce()
    if signals.task_finished.has_listeners() or signals.task_failed.has_listeners():
        transaction.on_commit(partial(_signal, finished), using=conf.get().database, robust=True)


def _write_one(outcome: Outcome, row: _Row, moves: Moves) -> Ended | None:
    """Write an outcome that more than its own row depends on; None while it has not ended."""
    claimed = outcome.claimed
    outcome, adopted = _adopt(outcome, row)
    open_children = row.open_children + outcome.uncounted + adopted
    status, cause, reason = outcome.status, outcome.cause, outcome.reason
    values: dict[str, Any] = {
        "started": outcome.started,
        "finished": outcome.finished,
        "result": outcome.result,
        "adopted_id": outcome.adopted,
        "cause": cause,
        "reason": reason,
        "ready": None,
        "error": outcome.problem.message if outcome.problem else "",
        "fingerprint": outcome.problem.fingerprint if outcome.problem else "",
        "open_children": open_children,
        "returned": status == Status.SUCCESS,
        # It ran, and its worker lived.
        "suspect": False,
        "ends_as": status,
    }
    if _insert_followers(outcome, row):
        values["has_followers"] = True
    if status == Status.QUEUED:
        _hand_back(outcome, row, moves)
        return None
    if status == Status.RETRY:
        # Not plus nothing: the sum is finer than SQLite's clock, and would lie ahead of it.
        wait = timedelta(seconds=outcome.retry_after)
        values |= {"run_at": Now() + wait if wait else Now(), "finished": None}
    if open_children:
        status = Status.WAITING
        values["finished"] = None
    elif status == Status.SUCCESS and _has_harm_below(outcome, row):
        status = Status.INCOMPLETE
    elif status == Status.RETRY:
        values |= {"returned": False, "ends_as": "", "ready": outcome.retry_after <= 0 or None}
        if values["ready"]:
            moves.queues.add(claimed.queue)
    if status == Status.SUCCESS and outcome.adopted is not None:
        results = workflow.tasks().filter(pk=outcome.adopted).values_list("result", flat=True)
        values["result"] = results.first()
    _store_attempt(outcome)
    workflow.tasks().filter(pk=row.id).update(status=status, **values)
    if status in (Status.WAITING, Status.RETRY):
        return None
    return Ended(row.id, status, cause, row.parent_id, row.parent_claim)


def _adopt(outcome: Outcome, row: _Row) -> tuple[Outcome, int]:
    """Adopt what the task returned; the outcome, failed when it may not, and how many are open."""
    if outcome.adopted is None:
        return outcome, 0
    try:
        return outcome, workflow.adopt(_as_task(row), outcome.adopted)
    except InvalidAdoption as error:
        if outcome.is_atomic:
            # It fails as any other task that raises: with everything rolled back.
            raise
        problem = problems.of(error)
    failed = outcome._replace(status=Status.FAILURE, adopted=None, result=None, problem=problem)
    return failed, 0


def _has_harm_below(outcome: Outcome, row: _Row) -> bool:
    has_children = outcome.has_children or outcome.adopted is not None
    return has_children and workflow.harmed(_as_task(row))


def _hand_back(outcome: Outcome, row: _Row, moves: Moves) -> None:
    """Queue it again as if it had not been claimed; the claim number stays grown."""
    claimed = outcome.claimed
    waits = row.open_children > 0
    workflow.tasks().filter(pk=row.id).update(
        status=Status.WAITING if waits else Status.QUEUED,
        ends_as=Status.RETRY if waits else "",
        ready=None if waits else True,
        worker=None,
        attempts=max(claimed.attempt - 1, 0),
        suspect=claimed.suspect,
    )
    moves.queues.add(claimed.queue)


def _insert_followers(outcome: Outcome, row: _Row) -> bool:
    """Store what `cqt.chain` and `cqt.errorback` asked for; a retried attempt drops them."""
    # Twins: after a conflict the same outcome is written again.
    followers = [bulk.twin(follower) for follower in _kept_followers(outcome)]
    followed = {follower.previous_id for follower in followers}
    for follower in followers:
        follower.root_id = row.root_id
        follower.depth = row.depth
        # One chained behind another follower keeps that as its predecessor.
        follower.previous_id = follower.previous_id or row.id
        follower.has_followers = follower.pk in followed
        follower.parent_id, follower.parent_claim = row.parent_id, row.parent_claim
    bulk.insert(followers)
    if followers and row.parent_id is not None:
        parent = locked(workflow.tasks().filter(pk=row.parent_id, claim=row.parent_claim))
        for found in parent.only("id", "open_children"):
            workflow.tasks().filter(pk=found.pk).update(
                open_children=found.open_children + len(followers)
            )
    return bool(followers)


def _kept_followers(outcome: Outcome) -> list[Task]:
    """Of an attempt that will run again none; of a failed one not those that need a success."""
    if outcome.status in (Status.RETRY, Status.QUEUED, Status.REVOKED):
        return []
    if outcome.status == Status.SUCCESS:
        return list(outcome.followers)
    kept: list[Task] = []
    dropped: set[UUID] = set()
    for follower in outcome.followers:
        heads = follower.previous_id is None
        if follower.previous_id in dropped or (heads and follower.condition == Condition.SUCCESS):
            dropped.add(follower.pk)
        else:
            kept.append(follower)
    return kept


def _store_attempt(outcome: Outcome) -> None:
    if outcome.status == Status.SUCCESS:
        return
    problem = outcome.problem or Problem("", outcome.reason)
    Attempt.objects.using(conf.get().database).create(
        task_id=outcome.claimed.id,
        number=outcome.claimed.attempt,
        outcome=outcome.status,
        worker_name=outcome.claimed.worker_name,
        started=outcome.started,
        finished=outcome.finished,
        exception=problem.exception,
        error=problem.message,
        traceback=problem.traceback,
        frames=problem.frames,
    )


def _as_task(row: _Row) -> Task:
    return Task(id=row.id, claim=row.claim, root_id=row.root_id, depth=row.depth)


def _signal(finished: Iterable[tuple[Outcome, UUID]]) -> None:
    for outcome, root_id in finished:
        signal = signals.of(outcome.status)
        if signal is not None:
            signal.send_robust(
                sender=outcome.claimed.func_name,
                task_id=outcome.claimed.id,
                root_id=root_id,
                outcome=outcome,
            )
