"""How many tasks with an effect, each exactly once, do two processes run a second?"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks import stage
from benchmarks.figures import Figure

COUNT = 5_000


def measure(scale: float) -> Iterator[Figure]:
    from django.db import connection

    from benchmarks import tasks

    count = max(100, int(COUNT * scale))
    stage.empty()
    tasks.insert.delay_many([(number,) for number in range(count)])
    with stage.worker("--processes", "2", "--threads", "4"):
        verified = stage.until_done(count)
    with connection.cursor() as cursor:
        cursor.execute("SELECT COUNT(*), COUNT(DISTINCT number) FROM bench_effect")
        effects = cursor.fetchone()
    if effects != (count, count):
        raise AssertionError(f"expected {count} effects, once each, found {effects}")
    rate = count / stage.seconds_of_work()
    verified += f", {count} effects, none twice"
    yield Figure("atomic INSERT, two processes", "django-cq", rate, "/s", verified, ">= 2000")
