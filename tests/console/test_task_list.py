"""Does the list find tasks, page through them, and stay bounded?"""

from __future__ import annotations

import re
from datetime import timedelta
from html import unescape
from urllib.parse import parse_qsl

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from console.conftest import Make
from cq.folding import start_of
from cq.models import FailureGroup, Statistic, Task, Worker
from cq.states import Status
from cq_console.search import parse

URL = "/admin/cq/task/"


def listed(client: Client, **query: str) -> list[str]:
    html = client.get(URL, query).content.decode()
    return re.findall(r'<tr data-task="([0-9a-f-]{36})"', html)


def test_top_level_tasks_are_listed_the_newest_first(make: Make, operator: Client) -> None:
    first = make()
    make(Status.SUCCESS, parent=first)
    second = make()

    assert listed(operator) == [str(second.id), str(first.id)]


@pytest.mark.parametrize("query", ["", "status:succeeded", "func:shop.tasks.ship", "queue:mail"])
def test_pages_neither_skip_nor_repeat(make: Make, operator: Client, query: str) -> None:
    moment = timezone.now()
    made = {str(make(queue="mail", now=moment).id) for _ in range(120)}

    found: list[str] = []
    before = ""
    for _ in range(3):
        page = listed(operator, q=query, before=before)
        assert len(page) <= 50
        found += page
        before = page[-1]

    assert sorted(found, reverse=True) == found
    assert len(found) == 120
    assert set(found) == made


def test_a_search_includes_subtasks(make: Make, operator: Client) -> None:
    root = make()
    failed = make(Status.FAILURE, parent=root)
    lost = make(Status.LOST, parent=root)

    assert listed(operator, q="status:failed") == [str(lost.id), str(failed.id)]


def test_terms_are_combined(make: Make, operator: Client) -> None:
    wanted = make(Status.FAILURE, queue="mail")
    make(Status.FAILURE, queue="bulk")
    make(Status.SUCCESS, queue="mail")

    assert listed(operator, q="status:failed queue:mail") == [str(wanted.id)]


def test_a_task_is_found_by_its_id(make: Make, operator: Client) -> None:
    wanted = make()
    make()

    assert listed(operator, q=str(wanted.id)) == [str(wanted.id)]
    assert listed(operator, q=wanted.id.hex) == [str(wanted.id)]


def test_a_tree_is_found_by_its_root(make: Make, operator: Client) -> None:
    root = make(Status.INCOMPLETE)
    failed = make(Status.FAILURE, parent=root)
    make(Status.FAILURE)

    assert listed(operator, q=f"root:{root.id} status:failed") == [str(failed.id)]


def test_a_function_is_found_by_a_part_of_its_name(make: Make, operator: Client) -> None:
    wanted = make(func_name="demo.census.tasks.heartbeat")
    make()

    assert listed(operator, q="heartb") == [str(wanted.id)]


def test_scheduled_is_what_is_queued_for_later(make: Make, operator: Client) -> None:
    later = make(Status.QUEUED, ready=None)
    make(Status.QUEUED)
    make(Status.RETRY, ready=None)

    assert listed(operator, q="status:scheduled") == [str(later.id)]
    counts = operator.get(reverse("admin:cq_task_count")).content.decode()
    assert '<span id="cq-count-scheduled" hx-swap-oob="innerHTML">1</span>' in counts


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("statsu:failed", "“statsu:failed” is not understood. Did you mean “status”?"),
        ("status:faild", "“status:faild” is not understood. Did you mean “failed”?"),
        ("heartbaet", "“heartbaet” is not understood. Did you mean “heartbeat”?"),
        ("root:7", "“root:7” is not understood."),
    ],
)
def test_the_wrong_word_is_pointed_at(db: None, operator: Client, text: str, problem: str) -> None:
    html = operator.get(URL, {"q": text}).content.decode()

    assert problem in html
    assert not re.search("<tr data-task", html)


def test_a_search_for_nothing_means_top_level() -> None:
    assert parse("  ").only_roots
    assert not parse("status:failed").only_roots


@pytest.mark.parametrize("count", [2, 50])
def test_the_number_of_queries_does_not_grow_with_the_rows(
    make: Make, operator: Client, count: int
) -> None:
    worker = Worker.objects.create(host="h", pid=7, lease_expires_at=timezone.now())
    for _ in range(count):
        make(worker=worker)
    operator.get(URL)

    with CaptureQueriesContext(connection) as queries:
        operator.get(URL)

    assert len(queries) == 6
    assert not [query["sql"] for query in queries if "OFFSET" in query["sql"]]
    assert not [query["sql"] for query in queries if "DISTINCT" in query["sql"]]


def test_counts_stop_behind_their_limit(
    make: Make, operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cq_console.queries.tasks.COUNT_LIMIT", 10_000)
    for _ in range(3):
        make(Status.FAILURE)

    with CaptureQueriesContext(connection) as queries:
        html = operator.get(reverse("admin:cq_task_count")).content.decode()

    counts = [query["sql"] for query in queries if "COUNT" in query["sql"]]
    assert '<span id="cq-count-failed" hx-swap-oob="innerHTML">3</span>' in html
    assert counts
    assert all("LIMIT 10001" in sql for sql in counts)


def test_what_finished_and_was_removed_since_is_said(make: Make, operator: Client) -> None:
    for age in (timedelta(minutes=2), timedelta(minutes=3), timedelta(hours=3)):
        make(queue="mail", now=timezone.now() - age)
    Statistic.objects.create(
        bucket=start_of(timezone.now(), 1) - timedelta(minutes=5),
        length=1,
        queue="mail",
        func_name="shop.tasks.ship",
        worker=1,
        succeeded=12_400,
        failed=31,
    )
    queues = operator.get("/admin/cq/queue/").content.decode()
    link = re.search(r'<a href="[^"?]*\?([^"]*)">12,431</a>', queues)
    assert link
    query = dict(parse_qsl(unescape(link[1])))

    asked = re.search(
        r'hx-get="([^"]*)" hx-trigger="load"', operator.get(URL, query).content.decode()
    )
    assert asked
    html = operator.get(unescape(asked[1])).content.decode()

    assert "in the last hour 12,431 finished, 2 still kept" in html
    # Of what is narrowed further nothing is known once it was removed.
    query["q"] += " status:succeeded"
    assert "still kept" not in operator.get(reverse("admin:cq_task_count"), query).content.decode()


def test_no_failed_task_says_since_when(db: None, operator: Client) -> None:
    url = f"{URL}?q=status:failed"
    assert "No task matches." in operator.get(url).content.decode()

    FailureGroup.objects.create(
        fingerprint="aaaa", first_seen=timezone.now(), last_seen=timezone.now()
    )

    assert "Nothing failed since <time" in operator.get(url).content.decode()


def test_an_empty_list_says_what_to_do(db: None, operator: Client) -> None:
    html = operator.get(URL).content.decode()

    assert "No tasks yet." in html
    assert ".delay(" in html


def test_a_row_says_what_it_needs_to_say(make: Make, operator: Client) -> None:
    make(Status.RETRY, attempts=3, named={"order_id": 9071}, queue="bulk")

    html = operator.get(URL).content.decode()
    row = html.partition("<tr data-task")[2].partition("</tr>")[0]

    assert 'data-status="Y"' in row
    assert "retries now" in row
    assert "order_id=9071" in row
    assert "bulk" in row
    assert re.search(r'id="n-t[\w-]+">3<', row)


def test_rows_narrowed_by_the_host_are_nowhere(
    make: Make, operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden, seen = make(queue="secret"), make(queue="open")

    def narrowed(self: object, request: object) -> object:
        return Task.objects.exclude(queue="secret")

    monkeypatch.setattr("cq_console.admin.TaskAdmin.get_queryset", narrowed)

    assert listed(operator) == [str(seen.id)]
    assert operator.get(f"{URL}{hidden.id}/").status_code == 404
    assert operator.post(f"{URL}{hidden.id}/do/cancel/").status_code == 404


def test_a_huge_tree_does_not_slow_the_list(
    make: Make, operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cq_console.queries.tasks.TREES_LIMIT", 150)
    huge, small = make(Status.WAITING), make(Status.WAITING)
    for parent, children in ((huge, 160), (small, 2)):
        for _ in range(children):
            make(Status.SUCCESS, parent=parent)

    html = operator.get(URL).content.decode()

    assert "2 of 3" in html
    assert "160 of 161" not in html
