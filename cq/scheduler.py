"""Which repeating tasks are due, and who may fire them?"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.db import DataError, IntegrityError, models, transaction
from django.db.models import Exists, F, OuterRef, Q, Subquery
from django.db.models.functions import Coalesce, Now

from . import conf, enqueue, hints, history, registry, ticks
from .database import locked, update_each, write_transaction
from .exceptions import CQError, InvalidCrontab
from .models import RepeatingRun, RepeatingTask, Task
from .models.repeating import Missed
from .registry import Call
from .states import ACTIVE

logger = logging.getLogger("cq")

# When no hint comes: an idle worker's survey sees within a poll interval what has come due, so that
# this is for one that never has a moment to look.
LONGEST_PAUSE = 120.0
# So many entries share a transaction, and so many ticks about: they would otherwise wait for as
# many commits. More would let the first of them wait for the last.
BATCH = 200
TICKS = 1_000
STARTED_AT_ONCE = 500
# An entry that may not overlap looks back over so many of its runs.
LOOK_BACK = 100

Outcome = RepeatingRun.Outcome

_REFUSALS = (CQError, TypeError, ValueError)


class Ticker:
    """Fires what is due; every worker may have one, and each tick fires once all the same."""

    def __init__(self) -> None:
        self._noted = history.Noted()
        self._trimmed = 0

    def tick(self) -> float:
        """Fire every due entry; returns the seconds until there is something to do again."""
        has_fired = False
        pause = _pause()
        if pause <= 0:
            _start_what_was_enabled()
            while _fire_batch():
                has_fired = True
            pause = _pause()
        self._noted = history.note_outcomes(self._noted.place)
        if has_fired:
            self._trimmed = history.forget_old_runs(self._trimmed)
        # How they end is told by no hint.
        longest = conf.get().heartbeat if self._noted.has_open else LONGEST_PAUSE
        return min(longest, max(0.01, pause))


def look_again() -> None:
    """Tell every scheduler that an entry has changed."""
    hints.control({"verb": "schedule"})


def run_now(
    entry: RepeatingTask,
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
) -> Task:
    """Queue a task of *entry* beside its schedule; it takes no tick."""
    call = _call(entry, args, kwargs)
    with write_transaction():
        task = enqueue.enqueue(call)
        _runs().create(entry=entry, task_id=task.pk)
    return task


def _entries() -> models.QuerySet[RepeatingTask]:
    return RepeatingTask.objects.using(conf.get().database)


def _runs() -> models.QuerySet[RepeatingRun]:
    return RepeatingRun.objects.using(conf.get().database)


def _tasks() -> models.QuerySet[Task]:
    return Task.objects.using(conf.get().database)


def _start_what_was_enabled() -> None:
    """Give entries a next time that were enabled behind the model's back, by an UPDATE."""
    idle = _entries().filter(enabled=True, next_run__isnull=True, error="")
    for entry in idle.annotate(database_now=Now())[:STARTED_AT_ONCE]:
        try:
            changes: dict[str, Any] = {"next_run": entry.schedule().next_after(entry.database_now)}
        except InvalidCrontab as error:
            changes = {"error": str(error)}
        idle.filter(pk=entry.pk, crontab=entry.crontab, timezone=entry.timezone).update(**changes)


def _fire_batch() -> bool:
    """Fire the entries that are due longest and that no other scheduler is firing."""
    due = _entries().filter(enabled=True, next_run__lte=Now())
    if not due.exists():
        return False
    with write_transaction():
        rows = locked(due.order_by("next_run", "pk"), skip_locked=True)
        batch = list(rows.annotate(database_now=Now())[:BATCH])
        if not batch:
            return False
        try:
            with transaction.atomic(using=due.db):
                _fire(batch)
        except (IntegrityError, DataError, *_REFUSALS, _TakenMeanwhile):
            # One bad entry must not hold up the others.
            for entry in batch:
                _fire_alone(entry)
    return True


def _fire_alone(entry: RepeatingTask) -> None:
    try:
        with transaction.atomic(using=conf.get().database):
            _fire([entry])
    except _TakenMeanwhile:
        pass
    except (IntegrityError, DataError, *_REFUSALS) as error:
        _stop(entry, error)


class _TakenMeanwhile(Exception):
    """A tick is not there any more."""


def _fire(batch: Sequence[RepeatingTask]) -> None:
    """Take the due ticks of entries that are locked, and queue their tasks; all or nothing."""
    firings = list(_readable(batch))
    known = _look_up(firings)
    for firing in firings:
        _decide(firing, known)
    taken = update_each(
        RepeatingTask,
        [
            (
                {"id": firing.entry.pk, "enabled": True, "next_run": firing.entry.next_run},
                {"next_run": firing.due.next, "last_run": firing.last_run, "error": firing.error},
            )
            for firing in firings
        ],
    )
    if taken != len(firings):
        raise _TakenMeanwhile
    enqueue.store([task for firing in firings for task in firing.tasks])
    _runs().bulk_create([run for firing in firings for run in firing.runs])


@dataclass(slots=True)
class _Firing:
    """An entry that is due: the ticks that it takes, and what will be stored of it."""

    entry: RepeatingTask
    due: ticks.Due
    last_run: datetime | None
    error: str
    tasks: list[Task] = field(default_factory=list)
    runs: list[RepeatingRun] = field(default_factory=list)

    @property
    def key(self) -> str | None:
        return f"repeating:{self.entry.pk}" if self.entry.coalesce else None


@dataclass(frozen=True, slots=True)
class _Known:
    """What the database knows of a batch, asked for all of its entries at once."""

    # An operator may have let some ticks pass already.
    passed: frozenset[tuple[int, datetime]]
    waiting: frozenset[str]
    running: frozenset[int]


def _readable(batch: Iterable[RepeatingTask]) -> Iterable[_Firing]:
    """The entries whose times can be computed, until there are enough ticks; others are stopped."""
    count = 0
    for entry in batch:
        if count >= TICKS:
            return
        try:
            due = _due(entry)
        except _REFUSALS as error:
            _stop(entry, error)
            continue
        count += len(due.ticks)
        yield _Firing(entry, due, entry.last_run, entry.error)


def _due(entry: Any) -> ticks.Due:
    return ticks.due(entry.schedule(), entry.next_run, entry.database_now, Missed(entry.missed))


def _stop(entry: RepeatingTask, error: Exception) -> None:
    """Let *entry* fire no more until somebody mends it, and say why in its row."""
    logger.error("stopped repeating task=%s: %s", entry.pk, error)
    _entries().filter(pk=entry.pk, next_run=entry.next_run).update(next_run=None, error=str(error))


def _look_up(firings: Sequence[_Firing]) -> _Known:
    ids = [firing.entry.pk for firing in firings]
    moments = {tick for firing in firings for tick in firing.due.ticks}
    passed = _runs().filter(entry_id__in=ids, tick__in=moments).values_list("entry_id", "tick")
    keys = [firing.key for firing in firings if firing.key]
    waiting = _tasks().filter(coalesce_key__in=keys).values_list("coalesce_key", flat=True)
    alone = [firing.entry.pk for firing in firings if not firing.entry.overlap]
    return _Known(
        frozenset((pk, tick) for pk, tick in passed if tick is not None),
        frozenset(key for key in waiting if key),
        frozenset(_still_running(alone)) if alone else frozenset(),
    )


def _still_running(ids: Sequence[int]) -> Iterable[int]:
    """Of which entries has any of the last tasks not ended?

    Not the last alone: some are run by hand, or retried.
    """
    with_task = _runs().filter(task_id__isnull=False)
    earlier = with_task.filter(entry_id=OuterRef(OuterRef("pk"))).order_by("-id")
    beyond = Subquery(earlier.values("id")[LOOK_BACK : LOOK_BACK + 1])
    active = _tasks().filter(pk=OuterRef("task_id"), status__in=sorted(ACTIVE))
    last = with_task.filter(entry_id=OuterRef("pk"), id__gt=Coalesce(beyond, 0))
    rows = _entries().filter(pk__in=ids).filter(Exists(last.filter(Exists(active))))
    return rows.values_list("pk", flat=True)


def _decide(firing: _Firing, known: _Known) -> None:
    """Make the tasks of the ticks that *firing* takes, and what its history says of each."""
    entry = firing.entry
    for tick in firing.due.ticks:
        if (entry.pk, tick) in known.passed:
            continue
        run = RepeatingRun(entry=entry, tick=tick, reason=firing.due.note)
        why_not = _why_skipped(firing, known)
        if why_not:
            run.outcome, run.reason = Outcome.SKIPPED, why_not
        else:
            try:
                task = enqueue.build(_call(entry))
            except _REFUSALS as error:
                if not _note_refusal(firing, run, str(error)):
                    continue
            else:
                task.coalesce_key = firing.key
                firing.tasks.append(task)
                firing.last_run, firing.error, run.task_id = tick, "", task.pk
        firing.runs.append(run)


def _why_skipped(firing: _Firing, known: _Known) -> str:
    if firing.due.note == ticks.MISSED:
        return firing.due.note
    if not firing.entry.overlap and (firing.tasks or firing.entry.pk in known.running):
        return "the last one still runs"
    if firing.entry.coalesce and (firing.tasks or firing.key in known.waiting):
        return "the last one still waits"
    return ""


def _note_refusal(firing: _Firing, run: RepeatingRun, error: str) -> bool:
    """Say in the entry and in *run* why it cannot run; False when the history says so already."""
    if firing.error == error:
        return False
    logger.error("refused repeating task=%s: %s", firing.entry.pk, error)
    firing.error = error
    run.outcome, run.reason = Outcome.REFUSED, error[:255]
    return True


def _call(
    entry: RepeatingTask,
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
) -> Call:
    options: dict[str, Any] = {"coalesce": False}
    if entry.queue:
        options["queue"] = entry.queue
    if entry.priority is not None:
        options["priority"] = entry.priority
    if entry.result_ttl is not None:
        options["result_ttl"] = entry.result_ttl
    return registry.call(
        entry.func_name,
        entry.args if args is None else args,
        entry.kwargs if kwargs is None else kwargs,
        **options,
    )


def _pause() -> float:
    """Seconds until an entry is due, at most `LONGEST_PAUSE`; none when one has no time yet."""
    following = (
        _entries()
        .filter(Q(next_run__isnull=False) | Q(error=""), enabled=True)
        .order_by(F("next_run").asc(nulls_first=True))
        .values_list("next_run", Now())
        .first()
    )
    if following is None:
        return LONGEST_PAUSE
    next_run, now = following
    return 0.0 if next_run is None else float(min(LONGEST_PAUSE, (next_run - now).total_seconds()))
