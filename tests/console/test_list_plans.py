"""Do the large queries of the console use the indexes that are named after them?"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.db import connection
from django.utils import timezone

from cq.models import Task
from cq_console import search
from cq_console.queries import failures, jumps, overview, tasks, walk
from cq_console.queries.matching import filtered
from plans import analyze, assert_bounded, plans_of, start_afresh

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.skipif("connection.vendor != 'postgresql'", reason="plans are PostgreSQL's"),
]


@pytest.fixture
def busy_table() -> None:
    """Tasks of two days: mostly succeeded, in trees of a hundred, with few of anything else."""
    columns = (
        "id, root_id, status, func_name, queue, args, kwargs, named, priority, run_at, submitted,"
        " started, finished, fingerprint, ready"
    )
    start_afresh()
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO cq_task ({columns}) SELECT id, roots.root_id, status, func_name, queue,"
            " '[]', '{}', jsonb_build_object('order_id', n), 0, made, made, made,"
            " CASE WHEN status IN ('S', 'F') THEN made END,"
            " CASE WHEN status = 'F' THEN 'aaaa' ELSE '' END,"
            " CASE WHEN status = 'Q' THEN true END"
            " FROM (SELECT n, (lpad(to_hex((extract(epoch FROM made) * 1000)::bigint), 12, '0')"
            "   || '7000800000000000' || lpad(to_hex(n), 4, '0'))::uuid AS id, made,"
            "   CASE WHEN n % 500 = 0 THEN 'F' WHEN n % 499 = 0 THEN 'Q' ELSE 'S' END AS status,"
            "   CASE WHEN n % 300 = 0 THEN 'shop.rare' ELSE 'shop.often' END AS func_name,"
            "   CASE WHEN n % 400 = 0 THEN 'mail' ELSE 'default' END AS queue"
            "  FROM (SELECT n, now() - interval '2 days' + n * interval '8 s' AS made"
            "   FROM generate_series(1, 20000) AS n) AS numbers) AS rows"
            " CROSS JOIN LATERAL (SELECT (lpad(to_hex((extract(epoch FROM now() - interval"
            "   '2 days' + (n - n % 100 + 1) * interval '8 s') * 1000)::bigint), 12, '0')"
            "   || '7000800000000000' || lpad(to_hex(n - n % 100 + 1), 4, '0'))::uuid AS root_id)"
            " AS roots"
        )
    analyze()


def listed(text: str, order: walk.Order = walk.SUBMITTED) -> Callable[[], tasks.Listed]:
    return lambda: tasks.page(Task.objects.all(), search.parse(text), None, order)


# A table of this size takes a second to fill: the kinds share it.
def test_each_kind_of_list_has_its_index(busy_table: None) -> None:
    for text, index in (
        ("", "cq_task_by_root"),
        ("is:any", "cq_task_pkey"),
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


def test_a_search_of_several_terms_reads_no_whole_table(busy_table: None) -> None:
    for text in (
        "status:failed queue:mail",
        "status:succeeded func:shop.rare",
        "is:root status:failed",
        "args.order_id:123 status:failed queue:mail since:7d",
    ):
        assert_bounded(listed(text))
    wanted = search.parse("args.order_id:123")
    assert_bounded(lambda: list(filtered(Task.objects.all(), wanted)), "cq_task_by_argument")


def test_a_deep_page_is_found_like_the_first(busy_table: None) -> None:
    middle = Task.objects.order_by("id")[10_000]
    before = walk.SUBMITTED.place(middle)

    assert_bounded(
        lambda: tasks.page(Task.objects.all(), search.parse("status:failed"), before),
        "cq_task_by_status",
    )


def test_counts_and_jumps_follow_indexes(busy_table: None) -> None:
    rows = Task.objects.all()

    assert_bounded(lambda: tasks.count(rows, search.parse("status:failed")), "cq_task_by_status")
    assert_bounded(lambda: jumps.values(rows, "func_name", 500), "cq_task_by_function")
    assert_bounded(lambda: overview.names(rows), "cq_task_by_queue")


def test_the_overview_and_failures_read_no_whole_table(busy_table: None) -> None:
    rows, now = Task.objects.all(), timezone.now()

    assert_bounded(lambda: failures._counts(rows, ["aaaa"]), "cq_task_by_fingerprint")

    assert_bounded(lambda: overview.queues(rows, [], now), "cq_task_by_status")
    assert_bounded(lambda: overview.unknown_functions(rows), "cq_task_by_function")
    assert_bounded(lambda: overview.last_failure(rows))
    assert_bounded(lambda: overview.failing(rows, now))


def test_the_control_a_filter_without_index_is_found_out(busy_table: None) -> None:
    (plan,) = plans_of(lambda: list(Task.objects.filter(reason="x")))

    assert plan.reads_whole
