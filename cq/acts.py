"""How is a verb carried out on the tasks that it names, and written down?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.db import models

from . import conf, healing, workflow
from .database import again_after_conflicts, write_transaction
from .models import Act, ActItem, Task

Tasks = models.QuerySet[Task] | Iterable[Task | UUID | str]
Seen = Mapping[Any, tuple[str, int]]

MOVED_ON = "changed meanwhile"
GONE = "it was removed"


@dataclass(slots=True)
class Affected:
    """What a verb did: the ids of *done*, and why each of *skipped* was left alone.

    They are those of tasks; the name of a queue or a function, or the key of a worker or of a
    repeating task, where the verb is about one of these.
    """

    done: list[Any] = field(default_factory=list)
    skipped: dict[Any, str] = field(default_factory=dict)
    # Tasks that the verb made, in the order of *done*.
    made: list[Task] = field(default_factory=list)


def on_all(
    verb: str,
    tasks: Tasks,
    act: Callable[[Sequence[Task], workflow.Moves], Mapping[UUID, str]],
    *,
    by: Any,
    reason: str,
    seen: Seen | None,
    way: str,
    predicate: str = "",
) -> Affected:
    """Carry out *act* on *tasks*, in one transaction with its `Act`.

    It is given those that are as they were *seen*, locked with all below and behind them, parents
    first, and says of which it left alone, why.
    """
    ids = ids_of(tasks)

    def carry_out(affected: Affected) -> Iterable[Task]:
        moves = workflow.Moves()
        held = healing.lock(healing.scope_of(ids))
        wanted = []
        for task_id in ids:
            task = held.get(task_id)
            problem = GONE if task is None else moved_on(task, seen)
            if problem or task is None:
                affected.skipped[task_id] = problem
            else:
                wanted.append(task)
        affected.skipped.update(act(wanted, moves))
        affected.done += [task.pk for task in wanted if task.pk not in affected.skipped]
        moves.announce()
        return [held[task_id] for task_id in ids if task_id in held]

    return at_once(verb, carry_out, by=by, reason=reason, way=way, predicate=predicate)


def at_once(
    verb: str,
    carry_out: Callable[[Affected], Iterable[Task]],
    *,
    by: Any,
    reason: str,
    way: str,
    predicate: str = "",
) -> Affected:
    """Carry out a verb in one transaction with its `Act`, and once more after a conflict.

    *carry_out* notes what it did, and returns the tasks that it was about.
    """

    def act() -> Affected:
        affected = Affected()
        with write_transaction():
            rows = carry_out(affected)
            write(verb, affected, rows, by=by, reason=reason, way=way, predicate=predicate)
        return affected

    return again_after_conflicts(act)


def ids_of(tasks: Tasks) -> list[UUID]:
    """The ids of *tasks*, each once, parents first; those of no stored task at the end.

    A queryset is asked now: what meets its filter later is not touched, however often a verb is
    tried again.
    """
    if isinstance(tasks, models.QuerySet):
        given: Iterable[Any] = tasks.using(conf.get().database).values_list("pk", flat=True)
    else:
        given = [
            task.pk if isinstance(task, Task) else Task._meta.pk.to_python(task) for task in tasks
        ]
    ids: dict[UUID, None] = dict.fromkeys(given)
    depths: dict[UUID, int] = {}
    for some in healing.batched(ids):
        depths.update(workflow.tasks().filter(pk__in=some).values_list("pk", "depth"))
    stored = sorted(depths, key=lambda task_id: (depths[task_id], task_id))
    return [*stored, *(task_id for task_id in ids if task_id not in depths)]


def moved_on(task: Task, seen: Seen | None) -> str:
    """Has the task another status or attempt than the one that was shown?"""
    if seen is None:
        return ""
    shown = seen.get(task.pk) or seen.get(str(task.pk))
    return "" if shown is None or tuple(shown) == (task.status, task.attempts) else MOVED_ON


def write(
    verb: str,
    affected: Affected,
    rows: Iterable[Task],
    *,
    by: Any,
    reason: str,
    way: str,
    target: str = "",
    predicate: str = "",
) -> None:
    """Store the `Act` of a verb with an item for each of the tasks that it was about."""
    alias = conf.get().database
    act = Act.objects.using(alias).create(
        by=by,
        by_name=name_of(by),
        way=way,
        verb=verb,
        predicate=predicate,
        target=target[:255],
        done=len(affected.done),
        skipped=len(affected.skipped),
        reason=reason,
    )
    ActItem.objects.using(alias).bulk_create(
        [
            ActItem(
                act=act,
                task_id=task.pk,
                root_id=task.root_id,
                skipped=affected.skipped.get(task.pk, "")[:200],
            )
            for task in rows
        ],
        batch_size=500,
    )


def name_of(by: Any) -> str:
    return "" if by is None else str(by.get_username())[:150]
