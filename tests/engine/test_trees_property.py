"""Does every parent finish exactly once, never before its last descendant, and never hang?

Random trees, up to five levels and two hundred tasks, in the full form five hundred: succeeding,
failing, retrying, discarding, returning children, with chains of all three conditions, atomic or
not, some cancelled on the way, run in a random order. The oracle is the rows themselves.

CQ_TEST_FULL=1 grows more and larger ones; make oracle does so on every database.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

import cq
from cq import operations, task
from cq.context import Context
from cq.models import Task
from cq.states import ACTIVE, DONE, FAILED, HARMFUL_CAUSES, Status
from cq.testing import run_pending

pytestmark = pytest.mark.django_db

FULL = bool(os.environ.get("CQ_TEST_FULL"))
# More of them: CQ_TEST_TREES=200.
TREES = int(os.environ.get("CQ_TEST_TREES") or (40 if FULL else 3))
# Larger ones: CQ_TEST_NODES=500.
LIMIT = int(os.environ.get("CQ_TEST_NODES") or (500 if FULL else 200))
DEPTH = 5
IS_BROKEN = True
STARTS: Counter[Any] = Counter()
# Followers that were blocked when their parent ended: nothing that becomes of them harms it.
LEFT_BEHIND: set[Any] = set()


@pytest.fixture(autouse=True)
def _whole() -> Any:
    global IS_BROKEN
    IS_BROKEN = True
    STARTS.clear()
    LEFT_BEHIND.clear()


def behave(cqt: Context, spec: dict[str, Any]) -> Any:
    STARTS[cqt.id] += 1
    made = []
    for child in spec["children"]:
        stored = cqt.subtask(function(child), child)
        made.append(stored)
        for condition, follower in child["then"]:
            chain_to(stored, condition, follower)
    for condition, follower in spec["own"]:
        chain_to(cqt, condition, follower)
    does = spec["does"]
    if does == "retry once" and cqt.attempt == 1:
        raise ValueError("first attempt")
    if IS_BROKEN and does == "fail":
        raise ValueError("broken")
    if IS_BROKEN and does == "discard":
        raise cq.Discard("not worth it")
    if does == "return" and made:
        return made[-1]
    return spec["name"]


def chain_to(target: Any, condition: str, spec: dict[str, Any]) -> None:
    if condition == "failure":
        target.errorback(function(spec), (spec,))
    else:
        target.chain(function(spec), (spec,), force_chain=condition == "always")


@task(retries=1, backoff=0)
def atomic(cqt: Context, spec: dict[str, Any]) -> Any:
    return behave(cqt, spec)


@task(atomic=False, retries=1, backoff=0)
def loose(cqt: Context, spec: dict[str, Any]) -> Any:
    return behave(cqt, spec)


def function(spec: dict[str, Any]) -> Any:
    base = loose if spec["loose"] else atomic
    budget = 1 if spec["does"] == "retry once" else 0
    return base.using(priority=spec["priority"], retries=budget)


def tree(chance: random.Random, nodes: int) -> dict[str, Any]:
    """A random tree of about *nodes* tasks, or one time in three of any number up to that."""
    least = 0 if chance.random() < 0.3 else nodes * 4 // 5
    most = 4
    while True:
        room = [nodes]
        spec = grow(chance, room, most)
        if nodes - room[0] >= least:
            return spec
        # Chance alone hardly ever makes a large one.
        most += 1


def grow(chance: random.Random, room: list[int], most: int, depth: int = 0) -> dict[str, Any]:
    """A tree whose nodes have up to *most* children; *room* holds how many it may still have."""
    room[0] -= 1
    spec: dict[str, Any] = {
        "name": room[0],
        "does": chance.choices(
            ["succeed", "fail", "retry once", "discard", "return"], [6, 2, 2, 1, 2]
        )[0],
        "loose": chance.random() < 0.4,
        "priority": chance.randint(-100, 100),
        "children": [],
        "own": [],
        "then": [],
    }

    def more(number: int) -> Iterator[int]:
        """So many at most, and while there is room."""
        for one in range(chance.randint(0, number) if depth < DEPTH else 0):
            if room[0] > 0:
                yield one

    for _ in more(most if depth else most + 2):
        child = grow(chance, room, most, depth + 1)
        conditions = ["success", "always", "failure"]
        if chance.random() < 0.3:
            child["then"] = [
                [chance.choice(conditions), grow(chance, room, most, depth + 2)] for _ in more(2)
            ]
        spec["children"].append(child)
    if depth and chance.random() < 0.2:
        spec["own"] = [
            [chance.choice(["success", "always", "failure"]), grow(chance, room, most, depth + 2)]
            for _ in more(2)
        ]
    return spec


def shown(row: Task) -> str:
    behind = f" behind {str(row.previous)[-8:]} {row.condition}" if row.previous else ""
    return f"{str(row)[-8:]} {row.status} {row.cause}{behind}"


def chain_to_what_has_ended(chance: random.Random) -> None:
    """Chain something to a tenth of all tasks, which have ended in any way or are blocked."""
    rows = list(Task.objects.order_by("id"))
    for row in chance.sample(rows, k=len(rows) // 10):
        spec = grow(chance, [1], most=0, depth=DEPTH) | {"does": "succeed"}
        chain_to(row, chance.choice(["success", "always", "failure"]), spec)


def check(*, is_over: bool) -> None:
    """What must hold of the rows after every step; *is_over*: nothing can move any more."""
    rows = {row.pk: row for row in Task.objects.all()}
    below: dict[Any, list[Task]] = {}
    for row in rows.values():
        below.setdefault((row.parent_id, row.parent_claim), []).append(row)
    for row in rows.values():
        children = below.get((row.pk, row.claim), [])
        still_open = [c for c in children if c.status in ACTIVE and not c.is_blocked]
        # Never before its last descendant, counted and never forgotten.
        assert row.open_children == len(still_open), (row, row.status, list(map(shown, children)))
        if row.status in DONE:
            assert not still_open, (row, row.status, row.cause)
            assert row.finished is not None
        if row.status == Status.WAITING:
            assert still_open, (row, "waits for nobody")
        if row.status in (Status.SUCCESS, Status.INCOMPLETE):
            harmed = any(
                c.status in FAILED or (c.status == Status.REVOKED and c.cause in HARMFUL_CAUSES)
                for c in children
                if c.pk not in LEFT_BEHIND
            )
            assert (row.status == Status.INCOMPLETE) == harmed, (row, row.status)
            LEFT_BEHIND.update(c.pk for c in children if c.is_blocked)
        if row.is_blocked:
            assert row.previous_id is not None
        elif row.status in ACTIVE:
            LEFT_BEHIND.discard(row.pk)
        if row.status == Status.PENDING and not row.is_blocked:
            assert row.previous_id is not None
            assert rows[row.previous_id].status in ACTIVE, (row, rows[row.previous_id].status)
    if is_over:
        stuck = [row for row in rows.values() if row.status in ACTIVE and not row.is_blocked]
        assert not stuck, [(row, row.status) for row in stuck]


def counted_below(root: Task) -> list[Task]:
    """What counts for *root*: not what an attempt had made that was given up."""
    found = []
    wave = [root]
    while wave:
        wave = [
            child
            for parent in wave
            # What a revoked one had made ended with it.
            if parent.status != Status.REVOKED
            for child in Task.objects.filter(parent=parent, parent_claim=parent.claim)
        ]
        found += wave
    return found


@pytest.mark.parametrize("seed", range(TREES))
def test_every_parent_finishes_once_after_its_last_descendant(seed: int) -> None:
    chance = random.Random(seed)
    root = function(spec := tree(chance, LIMIT)).delay(spec)
    finished: Counter[Any] = Counter()
    known: dict[Any, str] = {}

    def step() -> bool:
        ran = run_pending(limit=chance.randint(1, 12))
        check(is_over=False)
        for pk, status in Task.objects.values_list("pk", "status"):
            if status in DONE and known.get(pk) not in DONE:
                finished[pk] += 1
            known[pk] = status
        # Another order every time: nobody may rely on that of the creation.
        for pk in Task.objects.filter(ready=True).values_list("pk", flat=True):
            Task.objects.filter(pk=pk).update(priority=chance.randint(-100, 100))
        return ran > 0

    while step():
        if chance.random() < 0.15:
            candidates = list(Task.objects.active().exclude(pk=root.pk))
            if candidates:
                operations.cancel([chance.choice(candidates)])
                check(is_over=False)
    check(is_over=True)
    assert set(finished.values()) <= {1}
    root.refresh_from_db()
    assert root.status in DONE


@pytest.mark.parametrize("seed", range(1_000, 1_000 + TREES))
def test_what_failed_heals_by_retrying_the_root(seed: int) -> None:
    global IS_BROKEN
    chance = random.Random(seed)
    spec = tree(chance, LIMIT // 2)
    spec["does"] = "succeed"
    root = function(spec).delay(spec)
    run_pending()
    check(is_over=True)
    chain_to_what_has_ended(chance)
    run_pending()
    check(is_over=True)
    runs_of_successes = {
        pk: STARTS[pk]
        for pk in Task.objects.filter(status=Status.SUCCESS).values_list("pk", flat=True)
    }

    IS_BROKEN = False
    for _ in range(DEPTH + 2):
        root.refresh_from_db()
        if root.status == Status.SUCCESS:
            break
        root.retry()
        check(is_over=False)
        run_pending()
        check(is_over=True)

    assert root.status == Status.SUCCESS
    assert not [row for row in counted_below(root) if row.status in FAILED]
    assert all(STARTS[pk] == runs for pk, runs in runs_of_successes.items())


@pytest.mark.parametrize("seed", range(2_000, 2_000 + TREES))
def test_a_cancelled_tree_ends_and_comes_back(seed: int) -> None:
    global IS_BROKEN
    IS_BROKEN = False
    chance = random.Random(seed)
    spec = tree(chance, LIMIT // 2)
    root = function(spec).delay(spec)
    run_pending(limit=chance.randint(0, 20))

    root.cancel()
    check(is_over=True)
    assert run_pending() == 0

    for _ in range(DEPTH + 2):
        root.refresh_from_db()
        if root.status == Status.SUCCESS:
            break
        root.retry()
        check(is_over=False)
        run_pending()
        check(is_over=True)
    assert root.status == Status.SUCCESS
