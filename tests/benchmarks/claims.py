"""Does a claim cost the same beside millions of rows that it has nothing to do with?"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

from benchmarks import stage
from benchmarks.figures import Figure

ROUNDS = 40
BATCH = 100
BESIDE = 1_000_000
# status, queue, ready, when it is to run, when it has ended
_KINDS = {
    "finished": ("'S'", "'default'", "NULL", "now()", "now()"),
    "scheduled": ("'Q'", "'default'", "NULL", "now() + interval '1 day'", "NULL"),
    "of another queue": ("'Q'", "'elsewhere'", "true", "now()", "NULL"),
}


def measure(scale: float) -> Iterator[Figure]:
    number = int(BESIDE * scale)
    stage.empty()
    before = _milliseconds_a_claim()
    stage.empty()
    for status, queue, ready, run_at, finished in _KINDS.values():
        _fill(number, status, queue, ready, run_at, finished)
    beside = _milliseconds_a_claim()
    stage.empty()
    # Before and after: the machine may have become quicker or slower meanwhile.
    alone = (before + _milliseconds_a_claim()) / 2
    verified = f"{ROUNDS} claims of {BATCH}; beside {number:,} each " + ", ".join(_KINDS)
    yield Figure("claim, empty table", "django-cq", alone, "ms", verified)
    yield Figure("claim, full table", "django-cq", beside, "ms", verified)
    ratio = beside / alone
    yield Figure("claim, full to empty", "django-cq", ratio, "times", verified, "<= 1.2")


def _milliseconds_a_claim() -> float:
    """The median over claims of fresh rows."""
    from django.db import connection

    from benchmarks import tasks
    from cq import claims, leases

    tasks.noop.delay_many([(number,) for number in range(ROUNDS * BATCH)])
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE cq_task")
    row = leases.register(queues=[], threads=1, is_embedded=False, is_scheduler=False)
    took = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        claimed = claims.claim(row, "default", BATCH)
        took.append(1000 * (time.perf_counter() - began))
        if len(claimed) != BATCH:
            raise AssertionError(f"claimed {len(claimed)} of {BATCH}")
    return statistics.median(took)


def _fill(number: int, status: str, queue: str, ready: str, run_at: str, finished: str) -> None:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO cq_task (id, root_id, status, func_name, args, kwargs, named, queue,"
            " priority, ready, run_at, finished)"
            " SELECT made.id, made.id,"
            f" {status}, 'benchmarks.tasks.noop', '[1]', '{{}}', '{{}}', {queue}, 0, {ready},"
            f" {run_at}, {finished}"
            " FROM (SELECT gen_random_uuid() AS id FROM generate_series(1, %s)) AS made",
            [number],
        )
