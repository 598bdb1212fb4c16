"""Is everything that matched moved once, nothing else, and only while its user may?"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from console.conftest import Make, Staff
from cq.models import Act, Task, TaskLog, Worker
from cq.states import Status
from cq.testing import run_pending
from cq_console import bulk, verbs
from cq_console.queries import matching, walk

HEARTBEAT = "demo.census.tasks.heartbeat"
JOB = "cq_console.on_all_that_match"
Start = Callable[..., Any]


def url(verb: str) -> str:
    return reverse("admin:cq_task_on_all", args=[verb])


def asked(client: Client, verb: str, query: str) -> dict[str, str]:
    """The form that the preview shows, as a browser would send it."""
    html = client.get(url(verb), {"q": query}, headers={"HX-Request": "true"}).content.decode()
    return {
        name: value.replace("&quot;", '"').replace("&gt;", ">")
        for name, value in re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', html)
    }


def press(client: Client, verb: str, query: str, **more: str) -> Any:
    return client.post(url(verb), {**asked(client, verb, query), **more})


def work() -> Task:
    """Do what the console left to the workers, and nothing else."""
    run_pending(queues=[bulk.QUEUE])
    return Task.objects.filter(func_name=JOB).latest("id")


def statuses(*tasks: Task) -> list[str]:
    return [Task.objects.get(id=task.id).status for task in tasks]


def test_all_that_match_are_retried_and_nothing_else(make: Make, operator: Client) -> None:
    wanted = [make(Status.FAILURE, func_name=HEARTBEAT, queue="mail") for _ in range(12)]
    other = make(Status.FAILURE, func_name=HEARTBEAT, queue="bulk")
    done = make(Status.SUCCESS, func_name=HEARTBEAT, queue="mail")

    response = press(operator, "retry", "queue:mail", reason="the relay is back")
    job = work()

    assert response["Location"] == reverse("admin:cq_task_change", args=[job.id])
    assert (job.status, job.result) == ("S", {"done": 12, "skipped": 0})
    assert set(statuses(*wanted)) == {"Q"}
    assert statuses(other, done) == ["F", "S"]
    act = Act.objects.get()
    assert (act.verb, act.by_name, act.way, act.done) == ("retry", "olga", "console", 12)
    assert (act.predicate, act.reason) == ("queue:mail", "the relay is back")
    assert LogEntry.objects.get().object_id == str(job.id)


def test_the_preview_counts_samples_and_says_what_is_left_alone(
    make: Make, operator: Client
) -> None:
    for number in range(7):
        make(Status.FAILURE, named={"order_id": number, "password": "hunter2"})
    make(Status.SUCCESS)
    make(Status.RUNNING)

    html = operator.get(url("retry"), {"q": "is:any"}).content.decode()

    assert "Retry 7 tasks" in html
    assert "order_id=6" in html
    assert "and 2 more" in html
    assert "1 succeeded" in html
    assert "1 running" in html
    assert "hunter2" not in html
    assert "No worker is alive" in html
    assert not Task.objects.filter(func_name=JOB).exists()
    assert not Act.objects.exists()


def test_with_a_worker_nothing_is_said_about_it(make: Make, operator: Client) -> None:
    make(Status.FAILURE)
    Worker.objects.create(host="h", pid=1, lease_expires_at=timezone.now() + timedelta(seconds=30))

    assert "No worker" not in operator.get(url("retry"), {"q": "is:any"}).content.decode()


def test_what_came_after_the_preview_is_left_alone(make: Make, operator: Client) -> None:
    before = make(Status.FAILURE, func_name=HEARTBEAT)
    form = asked(operator, "retry", "status:failed")
    after = make(Status.FAILURE, func_name=HEARTBEAT)
    again = make(Status.FAILURE, func_name=HEARTBEAT, id=None)
    Task.objects.filter(id=before.id).update(finished=timezone.now() + timedelta(seconds=5))
    first = make(Status.FAILURE, func_name=HEARTBEAT)

    operator.post(url("retry"), form)
    work()

    # It has failed again since: it is not retried a second time for one click.
    assert statuses(before, after, again, first) == ["F", "F", "F", "F"]


def test_more_than_a_thousand_must_be_typed(
    make: Make, operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verbs, "TYPE_ABOVE", 2)
    tasks = [make(Status.FAILURE, func_name=HEARTBEAT) for _ in range(3)]

    refused = press(operator, "retry", "status:failed", typed="2")
    jobs = Task.objects.filter(func_name=JOB).count()
    accepted = press(operator, "retry", "status:failed", typed="3")
    work()

    assert (refused.status_code, jobs) == (422, 0)
    assert "That is not 3." in refused.content.decode()
    assert accepted.status_code == 303
    assert set(statuses(*tasks)) == {"Q"}


def test_a_form_that_was_not_previewed_only_asks(make: Make, operator: Client) -> None:
    make(Status.FAILURE)
    good = asked(operator, "retry", "status:failed")

    for change in ({"last": "x"}, {"at": "now"}, {"count": "0"}, {"q": "statsu:failed"}):
        response = operator.post(url("retry"), {**good, **change})
        assert response.status_code == 200, change
    assert not Task.objects.filter(func_name=JOB).exists()


def test_what_cannot_be_counted_in_time_must_be_narrowed(
    make: Make, operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Further back than the first span: two made now may share their millisecond.
    make(Status.FAILURE, id=matching.id_at(timezone.now() - timedelta(hours=1)))
    monkeypatch.setattr(bulk, "PREVIEW_SECONDS", 0)
    monkeypatch.setattr(walk, "FIRST_SPAN", timedelta(microseconds=1))
    make(Status.FAILURE)

    html = operator.get(url("retry"), {"q": "status:failed"}).content.decode()

    assert "Narrow the search" in html
    assert '<form method="post" action="/admin/cq/task/all' not in html


def test_a_search_that_is_not_understood_touches_nothing(make: Make, operator: Client) -> None:
    make(Status.FAILURE)

    html = operator.get(url("retry"), {"q": "statsu:failed"}).content.decode()

    assert "Did you mean “status”?" in html
    assert "Retry 1 task" not in html


@pytest.mark.parametrize(
    ("verb", "permission"),
    [("retry", "retry_task"), ("cancel", "cancel_task"), ("coalesce", "coalesce_task")],
)
def test_each_verb_needs_its_permission(
    make: Make, staff: Staff, verb: str, permission: str
) -> None:
    make(Status.FAILURE)
    others = {"retry_task", "cancel_task", "coalesce_task"} - {permission}
    viewer, allowed = staff("view_task", *others), staff("view_task", permission)

    assert viewer.get(url(verb)).status_code == 403
    assert viewer.post(url(verb), {"q": ""}).status_code == 403
    assert allowed.get(url(verb)).status_code == 200


def test_a_viewer_is_offered_nothing(make: Make, staff: Staff) -> None:
    make(Status.FAILURE)

    html = staff("view_task").get("/admin/cq/task/", {"q": "status:failed"}).content.decode()

    assert "all that match" not in html
    assert 'name="verb"' not in html


def test_it_stops_when_its_user_has_lost_the_permission(
    make: Make, staff: Staff, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "CHUNK", 2)
    tasks = [make(Status.FAILURE, func_name=HEARTBEAT) for _ in range(5)]
    client = staff("view_task", "retry_task")
    press(client, "retry", "status:failed")
    looked = 0

    def taken_away(user_id: Any, verb: bulk.Verb) -> Any:
        nonlocal looked
        looked += 1
        if looked == 3:
            User.objects.get(pk=user_id).user_permissions.clear()
        return original(user_id, verb)

    original = bulk.user_who_may
    monkeypatch.setattr(bulk, "user_who_may", taken_away)
    job = work()

    assert job.status == Status.REVOKED
    assert "its user may no longer retry tasks; 4 tasks done" in job.reason
    assert statuses(*tasks) == ["Q", "Q", "Q", "Q", "F"]


def test_it_says_how_far_it_is_and_works_in_chunks(
    make: Make, operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "CHUNK", 2)
    for _ in range(5):
        make(Status.QUEUED, func_name=HEARTBEAT)
    press(operator, "cancel", "is:any")

    job = work()

    progress = TaskLog.objects.filter(task=job, total=5).order_by("id")
    assert list(progress.values_list("done", flat=True)) == [2, 4, 5]
    assert Act.objects.count() == 3


def test_it_never_matches_itself(make: Make, operator: Client) -> None:
    task = make(Status.QUEUED, func_name=HEARTBEAT)
    press(operator, "cancel", "is:any")

    assert work().status == Status.SUCCESS
    assert statuses(task) == ["E"]


def test_rows_that_the_host_hides_are_not_touched(
    make: Make, operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden = make(Status.FAILURE, func_name=HEARTBEAT, queue="secret")
    seen = make(Status.FAILURE, func_name=HEARTBEAT, queue="open")

    def narrowed(self: object, request: object) -> object:
        return Task.objects.exclude(queue="secret")

    monkeypatch.setattr("cq_console.admin.TaskAdmin.get_queryset", narrowed)
    press(operator, "retry", "status:failed")
    work()

    assert statuses(hidden, seen) == ["F", "Q"]


def test_what_waits_for_its_time_runs_now(make: Make, operator: Client) -> None:
    later = timezone.now() + timedelta(hours=1)
    retrying = make(Status.RETRY, func_name=HEARTBEAT, run_at=later)
    scheduled = make(Status.QUEUED, func_name=HEARTBEAT, run_at=later, ready=None)
    queued = make(Status.QUEUED, func_name=HEARTBEAT)

    html = operator.get(url("run-now"), {"q": "is:any"}).content.decode()
    press(operator, "run-now", "is:any")
    work()

    assert "Run 2 tasks now" in html
    assert {Task.objects.get(id=task.id).run_at < later for task in (retrying, scheduled)} == {True}
    assert Task.objects.get(id=queued.id).status == Status.QUEUED


def test_duplicates_are_coalesced_across_chunks(
    make: Make, operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "CHUNK", 2)
    ones = [make(Status.QUEUED, func_name=HEARTBEAT, kwargs={"n": 1}) for _ in range(2)]
    two = make(Status.QUEUED, func_name=HEARTBEAT, kwargs={"n": 2})
    more = [make(Status.QUEUED, func_name=HEARTBEAT, kwargs={"n": 1}) for _ in range(2)]

    press(operator, "coalesce", "status:queued")
    work()

    assert statuses(*ones, two, *more) == ["Q", "E", "Q", "E", "E"]


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("status:failed", ["retry"]),
        ("status:retrying", ["run-now", "cancel"]),
        ("status:scheduled", ["run-now", "coalesce", "cancel"]),
        ("status:queued", ["coalesce", "cancel"]),
        ("status:succeeded", ["run-again"]),
        ("statsu:x", []),
    ],
)
def test_only_verbs_that_can_move_something_are_offered(
    db: None, query: str, names: list[str]
) -> None:
    from cq_console import search

    found = bulk.offered(search.parse(query), lambda permission: True)

    assert [verb.name for verb in found] == names


def test_hostile_words_in_the_search_are_text_in_the_dialog(make: Make, operator: Client) -> None:
    make(Status.FAILURE, named={"n": "<script>alert(1)</script>"})

    html = operator.get(url("retry"), {"q": 'queue:"<script>x"'}).content.decode()
    sampled = operator.get(url("retry"), {"q": "is:any"}).content.decode()

    assert "<script>x" not in html
    assert "<script>alert" not in sampled
    assert "&lt;script&gt;alert" in sampled
