"""How many stored no-op tasks does one worker process run a second?"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks import stage
from benchmarks.figures import Figure

COUNT = 20_000


def measure(scale: float) -> Iterator[Figure]:
    from django.db import connection

    from benchmarks import tasks

    count = max(100, int(COUNT * scale))
    stage.empty()
    tasks.noop.delay_many([(number,) for number in range(count)])
    with stage.worker() as supervisor:
        verified = stage.until_done(count)
        (child,) = stage.task_processes(supervisor.pid)
        used = stage.resident_megabytes(child) + stage.resident_megabytes(supervisor.pid)
    rate = count / stage.seconds_of_work()
    who = f"django-cq, {connection.vendor}"
    yield Figure("drain", who, rate, "/s", verified, ">= 10000")
    yield Figure("drain: memory with supervisor", who, used, "MB", verified)
