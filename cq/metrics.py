"""What does Prometheus learn of the engine? (``pip install django-cq[metrics]``)

Add `exposition` to the URLs, behind whatever keeps strangers out: it names queues and functions::

    path("metrics", cq.metrics.exposition)

or register `Collector` where a project exposes its own metrics already. Every process tells the
same, since all is read from the database: scrape one of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import timedelta

from django.db.models import Sum
from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_safe
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric

from . import conf, status
from .models import Statistic

RECENT = timedelta(minutes=5)
_OUTCOMES = ("succeeded", "failed", "retried")


class Collector:
    """Asks the database at every scrape, with a handful of statements.

    All are gauges. What tasks came to is told for the last five whole minutes and not as a counter:
    old statistics are removed, and a counter that falls would look like a restart.
    """

    def describe(self) -> Iterable[Metric]:
        """Nothing beforehand: registering asks no database."""
        return ()

    def collect(self) -> Iterator[Metric]:
        found = status.current()
        yield from _queues(found)
        yield from _workers(found)
        oldest = found.oldest_transaction
        yield _single(
            "cq_oldest_transaction_seconds",
            "How long the atomic task that has run longest has held its transaction.",
            oldest.seconds if oldest else 0.0,
        )
        yield _single("cq_problems", "What cq_status finds wrong; 0 is well.", len(found.problems))
        yield _recent()


_registry = CollectorRegistry()
_registry.register(Collector())


@require_safe
def exposition(request: HttpRequest) -> HttpResponse:
    """The engine's metrics as Prometheus reads them."""
    return HttpResponse(generate_latest(_registry), content_type=CONTENT_TYPE_LATEST)


def _queues(found: status.EngineStatus) -> Iterator[Metric]:
    tasks = GaugeMetricFamily("cq_queue_tasks", "Tasks by queue.", labels=["queue", "state"])
    oldest = GaugeMetricFamily(
        "cq_queue_oldest_seconds", "How long the first ready task has waited.", labels=["queue"]
    )
    paused = GaugeMetricFamily("cq_queue_paused", "1 while a queue is paused.", labels=["queue"])
    for queue in found.queues:
        tasks.add_metric([queue.name, "ready"], queue.ready)
        tasks.add_metric([queue.name, "running"], queue.running)
        tasks.add_metric([queue.name, "scheduled"], queue.scheduled)
        oldest.add_metric([queue.name], max(0.0, queue.oldest or 0.0))
        paused.add_metric([queue.name], queue.is_paused)
    yield from (tasks, oldest, paused)


def _workers(found: status.EngineStatus) -> Iterator[Metric]:
    late = sum(worker.is_late for worker in found.workers)
    workers = GaugeMetricFamily("cq_workers", "Workers that live.", labels=["state"])
    workers.add_metric(["punctual"], len(found.workers) - late)
    workers.add_metric(["late"], late)
    yield workers
    yield _single(
        "cq_worker_threads",
        "Threads that run tasks, over all workers.",
        sum(worker.threads for worker in found.workers),
    )


def _recent() -> Metric:
    """Outcomes of the last five whole minutes; the minute that goes on is not complete yet."""
    metric = GaugeMetricFamily(
        "cq_recent_tasks",
        "Outcomes of attempts in the last five whole minutes.",
        labels=["queue", "function", "outcome"],
    )
    statistics = Statistic.objects.using(conf.get().database)
    end = status.database_now().replace(second=0, microsecond=0)
    rows = statistics.filter(length=1, bucket__gte=end - RECENT, bucket__lt=end)
    sums = {name: Sum(name) for name in _OUTCOMES}
    by_function = rows.values_list("queue", "func_name").annotate(**sums)
    for queue, func_name, *numbers in by_function.order_by("queue", "func_name"):
        for name, number in zip(_OUTCOMES, numbers, strict=True):
            metric.add_metric([queue, func_name, name], number)
    return metric


def _single(name: str, documentation: str, value: float) -> Metric:
    metric = GaugeMetricFamily(name, documentation)
    metric.add_metric([], value)
    return metric
