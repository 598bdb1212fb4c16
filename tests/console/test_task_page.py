"""Does a task's page show its family truly, in a bounded number of queries?"""

from __future__ import annotations

import re
from datetime import timedelta
from html import unescape
from uuid import UUID

import pytest
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from console.conftest import Make
from cq.ids import uuid7
from cq.models import Act, ActItem, Attempt, Task
from cq.states import Cause, Condition, Status


def page_of(client: Client, task: Task, query: str = "") -> str:
    response = client.get(reverse("admin:cq_task_change", args=[task.id]) + query)
    assert response.status_code == 200
    return response.content.decode()


def nodes(html: str, section: str) -> list[str]:
    """The ids of the rows in a section of the tree, in their order."""
    return re.findall(rf'id="n-{section}[\w-]{{22}}" data-task="([0-9a-f-]{{36}})"', html)


def test_the_family_is_counted_below_each_task(make: Make, operator: Client) -> None:
    root = make(Status.INCOMPLETE)
    branch = make(Status.INCOMPLETE, parent=root)
    make(Status.FAILURE, parent=branch)
    make(Status.LOST, parent=branch)
    make(Status.SUCCESS, parent=root)

    html = page_of(operator, root)

    assert "Retry 2 failed" in html
    legend = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html.partition('class="cq-legend"')[2]))
    assert "1 succeeded" in legend
    assert "1 failed" in legend
    assert "1 lost" in legend
    assert "2 incomplete" in legend


def test_the_failed_branch_stands_open_with_its_cause_beside_it(
    make: Make, operator: Client
) -> None:
    root = make(Status.INCOMPLETE)
    make(Status.SUCCESS, parent=root)
    branch = make(Status.INCOMPLETE, parent=root)
    failed = make(Status.FAILURE, parent=branch, error="ZeroDivisionError: division by zero")
    Attempt.objects.create(
        task=failed,
        number=1,
        outcome=Status.FAILURE,
        error=failed.error,
        frames=[
            {"file": "shop/tasks.py", "line": 7, "function": "ship", "code": "1 / 0", "own": True}
        ],
    )

    html = page_of(operator, root)

    assert nodes(html, "f") == [str(branch.id), str(failed.id)]
    inspector = html.partition('id="cq-inspector"')[2]
    assert "ZeroDivisionError: division by zero" in inspector
    assert "shop/tasks.py:7" in inspector


def frame(file: str, *, own: bool = False, **more: int) -> dict[str, object]:
    return {"file": file, "line": 7, "function": "run", "code": "1 / 0", "own": own, **more}


def traceback_of(client: Client, make: Make, *frames: dict[str, object]) -> str:
    """The last attempt of a task that failed with these frames, as text."""
    task = make(Status.FAILURE)
    whole = "Traceback (most recent call last):\nKeyError: 1\nZeroDivisionError: division by zero"
    Attempt.objects.create(
        task=task, number=1, outcome=Status.FAILURE, frames=list(frames), traceback=whole
    )
    html = page_of(client, task, "?tab=attempts").partition('class="cq-attempts"')[2]
    return re.sub(r"\s+", " ", re.sub(r"<(?!/?details|/?summary)[^>]+>", " ", html))


def test_a_traceback_begins_where_the_engine_has_called_the_task(
    make: Make, operator: Client
) -> None:
    engine = [frame("cq/runner.py"), frame("cq/interrupts.py")]
    users = [frame("shop/tasks.py", own=True), frame("cq/context.py"), frame("json/decoder.py")]

    text = traceback_of(operator, make, *engine, *users)

    fold, _, rest = text.partition("</details>")
    assert "<summary>2 frames of the engine</summary>" in fold
    assert re.findall(r"(\S+\.py):7", fold) == ["cq/runner.py", "cq/interrupts.py"]
    frames, _, whole = rest.partition("<details")
    assert re.findall(r"(\S+\.py):7", frames) == [str(frame["file"]) for frame in users]
    # Causes are told in the whole alone.
    assert "KeyError: 1" in whole


@pytest.mark.parametrize("file", ["cq/signature.py", "cq/tasks.py"])
def test_what_is_the_readers_own_or_all_there_is_is_not_folded(
    make: Make, operator: Client, file: str
) -> None:
    is_own = file == "cq/tasks.py"
    frames = [frame(file, own=is_own)] + ([frame("shop/tasks.py")] if is_own else [])

    text = traceback_of(operator, make, *frames)

    assert "of the engine" not in text
    assert f"{file}:7" in text


def test_a_traceback_says_how_many_frames_were_not_kept(make: Make, operator: Client) -> None:
    text = traceback_of(operator, make, frame("a.py", own=True), frame("b.py", skipped=1_530))

    assert re.search(r"a\.py:7.*… 1530 frames left out ….*b\.py:7", text)


def test_a_subtask_opens_its_family_at_itself(make: Make, operator: Client) -> None:
    root = make(Status.SUCCESS, func_name="shop.tasks.first")
    others = [make(Status.SUCCESS, parent=root) for _ in range(120)]
    wanted = make(Status.SUCCESS, parent=root)
    below = make(Status.SUCCESS, parent=wanted)
    assert others

    html = page_of(operator, wanted)

    assert str(root.id) in nodes(html, "a")
    assert str(wanted.id) in nodes(html, "a")
    assert str(below.id) in nodes(html, "a")


def test_followers_stand_beside_the_root_with_their_condition(make: Make, operator: Client) -> None:
    root = make(Status.INCOMPLETE)
    follower = make(
        Status.PENDING,
        root=root,
        previous=root,
        condition=Condition.FAILURE,
        cause=Cause.BLOCKED,
        func_name="shop.tasks.apologise",
    )

    html = page_of(operator, root)

    assert str(follower.id) in nodes(html, "a")
    assert "↯" in html
    assert "on failure" in html


def test_one_that_failed_alone_is_told_apart_as_amid_the_others(
    make: Make, operator: Client
) -> None:
    root = make(Status.INCOMPLETE)
    for status, name in ((Status.FAILURE, "amber"), (Status.SUCCESS, "beryl")):
        named = {"name": name, "folder": "/stones"}
        make(status, parent=root, func_name="shop.cut", kwargs=named, named=named)

    html = operator.get(reverse("admin:cq_task_change", args=[root.id])).content.decode()

    briefs = re.findall(r"cut <code>([^<]*)</code>", html)
    assert briefs == ["amber", "amber", "beryl"]


def test_pages_of_children_neither_skip_nor_repeat(make: Make, operator: Client) -> None:
    root = make(Status.WAITING, open_children=1)
    moment = timezone.now()
    made = [make(Status.SUCCESS, parent=root, now=moment).id for _ in range(250)]
    url = reverse("admin:cq_task_level", args=[root.id])

    found: list[str] = []
    address = f"{url}?section=a"
    while address:
        html = operator.get(address).content.decode()
        found += nodes(html, "a")
        more = re.search(r'hx-get="([^"]*after=[^"]*)"', html)
        address = more[1].replace("&amp;", "&") if more else ""

    assert found == [str(id) for id in sorted(made)]


@pytest.mark.parametrize("children", [3, 90])
def test_the_number_of_queries_does_not_grow_with_the_tree(
    make: Make, operator: Client, children: int
) -> None:
    root = make(Status.INCOMPLETE)
    for _ in range(children):
        make(Status.SUCCESS, parent=root)
    make(Status.FAILURE, parent=root)
    url = reverse("admin:cq_task_change", args=[root.id])
    operator.get(url)

    from django.db import connection

    with CaptureQueriesContext(connection) as queries:
        operator.get(url)

    assert len(queries) <= 22
    assert not [q["sql"] for q in queries if "OFFSET" in q["sql"]]


def test_roll_ups_of_a_huge_tree_count_direct_children_only(
    make: Make, operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cq_console.queries.tree.ROLL_UP_LIMIT", 3)
    root = make(Status.WAITING, open_children=1)
    branch = make(Status.WAITING, parent=root, open_children=2)
    for status in (Status.SUCCESS, Status.SUCCESS, Status.RUNNING):
        make(status, parent=branch)

    html = page_of(operator, root)

    assert "2 of 3" in html


def test_a_removed_task_answers_gone_with_what_is_known(db: None, operator: Client) -> None:
    id = uuid7()
    act = Act.objects.create(verb="cancel", by_name="grace", way="shell", reason="too slow")
    ActItem.objects.create(act=act, task_id=id, root_id=id)

    response = operator.get(reverse("admin:cq_task_change", args=[id]))

    assert response.status_code == 410
    assert "grace" in response.content.decode()
    assert "too slow" in response.content.decode()


def test_an_id_that_never_was_is_not_found(db: None, operator: Client) -> None:
    unknown = UUID("00000000-0000-4000-8000-000000000000")

    assert operator.get(reverse("admin:cq_task_change", args=[unknown])).status_code == 404


def test_activity_says_who_cancelled_it(make: Make, operator: Client) -> None:
    task = make(Status.REVOKED, cause=Cause.CANCELLED)
    act = Act.objects.create(verb="cancel", by_name="grace", way="console", done=1)
    ActItem.objects.create(act=act, task_id=task.id, root_id=task.id)

    html = page_of(operator, task, "?tab=activity")

    assert "grace" in html


def test_large_integers_are_not_rounded(make: Make, operator: Client) -> None:
    task = make(Status.SUCCESS, args=[9007199254740993], result={"n": 18446744073709551615})

    html = page_of(operator, task, "?tab=data")

    assert "9007199254740993" in html
    assert "18446744073709551615" in html


def test_the_python_call_leaves_out_what_is_masked(make: Make, operator: Client) -> None:
    # In the order in which jsonb keeps keys: shorter ones first.
    given = {"deep": {"n": [1, None]}, "order": 7, "password": "hunter2"}
    task = make(Status.SUCCESS, kwargs=given)

    html = page_of(operator, task, "?tab=data")

    call = re.search(r'id="cq-call">([^<]*)<', html)
    assert call
    assert unescape(call[1]) == "ship.delay(deep={'n': [1, None]}, order=7)"


def test_an_attempt_is_one_of_those_that_are_allowed(make: Make, operator: Client) -> None:
    task = make(Status.RETRY, attempts=2, retries=3)

    assert "<dt>Attempt</dt><dd>2 of 4</dd>" in page_of(operator, task)


def test_times_are_read_in_the_zone_of_the_viewer(make: Make, operator: Client) -> None:
    task = make(now=timezone.now())
    task.submitted = timezone.now().replace(hour=12, minute=34, second=56)
    task.save(update_fields=["submitted"])
    operator.cookies["cq_tz"] = "Asia%2FKathmandu"

    html = page_of(operator, task)

    assert "18:19:56" in html


def test_a_wrong_zone_falls_back_to_the_projects(make: Make, operator: Client) -> None:
    task = make()
    operator.cookies["cq_tz"] = "..%2F..%2Fetc%2Fpasswd"

    assert "UTC" in page_of(operator, task)


def test_a_task_that_runs_for_the_first_time_shows_how_long(make: Make, operator: Client) -> None:
    task = make(Status.RUNNING, started=timezone.now() - timedelta(minutes=4, seconds=12))

    html = page_of(operator, task)

    assert re.search(r"Running for</dt><dd>4 m 1\d s", html)


def test_a_chain_at_the_top_is_shown_in_its_order(make: Make, operator: Client) -> None:
    root = make(Status.SUCCESS)
    links = [root]
    for _ in range(5):
        links.append(
            make(Status.SUCCESS, root=root, previous=links[-1], condition=Condition.SUCCESS)
        )

    html = page_of(operator, root)

    assert nodes(html, "a") == [str(link.id) for link in links]
