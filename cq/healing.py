"""How does a tree come back after a retry, and stop after a cancel?"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import F, Q
from django.db.models.functions import Now

from . import conf, hints, registry, signature, workflow
from .database import locked
from .exceptions import CQError
from .models import Task
from .models.task import LARGE_COLUMNS
from .states import ACTIVE, DONE, FAILED, Cause, Condition, Status, Verdict, verdict
from .workflow import Moves, tasks

BATCH = 500
ONE_IS_QUEUED = "one is queued"


def retry(
    wanted: Sequence[Task],
    moves: Moves,
    *,
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
) -> dict[UUID, str]:
    """Bring locked tasks back, parents first; returns why each that was skipped was.

    A retried one counts again for its ancestors: those that are incomplete wait once more.
    """
    skipped: dict[UUID, str] = {}
    alone = []
    for before in wanted:
        if args is None and kwargs is None and _is_alone(before):
            alone.append(before)
            continue
        now = tasks().defer(*LARGE_COLUMNS).get(pk=before.pk)
        # What was done to a task above it was done to it as well.
        problem = _retry_one(now, moves, args, kwargs) if now.status == before.status else ""
        if problem:
            skipped[before.pk] = problem
    for some in batched(task.pk for task in alone):
        tasks().filter(pk__in=some, status__in=sorted(FAILED)).update(**_AFRESH)
    moves.queues.update(task.queue for task in alone)
    moves.roots.update(task.root_id for task in alone)
    return skipped


def _is_alone(task: Task) -> bool:
    """Does the retry of this failed task concern nothing but its own row?"""
    return (
        task.status in (Status.FAILURE, Status.LOST)
        and task.parent_id is None
        and not _may_coalesce(task)
    )


def _may_coalesce(task: Task) -> bool:
    if not registry.is_registered(task.func_name):
        return False
    return registry.get(task.func_name).options.coalesce is not False


def _retry_one(
    task: Task,
    moves: Moves,
    args: Sequence[Any] | None,
    kwargs: Mapping[str, Any] | None,
) -> str:
    below = _what_failed_below(task)
    if below is not None:
        # Its own function is done: what failed or was cancelled below it comes back.
        verb = "failed" if task.status == Status.INCOMPLETE else "was cancelled"
        is_back = _retry_below(task, moves, below)
        return "" if is_back else f"nothing below it {verb} that can be retried"
    match Status(task.status):
        case Status.FAILURE | Status.LOST | Status.REVOKED:
            return _retry_itself(task, moves, (), args, kwargs)
        case Status.RETRY | Status.QUEUED if not task.ready:
            tasks().filter(pk=task.pk, status=task.status).update(ready=True, run_at=Now())
            moves.queues.add(task.queue)
            moves.roots.add(task.root_id)
            return ""
        case status:
            return f"it is {status.label}"


def cancel(wanted: Sequence[Task], moves: Moves, *, reason: str, by: str) -> dict[UUID, str]:
    """Stop locked tasks, what is below them and what is chained behind them.

    Returns why each that was skipped was.
    """
    skipped = {
        task.pk: f"it has ended: {Status(task.status).label}"
        for task in wanted
        if task.status in DONE
    }
    scope = scope_of(task.pk for task in wanted if task.pk not in skipped)
    said = f"cancelled: {reason}" if reason else "cancelled"
    by_status: dict[str, list[UUID]] = {}
    held = lock(scope)
    for row in held.values():
        if row.status in ACTIVE:
            by_status.setdefault(row.status, []).append(row.pk)
            moves.roots.add(row.root_id)
    asked = {"cancel_requested": Now(), "cancelled_by": by, "reason": said}
    running = by_status.get(Status.RUNNING, [])
    for some in batched(running):
        tasks().filter(pk__in=some, status=Status.RUNNING).update(**asked)
    # They end as soon as the last one below them has.
    for some in batched(by_status.get(Status.WAITING, [])):
        tasks().filter(pk__in=some, status=Status.WAITING).update(
            **asked, cause=Cause.CANCELLED, ends_as=Status.REVOKED
        )
    idle = [
        task_id
        for status in (Status.PENDING, Status.QUEUED, Status.RETRY)
        for task_id in by_status.get(status, [])
    ]
    for some in batched(idle):
        workflow.revoke(some, Cause.CANCELLED, said, by)
    for task_id in running:
        message: dict[str, str | int | bool | None]
        message = {"verb": "cancel", "task": task_id.hex, "claim": held[task_id].claim}
        transaction.on_commit(
            partial(hints.control, message), using=conf.get().database, robust=True
        )
    return skipped


def scope_of(task_ids: Iterable[UUID]) -> set[UUID]:
    """The tasks, everything below them, and everything chained behind any of these."""
    wave = set(task_ids)
    found = set(wave)
    while wave:
        related: set[UUID] = set()
        for some in batched(wave):
            linked = Q(parent_id__in=some) | Q(previous_id__in=some)
            related |= set(tasks().filter(linked).values_list("id", flat=True))
        wave = related - found
        found |= wave
    return found


def lock(task_ids: Iterable[UUID], *, whole: bool = False) -> dict[UUID, Task]:
    """Lock the tasks that are still there, deepest first, as every other writer does.

    Unless *whole*, they come without their large columns.
    """
    found_rows = tasks() if whole else tasks().defer(*LARGE_COLUMNS)
    depths: dict[UUID, int] = {}
    for some in batched(task_ids):
        depths.update(tasks().filter(pk__in=some).values_list("id", "depth"))
    in_order = sorted(depths, key=lambda task_id: (-depths[task_id], task_id))
    found: dict[UUID, Task] = {}
    for some in batched(in_order):
        rows = locked(found_rows.filter(pk__in=some).order_by("-depth", "id"))
        found.update((row.pk, row) for row in rows)
    return found


def batched(task_ids: Iterable[UUID]) -> Iterator[list[UUID]]:
    """*task_ids* in lists that every database takes as parameters of one statement."""
    ids = list(task_ids)
    for start in range(0, len(ids), BATCH):
        yield ids[start : start + BATCH]


def _requeue(
    task: Task,
    moves: Moves,
    within: Collection[UUID],
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
) -> str:
    """Let the function of an ended task run again, with a fresh budget."""
    new_arguments: dict[str, Any] = {}
    if args is not None or kwargs is not None:
        try:
            new_arguments = _arguments(task, args, kwargs)
        except CQError as error:
            return str(error)
    if task.parent_id is None and task.previous_id is None and _may_coalesce(task):
        new_args = task.args if args is None else args
        new_kwargs = task.kwargs if kwargs is None else kwargs
        try:
            is_queued = another_waits(registry.call(task.func_name, new_args, new_kwargs))
        except CQError as error:
            # The function has changed since.
            return str(error)
        if is_queued:
            return ONE_IS_QUEUED
    problem = _reopen_ancestors(task, moves, within)
    if problem:
        return problem
    tasks().filter(pk=task.pk, status=task.status).update(**_AFRESH, **new_arguments)
    moves.queues.add(task.queue)
    moves.roots.add(task.root_id)
    return ""


# Its own function runs again, with a fresh budget. Who asks for it now wants it now.
_AFRESH: dict[str, Any] = {
    "status": Status.QUEUED,
    "expires_at": None,
    "ready": True,
    "run_at": Now(),
    "cause": "",
    "reason": "",
    "error": "",
    "fingerprint": "",
    "result": None,
    "finished": None,
    "cancel_requested": None,
    "cancelled_by": "",
    "returned": False,
    "ends_as": "",
    "attempts_before": F("attempts"),
    "deaths": 0,
    "suspect": False,
}


def another_waits(call: registry.Call) -> bool:
    """Does a coalescing task have an instance that waits for its first start?"""
    key = call.coalesce_key()
    return key is not None and tasks().filter(coalesce_key=key).exists()


def _arguments(
    task: Task, args: Sequence[Any] | None, kwargs: Mapping[str, Any] | None
) -> dict[str, Any]:
    new_args = list(task.args if args is None else args)
    new_kwargs = dict(task.kwargs if kwargs is None else kwargs)
    registry.check_call(task.func_name, new_args, new_kwargs)
    bound = registry.get(task.func_name).parameters.bind(new_args, new_kwargs)
    named = signature.named(bound, conf.get().redact)
    return {"args": new_args, "kwargs": new_kwargs, "named": named}


def _retry_below(task: Task, moves: Moves, condition: Q) -> bool:
    """Retry the children of *task* that meet *condition*; was one of them brought back?

    Of those whose own function is done not that runs again, but what is below them, to any depth.
    """
    brought_back = False
    path = {task.pk}
    below = [(task, _children(task, condition))]
    while below:
        parent, children = below[-1]
        child = next(children, None)
        if child is None:
            below.pop()
            path.discard(parent.pk)
        elif (deeper := _what_failed_below(child)) is not None:
            path.add(child.pk)
            below.append((child, _children(child, deeper)))
        else:
            brought_back |= not _retry_itself(child, moves, path)
    return brought_back


def _what_failed_below(task: Task) -> Q | None:
    """Which children to retry in place of *task* itself; None when its own function runs again."""
    if task.status == Status.INCOMPLETE:
        return Q(status__in=sorted(FAILED))
    if task.status == Status.REVOKED and task.returned and task.cause != Cause.COALESCED:
        return Q(status=Status.REVOKED, cause=Cause.CANCELLED)
    return None


def _retry_itself(
    task: Task,
    moves: Moves,
    within: Collection[UUID],
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
) -> str:
    if task.status != Status.REVOKED:
        return _requeue(task, moves, within, args, kwargs)
    if task.cause == Cause.COALESCED:
        return f"it was {task.reason}"
    previous = None
    if task.previous_id is not None:
        # Locked, or it ends meanwhile without a look at the one that comes back behind it.
        rows = locked(tasks().filter(pk=task.previous_id))
        previous = rows.only("id", "status", "cause", "reason").first()
    if previous is not None and previous.status not in DONE:
        problem = _requeue_pending(task, previous, moves, within)
    elif previous is not None and not _lets_run(previous, task):
        return f"its predecessor {previous.pk} ended so that it does not run"
    else:
        problem = _requeue(task, moves, within, args, kwargs)
    if not problem:
        _bring_back_followers(task, moves, within)
    return problem


def _lets_run(previous: Task, follower: Task) -> bool:
    condition = Condition(follower.condition or Condition.SUCCESS)
    return verdict(Status(previous.status), previous.cause, condition) == Verdict.RUNS


def _requeue_pending(task: Task, previous: Task, moves: Moves, within: Collection[UUID]) -> str:
    """Let a revoked follower wait for *previous* again; behind a blocked one it is blocked too."""
    problem = "" if previous.is_blocked else _reopen_ancestors(task, moves, within)
    if problem:
        return problem
    task.status, task.cause, task.reason = Status.PENDING, "", ""
    if previous.is_blocked:
        task.cause, task.reason = previous.cause, previous.reason
    tasks().filter(pk=task.pk, status=Status.REVOKED).update(
        status=task.status,
        cause=task.cause,
        reason=task.reason,
        finished=None,
        cancel_requested=None,
        cancelled_by="",
    )
    moves.roots.add(task.root_id)
    return ""


def _bring_back_followers(task: Task, moves: Moves, within: Collection[UUID]) -> None:
    """What a cancel took along behind a task comes back with it, unless it had run."""
    back = [task]
    while back:
        previous = back.pop()
        followers = tasks().filter(
            previous_id=previous.pk,
            status=Status.REVOKED,
            cause=Cause.CANCELLED,
            started__isnull=True,
        )
        back += [
            follower
            for follower in locked(followers.order_by("id"))
            if not _requeue_pending(follower, previous, moves, within)
        ]


def _children(task: Task, condition: Q) -> Iterator[Task]:
    """The children of the task's last attempt that meet *condition* when their turn comes.

    What the retry of one has brought back, a follower behind it, does not come back twice.
    """
    children = tasks().filter(parent_id=task.pk, parent_claim=task.claim)
    for child_id in list(children.filter(condition).order_by("id").values_list("id", flat=True)):
        child = locked(children.filter(condition, pk=child_id)).first()
        if child is not None:
            yield child


def _reopen_ancestors(task: Task, moves: Moves, within: Collection[UUID]) -> str:
    """Let the ancestors of a task that comes back wait for it; returns what stands against it."""
    above: list[Task] = []
    child = task
    while child.parent_id is not None:
        parent = locked(tasks().filter(pk=child.parent_id)).first()
        if parent is None or parent.claim != child.parent_claim:
            break
        above.append(parent)
        if parent.status in (Status.FAILURE, Status.LOST, Status.REVOKED):
            if parent.pk not in within:
                label = Status(parent.status).label
                return f"its ancestor {parent} is {label}: retry that one"
        elif parent.status != Status.INCOMPLETE:
            break
        child = parent
    if above and above[0].status == Status.SUCCESS:
        # Its parent stays as it is.
        workflow.leave_behind(task)
        return ""
    for parent in above:
        tasks().filter(pk=parent.pk).update(open_children=F("open_children") + 1)
        if parent.status not in (Status.INCOMPLETE, Status.REVOKED):
            break
        tasks().filter(pk=parent.pk, status=parent.status).update(
            status=Status.WAITING,
            ends_as=Status.SUCCESS,
            cause="",
            reason="",
            finished=None,
            cancel_requested=None,
            cancelled_by="",
        )
        moves.roots.add(parent.root_id)
    return ""
