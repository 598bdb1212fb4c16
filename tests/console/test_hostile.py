"""Is everything that a task produced shown as text, whatever is in it?"""

from __future__ import annotations

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from console.conftest import Make
from cq.models import Attempt, Task, TaskLog
from cq.states import Status
from cq_console import hostile

SCRIPT = "<script>alert('x')</script>"
TABS = ("tree", "timeline", "logs", "attempts", "data", "activity")


def everything_of(client: Client, task: Task) -> str:
    url = reverse("admin:cq_task_change", args=[task.id])
    pages = [client.get(url, {"tab": tab}) for tab in TABS]
    pages.append(client.get(reverse("admin:cq_task_changelist")))
    pages.append(client.get(reverse("admin:cq_task_changelist"), {"q": "status:failed"}))
    pages.append(client.get(reverse("admin:cq_task_inspector", args=[task.id])))
    pages += [client.get("/admin/cq/"), client.get("/admin/cq/task/failures/")]
    pages += [client.get("/admin/cq/worker/"), client.get("/admin/cq/queue/")]
    pages.append(client.get("/admin/cq/task/all/retry/", {"q": "status:failed"}))
    assert {page.status_code for page in pages} == {200}
    return "".join(page.content.decode() for page in pages)


def test_html_of_a_task_is_escaped_everywhere(make: Make, operator: Client) -> None:
    task = make(
        Status.FAILURE,
        func_name=f"shop.{SCRIPT}",
        args=[SCRIPT, {SCRIPT: SCRIPT}],
        named={SCRIPT: SCRIPT},
        queue=SCRIPT,
        reason=SCRIPT,
        error=SCRIPT,
    )
    Attempt.objects.create(
        task=task,
        number=1,
        outcome=Status.FAILURE,
        worker_name=SCRIPT,
        error=SCRIPT,
        traceback=SCRIPT,
        frames=[{"file": SCRIPT, "line": 1, "function": SCRIPT, "code": SCRIPT, "own": True}],
    )
    TaskLog.objects.create(
        root=task, task=task, created=timezone.now(), level=40, message=SCRIPT, done=1, total=2
    )

    html = everything_of(operator, task)

    assert "alert(" in html
    assert SCRIPT not in html


def test_terminal_codes_and_direction_marks_are_shown_as_symbols(
    make: Make, operator: Client
) -> None:
    task = make(Status.FAILURE, error="\x1b[31mred \u202egnp.exe\u200b", args=["\u202e"])

    html = everything_of(operator, task)

    assert "␛[31mred" in html
    assert "RIGHT-TO-LEFT OVERRIDE" in html
    assert "\u202e" not in html
    assert "\x1b" not in html
    assert "\u200b" not in html


def test_a_megabyte_is_cut_and_says_its_size(make: Make, operator: Client) -> None:
    task = make(Status.FAILURE, args=["x" * 1_000_000], error="y" * 1_000_000)

    html = operator.get(reverse("admin:cq_task_change", args=[task.id])).content.decode()
    listed = operator.get(reverse("admin:cq_task_changelist")).content.decode()

    assert "(1,000,000 characters)" in html
    assert len(html) < 250_000
    assert len(listed) < 60_000


@pytest.mark.parametrize("tab", ["tree", "data"])
def test_deeply_nested_arguments_are_shown(make: Make, operator: Client, tab: str) -> None:
    value: list[object] = []
    # MariaDB stores no deeper JSON.
    for _ in range(29):
        value = [value]
    task = make(args=value)

    url = reverse("admin:cq_task_change", args=[task.id])

    assert operator.get(url, {"tab": tab}).status_code == 200


def test_secrets_are_nowhere_in_the_source(make: Make, operator: Client) -> None:
    secret = "hunter2-geheim"
    task = make(
        Status.FAILURE,
        args=[{"deep": [{"apiKey": secret}]}],
        kwargs={"password": secret, "max_tokens": 512},
        result={"session_cookie": secret},
        error=f"ValueError: password={secret}",
    )
    Attempt.objects.create(
        task=task,
        number=1,
        outcome=Status.FAILURE,
        error=f"token: {secret}",
        traceback=f"Authorization: Bearer {secret}",
    )
    TaskLog.objects.create(
        root=task, task=task, created=timezone.now(), message=f"secret='{secret}'"
    )

    html = everything_of(operator, task)

    assert secret not in html
    assert "512" in html


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x00b", "a␀b"),
        ("tab\tand\nline", "tab\tand\nline"),
        ("\ud800", "⟨U+D800⟩"),
        ("\u2028", "⟨LINE SEPARATOR⟩"),
        ("naïve 日本 🙂", "naïve 日本 🙂"),
    ],
)
def test_what_cannot_be_seen_is_shown(text: str, shown: str) -> None:
    assert hostile.visible(text) == shown
