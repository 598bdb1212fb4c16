"""Does the search box find what was meant, say what it does not understand, and stay quick?"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from console.conftest import Make
from cq.models import Statistic, Task, Worker
from cq.states import Status
from cq_console import search
from cq_console.queries import speed, walk

URL = "/admin/cq/task/"
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def listed(client: Client, **query: str) -> list[str]:
    html = client.get(URL, query).content.decode()
    return re.findall(r'<tr data-task="([0-9a-f-]{36})"', html)


def id_at(moment: datetime, number: int = 0) -> UUID:
    return UUID(int=(int(moment.timestamp() * 1000) << 80) + (7 << 76) + number)


@pytest.mark.parametrize("text", ["args.order_id:123", 'args.order_id:"123"'])
def test_a_number_is_found_as_number_and_as_text(make: Make, operator: Client, text: str) -> None:
    number = make(named={"order_id": 123})
    words = make(named={"order_id": "123"})
    make(named={"order_id": 1234})
    make(named={"other": 123})

    assert listed(operator, q=text) == [str(words.id), str(number.id)]


def test_a_text_with_spaces_stands_in_quotes(make: Make, operator: Client) -> None:
    wanted = make(named={"name": "Ada Lovelace"})
    make(named={"name": "Ada"})

    assert listed(operator, q='args.name:"Ada Lovelace"') == [str(wanted.id)]


def test_arguments_are_combined_with_other_terms(make: Make, operator: Client) -> None:
    wanted = make(Status.FAILURE, queue="mail", named={"order_id": 1, "country": "at"})
    make(Status.SUCCESS, queue="mail", named={"order_id": 1, "country": "at"})
    make(Status.FAILURE, queue="mail", named={"order_id": 1, "country": "de"})

    found = listed(operator, q="args.order_id:1 args.country:at status:failed queue:mail")

    assert found == [str(wanted.id)]


@pytest.mark.parametrize("name", ["password", "apiKey", "session_token"])
def test_a_masked_argument_is_not_searchable(make: Make, operator: Client, name: str) -> None:
    make(named={name: "hunter2"})

    html = operator.get(URL, {"q": f"args.{name}:hunter2"}).content.decode()

    assert "not searchable" in html
    assert "<tr data-task" not in html


def test_a_value_is_never_part_of_the_statement(make: Make, operator: Client) -> None:
    wanted = make(named={"name": "x' OR '1'='1"})
    make(named={"name": "y"})

    assert listed(operator, q="args.name:\"x' OR '1'='1\"") == [str(wanted.id)]


def test_since_counts_back_from_now(make: Make, operator: Client) -> None:
    now = timezone.now()
    new = make(id=id_at(now - timedelta(hours=1)))
    make(id=id_at(now - timedelta(hours=3)))

    assert listed(operator, q="since:2h") == [str(new.id)]
    assert listed(operator, q="status:succeeded since:2h") == [str(new.id)]


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("since:90s", timedelta(seconds=90)),
        ("since:30m", timedelta(minutes=30)),
        ("since:7d", timedelta(days=7)),
        ("since:999999999w", timedelta(days=36_500)),
    ],
)
def test_spans_of_time_are_understood(text: str, span: timedelta) -> None:
    assert search.parse(text, NOW).since == NOW - span


def test_ran_looks_at_what_has_ended_and_what_still_runs(make: Make, operator: Client) -> None:
    now = timezone.now()
    slow = make(started=now - timedelta(seconds=90), finished=now - timedelta(seconds=10))
    quick = make(started=now - timedelta(seconds=12), finished=now - timedelta(seconds=10))
    running = make(Status.RUNNING, started=now - timedelta(minutes=5))

    assert listed(operator, q="ran:>30s") == [str(running.id), str(slow.id)]
    assert listed(operator, q="ran:<30s") == [str(quick.id)]


def test_a_task_is_found_by_the_digits_that_the_list_shows(make: Make, operator: Client) -> None:
    wanted = make()
    make()

    assert listed(operator, q=str(wanted.id)[-8:]) == [str(wanted.id)]
    assert listed(operator, q="…" + str(wanted.id)[-8:].upper()) == [str(wanted.id)]


def test_a_worker_is_found_by_its_name(make: Make, operator: Client) -> None:
    worker = Worker.objects.create(host="build-2", pid=17, lease_expires_at=timezone.now())
    running = make(Status.RUNNING, worker=worker)
    ended = make(worker=worker)
    make(Status.RUNNING)

    assert listed(operator, q="worker:build-2:17") == [str(ended.id), str(running.id)]
    assert listed(operator, q="worker:build-2:17 status:running") == [str(running.id)]


def test_long_is_three_times_what_is_usual(make: Make, operator: Client) -> None:
    now = timezone.now()
    Statistic.objects.create(
        bucket=now - timedelta(hours=1),
        length=15,
        queue="default",
        func_name="shop.tasks.ship",
        started=100,
        waits=[0] * 12,
        runs=[0, 0, 0, 0, 0, 0, 0, 100, 0, 0, 0, 0],
    )
    long = make(Status.RUNNING, started=now - timedelta(seconds=60))
    make(Status.RUNNING, started=now - timedelta(seconds=11))
    make(Status.RUNNING, started=now - timedelta(hours=1), func_name="never.seen.before")

    assert listed(operator, q="is:long") == [str(long.id)]


@pytest.mark.parametrize(
    ("counts", "share", "seconds"),
    [
        ([0, 0, 0, 0, 0, 0, 0, 100, 0, 0, 0, 0], 0.95, 4.8),
        ([100, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 1.0, 0.005),
        ([95, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5], 0.95, 0.005),
        ([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4], 1.0, 7200.0),
    ],
)
def test_a_percentile_lies_within_its_bin(counts: list[int], share: float, seconds: float) -> None:
    assert speed.percentile(counts, share) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("since:yesterday", "since:30m"),
        ("since:2026-13-45", "since:30m"),
        ("ran:30s", "ran:>30s"),
        ("ran:>", "ran:>30s"),
        ("is:rot", "root"),
        ("arg.order_id:1", "args"),
        ("args.or der:1", "not understood"),
        ("args.:1", "not understood"),
        ("worker:here", "host:pid"),
        ("status:", "status"),
        ("root:" + "9" * 400, "not understood"),
    ],
)
def test_the_wrong_word_is_told(db: None, text: str, problem: str) -> None:
    found = search.parse(text)

    assert problem in found.problem
    assert found.wrong in text


def test_the_wrong_word_is_marked(db: None, operator: Client) -> None:
    html = operator.get(URL, {"q": "queue:mail statsu:failed is:root"}).content.decode()

    assert "queue:mail <mark>statsu:failed</mark> is:root" in html


@pytest.mark.parametrize("order", ["submitted", "finished"])
@pytest.mark.parametrize("query", ["is:any", "is:root status:succeeded", "args.n:1", "is:root"])
def test_pages_neither_skip_nor_repeat(
    make: Make, operator: Client, query: str, order: str
) -> None:
    ended = timezone.now()
    made = {str(make(finished=ended, named={"n": 1}).id) for _ in range(60)}
    made |= {str(make(named={"n": 1}).id) for _ in range(45)}

    found: list[str] = []
    address = f"{URL}?q={query}&sort={order}"
    for _ in range(3):
        html = operator.get(address).content.decode()
        found += re.findall(r'<tr data-task="([0-9a-f-]{36})"', html)
        link = re.search(r'href="(\?[^"]+)" rel="next"', html)
        if link is None:
            break
        address = URL + link[1].replace("&amp;", "&")

    assert len(found) == 105
    assert set(found) == made


def test_the_list_is_sorted_by_the_end(make: Make, operator: Client) -> None:
    now = timezone.now()
    late = make(finished=now - timedelta(seconds=1))
    early = make(finished=now - timedelta(seconds=9))
    make(Status.RUNNING)

    assert listed(operator, sort="finished") == [str(late.id), str(early.id)]


def test_top_level_is_a_chip_that_can_be_taken_off(make: Make, operator: Client) -> None:
    root = make()
    child = make(parent=root)

    html = operator.get(URL).content.decode()

    assert 'class="cq-chip" href="?q=is%3Aany"' in html
    assert listed(operator) == [str(root.id)]
    assert listed(operator, q="is:any") == [str(child.id), str(root.id)]


def test_top_level_tasks_are_found_past_the_tasks_between_them(
    make: Make, operator: Client
) -> None:
    roots = []
    for _ in range(3):
        roots.append(make())
        for _ in range(20):
            make(parent=roots[-1])
    operator.get(URL)

    with CaptureQueriesContext(connection) as queries:
        found = listed(operator)

    assert found == [str(root.id) for root in reversed(roots)]
    assert len([query for query in queries if "RECURSIVE" in query["sql"]]) == 1


def test_a_search_stops_when_its_time_is_up_and_goes_on_from_there(
    make: Make, operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = timezone.now()
    make(id=id_at(now))
    wanted = make(id=id_at(now - timedelta(seconds=50)), named={"n": 7})
    monkeypatch.setattr(walk, "SECONDS", 0)

    html = operator.get(URL, {"q": "args.n:7"}).content.decode()
    hops = 0
    while "<tr data-task" not in html:
        link = re.search(r'Searched back to .*?<a href="(\?[^"]+)"', html, re.DOTALL)
        assert link
        html = operator.get(URL + link[1].replace("&amp;", "&")).content.decode()
        hops += 1
        assert hops < 9

    assert str(wanted.id) in html
    assert hops > 1


def test_a_search_that_found_nothing_in_time_does_not_say_that_there_is_nothing(
    make: Make, operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    make()
    make(id=id_at(timezone.now() - timedelta(days=3)))
    monkeypatch.setattr(walk, "SECONDS", 0)

    html = operator.get(URL, {"q": "args.n:7"}).content.decode()

    assert "Nothing found so far." in html
    assert "No task matches." not in html


def test_the_number_of_matches_is_fetched_apart_and_capped(
    make: Make, operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        make(queue="mail", named={"n": 1})

    url = reverse("admin:cq_task_count")
    exact = operator.get(url, {"q": "args.n:1"}).content.decode()
    monkeypatch.setattr("cq_console.queries.tasks.COUNT_LIMIT", 2)
    capped = operator.get(url, {"q": "args.n:1"}).content.decode()

    assert 'id="cq-matches" hx-swap-oob="innerHTML">3 match<' in exact
    assert 'id="cq-matches" hx-swap-oob="innerHTML">2+ match<' in capped


def completions(client: Client, text: str) -> list[str]:
    html = client.get(reverse("admin:cq_task_complete"), {"q": text}).content.decode()
    return re.findall(r'data-text="([^"]*)"', html)


def test_keys_and_values_are_completed(make: Make, operator: Client) -> None:
    make(queue="mail")

    assert "status:" in completions(operator, "")
    assert completions(operator, "stat")[0] == "status:"
    assert completions(operator, "queue:mail sta")[0] == "queue:mail status:"
    assert completions(operator, "status:fai") == ["status:failed "]
    assert completions(operator, "queue:ma") == ["queue:mail "]
    assert completions(operator, "func:heartb") == ["func:demo.census.tasks.heartbeat "]
    assert "demo.census.tasks.heartbeat " in completions(operator, "heartb")
    assert completions(operator, "nothing:") == []


def test_arguments_are_completed_by_the_parameters_of_the_function(
    db: None, operator: Client
) -> None:
    found = completions(operator, "func:cq_console.on_all_that_match args.co")

    assert found == ["func:cq_console.on_all_that_match args.count:"]


def test_what_a_queue_is_called_is_text(make: Make, operator: Client) -> None:
    make(queue="<script>x")

    html = operator.get(reverse("admin:cq_task_complete"), {"q": "queue:<s"}).content.decode()

    assert "<script>" not in html
    assert "&lt;script&gt;" in html


@pytest.mark.parametrize("text", ["args.n:" + "9" * 25, "args.n:1e999", "args.n:NaN", "ran:>9w"])
def test_odd_values_find_nothing_and_break_nothing(make: Make, operator: Client, text: str) -> None:
    make(named={"n": 1})

    assert listed(operator, q=text) == []


def test_garbage_in_the_address_is_left_alone(make: Make, operator: Client) -> None:
    task = make()

    for before in ("x", "1@2", f"{task.id}@x", f"{task.id}@" + "9" * 30, "@", "-1@-1"):
        for sort in ("submitted", "finished", "evil"):
            page = operator.get(URL, {"before": before, "sort": sort})
            assert page.status_code == 200, (before, sort)


def test_a_row_that_stops_matching_a_search_by_queue_is_told(make: Make, operator: Client) -> None:
    from cq_console import rows

    task = make(Status.RUNNING, started=timezone.now() - timedelta(seconds=3))
    row = f"t{rows.short(task.id)}000000"

    response = operator.get(reverse("admin:cq_task_list_live"), {"q": "ran:>30s", "rows": row})

    assert 'data-row-matches="no"' in response.content.decode()
    assert Task.objects.get(id=task.id).status == Status.RUNNING


def test_queues_that_the_host_hides_are_not_completed_and_not_counted_as_new(
    make: Make, operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make(queue="mail")
    make(queue="mafia")
    monkeypatch.setattr(
        "cq_console.admin.TaskAdmin.get_queryset",
        lambda self, request: Task.objects.exclude(queue="mafia"),
    )
    url = reverse("admin:cq_task_list_live")

    response = operator.get(url, {"first": str(first.id), "have": "cq-new:000000"})

    assert completions(operator, "queue:ma") == ["queue:mail "]
    assert "1 new" not in re.sub(r"\s+", " ", response.content.decode())


def test_who_may_see_no_rows_at_all_gets_pages_without_any(
    make: Make, operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(Status.FAILURE)
    monkeypatch.setattr(
        "cq_console.admin.TaskAdmin.get_queryset", lambda self, request: Task.objects.none()
    )

    for address in ("/admin/cq/", URL, f"{URL}?q=args.n:1", f"{URL}failures/", "/admin/cq/worker/"):
        assert operator.get(address).status_code == 200, address
    assert listed(operator, q="status:failed") == []
