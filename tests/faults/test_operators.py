"""Does every tree stand as the design says after operators and kills all over it?

Random trees run, and three operators retry, cancel and chain at random in them, while task
processes are killed. When all has come to rest, the rows are looked through.
"""

from __future__ import annotations

import random
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic, sleep
from typing import Any

import pytest
from django.db import connection, connections

from cq import operations
from cq.models import Task, TaskLog
from cq.states import ACTIVE, DONE

from .fleet import FULL, Fleet, say, until
from .tasks import branch_for, follow, twig

# It waits for the interpreter of every process it kills: too long beside the short forms.
pytestmark = pytest.mark.full

SECONDS = (8, 120)
OPERATORS = 3
# More than the workers run in the meantime would only wait.
MOST_OPEN = {"postgresql": 400, "mysql": 400, "sqlite": 100}
CONDITIONS = ("success", "always", "failure")


def tree(chance: random.Random, room: list[int], depth: int = 0) -> dict[str, Any]:
    """What one task does, and those below it; *room* holds how many there may still be."""
    room[0] -= 1

    def some(most: int) -> range:
        number = chance.randint(0, most) if depth < 4 else 0
        return range(min(number, max(room[0], 0)))

    return {
        "is_loose": chance.random() < 0.4,
        "retries": chance.choice([0, 0, 1]),
        "fails": chance.choice([0, 0, 0, 0.3, 0.7]),
        "pause": chance.uniform(0, 0.03),
        "own": [chance.choice(CONDITIONS)] if chance.random() < 0.2 else [],
        "behind": [chance.choice(CONDITIONS)] if chance.random() < 0.3 else [],
        "children": [tree(chance, room, depth + 1) for _ in some(3)],
        "adopts": tree(chance, room, depth + 2) if depth < 3 and chance.random() < 0.1 else None,
    }


class Operator:
    """Does at random what people do, until told to stop."""

    def __init__(self, seed: int, stopping: threading.Event, did: Counter[str]) -> None:
        self.chance = random.Random(seed)
        self.stopping = stopping
        self.did = did

    def work(self) -> None:
        try:
            while not self.stopping.wait(self.chance.uniform(0, 0.05)):
                verb = self.chance.choices(list(VERBS), [4, 5, 3, 4, 4, 1])[0]
                VERBS[verb](self)
                self.did[verb] += 1
        except BaseException as error:
            self.did[f"{type(error).__name__}: {error}"] += 1
            raise
        finally:
            connections.close_all()

    def pick(self) -> list[Task]:
        """One of the newest tasks; none while there are none."""
        newest = Task.objects.order_by("-id").values_list("pk", flat=True)
        ids = list(newest[: self.chance.choice([20, 200])])
        return list(Task.objects.filter(pk=self.chance.choice(ids))) if ids else []

    def delay(self) -> None:
        if Task.objects.active().count() < MOST_OPEN[connection.vendor]:
            spec = tree(self.chance, [self.chance.randint(5, 40)])
            branch_for(spec).delay(spec)

    def retry(self) -> None:
        operations.retry(self.pick())

    def retry_root(self) -> None:
        operations.retry([task.root_id for task in self.pick()])

    def cancel(self) -> None:
        operations.cancel(self.pick())

    def chain(self) -> None:
        for task in self.pick():
            follow(task, self.chance.choice(CONDITIONS))

    def coalesce(self) -> None:
        operations.coalesce(Task.objects.filter(func_name=twig.name, status="Q")[:20])


VERBS: dict[str, Callable[[Operator], None]] = {
    "delay": Operator.delay,
    "retry": Operator.retry,
    "retry the root": Operator.retry_root,
    "cancel": Operator.cancel,
    "chain": Operator.chain,
    "coalesce": Operator.coalesce,
}


@contextmanager
def operating(chance: random.Random) -> Iterator[Counter[str]]:
    stopping, did = threading.Event(), Counter[str]()
    operators = [Operator(chance.randrange(2**32), stopping, did) for _number in range(OPERATORS)]
    threads = [threading.Thread(target=operator.work) for operator in operators]
    for thread in threads:
        thread.start()
    try:
        yield did
    finally:
        stopping.set()
        for thread in threads:
            thread.join(60)


def findings() -> list[str]:
    """What is not as it should be, once nothing moves any more."""
    found: list[str] = []
    rows = {row.pk: row for row in Task.objects.without_large_columns()}
    below = defaultdict(list)
    for row in rows.values():
        below[row.parent_id, row.parent_claim].append(row)
    for row in rows.values():
        children = below[row.pk, row.claim]
        still_open = [c for c in children if c.status in ACTIVE and not c.is_blocked]
        if row.open_children != len(still_open):
            found.append(f"{row} counts {row.open_children} open, not {len(still_open)}")
        if row.status in ACTIVE and not row.is_blocked:
            found.append(f"{row} is stuck: {row.status}")
        if row.status in DONE and (row.finished is None or still_open):
            found.append(f"{row} has not really ended")
        above = rows[row.parent_id or row.previous_id or row.pk]
        if row.root_id != above.root_id:
            found.append(f"{row} has another root than {above}")
        if row.parent_id and row.depth != above.depth + 1:
            found.append(f"{row} is {row.depth} deep below one of {above.depth}")
    for task_id, root_id in TaskLog.objects.values_list("task_id", "root_id"):
        if rows[task_id].root_id != root_id:
            found.append(f"a line of {rows[task_id]} is under another root")
    return found


def test_every_tree_is_whole_after_operators_and_kills(fleet: Fleet, chance: random.Random) -> None:
    for _number in range(2):
        fleet.start(processes=1, FAULTS_MAX_LOST="1000")
    killed: Counter[str] = Counter()

    with operating(chance) as did:
        deadline = monotonic() + SECONDS[FULL]
        while monotonic() < deadline:
            sleep(2.0)
            killed[fleet.kill_one(chance, FAULTS_MAX_LOST="1000")] += 1
    until(lambda: not Task.objects.active().exists(), 60, "the end of all tasks")
    fleet.stop()

    statuses = Counter(Task.objects.values_list("status", flat=True))
    say(f"{dict(did)}, killed {dict(killed)}: {dict(statuses)}")
    assert set(did) <= set(VERBS)
    assert statuses["S"]
    assert findings() == []


def test_control_a_tree_that_is_not_whole_is_found_out(fleet: Fleet, chance: random.Random) -> None:
    spec = tree(chance, [1]) | {"fails": 0, "own": [], "behind": [], "adopts": None}
    stored = branch_for(spec | {"children": [spec]}).delay(spec | {"children": [spec]})
    fleet.start()
    stored.wait(timeout=30)
    until(lambda: TaskLog.objects.count() == 4, 10, "the last line")
    fleet.stop()
    assert findings() == []

    child = stored.subtasks.get()
    Task.objects.filter(pk=stored.pk).update(open_children=1)
    Task.objects.filter(pk=child.pk).update(root=child, depth=2, status="R", finished=None)

    assert len(findings()) == 6
