"""Do the large queries of the console use the indexes that are named after them?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from itertools import islice
from typing import Any
from uuid import UUID

import pytest
import pytest_django
from django.db import connection, transaction
from django.utils import timezone

from cq.ids import uuid7
from cq.models import Task, Worker
from cq.states import Status
from cq_console import bulk, search
from cq_console.queries import export, failures, jumps, overview, tasks, walk
from cq_console.queries.matching import filtered
from cq_console.views.tasks import VIEWS
from plans import analyze, assert_bounded, plans_of, start_afresh

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.skipif(
        "connection.vendor not in ('postgresql', 'sqlite')",
        reason="plans are read of PostgreSQL and SQLite",
    ),
]
postgresql = pytest.mark.skipif("connection.vendor != 'postgresql'", reason="it alone has GIN")
sqlite = pytest.mark.skipif(
    "connection.vendor != 'sqlite'", reason="others count their rows, and sort what is few"
)

# PostgreSQL reads a small table whole, and is right.
TASKS = 20_000 if connection.vendor == "postgresql" else 4_000
EVERY = timedelta(seconds=8)


@pytest.fixture(scope="module", params=["analyzed", "never analyzed"])
def busy_table(
    request: pytest.FixtureRequest,
    django_db_setup: None,
    django_db_blocker: pytest_django.DjangoDbBlocker,
) -> Iterator[list[Task]]:
    """Tasks of two days: mostly succeeded, in trees of a hundred, with few of anything else.

    They take a second to make: all tests share them, each in a savepoint of its own.
    """
    is_analyzed = request.param == "analyzed"
    if not is_analyzed and connection.vendor == "postgresql":
        pytest.skip("PostgreSQL analyzes by itself")
    with django_db_blocker.unblock(), transaction.atomic():
        start_afresh()
        rows = _two_days()
        Task.objects.bulk_create(rows, batch_size=5_000)
        Worker.objects.create(host="host", pid=17, threads=1, lease_expires_at=timezone.now())
        if is_analyzed:
            analyze()
        yield rows
        transaction.set_rollback(True)


# The plan of a table's own key: PostgreSQL's name for it, and SQLite's.
KEY = "cq_task_pkey" if connection.vendor == "postgresql" else "sqlite_autoindex_cq_task_1"


def _two_days() -> list[Task]:
    start = timezone.now() - TASKS * EVERY
    # As `uuid7` makes them, each at its time.
    low = uuid7().int & ((1 << 80) - 1)
    moments = [start + n * EVERY for n in range(TASKS)]
    ids = [UUID(int=(round(at.timestamp() * 1000) << 80) | low) for at in moments]
    return [_task(n, ids, at) for n, at in enumerate(moments)]


def _task(n: int, ids: list[UUID], at: Any) -> Task:
    status = Status.FAILURE if n % 500 == 0 else Status.QUEUED if n % 499 == 0 else Status.SUCCESS
    is_done = status != Status.QUEUED
    root = ids[n - n % 100]
    return Task(
        id=ids[n],
        root_id=root,
        parent_id=None if root == ids[n] else root,
        status=status,
        func_name="shop.rare" if n % 300 == 0 else "shop.often",
        queue="mail" if n % 400 == 0 else "default",
        named={"order_id": n},
        run_at=at,
        submitted=at,
        started=at if is_done else None,
        finished=at if is_done else None,
        ready=None if is_done or n % 2 else True,
        fingerprint="aaaa" if status == Status.FAILURE else "",
    )


def listed(
    text: str, order: walk.Order = walk.SUBMITTED, before: walk.Place | None = None
) -> Callable[[], tasks.Listed]:
    return lambda: tasks.page(Task.objects.all(), search.parse(text), before, order)


def first_chunks(rows: Any, wanted: search.Search, order: walk.Order) -> None:
    for _row in islice(export.rows(rows, wanted, order), export.CHUNK + 1):
        pass


# Every key of the search box, and those that are looked for together. Left out: what one worker
# runs, and one tree; they are read by their index, are few, and are sorted.
SEARCHES = (
    "",
    "is:any",
    *(text for _name, _label, text in VIEWS if text not in ("", "is:long")),
    "status:succeeded",
    "status:active",
    "queue:default",
    "queue:default status:failed",
    "queue:default status:succeeded",
    "queue:default func:shop.often",
    "queue:default args.order_id:123",
    "func:shop.often",
    "func:shop.rare since:7d",
    "cause:aaaa",
    "cause:aaaa status:retrying",
    "since:30m",
    "since:30m status:failed",
    "ran:>30s",
    "ran:<1s status:succeeded",
    "worker:host:17",
    "0000beef",
    "args.order_id:123",
    "args.order_id:123 status:failed queue:mail since:7d",
    "is:root status:failed",
    "is:root func:shop.rare",
    "status:succeeded func:shop.often",
)


@sqlite
@pytest.mark.parametrize("order", walk.ORDERS.values(), ids=walk.ORDERS)
def test_no_list_of_sqlite_is_read_whole_or_sorted(
    busy_table: list[Task], order: walk.Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A first, a middle and a last span.
    monkeypatch.setattr(walk, "FIRST_SPAN", TASKS * EVERY / 5)
    rows = Task.objects.all()
    middle = order.place(busy_table[TASKS // 2])

    for text in SEARCHES:
        wanted = search.parse(text)
        assert not wanted.problem
        for act in (
            listed(text, order),
            listed(text, order, middle),
            partial(tasks.count_newer, rows, wanted, middle, order),
            partial(first_chunks, rows, wanted, order),
            partial(tasks.count_all, rows, wanted),
        ):
            for plan in plans_of(act):
                assert not plan.reads_whole, (text, plan)
                assert not plan.sorts, (text, plan)


@sqlite
def test_what_is_done_to_all_that_match_is_neither_read_whole_nor_sorted(
    busy_table: list[Task],
) -> None:
    last = busy_table[-1].id

    for verb in bulk.VERBS.values():
        for text in ("is:any", "status:failed", "queue:default", "cause:aaaa", "func:shop.often"):
            for rows in bulk.frozen(Task.objects.all(), verb, search.parse(text), last):
                (plan,) = plans_of(partial(list, rows.order_by("id").only("id")[:500]))
                assert not plan.reads_whole, (text, plan)
                assert not plan.sorts, (text, plan)


@sqlite
def test_a_common_status_is_listed_by_its_end_without_reading_all_of_it(
    busy_table: list[Task],
) -> None:
    found = listed("status:succeeded", walk.FINISHED)

    assert found().searched_to is None
    assert all("cq_task_by_finished" in plan.text for plan in plans_of(found))


def test_each_kind_of_list_has_its_index(busy_table: list[Task]) -> None:
    for text, index in (
        ("", "cq_task_by_root"),
        ("is:any", KEY),
        ("status:failed", "cq_task_by_status"),
        ("status:lost", "cq_task_by_status"),
        ("status:scheduled", "cq_task_for_due"),
        ("queue:mail status:succeeded", "cq_task_by_queue"),
        ("queue:mail", "cq_task_by_queue"),
        ("func:shop.rare", "cq_task_by_function"),
        ("cause:aaaa", "cq_task_by_fingerprint"),
    ):
        assert_bounded(listed(text), index)
    assert_bounded(listed("is:any", walk.FINISHED), "cq_task_by_finished")


def test_a_search_of_several_terms_reads_no_whole_table(busy_table: list[Task]) -> None:
    for text in (
        "status:failed queue:mail",
        "status:succeeded func:shop.rare",
        "is:root status:failed",
        "args.order_id:123 status:failed queue:mail since:7d",
    ):
        assert_bounded(listed(text))


@postgresql
def test_an_argument_is_found_by_its_index(busy_table: list[Task]) -> None:
    wanted = search.parse("args.order_id:123")

    assert_bounded(lambda: list(filtered(Task.objects.all(), wanted)), "cq_task_by_argument")


def test_a_deep_page_is_found_like_the_first(busy_table: list[Task]) -> None:
    before = walk.SUBMITTED.place(busy_table[TASKS // 2])

    assert_bounded(
        lambda: tasks.page(Task.objects.all(), search.parse("status:failed"), before),
        "cq_task_by_status",
    )


def test_counts_and_jumps_follow_indexes(busy_table: list[Task]) -> None:
    rows = Task.objects.all()

    assert_bounded(lambda: tasks.count(rows, search.parse("status:failed")), "cq_task_by_status")
    assert_bounded(lambda: jumps.values(rows, "func_name", 500), "cq_task_by_function")
    assert_bounded(lambda: overview.names(rows), "cq_task_by_queue")


def test_the_overview_and_failures_read_no_whole_table(busy_table: list[Task]) -> None:
    rows, now = Task.objects.all(), timezone.now()

    assert_bounded(lambda: failures._counts(rows, ["aaaa"]), "cq_task_by_fingerprint")

    assert_bounded(lambda: overview.queues(rows, [], now), "cq_task_by_status")
    assert_bounded(lambda: overview.unknown_functions(rows), "cq_task_by_function")
    assert_bounded(lambda: overview.last_failure(rows))
    assert_bounded(lambda: overview.failing(rows, now))


def test_the_control_a_filter_without_index_is_found_out(busy_table: list[Task]) -> None:
    (plan,) = plans_of(lambda: list(Task.objects.filter(reason="x")))

    assert plan.reads_whole
