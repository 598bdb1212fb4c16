"""How does a call become a stored task? Nothing else inserts tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

from django.db import IntegrityError, transaction
from django.db.models import BooleanField, Case, F, When
from django.db.models.functions import Greatest, Now
from django.utils import timezone as clock

from . import conf, hints, signature
from .bulk import BATCH, Draft, insert, new_task
from .database import can_pipeline, pipelined
from .exceptions import CQError, InvalidOption
from .models import Task
from .registry import Call
from .states import Condition, Status

_NULLABLE = BooleanField(null=True)


@dataclass(frozen=True, slots=True)
class Place:
    """Where in a tree a task stands; the default is a root of its own."""

    parent_id: UUID | None = None
    parent_claim: int = 0
    root_id: UUID | None = None
    depth: int = 0
    previous_id: UUID | None = None
    condition: Condition | str = ""


TOP = Place()


def enqueue(
    call: Call,
    *,
    submit: bool = True,
    place: Place = TOP,
    coalesce_key: str | None = None,
    replacing: UUID | None = None,
) -> Task:
    """Store *call* in the caller's transaction; it is queued when that commits.

    With a coalesce key the instance that waits for its first start is returned instead, if there
    is one; the call then waits for another uncommitted call of the same key.
    """
    task = build(call, place=place, status=Status.QUEUED if submit else Status.PENDING)
    if replacing is not None:
        task.replaces_id = replacing
    if place is TOP and not submit and _is_keyed_by_arguments(call):
        task.coalesce_key = key_until_submit(task.pk)
    elif place is TOP:
        task.coalesce_key = coalesce_key or call.coalesce_key()
        if task.coalesce_key is not None:
            return _insert_or_find(task)
    store([task])
    return task


def _is_keyed_by_arguments(call: Call) -> bool:
    """Does its coalesce key depend on arguments, of which submit() brings some?"""
    wanted = call.options.coalesce
    if wanted is False or isinstance(wanted, str):
        return False
    if "coalesce" in call.overridden:
        raise InvalidOption(
            f"{call.definition.name}: with submit=False, using() takes only a text or False as "
            "coalesce: arguments come with submit(), and it is not known by then. Declare it by "
            "@task."
        )
    return True


def key_until_submit(task_id: UUID) -> str:
    """Nobody else's key: says that the true one comes with the arguments."""
    return f"submit {task_id.hex}"


def enqueue_many(
    calls: Iterable[Call], *, replacing: Sequence[UUID] = (), may_run_ahead: bool = False
) -> list[Task]:
    """Store *calls* in bulk, in one transaction; the tasks come back in the order of the calls.

    *replacing* says which earlier task each of them stands for, if they do. With *may_run_ahead*
    they are built while earlier ones are stored, where that can be done.
    """
    calls = list(calls)
    replaced: Sequence[UUID | None] = replacing or [None] * len(calls)
    with transaction.atomic(using=conf.get().database):
        if any(call.options.coalesce is not False for call in calls):
            return [
                enqueue(call, replacing=task_id)
                for call, task_id in zip(calls, replaced, strict=True)
            ]
        tasks: list[Task] = []
        runs_ahead = may_run_ahead and can_pipeline()
        # Elsewhere nothing is locked yet while they are built.
        step = BATCH if runs_ahead else max(len(calls), 1)
        with pipelined() if runs_ahead else nullcontext():
            for start in range(0, len(calls), step):
                part = [build(call) for call in calls[start : start + step]]
                if replacing:
                    for task, task_id in zip(part, replaced[start : start + step], strict=True):
                        task.replaces_id = task_id
                insert(part)
                tasks += part
        announce(tasks)
    return tasks


def store(tasks: Sequence[Task]) -> None:
    """Insert what `build` has made, in the caller's transaction; it is queued when that commits.

    Raises `IntegrityError` when another instance waits under a coalesce key of theirs.
    """
    insert(tasks)
    announce(tasks)


def build(call: Call, *, place: Place = TOP, status: Status = Status.QUEUED) -> Task:
    """The row for *call*, not stored yet; its id is final.

    Raises `InvalidArguments` when the arguments do not fit or cannot be stored.
    """
    options, overridden = call.options, call.overridden
    # The first arguments of a task that waits for submit() come with that, which checks them all.
    awaits_submit = status == Status.PENDING and place.previous_id is None and not place.condition
    bound = {} if awaits_submit else call.definition.parameters.bind(call.args, call.kwargs)
    args, kwargs = list(call.args), dict(call.kwargs)
    args_text, kwargs_text = signature.encode(args, "args"), signature.encode(kwargs, "kwargs")
    named = signature.named(bound, conf.get().redact)
    task = new_task(
        Draft(args_text, kwargs_text, signature.encode(named, "named")),
        status=status,
        func_name=call.definition.name,
        args=_storable(args),
        kwargs=_storable(kwargs),
        named=named,
        queue=options.queue,
        priority=options.priority,
        **({} if place is TOP else _columns(place)),
    )
    if overridden:
        for name in ("retries", "timeout", "result_ttl"):
            if name in overridden:
                setattr(task, name, getattr(options, name))
    task.expires = options.expires
    _set_times(task, call)
    return task


def announce(tasks: Iterable[Task]) -> None:
    """On commit, wake workers for what is ready and nudge the consoles that show it."""
    queues = {task.queue for task in tasks if task.ready}
    roots = {task.root_id for task in tasks}
    transaction.on_commit(
        partial(send_hints, queues, roots), using=conf.get().database, robust=True
    )


def send_hints(queues: Iterable[str], roots: Iterable[UUID]) -> None:
    """Hints for what has been committed; they never raise and never block."""
    for queue in queues:
        hints.wake(queue)
    for root_id in roots:
        hints.nudge(root_id)
    hints.nudge_overview()


def due_now_or_later(expires: int | None) -> dict[str, Any]:
    """Column values for a pending task whose turn has come: now, or at its later time.

    Its time to live counts from there.
    """
    start = Greatest(F("run_at"), Now())
    # MariaDB assigns from left to right, each from what the ones before have left.
    values: dict[str, Any] = {
        "ready": Case(When(run_at__lte=Now(), then=True), default=None, output_field=_NULLABLE)
    }
    if expires is not None:
        values["expires_at"] = start + timedelta(seconds=expires)
    return {**values, "run_at": start}


def _columns(place: Place) -> dict[str, Any]:
    columns = {
        "parent_id": place.parent_id,
        "parent_claim": place.parent_claim,
        "depth": place.depth,
        "previous_id": place.previous_id,
        "condition": place.condition,
    }
    if place.root_id is not None:
        columns["root_id"] = place.root_id
    return columns


def _set_times(task: Task, call: Call) -> None:
    options = call.options
    start: Any = None
    if options.run_at is not None:
        start = options.run_at
    elif options.run_after:
        start = Now() + timedelta(seconds=options.run_after)
    if start is not None:
        task.run_at = start
    is_due = start is None or (options.run_at is not None and options.run_at <= clock.now())
    if task.status == Status.QUEUED and is_due:
        task.ready = True
    if options.expires is not None and not task.previous_id:
        base = Now() if start is None else start
        task.expires_at = base + timedelta(seconds=options.expires)


def _storable(value: Any) -> Any:
    """*value* with `PREVIOUS` in its stored form; everything else is left to Django's encoder."""
    if value is signature.PREVIOUS:
        return signature.STORED_PREVIOUS
    if isinstance(value, (list, tuple)):
        return [_storable(item) for item in value]
    if isinstance(value, dict):
        return {key: _storable(item) for key, item in value.items()}
    return value


def _insert_or_find(task: Task) -> Task:
    def insert_it() -> None:
        insert([task])
        announce([task])

    return unless_one_waits(task.func_name, task.coalesce_key, insert_it) or task


def unless_one_waits(name: str, key: str | None, act: Callable[[], None]) -> Task | None:
    """Carry out *act*, which stores a task under *key*; else the one that waits under it."""
    rows = Task.objects.using(conf.get().database)
    # Between the conflict and the look at it the other instance may start: then this one is free
    # to go in. A conflict that finds nobody twice is not about the key.
    for _attempt in range(10):
        try:
            with transaction.atomic(using=rows.db):
                act()
        except IntegrityError:
            if key is None:
                raise
            there = rows.filter(coalesce_key=key).first()
            if there is not None:
                return there
        else:
            return None
    raise CQError(
        f"Task {name} could not be stored under its coalesce key: instances of it start "
        "faster than one more can be queued. Try again."
    )
