"""Do workers, queues and functions do what the buttons say, for those who may press them?"""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from console.conftest import Make, Staff
from cq.models import Act, HeldFunction, Queue, Worker
from cq.states import Status

WORKERS, QUEUES = "/admin/cq/worker/", "/admin/cq/queue/"
FUNCTION = "demo.census.tasks.heartbeat"
HTMX = {"HX-Request": "true"}


@pytest.fixture
def worker(db: None) -> Worker:
    return Worker.objects.create(
        host="build-2", pid=17, threads=8, lease_expires_at=timezone.now() + timedelta(seconds=30)
    )


def ask(worker: Worker, verb: str) -> str:
    return reverse("admin:cq_worker_ask", args=[worker.pk, verb])


def control(verb: str) -> str:
    return reverse("admin:cq_queue_control", args=[verb])


@pytest.mark.parametrize(("verb", "asked"), [("quiet", "quiet"), ("resume", ""), ("stop", "stop")])
def test_a_worker_is_asked(worker: Worker, operator: Client, verb: str, asked: str) -> None:
    Worker.objects.update(asked="quiet" if verb == "resume" else "")

    response = operator.post(ask(worker, verb), {"reason": "deploy"}, headers=HTMX)

    worker.refresh_from_db()
    assert worker.asked == asked
    assert response["HX-Trigger"] == "cq:done"
    act = Act.objects.get()
    assert (act.verb, act.target, act.by_name) == (f"{verb} worker", "build-2:17", "olga")
    assert (act.reason, act.way) == ("deploy", "console")
    assert LogEntry.objects.get().object_id == str(worker.pk)


def test_without_scripts_the_answer_is_a_page(worker: Worker, operator: Client) -> None:
    response = operator.post(ask(worker, "quiet"), follow=True)

    assert response.redirect_chain == [(WORKERS, 303)]
    assert "Worker build-2:17 claims nothing more." in response.content.decode()


def test_only_what_makes_sense_is_offered(worker: Worker, operator: Client) -> None:
    def offered() -> set[str]:
        html = operator.get(WORKERS).content.decode()
        return set(re.findall(r'data-verb="(\w+)"', html))

    alive = offered()
    Worker.objects.update(asked="quiet")
    quiet = offered()
    Worker.objects.update(asked="stop")
    stopping = offered()
    Worker.objects.update(asked="", lease_expires_at=timezone.now() - timedelta(seconds=1))

    assert (alive, quiet, stopping) == ({"quiet", "stop"}, {"resume", "stop"}, set())
    assert offered() == set()


def test_a_worker_shows_what_it_runs_and_for_how_long(
    worker: Worker, make: Make, operator: Client
) -> None:
    Worker.objects.update(running=1)
    task = make(
        Status.RUNNING,
        worker=worker,
        started=timezone.now() - timedelta(seconds=75),
        named={"order_id": 7, "password": "hunter2"},
    )
    make(Status.RUNNING)

    html = operator.get(WORKERS).content.decode()

    assert html.count('class="cq-worker-tasks"') == 1
    assert f"/admin/cq/task/{task.id}/" in html
    assert "order_id=7" in html
    assert "1 m 15 s" in html
    assert "hunter2" not in html
    assert "?q=status%3Arunning+worker%3Abuild-2%3A17" in html


def test_who_may_not_see_tasks_sees_none_on_workers(
    worker: Worker, make: Make, staff: Staff
) -> None:
    Worker.objects.update(running=1)
    make(Status.RUNNING, worker=worker, func_name="shop.tasks.secret")

    html = staff("view_worker").get(WORKERS).content.decode()

    assert "build-2:17" in html
    assert "secret" not in html


def test_a_queue_is_paused_with_a_reason_and_resumed(make: Make, operator: Client) -> None:
    make(Status.QUEUED, queue="mail")

    operator.post(control("pause"), {"name": "mail", "reason": "the relay is down"})
    paused = operator.get(QUEUES).content.decode()
    operator.post(control("resume"), {"name": "mail"})
    resumed = operator.get(QUEUES).content.decode()

    row = paused.partition('data-queue="mail"')[2].partition("</tr>")[0]
    assert "the relay is down" in row
    assert 'data-verb="resume"' in row
    assert "paused" not in resumed.partition('data-queue="mail"')[2].partition("</tr>")[0]
    assert [act.verb for act in Act.objects.order_by("id")] == ["pause queue", "resume queue"]
    assert not Queue.objects.exists()


def test_a_function_is_held_and_released(db: None, operator: Client) -> None:
    operator.post(control("hold"), {"name": FUNCTION, "reason": "it deletes too much"})
    held = operator.get(QUEUES).content.decode()
    by = HeldFunction.objects.get().held_by
    operator.post(control("release"), {"name": FUNCTION})

    assert by == "olga"
    assert "it deletes too much" in held
    assert 'data-verb="release"' in held
    assert "No function is held." in operator.get(QUEUES).content.decode()


@pytest.mark.parametrize("name", ["", "  ", "x" * 300, "a\x00b"])
def test_what_is_no_name_is_refused(db: None, operator: Client, name: str) -> None:
    for verb in ("pause", "hold"):
        operator.post(control(verb), {"name": name})

    assert not Queue.objects.exists()
    assert not HeldFunction.objects.exists()
    assert not Act.objects.exists()


def test_view_permission_alone_controls_nothing(worker: Worker, staff: Staff) -> None:
    viewer = staff("view_worker", "view_queue", "view_task")

    for verb in ("quiet", "resume", "stop"):
        assert viewer.post(ask(worker, verb)).status_code == 403
    for verb in ("pause", "resume", "hold", "release"):
        assert viewer.post(control(verb), {"name": "mail"}).status_code == 403
    assert viewer.get(ask(worker, "stop")).status_code == 403
    assert viewer.get(control("pause")).status_code == 403
    for page in (WORKERS, QUEUES):
        assert "data-verb" not in viewer.get(page).content.decode()
    worker.refresh_from_db()
    assert (worker.asked, Act.objects.count()) == ("", 0)


def test_nothing_is_done_by_get_or_to_what_is_gone(worker: Worker, operator: Client) -> None:
    assert operator.get(ask(worker, "quiet")).status_code == 404
    assert operator.get(control("hold")).status_code == 404
    assert operator.post(control("delete"), {"name": "mail"}).status_code == 404
    Worker.objects.update(stopped=timezone.now())
    assert operator.post(ask(worker, "quiet")).status_code == 404
    assert not Act.objects.exists()


def test_who_stops_or_pauses_is_asked_why_first(worker: Worker, operator: Client) -> None:
    stop = operator.get(ask(worker, "stop"), headers=HTMX).content.decode()
    pause = operator.get(control("pause"), {"name": "ma<il"}).content.decode()

    assert "Stop build-2:17" in stop
    assert "Pause ma&lt;il" in pause
    assert 'name="name" value="ma&lt;il"' in pause
    assert all('name="reason"' in html for html in (stop, pause))
    assert not Act.objects.exists()


def test_hostile_names_are_text(make: Make, operator: Client) -> None:
    make(Status.QUEUED, queue="<script>x")
    Queue.objects.create(name="<script>y", paused=timezone.now(), reason="<script>z\u202e")
    HeldFunction.objects.create(func_name="a.<script>w", reason="<script>v")

    html = operator.get(QUEUES).content.decode()

    for letter in "xyzwv":
        assert f"<script>{letter}" not in html
        assert f"&lt;script&gt;{letter}" in html
    assert "\u202e" not in html


def test_an_open_form_does_not_make_the_table_change(worker: Worker, operator: Client) -> None:
    html = operator.get(WORKERS).content.decode()
    have = " ".join(
        f"{key}:{v}" for key, v in re.findall(r'id="(cq-[\w-]+)" data-part data-v="(\w+)"', html)
    )

    response = operator.get(reverse("admin:cq_worker_live"), {"have": have}, headers=HTMX)

    assert "cq-workers:" in have
    # Each response masks its token anew: what is shown is the same.
    assert response.status_code in (200, 204)
    if response.status_code == 200:
        assert "ago" in response.content.decode()
