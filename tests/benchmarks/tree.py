"""What does a subtask cost, whether its parent has a hundred of them or ten thousand?"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks import stage
from benchmarks.figures import Figure

SIZES = (100, 1_000, 10_000)


def measure(scale: float) -> Iterator[Figure]:
    from benchmarks import tasks

    sizes = [size for size in SIZES if size <= SIZES[-1] * scale * 4] or [100]
    stage.empty()
    tasks.noop.delay_many([(number,) for number in range(sizes[-1])])
    with stage.worker():
        stage.until_done(sizes[-1])
    flat = sizes[-1] / stage.seconds_of_work()
    for size in sizes:
        stage.empty()
        # The tree's own cost, not the worker's first second: it has run already.
        with stage.worker():
            tasks.noop.delay(0).wait(20)
            stage.empty()
            tasks.parent.delay(size)
            verified = stage.until_done(size + 1)
        took = stage.seconds_of_work()
        target = f">= {flat / 2:.0f}" if size == sizes[-1] else ""
        who = f"django-cq, {size} subtasks"
        yield Figure("tree: rate", who, size / took, "/s", verified, target)
        yield Figure("tree: cost", who, 1e6 * took / size, "µs a subtask", verified)
