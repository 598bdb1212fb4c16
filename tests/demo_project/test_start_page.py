"""Does the demo's start page start a census and lead to its report?"""

from io import StringIO
from pathlib import Path

import pytest
from django.contrib.auth import authenticate, get_user_model
from django.core.management import call_command
from django.test import Client
from django.utils import timezone
from pytest_django.fixtures import Settings

from cq.ids import uuid7
from cq.models import RepeatingTask, Task
from demo.census.models import CensusRun
from demo.census.operator import OPERATOR_NAME, OPERATOR_PASSWORD, ensure_operator

pytestmark = pytest.mark.django_db

CENSUS = "demo.census.tasks.census"


def test_the_button_queues_a_census_and_leads_to_its_page(client: Client) -> None:
    response = client.post("/census/")

    task = Task.objects.get(func_name=CENSUS)
    assert task.status == Task.STATUS_QUEUED
    assert response.status_code == 302
    assert response.headers["Location"] == f"/admin/cq/task/{task.id}/"


def test_a_link_alone_starts_no_census(client: Client) -> None:
    response = client.get("/census/")

    assert response.status_code == 405
    assert not Task.objects.filter(func_name=CENSUS).exists()


def test_a_census_is_not_started_from_another_site() -> None:
    strict = Client(enforce_csrf_checks=True)

    response = strict.post("/census/")

    assert response.status_code == 403
    assert not Task.objects.filter(func_name=CENSUS).exists()


def test_the_start_page_links_a_written_report_and_no_unwritten_one(
    client: Client, settings: Settings, tmp_path: Path
) -> None:
    settings.DEMO_REPORTS = str(tmp_path)
    reported = CensusRun.objects.create(task_id=uuid7(), reported=timezone.now())
    unreported = CensusRun.objects.create(task_id=uuid7())
    reported.report_path.write_text("<p>counted</p>")

    page = client.get("/").content.decode()

    assert f'href="/reports/{reported.pk}/"' in page
    assert f'href="/reports/{unreported.pk}/"' not in page
    assert client.get(f"/reports/{reported.pk}/").content == b"<p>counted</p>"
    assert client.get(f"/reports/{unreported.pk}/").status_code == 404


def test_the_start_page_shows_the_status_of_a_census_whose_task_is_kept(client: Client) -> None:
    client.post("/census/")
    task = Task.objects.get(func_name=CENSUS)
    CensusRun.objects.create(task_id=task.id)

    page = client.get("/").content.decode()

    assert f'data-status="{task.status}"' in page
    assert f'href="/admin/cq/task/{task.id}/"' in page


def test_the_command_queues_a_census_of_the_roots_it_is_given() -> None:
    call_command("census", "/opt/a", "/opt/b", stdout=StringIO())

    assert Task.objects.get(func_name=CENSUS).args == [["/opt/a", "/opt/b"]]


def test_a_census_every_hour_and_a_heartbeat_every_minute_are_scheduled() -> None:
    entries = {entry.name: entry for entry in RepeatingTask.objects.all()}

    assert entries["Census"].crontab == "@hourly"
    assert entries["Census"].func_name == CENSUS
    assert entries["Census"].coalesce
    assert not entries["Census"].overlap
    assert entries["Heartbeat"].crontab == "* * * * *"
    assert all(entry.next_run is not None for entry in entries.values())


def test_the_operator_keeps_the_password_that_was_chosen_meanwhile() -> None:
    ensure_operator()
    operator = get_user_model().objects.get(username=OPERATOR_NAME)
    assert authenticate(username=OPERATOR_NAME, password=OPERATOR_PASSWORD) == operator
    operator.set_password("another one")
    operator.save()

    ensure_operator()

    assert authenticate(username=OPERATOR_NAME, password="another one") == operator
