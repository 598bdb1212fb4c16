"""Does pressing a verb do what its label says, to what was shown, and is it remembered?"""

from __future__ import annotations

import re

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client
from django.urls import reverse

from console.conftest import Make, Staff
from cq.models import Act, Task
from cq.states import Status
from cq_console import verbs
from cq_console.queries.tree import Family

HEARTBEAT = "demo.census.tasks.heartbeat"


def verb_url(task: Task, verb: str) -> str:
    return reverse("admin:cq_task_verb", args=[task.id, verb])


def test_retry_runs_a_failed_task_again(make: Make, operator: Client) -> None:
    task = make(Status.FAILURE, func_name=HEARTBEAT)

    response = operator.post(verb_url(task, "retry"), {"seen": "F:1", "reason": "was flaky"})

    task.refresh_from_db()
    assert response.status_code == 303
    assert response["Location"] == reverse("admin:cq_task_change", args=[task.id])
    assert task.status == Status.QUEUED
    act = Act.objects.get()
    assert (act.verb, act.by_name, act.way, act.reason) == ("retry", "olga", "console", "was flaky")
    assert LogEntry.objects.get().object_id == str(task.id)


def test_what_has_moved_on_meanwhile_is_skipped(make: Make, operator: Client) -> None:
    task = make(Status.FAILURE, func_name=HEARTBEAT, attempts=2)

    response = operator.post(verb_url(task, "retry"), {"seen": "F:1"}, follow=True)

    task.refresh_from_db()
    assert task.status == Status.FAILURE
    assert "changed meanwhile" in response.content.decode()


def test_a_verb_pressed_by_htmx_says_what_it_did(make: Make, operator: Client) -> None:
    task = make(Status.FAILURE, func_name=HEARTBEAT)

    response = operator.post(
        verb_url(task, "retry"), {"seen": "F:1"}, headers={"HX-Request": "true"}
    )

    assert response.status_code == 200
    assert response["HX-Trigger"] == "cq:done"
    assert "1 task runs again." in response.content.decode()


def test_cancel_ends_what_has_not_started(make: Make, operator: Client) -> None:
    task = make(Status.QUEUED, func_name=HEARTBEAT)

    operator.post(verb_url(task, "cancel"), {"seen": "Q:0"})

    task.refresh_from_db()
    assert task.status == Status.REVOKED
    assert Act.objects.get().verb == "cancel"


def test_retry_of_the_failed_below_a_waiting_task_leaves_it_waiting(
    make: Make, operator: Client
) -> None:
    root = make(Status.WAITING, open_children=2, func_name=HEARTBEAT)
    make(Status.RUNNING, parent=root, func_name=HEARTBEAT)
    failed = make(Status.FAILURE, parent=root, func_name=HEARTBEAT)

    operator.post(verb_url(root, "retry"), {"seen": "W:1"})

    root.refresh_from_db()
    failed.refresh_from_db()
    assert root.status == Status.WAITING
    assert failed.status == Status.QUEUED


def test_run_again_makes_a_new_task(make: Make, operator: Client) -> None:
    task = make(Status.SUCCESS, func_name=HEARTBEAT)

    response = operator.post(verb_url(task, "run-again"), {"seen": "S:1"})

    made = Task.objects.exclude(id=task.id).get()
    task.refresh_from_db()
    assert made.func_name == HEARTBEAT
    assert task.status == Status.SUCCESS
    assert response["Location"] == reverse("admin:cq_task_change", args=[made.id])


def test_more_than_ten_are_asked_for_with_their_count(make: Make, operator: Client) -> None:
    root = make(Status.WAITING, open_children=11)
    for _ in range(11):
        make(Status.QUEUED, parent=root)

    page = operator.get(reverse("admin:cq_task_change", args=[root.id])).content.decode()
    dialog = operator.get(verb_url(root, "cancel"), headers={"HX-Request": "true"})

    assert f'href="{verb_url(root, "cancel")}"' in page
    assert "Cancel 12 tasks" in dialog.content.decode()
    assert re.search(r"data-cq-close\s+autofocus", dialog.content.decode())


def test_the_dialog_names_the_followers_that_will_not_run(make: Make, operator: Client) -> None:
    root = make(Status.RUNNING)
    make(Status.PENDING, root=root, previous=root, func_name="shop.tasks.send_invoice")

    dialog = operator.get(verb_url(root, "cancel")).content.decode()

    assert "send_invoice" in dialog


def test_more_than_a_thousand_must_be_typed(
    make: Make, operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verbs, "TYPE_ABOVE", 2)
    root = make(Status.WAITING, open_children=2, func_name=HEARTBEAT)
    waiting = [make(Status.QUEUED, parent=root, func_name=HEARTBEAT) for _ in range(2)]

    form = {"seen": "W:1", "count": "3"}
    refused = operator.post(verb_url(root, "cancel"), {**form, "typed": "2"})
    still = Task.objects.get(id=waiting[0].id).status
    accepted = operator.post(verb_url(root, "cancel"), {**form, "typed": "3"})

    assert refused.status_code == 422
    assert still == Status.QUEUED
    assert accepted.status_code == 303
    assert Task.objects.get(id=waiting[0].id).status == Status.REVOKED


def test_a_selection_acts_on_what_was_ticked_only(make: Make, operator: Client) -> None:
    ticked, other = (make(Status.FAILURE, func_name=HEARTBEAT) for _ in range(2))

    response = operator.post(
        reverse("admin:cq_task_selection"),
        {"verb": "retry", "task": f"{ticked.id}:F:1", "back": "q=status%3Afailed"},
    )

    assert response["Location"] == "/admin/cq/task/?q=status%3Afailed"
    assert Task.objects.get(id=ticked.id).status == Status.QUEUED
    assert Task.objects.get(id=other.id).status == Status.FAILURE


def test_a_large_selection_is_asked_for_first(make: Make, operator: Client) -> None:
    ticked = [make(Status.FAILURE, func_name=HEARTBEAT) for _ in range(11)]
    form = {"verb": "retry", "task": [f"{task.id}:F:1" for task in ticked]}

    asked = operator.post(reverse("admin:cq_task_selection"), form)
    before = Task.objects.filter(status=Status.FAILURE).count()
    operator.post(reverse("admin:cq_task_selection"), {**form, "confirmed": "yes"})

    assert "Retry 11 tasks" in asked.content.decode()
    assert before == 11
    assert not Task.objects.filter(status=Status.FAILURE).exists()


def test_a_verb_that_does_not_exist_is_not_found(make: Make, operator: Client) -> None:
    task = make(Status.FAILURE)

    assert operator.post(verb_url(task, "delete")).status_code == 404
    assert operator.get(reverse("admin:cq_task_selection")).status_code == 404


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (Status.FAILURE, ["retry", "edit", "keep"]),
        (Status.LOST, ["retry", "edit", "keep"]),
        (Status.INCOMPLETE, ["retry", "keep"]),
        (Status.REVOKED, ["retry", "edit", "keep"]),
        (Status.SUCCESS, ["run-again", "keep"]),
        (Status.QUEUED, ["cancel", "coalesce", "keep"]),
        (Status.PENDING, ["cancel", "keep"]),
        (Status.RUNNING, ["cancel", "keep"]),
        (Status.WAITING, ["cancel", "keep"]),
        (Status.RETRY, ["run-now", "cancel", "keep"]),
    ],
)
def test_only_verbs_that_make_sense_are_offered(
    make: Make, status: Status, expected: list[str]
) -> None:
    task = make(status, func_name=HEARTBEAT)

    found = verbs.possible(task, Family({}, 1), lambda permission: True)

    assert [verb.name for verb in found] == expected


def test_a_task_that_is_not_atomic_is_asked_about(make: Make) -> None:
    task = make(Status.FAILURE, func_name="unknown.to.this.process")

    verb, *_rare = verbs.possible(task, Family({}, 1), lambda permission: True)

    assert verb.must_ask


def test_an_operator_with_one_permission_is_offered_one_verb(make: Make, staff: Staff) -> None:
    task = make(Status.WAITING, open_children=1)
    make(Status.FAILURE, parent=task)
    client = staff("view_task", "cancel_task")

    page = client.get(reverse("admin:cq_task_change", args=[task.id])).content.decode()

    assert set(re.findall(r'data-verb="([\w-]+)"', page)) == {"cancel"}


@pytest.mark.parametrize(("stated", "answer"), [("4", 303), ("2", 422)])
def test_fewer_than_were_typed_is_agreed_to_and_more_is_not(
    make: Make, operator: Client, monkeypatch: pytest.MonkeyPatch, stated: str, answer: int
) -> None:
    monkeypatch.setattr(verbs, "TYPE_ABOVE", 2)
    root = make(Status.WAITING, open_children=2, func_name=HEARTBEAT)
    for _ in range(2):
        make(Status.QUEUED, parent=root, func_name=HEARTBEAT)

    response = operator.post(
        verb_url(root, "cancel"), {"seen": "W:1", "count": stated, "typed": stated}
    )

    assert response.status_code == answer
