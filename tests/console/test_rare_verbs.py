"""Do the verbs under More do what they say: edit, keep, coalesce, run now, replace a process?"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from console.conftest import Make, Staff
from cq import registry, task
from cq.context import Context
from cq.models import Act, Task, Worker
from cq.models.worker import Ask
from cq.redaction import MASK
from cq.states import Status
from cq_console import edit

HEARTBEAT = "demo.census.tasks.heartbeat"
SECRET = "hunter2-geheim"


@task("console.tests.ship")
def ship(
    cqt: Context, order: int, note: str = "", token: str = "", *boxes: Any, **more: Any
) -> None: ...


def url_of(stored: Task, verb: str) -> str:
    return reverse("admin:cq_task_change", args=[stored.id]) + f"do/{verb}/"


def page_of(client: Client, stored: Task) -> str:
    return client.get(reverse("admin:cq_task_change", args=[stored.id])).content.decode()


def failed(make: Make, *args: Any, **kwargs: Any) -> Task:
    return make(Status.FAILURE, func_name="console.tests.ship", args=list(args), kwargs=kwargs)


def test_edited_arguments_make_a_new_task_and_leave_the_old_one(
    make: Make, operator: Client
) -> None:
    stored = failed(make, 7, "to the door", token=SECRET)
    form = operator.get(url_of(stored, "edit")).content.decode()

    response = operator.post(
        url_of(stored, "edit"),
        {
            "seen": "F:1",
            "arg-order": "9007199254740993",
            "arg-note": "to the\r\nwindow",
            "arg-token": re.search(r'name="arg-token" value="([^"]+)"', form)[1],  # type: ignore[index]
            "arg-boxes": '["a", {"b": null}]',
            "arg-more": "",
            "reason": "wrong order",
        },
    )

    made = Task.objects.exclude(id=stored.id).get()
    stored.refresh_from_db()
    bound = registry.get(ship.name).parameters.bind(made.args, made.kwargs)
    assert SECRET not in form
    assert response["Location"] == reverse("admin:cq_task_change", args=[made.id])
    assert bound == {
        "order": 9007199254740993,
        "note": "to the\nwindow",
        "token": SECRET,
        "boxes": ("a", {"b": None}),
    }
    assert (stored.status, made.replaces_id) == (Status.FAILURE, stored.id)
    assert (Act.objects.get().verb, Act.objects.get().reason) == ("edit and retry", "wrong order")
    assert f"…{str(stored.id)[-8:]}" in page_of(operator, made)


def test_what_is_left_empty_is_left_out(make: Make, operator: Client) -> None:
    stored = failed(make, 7)

    operator.post(url_of(stored, "edit"), {"arg-order": "8", "arg-note": "", "arg-boxes": ""})

    made = Task.objects.exclude(id=stored.id).get()
    assert (made.args, made.kwargs) == ([8], {})


def test_further_positional_arguments_bring_the_defaults_before_them(
    make: Make, operator: Client
) -> None:
    stored = failed(make, 7)

    operator.post(url_of(stored, "edit"), {"arg-order": "8", "arg-boxes": '["a"]'})

    assert Task.objects.exclude(id=stored.id).get().args == [8, "", "", "a"]


@pytest.mark.parametrize(
    ("field", "typed", "why"),
    [
        ("order", "", "Write a JSON value."),
        ("order", "{", "This is not JSON"),
        ("order", "NaN", "NaN is no number"),
        ("order", "[" * 100_000, "nested too deeply"),
        ("boxes", "7", "Write a list of values."),
        ("more", "[1]", "Write names and values."),
    ],
)
def test_what_cannot_be_called_is_refused_with_its_field(
    make: Make, operator: Client, field: str, typed: str, why: str
) -> None:
    stored = failed(make, 7)
    form = {"arg-order": "7", f"arg-{field}": typed}

    response = operator.post(url_of(stored, "edit"), form, headers={"HX-Request": "true"})

    assert response.status_code == 422
    assert why in response.content.decode()
    assert Task.objects.count() == 1
    assert not Act.objects.exists()


def test_an_unknown_function_is_edited_as_json(make: Make, operator: Client) -> None:
    stored = make(Status.FAILURE, func_name="gone.task", args=[1, "x"], kwargs={"password": SECRET})

    form = edit.EditForm(stored, {"arg-args": "[2]", "arg-kwargs": f'{{"password": "{MASK}"}}'})
    shown = operator.get(url_of(stored, "edit")).content.decode()

    assert list(form.fields) == ["args", "kwargs"]
    assert SECRET not in shown
    assert form.is_valid()
    assert (form.call_args, form.call_kwargs) == ([2], {"password": SECRET})


def test_invisible_characters_are_edited_as_escapes(make: Make) -> None:
    form = edit.EditForm(failed(make, 7, "a\u202eb"))

    assert form.fields["note"].initial == '"a\\u202eb"'


@pytest.mark.parametrize("status", [Status.SUCCESS, Status.RUNNING, Status.INCOMPLETE])
def test_only_what_failed_or_was_stopped_is_edited(
    make: Make, operator: Client, status: Status
) -> None:
    stored = make(status, func_name="console.tests.ship", args=[7])

    operator.post(url_of(stored, "edit"), {"arg-order": "8"})

    assert Task.objects.count() == 1


def test_arguments_that_are_too_large_are_not_edited(make: Make, operator: Client) -> None:
    stored = failed(make, 7, "x" * edit.LARGEST)

    assert "too large" in operator.get(url_of(stored, "edit")).content.decode()


def test_a_tree_is_kept_while_somebody_reads_it(make: Make, operator: Client) -> None:
    root = make(Status.INCOMPLETE)
    child = make(Status.FAILURE, parent=root)

    operator.post(url_of(child, "keep"), {"seen": "F:1"})

    root.refresh_from_db()
    assert root.keep_until is not None
    assert root.keep_until > timezone.now() + timedelta(days=6, hours=23)
    assert Act.objects.get().verb == "keep"
    assert "Kept until" in page_of(operator, root)


def test_coalesce_ends_the_duplicates_of_this_task_only(make: Make, operator: Client) -> None:
    same = [make(Status.QUEUED, func_name=HEARTBEAT, args=[1]) for _ in range(3)]
    others = [
        make(Status.QUEUED, func_name=HEARTBEAT, args=[2]),
        make(Status.QUEUED, func_name=HEARTBEAT, args=[2]),
        make(Status.QUEUED, func_name="another.function", args=[1]),
    ]

    operator.post(url_of(same[1], "coalesce"), {"seen": "Q:0"})

    found = dict(Task.objects.values_list("id", "status"))
    assert [found[one.id] for one in same] == ["Q", "E", "E"]
    assert {found[one.id] for one in others} == {"Q"}


def test_what_waits_for_a_time_runs_now(make: Make, operator: Client) -> None:
    stored = make(
        Status.RETRY, func_name=HEARTBEAT, run_at=timezone.now() + timedelta(hours=1), attempts=2
    )

    operator.post(url_of(stored, "run-now"), {"seen": "Y:2"})

    stored.refresh_from_db()
    assert stored.ready
    assert stored.run_at <= timezone.now() + timedelta(seconds=5)


@pytest.fixture
def worker(db: None) -> Worker:
    expires = timezone.now() + timedelta(minutes=5)
    return Worker.objects.create(
        host="vm", pid=41, supervisor="40:1", lease_expires_at=expires, threads=4
    )


def stuck_on(make: Make, worker: Worker, seconds: float) -> Task:
    asked = timezone.now() - timedelta(seconds=seconds)
    for _ in range(3):
        make(Status.RUNNING, worker=worker)
    return make(Status.RUNNING, worker=worker, cancel_requested=asked)


def test_a_cancel_without_effect_is_said_with_what_can_be_done(
    make: Make, operator: Client, worker: Worker
) -> None:
    stuck = stuck_on(make, worker, 40)

    page = page_of(operator, stuck)
    operator.post(url_of(stuck, "replace"), {"seen": "R:1", "reason": "stuck in C"})

    worker.refresh_from_db()
    assert "not answered for 40 s" in page
    assert "Replace its worker process (3 neighbours run again)" in page
    assert worker.asked == Ask.REPLACE
    assert (Act.objects.get().verb, Act.objects.get().reason) == ("replace process", "stuck in C")


def test_a_cancel_has_half_a_minute_to_be_obeyed(
    make: Make, operator: Client, worker: Worker
) -> None:
    page = page_of(operator, stuck_on(make, worker, 20))

    assert "not answered" not in page
    assert "Replace its worker" not in page


def test_an_embedded_worker_is_not_replaced(make: Make, operator: Client, worker: Worker) -> None:
    worker.supervisor = ""
    worker.save()
    stuck = stuck_on(make, worker, 40)

    page = page_of(operator, stuck)
    operator.post(url_of(stuck, "replace"), {"seen": "R:1"})

    worker.refresh_from_db()
    assert "cannot be replaced from here" in page
    assert 'data-verb="replace"' not in page
    assert worker.asked == ""


def test_each_rare_verb_is_offered_by_its_own_permission(make: Make, staff: Staff) -> None:
    stored = make(Status.FAILURE, func_name=HEARTBEAT)

    page = page_of(staff("view_task", "keep_task"), stored)

    assert set(re.findall(r'data-verb="([\w-]+)"', page)) == {"keep"}
