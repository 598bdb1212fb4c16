"""May only those act, and look, who were allowed to?"""

from __future__ import annotations

import pytest
from django.test import Client
from django.urls import reverse

from console.conftest import Make, Staff
from cq.models import Act, Task
from cq.states import Status

FRAGMENT = {"HX-Request": "true", "HX-Current-URL": "http://testserver/admin/cq/task/?q=func:ship"}


def test_view_permission_alone_cannot_retry(make: Make, staff: Staff) -> None:
    task = make(Status.FAILURE)
    viewer = staff("view_task")

    response = viewer.post(reverse("admin:cq_task_verb", args=[task.id, "retry"]))

    task.refresh_from_db()
    assert response.status_code == 403
    assert task.status == Status.FAILURE
    assert not Act.objects.exists()


def test_a_viewer_sees_no_verbs(make: Make, staff: Staff) -> None:
    task = make(Status.FAILURE)
    viewer = staff("view_task")

    page = viewer.get(reverse("admin:cq_task_change", args=[task.id])).content.decode()

    assert 'data-verb="' not in page


@pytest.mark.parametrize(
    ("verb", "status"),
    [
        ("retry", Status.FAILURE),
        ("edit", Status.FAILURE),
        ("run-again", Status.SUCCESS),
        ("run-now", Status.RETRY),
        ("cancel", Status.RUNNING),
        ("replace", Status.RUNNING),
        ("coalesce", Status.QUEUED),
        ("keep", Status.SUCCESS),
    ],
)
def test_a_viewer_is_refused_every_verb_asked_for_or_acted(
    make: Make, staff: Staff, verb: str, status: Status
) -> None:
    task = make(status)
    viewer = staff("view_task")
    url = reverse("admin:cq_task_change", args=[task.id]) + f"do/{verb}/"

    assert [viewer.get(url).status_code, viewer.post(url).status_code] == [403, 403]
    assert not Act.objects.exists()


def test_the_permission_to_retry_does_not_cancel(make: Make, staff: Staff) -> None:
    task = make(Status.QUEUED)
    client = staff("view_task", "retry_task")

    response = client.post(reverse("admin:cq_task_verb", args=[task.id, "cancel"]))

    task.refresh_from_db()
    assert response.status_code == 403
    assert task.status == Status.QUEUED


def test_a_selection_needs_the_permission_of_its_verb(make: Make, staff: Staff) -> None:
    task = make(Status.FAILURE)
    viewer = staff("view_task")

    response = viewer.post(
        reverse("admin:cq_task_selection"), {"verb": "retry", "task": f"{task.id}:F:1"}
    )

    task.refresh_from_db()
    assert response.status_code == 403
    assert task.status == Status.FAILURE


def test_opening_a_dialog_writes_nothing(make: Make, operator: Client) -> None:
    task = make(Status.FAILURE)

    response = operator.get(reverse("admin:cq_task_verb", args=[task.id, "retry"]))

    task.refresh_from_db()
    assert response.status_code == 200
    assert task.status == Status.FAILURE
    assert not Act.objects.exists()


def test_a_verb_needs_the_token(make: Make) -> None:
    task = make(Status.FAILURE)
    client = Client(enforce_csrf_checks=True)
    from django.contrib.auth.models import User

    client.force_login(User.objects.create_superuser("olga"))

    response = client.post(reverse("admin:cq_task_verb", args=[task.id, "retry"]))

    task.refresh_from_db()
    assert response.status_code == 403
    assert task.status == Status.FAILURE


def test_without_view_permission_there_is_no_page(make: Make, staff: Staff) -> None:
    task = make()
    client = staff("view_repeatingtask")

    for name, args in [
        ("changelist", []),
        ("change", [task.id]),
        ("live", [task.id]),
        ("level", [task.id]),
        ("inspector", [task.id]),
        ("log", [task.id]),
        ("overview_live", []),
    ]:
        response = client.get(reverse(f"admin:cq_task_{name}", args=args))
        assert response.status_code == 403, name


@pytest.mark.parametrize("name", ["changelist", "list_live", "count"])
def test_a_page_without_a_session_leads_to_the_login(db: None, name: str) -> None:
    response = Client().get(reverse(f"admin:cq_task_{name}"))

    assert response.status_code == 302
    assert response["Location"].startswith(reverse("admin:login"))


def test_a_fragment_without_a_session_sends_the_browser_to_the_login(make: Make) -> None:
    task = make()

    response = Client().get(reverse("admin:cq_task_live", args=[task.id]), headers=FRAGMENT)

    assert response.status_code == 401
    assert response["HX-Redirect"] == "/admin/login/?next=%2Fadmin%2Fcq%2Ftask%2F%3Fq%3Dfunc%3Aship"
    assert response.content == b""


def test_a_foreign_address_is_no_way_back_from_the_login(make: Make) -> None:
    headers = {"HX-Request": "true", "HX-Current-URL": "https://evil.example//evil.example/x"}

    response = Client().get(reverse("admin:cq_task_list_live"), headers=headers)

    assert "evil.example" not in response["HX-Redirect"].partition("next=")[0]
    assert "https" not in response["HX-Redirect"]


def test_tasks_are_neither_added_nor_changed_nor_deleted(make: Make, operator: Client) -> None:
    task = make()

    for address in ("add/", f"{task.id}/change/", f"{task.id}/delete/", f"{task.id}/history/"):
        assert operator.get(f"/admin/cq/task/{address}").status_code == 404
    assert Task.objects.filter(id=task.id).exists()
