"""Does a task's page cost the same however large its family, its log and the tables are?"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

import pytest
import pytest_django
from django.db import connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from console.conftest import Make
from cq.ids import uuid7_many
from cq.models import Act, ActItem, Attempt, Task, TaskLog
from cq.states import Status
from plans import analyze, assert_bounded, plans_of, start_afresh

pytestmark = pytest.mark.django_db
explained = pytest.mark.skipif(
    "connection.vendor not in ('postgresql', 'sqlite')",
    reason="plans are read of PostgreSQL and SQLite",
)

TREES = 600
CHILDREN = 20
LINES_OF_ANOTHER = 20
LINES_OF_THE_TREE = 400
TABS = ("tree", "timeline", "logs", "attempts", "data", "activity")


@pytest.fixture(scope="module")
def one_of_many(
    django_db_setup: None, django_db_blocker: pytest_django.DjangoDbBlocker
) -> Iterator[Task]:
    """A tree with a log, attempts and acts, among hundreds of its kind.

    They take seconds to make: all tests share them, each in a savepoint of its own.
    """
    with django_db_blocker.unblock(), transaction.atomic():
        yield _fill()
        transaction.set_rollback(True)


def _fill() -> Task:
    start_afresh()
    made = [_tree(CHILDREN) for _ in range(TREES)]
    Task.objects.bulk_create([task for tree in made for task in tree], batch_size=5_000)
    tree = made[TREES // 2]
    lines = [line for other in made for line in _lines(other, LINES_OF_ANOTHER)]
    # In the midst of the others': at an end of the table, its few last rows are as well read whole.
    half = len(lines) // 2
    TaskLog.objects.bulk_create(
        [*lines[:half], *_lines(tree, LINES_OF_THE_TREE), *lines[half:]], batch_size=5_000
    )
    now = timezone.now()
    failed = [task for tree in made for task in tree if task.status == Status.FAILURE]
    Attempt.objects.bulk_create(
        Attempt(task_id=task.id, number=n, outcome=Status.RETRY, started=now)
        for task in failed
        for n in range(1, 5)
    )
    act = Act.objects.create(verb="retry", by_name="grace")
    ActItem.objects.bulk_create(
        ActItem(act=act, task_id=task.id, root_id=task.root_id)
        for task in [task for tree in made for task in tree[:5]]
    )
    analyze()
    return tree[0]


def _tree(children: int) -> list[Task]:
    root, *below = uuid7_many(children + 1)
    return [
        _task(root, root, Status.INCOMPLETE),
        *[
            _task(id, root, Status.FAILURE if n % 10 == 3 else Status.SUCCESS)
            for n, id in enumerate(below)
        ],
    ]


def _task(id: UUID, root: UUID, status: Status) -> Task:
    now = timezone.now()
    is_root = id == root
    return Task(
        id=id,
        root_id=root,
        parent_id=None if is_root else root,
        depth=0 if is_root else 1,
        status=status,
        func_name="shop.tasks.ship",
        args=[1],
        submitted=now,
        run_at=now,
        started=now,
        finished=now + timedelta(seconds=2),
        attempts=2 if status == Status.FAILURE else 1,
        error="ValueError: no" if status == Status.FAILURE else "",
    )


def _lines(tree: list[Task], number: int) -> Iterator[TaskLog]:
    now = timezone.now()
    for n in range(number):
        task = tree[n % len(tree)]
        level = 30 if n % 10 == 0 else 20
        yield TaskLog(
            root_id=task.root_id, task_id=task.id, created=now, level=level, message=f"line {n}"
        )


def page_of(task: Task, tab: str, query: str = "") -> str:
    return reverse("admin:cq_task_change", args=[task.id]) + f"?tab={tab}{query}"


def live_of(task: Task, tab: str, query: str = "") -> str:
    return reverse("admin:cq_task_live", args=[task.id]) + f"?tab={tab}{query}"


@explained
def test_the_tree_and_its_parts_read_by_index(one_of_many: Task, operator: Client) -> None:
    child = Task.objects.filter(parent_id=one_of_many.id, status=Status.FAILURE).first()
    assert child is not None
    level = reverse("admin:cq_task_level", args=[one_of_many.id])
    inspector = reverse("admin:cq_task_inspector", args=[child.id])

    for url, indexes in (
        (page_of(one_of_many, "tree"), ("cq_task_by_root", "cq_task_failed_by_parent")),
        (page_of(child, "tree"), ("cq_task_by_root", "cq_task_by_parent")),
        (page_of(one_of_many, "tree", f"&node={child.id}"), ("cq_attempt_by_task",)),
        (live_of(one_of_many, "tree", f"&node={child.id}&failed=1"), ("cq_task_by_root",)),
        (f"{level}?section=a&after={child.id}", ("cq_task_by_parent",)),
        (f"{level}?section=f&after={child.id}", ("cq_task_failed_by_parent",)),
        (inspector, ("cq_log_by_task", "cq_attempt_by_task")),
    ):
        assert_bounded(partial(operator.get, url), *indexes)


@explained
def test_a_tree_too_large_to_be_added_up_reads_by_index(
    one_of_many: Task, operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cq_console.queries.tree.ROLL_UP_LIMIT", 10)

    for tab in ("tree", "timeline"):
        url = page_of(one_of_many, tab)
        assert_bounded(partial(operator.get, url), "cq_task_by_root", "cq_task_by_parent")


@explained
def test_the_timeline_reads_by_index(one_of_many: Task, operator: Client) -> None:
    for url in (page_of(one_of_many, "timeline"), live_of(one_of_many, "timeline")):
        assert_bounded(partial(operator.get, url), "cq_task_by_root")


@explained
def test_each_way_to_read_a_log_has_its_index(one_of_many: Task, operator: Client) -> None:
    lines = TaskLog.objects.filter(root_id=one_of_many.id).order_by("id")
    middle, last = lines[200].id, lines[399].id
    reading = f"&lines={_base_36(middle)}.{_base_36(last - middle)}&reading={middle}"
    download = reverse("admin:cq_task_log", args=[one_of_many.id])

    for url, index in (
        (page_of(one_of_many, "logs"), "cq_log_by_root"),
        (page_of(one_of_many, "logs", "&of=task"), "cq_log_by_task"),
        (page_of(one_of_many, "logs", "&level=warning"), "cq_log_warnings_by_root"),
        (page_of(one_of_many, "logs", "&text=line+7"), "cq_log_by_root"),
        (page_of(one_of_many, "logs", f"&line={middle}"), "cq_log_by_root"),
        (page_of(one_of_many, "logs", f"&after={middle}"), "cq_log_by_root"),
        (page_of(one_of_many, "logs", f"&before={middle}"), "cq_log_by_root"),
        (live_of(one_of_many, "logs", reading), "cq_log_by_root"),
        (f"{download}?level=warning", "cq_log_warnings_by_root"),
    ):
        assert_bounded(partial(_body, operator, url), index)


@explained
def test_attempts_and_acts_of_one_task_are_found_by_index(
    one_of_many: Task, operator: Client
) -> None:
    failed = Task.objects.filter(parent_id=one_of_many.id, status=Status.FAILURE).first()
    assert failed is not None

    assert_bounded(lambda: operator.get(page_of(failed, "attempts")), "cq_attempt_by_task")
    assert_bounded(
        lambda: operator.get(page_of(one_of_many, "activity")),
        "cq_actitem_by_task",
        "cq_actitem_by_root",
    )


@explained
def test_the_control_what_no_index_serves_is_found_out(one_of_many: Task) -> None:
    for rows in (
        TaskLog.objects.filter(message="x"),
        Attempt.objects.filter(error="x"),
        ActItem.objects.filter(skipped="x"),
    ):
        (plan,) = plans_of(partial(list, rows))
        assert plan.reads_whole


@pytest.mark.parametrize("tab", TABS)
def test_no_tab_asks_more_of_a_larger_family(make: Make, operator: Client, tab: str) -> None:
    small, large = _family(make, 4), _family(make, 130)
    operator.get(page_of(small, tab))

    asked = _queries(operator, page_of(large, tab))

    assert asked <= 21
    assert asked == _queries(operator, page_of(small, tab))
    # A child behind the first page is looked for on a page of its own.
    of_a_child = _queries(operator, page_of(_last(small), tab))
    assert _queries(operator, page_of(_last(large), tab)) <= of_a_child + 3
    assert _queries(operator, live_of(small, tab)) == _queries(operator, live_of(large, tab))


def _family(make: Make, number: int) -> Task:
    """A task with that many children, failed ones, lines, attempts and acts."""
    root = make(Status.INCOMPLETE)
    act = Act.objects.create(verb="retry", by_name="grace")
    noted = []
    for n in range(number):
        child = make(Status.FAILURE if n % 3 == 0 else Status.SUCCESS, parent=root, attempts=2)
        noted += [(root, n), (child, n)]
    Attempt.objects.bulk_create(
        Attempt(task=task, number=n, outcome=Status.RETRY) for task, n in noted
    )
    ActItem.objects.bulk_create(
        ActItem(act=act, task_id=task.id, root_id=root.id) for task, _n in noted
    )
    TaskLog.objects.bulk_create(
        TaskLog(root=root, task=task, created=timezone.now(), message=f"line {n}")
        for task, n in noted
    )
    return root


def _last(root: Task) -> Task:
    return Task.objects.filter(parent_id=root.id).order_by("-id")[0]


def _queries(operator: Client, url: str) -> int:
    with CaptureQueriesContext(connection) as queries:
        response: Any = operator.get(url)
    assert response.status_code in (200, 204)
    return len(queries)


def _body(operator: Client, url: str) -> bytes:
    """All of it: a download is read only while it is sent."""
    return b"".join(operator.get(url))


def _base_36(number: int) -> str:
    digits = "0123456789abcdefghijklmnopqrstuvwxyz"
    return digits[number] if number < 36 else _base_36(number // 36) + digits[number % 36]
