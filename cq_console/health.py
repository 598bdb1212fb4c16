"""Is it fine, and if not, what needs a person, and what should that person do?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import urlencode

from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from . import durations
from .arguments import name_of
from .queries.overview import COUNT_LIMIT, Failing, NextRun, QueueShown, Unknown, WorkerShown
from .queries.speed import LongRun
from .search import quoted

# A task that may start is claimed within a poll; this long says that something keeps it.
IDLE_WAIT = timedelta(seconds=30)
# So many functions that fail are told one by one.
FUNCTIONS = 5


@dataclass(frozen=True, slots=True)
class Need:
    """One thing that needs a person: what is wrong, and the one place to go."""

    glyph: str
    status: str
    statement: str
    advice: str = ""
    label: str = ""
    url: str = ""


def needs(
    queues: Sequence[QueueShown],
    workers: Sequence[WorkerShown],
    failing: Sequence[Failing],
    runs: Sequence[NextRun],
    late_tick: datetime | None,
    long: Sequence[LongRun],
    unknown: Sequence[Unknown],
    now: datetime,
) -> list[Need]:
    """What needs a person now, the most urgent first."""
    found: list[Need] = []
    alive = [worker for worker in workers if worker.is_alive]
    waiting = [queue for queue in queues if queue.ready and not queue.paused]
    repeats = any(run.at is not None for run in runs)
    if not alive and (waiting or late_tick or repeats):
        found.append(
            _about_workers(_("No worker is alive."), _("Start one: manage.py cq_runworker"))
        )
    elif late_tick is not None:
        span = durations.roughly(now - late_tick)
        statement = _("No scheduler has fired for %(span)s.") % {"span": span}
        found.append(_about_workers(statement, _("Start a worker without --no-scheduler.")))
    elif repeats and not any(worker.is_scheduler for worker in alive):
        # Told before a tick is missed: the next one may be a night away.
        statement = _("No scheduler is alive: nothing repeats.")
        found.append(_about_workers(statement, _("Start a worker without --no-scheduler.")))
    if alive:
        found += [_unserved(queue) for queue in waiting if not queue.is_served]
    found += [_idle(queue, now) for queue in waiting if _waits_for_nothing(queue, now)]
    found += [_lost(worker, now) for worker in workers if worker.state == "lost"]
    found += [_failing(item) for item in failing[:FUNCTIONS]]
    if len(failing) > FUNCTIONS:
        found.append(_more_failing(failing[FUNCTIONS:]))
    if long:
        found.append(_long(long))
    if unknown:
        found.append(_unknown(unknown))
    found += [_broken(run) for run in runs if run.error]
    return found


def sentence(
    found: Sequence[Need],
    workers: Sequence[WorkerShown],
    last_failure: datetime | None,
    now: datetime,
) -> str:
    """*All is well: 4 workers, nothing failed for 2 h*, or *Two things need you*."""
    if found:
        return _things(len(found))
    alive = sum(1 for worker in workers if worker.is_alive)
    if not alive:
        return _("Nothing to do, and no worker is alive.")
    working = ngettext("%(n)s worker", "%(n)s workers", alive) % {"n": alive}
    if last_failure is None:
        return _("All is well: %(workers)s, nothing failed.") % {"workers": working}
    span = durations.roughly(now - last_failure)
    return _("All is well: %(workers)s, nothing failed for %(span)s.") % {
        "workers": working,
        "span": span,
    }


def _things(count: int) -> str:
    words = {
        1: _("One thing needs you."),
        2: _("Two things need you."),
        3: _("Three things need you."),
        4: _("Four things need you."),
        5: _("Five things need you."),
    }
    return words.get(count) or _("%(n)s things need you.") % {"n": count}


def _about_workers(statement: str, advice: str) -> Need:
    url = reverse("admin:cq_worker_changelist")
    return Need("lost", "L", statement, advice, _("Workers"), url)


def _tasks(text: str) -> str:
    return f"{reverse('admin:cq_task_changelist')}?{urlencode({'q': text})}"


def _unserved(queue: QueueShown) -> Need:
    return Need(
        "queued",
        "Y",
        _("No worker listens to queue %(queue)s.") % {"queue": queue.name},
        f"manage.py cq_runworker --queues {queue.name}",
        _("Show %(n)s waiting") % {"n": f"{queue.ready:,}"},
        _tasks(f"queue:{quoted(queue.name)} status:queued"),
    )


def _waits_for_nothing(queue: QueueShown, now: datetime) -> bool:
    return queue.has_idle and queue.oldest is not None and now - queue.oldest > IDLE_WAIT


def _idle(queue: QueueShown, now: datetime) -> Need:
    span = durations.roughly(now - queue.oldest) if queue.oldest else ""
    statement = _("A task of queue %(queue)s has waited for %(span)s while workers are idle.")
    return Need(
        "queued",
        "Y",
        statement % {"queue": queue.name, "span": span},
        _("Its function is held, or it may have killed a worker and waits to be tried alone."),
        _("Show %(n)s waiting") % {"n": f"{queue.ready:,}"},
        _tasks(f"queue:{quoted(queue.name)} status:queued"),
    )


def _lost(worker: WorkerShown, now: datetime) -> Need:
    span = durations.roughly(now - worker.heartbeat)
    statement = _("Worker %(worker)s was last heard %(span)s ago.") % {
        "worker": worker.name,
        "span": span,
    }
    return _about_workers(statement, _("Others take back what it held."))


def _long(found: Sequence[LongRun]) -> Need:
    names = list(dict.fromkeys(name_of(run.func_name).short for run in found))
    statement = ngettext(
        "%(n)s task runs much longer than usual.",
        "%(n)s tasks run much longer than usual.",
        len(found),
    ) % {"n": f"{len(found):,}"}
    longest = found[0]
    advice = _("%(names)s: for %(ran)s, where 95 of 100 end within %(usual)s.") % {
        "names": ", ".join(names[:3]),
        "ran": durations.roughly(longest.ran),
        "usual": durations.said(longest.usual),
    }
    label = ngettext("Show it", "Show %(n)s tasks", len(found)) % {"n": f"{len(found):,}"}
    return Need("running", "R", statement, advice, label, _tasks("is:long"))


def _unknown(found: Sequence[Unknown]) -> Need:
    names = ", ".join(item.func_name for item in found[:3])
    statement = ngettext(
        "%(names)s is not a task that this process knows.",
        "%(n)s functions are no tasks that this process knows: %(names)s.",
        len(found),
    ) % {"n": len(found), "names": names}
    first = found[0]
    n = f"{COUNT_LIMIT:,}+" if first.count > COUNT_LIMIT else f"{first.count:,}"
    return Need(
        "queued",
        "Y",
        statement,
        _("Was it renamed or removed? A worker that does not know it either will fail its tasks."),
        _("Show %(n)s waiting") % {"n": n},
        _tasks(f"func:{quoted(first.func_name)} status:active"),
    )


def _more_failing(others: Sequence[Failing]) -> Need:
    statement = ngettext(
        "%(n)s more function has failed tasks.",
        "%(n)s more functions have failed tasks.",
        len(others),
    ) % {"n": len(others)}
    names = ", ".join(item.name for item in others)
    url = reverse("admin:cq_task_failures")
    return Need("failed", "F", statement, names, _("Failures"), url)


def _failing(item: Failing) -> Need:
    n = f"{item.count}+" if item.count >= 500 else f"{item.count:,}"
    statement = ngettext(
        "%(n)s task of %(name)s has failed.", "%(n)s tasks of %(name)s have failed.", item.count
    ) % {"n": n, "name": item.name}
    url = _tasks(f"status:failed func:{quoted(item.func_name)}")
    label = ngettext("Show it", "Show %(n)s failed", item.count) % {"n": n}
    return Need("failed", "F", statement, item.error, label, url)


def _broken(run: NextRun) -> Need:
    return Need(
        "failed",
        "F",
        _("Repeating task %(name)s cannot run.") % {"name": run.name},
        run.error,
        _("Open it"),
        reverse("admin:cq_repeatingtask_change", args=[run.id]),
    )
