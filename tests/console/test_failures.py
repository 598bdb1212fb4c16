"""Are failures told by their cause, counted, and retried as a group?"""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from console.conftest import Make, Staff
from cq.models import FailureGroup, Task
from cq.states import Status
from cq_console.queries import failures

URL = "/admin/cq/task/failures/"
HEARTBEAT = "demo.census.tasks.heartbeat"


def group(fingerprint: str, **fields: str) -> FailureGroup:
    now = timezone.now()
    return FailureGroup.objects.create(
        fingerprint=fingerprint, first_seen=now, last_seen=now, **fields
    )


def row(html: str, fingerprint: str) -> str:
    return html.partition(f'data-cause="{fingerprint}"')[2].partition("</li>")[0]


def test_causes_are_counted_and_the_worst_comes_first(make: Make, operator: Client) -> None:
    group("aaaa", exception="KeyError", message="'x'", frame="shop/tasks.py ship")
    group("bbbb", exception="TimeoutError", message="after <n> s")
    make(Status.FAILURE, fingerprint="aaaa")
    for _ in range(3):
        make(Status.FAILURE, fingerprint="bbbb")

    html = operator.get(URL).content.decode()

    assert html.index("TimeoutError") < html.index("KeyError")
    assert "Show 3 failed" in row(html, "bbbb")
    assert "shop/tasks.py ship" in row(html, "aaaa")
    assert "after &lt;n&gt; s" in row(html, "bbbb")


@pytest.mark.parametrize(
    ("message", "shown"),
    [("TooSlow: after <n> s", "after &lt;n&gt; s"), ("TooSlow", ""), ("TooSlowly", "TooSlowly")],
)
def test_the_name_of_an_exception_stands_once_before_its_message(
    operator: Client, message: str, shown: str
) -> None:
    group("aaaa", exception="shop.errors.TooSlow", message=message)

    said = row(operator.get(URL).content.decode(), "aaaa")

    assert f"<b>shop.errors.TooSlow</b> {shown}<span" in said


def test_a_cause_whose_tasks_are_healed_is_still_known(make: Make, operator: Client) -> None:
    group("aaaa", exception="KeyError")
    make(Status.SUCCESS, fingerprint="aaaa")

    html = operator.get(URL).content.decode()

    assert "none left" in row(html, "aaaa")
    assert "data-verb" not in row(html, "aaaa")


def test_the_trend_says_when_they_failed(make: Make, operator: Client) -> None:
    group("aaaa", exception="KeyError")
    now = timezone.now()
    for age in (0, 0, 3):
        make(Status.FAILURE, fingerprint="aaaa", finished=now - timedelta(hours=age))
    make(Status.FAILURE, fingerprint="aaaa", finished=now - timedelta(hours=40))

    (cause,) = failures.causes(Task.objects.all(), now)

    assert (cause.count, len(cause.trend)) == (4, 24)
    assert (cause.trend[-1], cause.trend[-4], sum(cause.trend)) == (2, 1, 3)
    assert "2 this hour" in row(operator.get(URL).content.decode(), "aaaa")


def test_what_will_be_tried_again_can_be_cancelled_as_a_group(make: Make, operator: Client) -> None:
    group("aaaa", exception="KeyError")
    wanted = make(Status.RETRY, fingerprint="aaaa", func_name=HEARTBEAT)
    other = make(Status.RETRY, fingerprint="bbbb", func_name=HEARTBEAT)

    shown = row(operator.get(URL).content.decode(), "aaaa")
    listed = operator.get("/admin/cq/task/", {"q": "cause:aaaa status:retrying"}).content.decode()

    assert "Cancel 1 retrying" in shown
    assert "/all/cancel/?q=cause%3Aaaaa+status%3Aretrying" in shown
    assert str(wanted.id) in listed
    assert str(other.id) not in listed


def test_more_than_one_act_takes_are_left_to_the_workers(
    make: Make, operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cq_console.queries.failures.TARGETS", 2)
    group("aaaa", exception="KeyError")
    for _ in range(3):
        make(Status.FAILURE, fingerprint="aaaa")

    assert "/all/retry/?q=cause%3Aaaaa" in row(operator.get(URL).content.decode(), "aaaa")


def test_a_cause_leads_to_its_tasks(make: Make, operator: Client) -> None:
    wanted = make(Status.FAILURE, fingerprint="aaaa")
    make(Status.FAILURE, fingerprint="bbbb")

    html = operator.get("/admin/cq/task/", {"q": "cause:aaaa"}).content.decode()

    assert html.count("<tr data-task") == 1
    assert str(wanted.id) in html


def test_a_group_is_retried_and_nothing_else(make: Make, operator: Client) -> None:
    wanted = make(Status.FAILURE, fingerprint="aaaa", func_name=HEARTBEAT)
    other = make(Status.FAILURE, fingerprint="bbbb", func_name=HEARTBEAT)

    response = operator.post(f"{URL}aaaa/retry/")

    assert response["Location"] == URL
    assert Task.objects.get(id=wanted.id).status == Status.QUEUED
    assert Task.objects.get(id=other.id).status == Status.FAILURE


def test_a_large_group_is_asked_for_with_its_count(make: Make, operator: Client) -> None:
    for _ in range(12):
        make(Status.FAILURE, fingerprint="aaaa", func_name=HEARTBEAT)

    html = operator.post(f"{URL}aaaa/retry/").content.decode()

    assert "Retry 12 tasks" in html
    assert Task.objects.filter(status=Status.FAILURE).count() == 12


def test_view_permission_alone_cannot_retry_a_group(make: Make, staff: Staff) -> None:
    group("aaaa", exception="KeyError")
    task = make(Status.FAILURE, fingerprint="aaaa", func_name=HEARTBEAT)
    viewer = staff("view_task")

    html = viewer.get(URL).content.decode()
    response = viewer.post(f"{URL}aaaa/retry/")

    assert "data-verb" not in html
    assert response.status_code == 403
    assert Task.objects.get(id=task.id).status == Status.FAILURE


@pytest.mark.parametrize("count", [1, 20])
def test_the_number_of_queries_does_not_grow_with_the_causes(
    make: Make, operator: Client, count: int
) -> None:
    for n in range(count):
        group(f"cause{n}", exception="KeyError")
        make(Status.FAILURE, fingerprint=f"cause{n}")
    operator.get(URL)

    with CaptureQueriesContext(connection) as queries:
        operator.get(URL)

    assert len(queries) == 6


def test_very_many_are_counted_up_to_the_limit(
    make: Make, operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cq_console.queries.failures.COUNT_LIMIT", 2)
    group("aaaa", exception="KeyError")
    for _ in range(4):
        make(Status.FAILURE, fingerprint="aaaa")

    assert "Show 4 failed" in operator.get(URL).content.decode()


def test_nothing_failed_says_so(operator: Client) -> None:
    assert "Nothing has failed yet." in operator.get(URL).content.decode()
