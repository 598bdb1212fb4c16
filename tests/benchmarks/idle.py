"""How many statements does a worker send while there is nothing to do?"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator

from benchmarks import places, stage
from benchmarks.figures import Figure


def measure(scale: float) -> Iterator[Figure]:
    # So long is a round of all that a worker looks after now and then.
    seconds = max(5.0, 300 * scale)
    stage.empty()
    file = places.FOLDER / "statements"
    file.unlink(missing_ok=True)
    with stage.worker(BENCH_STATEMENTS=str(file)):
        time.sleep(3)
        os.truncate(file, 0)
        time.sleep(seconds)
        sent = file.read_text().splitlines()
    kinds = "; ".join(f"{n} x {_kind(sql)}" for sql, n in Counter(sent).most_common(4))
    verified = f"{len(sent)} in {seconds:.0f} s: {kinds}".replace("|", "")
    yield Figure(
        "idle worker", "django-cq", len(sent) / seconds, "statements/s", verified, "<= 1.5"
    )


def _kind(sql: str) -> str:
    return sql.replace('"', "")[:48]
