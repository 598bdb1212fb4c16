"""What can an operator do? Commands, admin actions and console buttons call only these verbs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

from django.db import models, transaction
from django.db.models import ExpressionWrapper, Q
from django.db.models.functions import Now

from . import acts, conf, enqueue, healing, hints, registry, scheduler, signature, workflow
from .acts import Seen, Tasks
from .database import locked, write_transaction
from .exceptions import CQError
from .models import HeldFunction, Queue, RepeatingRun, RepeatingTask, Task, Worker
from .models.worker import Ask
from .states import DONE, Cause, Status

KEEP = timedelta(days=7)

# What every verb returns.
Affected = acts.Affected


def retry(
    tasks: Tasks,
    *,
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    by: Any = None,
    reason: str = "",
    seen: Seen | None = None,
    way: str = "api",
    predicate: str = "",
) -> Affected:
    """Run failed tasks again, or what failed below them; those that wait for a time run now.

    A failed or lost task runs its function again with a fresh retry budget, of an incomplete one
    the failed descendants do. *args* and *kwargs* replace the arguments of what is retried.
    """

    def act(wanted: Sequence[Task], moves: workflow.Moves) -> Mapping[UUID, str]:
        return healing.retry(wanted, moves, args=args, kwargs=kwargs)

    return acts.on_all(
        "retry", tasks, act, by=by, reason=reason, seen=seen, way=way, predicate=predicate
    )


def cancel(
    tasks: Tasks,
    reason: str = "",
    *,
    by: Any = None,
    seen: Seen | None = None,
    way: str = "api",
    predicate: str = "",
) -> Affected:
    """Stop tasks, what is below them and what is chained behind them.

    What has not started ends at once; what runs is asked, and ends when it has stopped.
    """
    name = acts.name_of(by)

    def act(wanted: Sequence[Task], moves: workflow.Moves) -> Mapping[UUID, str]:
        return healing.cancel(wanted, moves, reason=reason, by=name)

    return acts.on_all(
        "cancel", tasks, act, by=by, reason=reason, seen=seen, way=way, predicate=predicate
    )


def coalesce(
    tasks: Tasks,
    keep: str = "oldest",
    *,
    by: Any = None,
    reason: str = "",
    seen: Seen | None = None,
    way: str = "api",
    predicate: str = "",
) -> Affected:
    """Of queued duplicates, same function and arguments, keep the oldest or newest one."""
    if keep not in ("oldest", "newest"):
        raise ValueError(f"keep is 'oldest' or 'newest', not {keep!r}.")
    ids = acts.ids_of(tasks)

    def carry_out(affected: Affected) -> Iterable[Task]:
        rows = healing.lock(ids, whole=True)
        groups: dict[tuple[str, str, str], list[Task]] = {}
        for task_id in ids:
            problem = _not_queued(rows.get(task_id), seen)
            if problem:
                affected.skipped[task_id] = problem
                continue
            task = rows[task_id]
            key = (task.func_name, registry.key_of(task.args), registry.key_of(task.kwargs))
            groups.setdefault(key, []).append(task)
        for same in groups.values():
            same.sort(key=lambda task: task.pk, reverse=keep == "newest")
            _coalesce(same[0], same[1:], affected)
        return rows.values()

    return acts.at_once("coalesce", carry_out, by=by, reason=reason, way=way, predicate=predicate)


def _not_queued(task: Task | None, seen: Seen | None) -> str:
    if task is None:
        return acts.GONE
    if problem := acts.moved_on(task, seen):
        return problem
    return "" if task.status == Status.QUEUED else f"it is {Status(task.status).label}"


def _coalesce(kept: Task, others: Sequence[Task], affected: Affected) -> None:
    if not others:
        affected.skipped[kept.pk] = "no other one is queued"
        return
    # Who is coalesced lets nobody run who waits behind it.
    followed = [task.pk for task in others if task.has_followers]
    affected.skipped |= dict.fromkeys(followed, "another task waits behind it")
    ids = [task.pk for task in others if not task.has_followers]
    for some in healing.batched(ids):
        workflow.revoke(some, Cause.COALESCED, f"coalesced into {kept.pk}")
    affected.done += ids


def run_again(
    tasks: Tasks,
    *,
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    by: Any = None,
    reason: str = "",
    seen: Seen | None = None,
    way: str = "api",
    predicate: str = "",
) -> Affected:
    """Queue a new task with the function and arguments of each finished one, which stays as it is.

    *args* and *kwargs* take the place of its arguments; the new task names the one it replaces.
    """
    verb = "run again" if args is None and kwargs is None else "edit and retry"
    ids = acts.ids_of(tasks)

    def carry_out(affected: Affected) -> Iterable[Task]:
        rows: dict[UUID, Task] = {}
        for some in healing.batched(ids):
            rows.update(workflow.tasks().in_bulk(some))
        calls: dict[UUID, registry.Call] = {}
        for task_id in ids:
            try:
                calls[task_id] = _call_to_repeat(rows.get(task_id), seen, args, kwargs)
            except _Skipped as skipped:
                affected.skipped[task_id] = str(skipped)
        affected.made += enqueue.enqueue_many(calls.values(), replacing=list(calls))
        affected.done += calls
        return rows.values()

    return acts.at_once(verb, carry_out, by=by, reason=reason, way=way, predicate=predicate)


def keep(
    tasks: Tasks,
    period: timedelta = KEEP,
    *,
    by: Any = None,
    reason: str = "",
    seen: Seen | None = None,
    way: str = "api",
) -> Affected:
    """Keep the trees of *tasks* for *period* from now, whatever their TTL says.

    What they are is not changed, so *seen* skips nothing; one that is kept for longer stays so.
    """
    affected = Affected()
    until = ExpressionWrapper(Now() + period, output_field=models.DateTimeField())
    with write_transaction():
        rows: list[Task] = []
        for some in healing.batched(acts.ids_of(tasks)):
            rows += workflow.tasks().filter(pk__in=some).only("id", "root_id")
        for some in healing.batched({task.root_id for task in rows}):
            roots = workflow.tasks().filter(pk__in=some)
            shorter = roots.filter(Q(keep_until__isnull=True) | Q(keep_until__lt=until))
            shorter.update(keep_until=until)
        affected.done += [task.pk for task in rows]
        acts.write("keep", affected, rows, by=by, reason=reason, way=way)
    return affected


def replace_process(
    tasks: Tasks, *, by: Any = None, reason: str = "", seen: Seen | None = None, way: str = "api"
) -> Affected:
    """End the processes that run *tasks* and start new ones, for what answers no cancel.

    A task whose cancel was asked for ends; what ran beside it runs again, uncharged. An embedded
    worker is the web process itself: it is skipped.
    """

    def act(wanted: Sequence[Task], _moves: workflow.Moves) -> Mapping[UUID, str]:
        return {task.pk: problem for task in wanted if (problem := _replace_process_of(task))}

    return acts.on_all("replace process", tasks, act, by=by, reason=reason, seen=seen, way=way)


def _replace_process_of(task: Task) -> str:
    if task.status != Status.RUNNING or task.worker_id is None:
        return "it does not run"
    workers = Worker.objects.using(conf.get().database)
    worker = workers.filter(pk=task.worker_id, stopped__isnull=True).first()
    if worker is None:
        return "its worker has ended: it comes back by itself"
    if not worker.supervisor:
        return "nobody looks after its worker's process: restart that by hand"
    workers.filter(pk=worker.pk).update(asked=Ask.REPLACE)
    _tell_worker(worker, Ask.REPLACE)
    return ""


def run_now(
    repeating: RepeatingTask,
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    *,
    by: Any = None,
    reason: str = "",
    way: str = "api",
) -> Affected:
    """Run a repeating task beside its schedule, once, perhaps with other arguments."""
    affected = Affected()
    with write_transaction():
        made = scheduler.run_now(repeating, args, kwargs)
        affected.done.append(made.pk)
        affected.made.append(made)
        acts.write(
            "run now", affected, [made], by=by, reason=reason, way=way, target=str(repeating)
        )
        # Somebody has to note how it ends.
        transaction.on_commit(scheduler.look_again, using=conf.get().database, robust=True)
    return affected


def skip_next(
    repeating: RepeatingTask, *, by: Any = None, reason: str = "", way: str = "api"
) -> Affected:
    """Let the next tick of a repeating task pass."""
    entries = RepeatingTask.objects.using(conf.get().database)
    with write_transaction():
        entry = locked(entries.filter(pk=repeating.pk, next_run__isnull=False)).first()
        if entry is None or entry.next_run is None:
            return Affected(skipped={repeating.pk: "it has no next run"})
        tick = entry.next_run
        RepeatingRun.objects.using(conf.get().database).create(
            entry=entry,
            tick=tick,
            outcome=RepeatingRun.Outcome.SKIPPED,
            reason=reason or "skipped by an operator",
        )
        entries.filter(pk=entry.pk).update(next_run=entry.schedule().next_after(tick))
        _note("skip next", str(entry), by, reason, way)
    repeating.refresh_from_db()
    return Affected(done=[repeating.pk])


def pause_repeating(
    repeating: RepeatingTask, reason: str = "", *, by: Any = None, way: str = "api"
) -> Affected:
    """Let a repeating task fire no more until it is resumed; ticks of meanwhile are not missed."""
    return _switch(repeating, "pause", reason, by, way, is_on=False)


def resume_repeating(
    repeating: RepeatingTask, *, by: Any = None, reason: str = "", way: str = "api"
) -> Affected:
    """Let a paused repeating task fire again, from its next time on."""
    return _switch(repeating, "resume", reason, by, way, is_on=True)


def _switch(
    repeating: RepeatingTask, verb: str, reason: str, by: Any, way: str, *, is_on: bool
) -> Affected:
    with write_transaction():
        repeating.enabled = is_on
        repeating.pause_reason = "" if is_on else reason[:255]
        repeating.save(using=conf.get().database, update_fields=["enabled", "pause_reason"])
        _note(verb, str(repeating), by, reason, way)
    return Affected(done=[repeating.pk])


def pause_queue(name: str, reason: str = "", *, by: Any = None, way: str = "api") -> Affected:
    """Let workers claim nothing more from a queue."""
    with write_transaction():
        Queue.objects.using(conf.get().database).update_or_create(
            pk=name, defaults={"paused": Now(), "paused_by": acts.name_of(by), "reason": reason}
        )
        return _held_back("pause queue", name, by, reason, way)


def resume_queue(name: str, *, by: Any = None, reason: str = "", way: str = "api") -> Affected:
    """Let workers claim from a paused queue again."""
    with write_transaction():
        resumed, _rows = Queue.objects.using(conf.get().database).filter(pk=name).delete()
        if not resumed:
            return Affected(skipped={name: "it is not paused"})
        return _held_back("resume queue", name, by, reason, way)


def hold_function(name: str, reason: str = "", *, by: Any = None, way: str = "api") -> Affected:
    """Let claims pass over the tasks of one function."""
    with write_transaction():
        HeldFunction.objects.using(conf.get().database).update_or_create(
            pk=name, defaults={"held_by": acts.name_of(by), "reason": reason}
        )
        return _held_back("hold function", name, by, reason, way)


def release_function(name: str, *, by: Any = None, reason: str = "", way: str = "api") -> Affected:
    """Let the tasks of a held function be claimed again."""
    with write_transaction():
        released, _rows = HeldFunction.objects.using(conf.get().database).filter(pk=name).delete()
        if not released:
            return Affected(skipped={name: "it is not held"})
        return _held_back("release function", name, by, reason, way)


def quiet_worker(worker: Worker, *, by: Any = None, reason: str = "", way: str = "api") -> Affected:
    """Let a worker finish what it runs and claim nothing more."""
    return _ask("quiet worker", worker, Ask.QUIET, by, reason, way)


def resume_worker(
    worker: Worker, *, by: Any = None, reason: str = "", way: str = "api"
) -> Affected:
    """Let a quiet worker claim again."""
    return _ask("resume worker", worker, "", by, reason, way)


def stop_worker(worker: Worker, *, by: Any = None, reason: str = "", way: str = "api") -> Affected:
    """Let a worker finish and stop; of an embedded one its loop only."""
    return _ask("stop worker", worker, Ask.STOP, by, reason, way)


class _Skipped(Exception):
    """Why a task is left alone."""


def _call_to_repeat(
    task: Task | None,
    seen: Seen | None,
    new_args: Sequence[Any] | None,
    new_kwargs: Mapping[str, Any] | None,
) -> registry.Call:
    """The call that ended *task* was, with the result of its predecessor in its arguments."""
    if task is None:
        raise _Skipped(acts.GONE)
    if problem := acts.moved_on(task, seen):
        raise _Skipped(problem)
    if task.status not in DONE:
        raise _Skipped(f"it is still {Status(task.status).label}")
    args = task.args if new_args is None else list(new_args)
    kwargs = task.kwargs if new_kwargs is None else dict(new_kwargs)
    if task.previous is not None:
        result = task.previous.result
        args = signature.resolve_previous(args, result)
        kwargs = signature.resolve_previous(kwargs, result)
    options = {
        name: getattr(task, name)
        for name in ("queue", "priority", "retries", "timeout", "result_ttl", "expires")
        if getattr(task, name) is not None
    }
    try:
        call = registry.call(task.func_name, args, kwargs, **options)
        registry.check_call(task.func_name, args, kwargs)
        is_queued = healing.another_waits(call)
    except CQError as error:
        raise _Skipped(str(error)) from None
    if is_queued:
        raise _Skipped(healing.ONE_IS_QUEUED)
    return call


def _ask(verb: str, worker: Worker, asked: Ask | str, by: Any, reason: str, way: str) -> Affected:
    rows = Worker.objects.using(conf.get().database).filter(pk=worker.pk)
    with write_transaction():
        if not rows.update(asked=asked):
            return Affected(skipped={worker.pk: acts.GONE})
        _note(verb, worker.name, by, reason, way)
        _tell_worker(worker, asked)
    return Affected(done=[worker.pk])


def _tell_worker(worker: Worker, asked: Ask | str) -> None:
    message: dict[str, str | int | bool | None] = {
        "verb": "worker",
        "worker": worker.pk,
        "asked": str(asked),
    }
    transaction.on_commit(partial(hints.control, message), using=conf.get().database, robust=True)


def _held_back(verb: str, name: str, by: Any, reason: str, way: str) -> Affected:
    _note(verb, name, by, reason, way)
    transaction.on_commit(
        partial(hints.control, {"verb": "held back"}), using=conf.get().database, robust=True
    )
    return Affected(done=[name])


def _note(verb: str, target: str, by: Any, reason: str, way: str) -> None:
    """Write down a verb that is about no task."""
    acts.write(verb, Affected(), [], by=by, reason=reason, way=way, target=target)
