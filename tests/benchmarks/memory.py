"""Does a worker grow with the number of tasks that it has run?"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks import stage
from benchmarks.figures import Figure

COUNT = 100_000


def measure(scale: float) -> Iterator[Figure]:
    from benchmarks import tasks

    many = max(1_000, int(COUNT * scale))
    few = many // 10
    stage.empty()
    tasks.noop.delay_many([(number,) for number in range(few)])
    with stage.worker() as supervisor:
        (child,) = stage.task_processes(supervisor.pid)
        stage.until_done(few)
        before = stage.resident_megabytes(child)
        tasks.noop.delay_many([(number,) for number in range(many - few)])
        verified = stage.until_done(many)
        after = stage.resident_megabytes(child)
    yield Figure(f"memory after {few:,} tasks", "django-cq", before, "MB", verified)
    yield Figure(f"memory after {many:,} tasks", "django-cq", after, "MB", verified)
    yield Figure("memory: growth", "django-cq", after - before, "MB", verified, "<= 10")
