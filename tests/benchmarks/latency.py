"""How soon does an idle worker start what is called?"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Iterator

from benchmarks import stage
from benchmarks.figures import Figure

COUNT = 200


def measure(scale: float) -> Iterator[Figure]:
    from benchmarks import tasks
    from cq.models import Task

    stage.empty()
    with stage.worker():
        tasks.stamp.delay(time.time()).wait(20)
        time.sleep(1)
        for _ in range(COUNT):
            time.sleep(random.uniform(0.02, 0.06))
            tasks.stamp.delay(time.time())
        verified = stage.until_done(COUNT + 1)
    # The first one met a worker that was not warm.
    results = Task.objects.order_by("id").values_list("result", flat=True)[1:]
    waits = [1000 * float(str(seconds)) for seconds in results]
    cuts = statistics.quantiles(waits, n=100)
    yield Figure("start latency p50", "django-cq", cuts[49], "ms", verified, "<= 5")
    yield Figure("start latency p99", "django-cq", cuts[98], "ms", verified, "<= 15")
