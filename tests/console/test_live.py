"""Does a refresh send what has changed, and nothing else?"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs

from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.test import AsyncClient, Client
from django.urls import reverse
from django.utils import timezone

from console.conftest import Make
from cq.ids import uuid7
from cq.models import Task, TaskLog
from cq.states import Status
from cq_console import rows


def shown(html: str) -> dict[str, str]:
    """What console.js sends of a page: the fingerprints of its parts and rows."""
    parts = re.findall(r'id="(cq-[\w-]+)"[^>]*data-part[^>]*data-v="(\w+)"', html)
    found = re.findall(r'data-live="([\w-]+)"\s+data-v="(\w+)"', html)
    return {
        "have": " ".join(f"{key}:{v}" for key, v in parts),
        "rows": "".join(key + v for key, v in found),
    }


def page_of(client: Client, task: Task) -> str:
    return client.get(reverse("admin:cq_task_change", args=[task.id])).content.decode()


def refresh(client: Client, task: Task, **query: str) -> tuple[int, str]:
    url = reverse("admin:cq_task_live", args=[task.id])
    response = client.get(url, {"tab": "tree", **query}, headers={"HX-Request": "true"})
    return response.status_code, response.content.decode()


def test_nothing_changed_is_no_content(make: Make, operator: Client) -> None:
    root = make(Status.INCOMPLETE)
    make(Status.FAILURE, parent=root)
    known = shown(page_of(operator, root))

    status, body = refresh(operator, root, **known)

    assert known["rows"]
    assert (status, body) == (204, "")


def test_only_the_changed_row_is_sent(make: Make, operator: Client) -> None:
    root = make(Status.SUCCESS)
    changed = make(Status.SUCCESS, parent=root)
    kept = make(Status.SUCCESS, parent=root)
    known = shown(page_of(operator, root))
    Task.objects.filter(id=changed.id).update(status=Status.LOST)

    status, body = refresh(operator, root, **known)

    assert status == 200
    assert f"s-a{rows.short(changed.id)}" in body
    assert rows.short(kept.id) not in body
    assert 'data-row-status="L"' in body


def test_a_refresh_sends_the_bytes_of_the_page(make: Make, operator: Client) -> None:
    root = make(Status.INCOMPLETE)
    make(Status.FAILURE, parent=root)
    html = page_of(operator, root)
    stale = {
        "have": re.sub(r":\w+", ":000000", shown(html)["have"]),
        "rows": re.sub(r"\w{6}$", "000000", shown(html)["rows"]),
    }

    _status, body = refresh(operator, root, **stale)

    # The form's token is masked anew in each response.
    token = re.compile(r'value="\w{64}"')
    swaps = re.findall(r'<div id="(cq-[\w-]+)"[^>]*hx-swap-oob="innerHTML">', body)
    assert {"cq-glyph", "cq-facts", "cq-verbs", "cq-family"} <= set(swaps)
    for key in ("cq-glyph", "cq-facts", "cq-family"):
        start = body.index(f'<div id="{key}"')
        content = body[body.index(">", start) + 1 : body.index("<div id=", start + 1)]
        assert token.sub("", content.removesuffix("</div>")) in token.sub("", html)


def test_children_that_came_are_appended_to_a_page_that_is_not_full(
    make: Make, operator: Client
) -> None:
    root = make(Status.WAITING, open_children=2)
    first = make(Status.SUCCESS, parent=root)
    second = make(Status.QUEUED, parent=root)

    _status, body = refresh(
        operator, root, levels=f"a{rows.short(root.id)}:{rows.short(first.id)}:1"
    )

    assert f'hx-swap-oob="beforeend:#k-a{rows.short(root.id)}"' in body
    assert f'data-task="{second.id}"' in body
    assert f'data-task="{first.id}"' not in body


def test_a_full_page_does_not_grow(make: Make, operator: Client) -> None:
    root = make(Status.WAITING, open_children=2)
    make(Status.QUEUED, parent=root)

    status, _body = refresh(operator, root, levels=f"a{rows.short(root.id)}::100")

    assert status == 204


def test_new_failures_are_told_and_do_not_move_rows(make: Make, operator: Client) -> None:
    root = make(Status.WAITING, open_children=1)
    make(Status.FAILURE, parent=root)
    make(Status.FAILURE, parent=root)

    _status, body = refresh(operator, root, have="cq-more-failed:000000", failed="1")

    assert "1 more failed" in body
    assert "cq-node" not in body


def test_rows_of_another_tree_are_not_told(make: Make, operator: Client) -> None:
    root, other = make(), make()

    status, _body = refresh(operator, root, rows=f"a{rows.short(other.id)}000000")

    assert status == 204


def test_garbage_from_a_browser_is_left_alone(make: Make, operator: Client) -> None:
    root = make()

    for query in (
        {"rows": "a" * 1000},
        {"levels": "a:b:c f:: x"},
        {"have": "::: :x"},
        {"node": "not-an-id"},
        {"failed": "9" * 50},
    ):
        assert refresh(operator, root, **query)[0] == 204, query


def test_new_lines_are_appended(make: Make, operator: Client) -> None:
    task = make(Status.RUNNING)
    old = log(task, "first")
    log(task, "second")

    _status, body = refresh(operator, task, tab="logs", lines=base36(old.id))

    assert "second" in body
    assert "first" not in body
    assert 'hx-swap-oob="beforeend:#cq-lines"' in body


def test_a_line_that_came_to_light_late_stands_in_its_place(make: Make, operator: Client) -> None:
    task = make(Status.RUNNING)
    first, late, last = log(task, "first"), log(task, "late"), log(task, "last")

    _status, body = refresh(
        operator, task, tab="logs", lines=f"{base36(first.id)}.{base36(last.id - first.id)}"
    )

    assert f'hx-swap-oob="afterend:#line-{first.id}"' in body
    assert f'id="line-{late.id}"' in body
    assert f'id="line-{last.id}"' not in body


def test_a_flood_of_lines_passes_all_but_the_newest(make: Make, operator: Client) -> None:
    task = make(Status.RUNNING)
    first = log(task, "first")
    TaskLog.objects.bulk_create(
        TaskLog(root=task, task=task, created=task.submitted, message=f"line {n}")
        for n in range(512)
    )

    _status, body = refresh(operator, task, tab="logs", lines=base36(first.id))

    assert body.count('class="cq-line"') == 200
    assert "312 lines passed" in body


def test_the_list_says_how_many_are_new(make: Make, operator: Client) -> None:
    first = make()
    make()
    make()
    url = reverse("admin:cq_task_list_live")

    response = operator.get(url, {"first": str(first.id), "have": "cq-new:000000"})

    assert re.search(r">2\s+new<", response.content.decode())


def test_a_row_that_stops_matching_is_marked(make: Make, operator: Client) -> None:
    task = make(Status.SUCCESS)
    url = reverse("admin:cq_task_list_live")

    response = operator.get(url, {"q": "status:failed", "rows": f"t{rows.short(task.id)}000000"})

    assert 'data-row-matches="no"' in response.content.decode()
    assert "no longer matches" in response.content.decode()


def log(task: Task, message: str, level: int = 20) -> TaskLog:
    return TaskLog.objects.create(
        root_id=task.root_id, task=task, created=timezone.now(), level=level, message=message
    )


def base36(number: int) -> str:
    digits = "0123456789abcdefghijklmnopqrstuvwxyz"
    text = ""
    while number:
        number, rest = divmod(number, 36)
        text = digits[rest] + text
    return text or "0"


def test_a_log_that_is_not_followed_stands_still(make: Make, operator: Client) -> None:
    task = make(Status.RUNNING)
    log(task, "first")

    status, _body = refresh(operator, task, tab="logs")

    assert status == 204


def test_a_linked_line_stands_amid_its_page(make: Make, operator: Client) -> None:
    task = make(Status.RUNNING)
    TaskLog.objects.bulk_create(
        TaskLog(root=task, task=task, created=task.submitted, message=f"line {n}.")
        for n in range(500)
    )
    wanted = TaskLog.objects.get(message="line 250.")

    url = reverse("admin:cq_task_change", args=[task.id])
    html = operator.get(url, {"tab": "logs", "line": str(wanted.id)}).content.decode()

    assert re.search(rf'id="line-{wanted.id}"[^>]*data-linked', html)
    assert html.count('class="cq-line"') == 200
    assert "line 151." in html
    assert "line 350." in html
    assert "data-cq-follow" not in html


def test_the_level_filter_and_the_download_agree(make: Make, operator: Client) -> None:
    task = make(Status.RUNNING)
    log(task, "all is fine")
    log(task, "getting warm", level=30)
    log(task, "on fire", level=40)
    url = reverse("admin:cq_task_change", args=[task.id])

    html = operator.get(url, {"tab": "logs", "level": "warning"}).content.decode()
    download = operator.get(
        reverse("admin:cq_task_log", args=[task.id]), {"level": "warning"}
    ).getvalue()

    assert html.count('class="cq-line"') == 2
    assert [line.partition(" ")[2] for line in download.decode().splitlines()] == [
        "WARNING getting warm",
        "ERROR on fire",
    ]


def test_a_text_is_searched_for_from_the_end(make: Make, operator: Client) -> None:
    task = make(Status.RUNNING)
    for n in range(5):
        log(task, f"needle {n}" if n % 2 else f"hay {n}")
    url = reverse("admin:cq_task_change", args=[task.id])

    html = operator.get(url, {"tab": "logs", "text": "NEEDLE"}).content.decode()

    assert "needle 1" in html
    assert "needle 3" in html
    assert "hay" not in html


def test_who_reads_in_the_log_is_told_how_much_is_new_and_gets_none_of_it(
    make: Make, operator: Client
) -> None:
    task = make(Status.RUNNING)
    read = log(task, "read")
    for _ in range(3):
        log(task, "unread")

    _status, body = refresh(
        operator, task, tab="logs", reading=str(read.id), have="cq-log-new:000000"
    )

    assert "unread" not in body
    assert re.search(r"<b>3</b>\s+new", body)


def test_a_minute_that_stands_above_the_lines_is_not_said_again(
    make: Make, operator: Client
) -> None:
    task = make(Status.RUNNING)
    old = log(task, "old")
    same, later = log(task, "same"), log(task, "later")
    moment = old.created.replace(second=10)
    TaskLog.objects.filter(id__in=[old.id, same.id]).update(created=moment)
    TaskLog.objects.filter(id=later.id).update(created=moment + timedelta(minutes=1))

    page = operator.get(reverse("admin:cq_task_change", args=[task.id]), {"tab": "logs"})
    _status, body = refresh(
        operator, task, tab="logs", lines=base36(old.id), minute=f"{moment:%Y-%m-%d %H:%M}"
    )

    assert page.content.decode().count("data-minute=") == 2
    assert re.findall(r'data-minute="([^"]+)"', body) == [
        f"{moment + timedelta(minutes=1):%Y-%m-%d %H:%M}"
    ]


def test_the_way_to_passed_lines_keeps_the_filters(make: Make, operator: Client) -> None:
    task = make(Status.RUNNING)
    first = log(task, "first", level=40)
    TaskLog.objects.bulk_create(
        TaskLog(root=task, task=task, created=task.submitted, level=40, message="a & b")
        for _ in range(201)
    )

    _status, body = refresh(
        operator, task, tab="logs", lines=base36(first.id), level="error", of="task"
    )

    (way,) = re.findall(r'href="([^"]+)">1 line passed', body)
    query = parse_qs(way.replace("&amp;", "&").removeprefix("?"))
    assert query.keys() == {"tab", "level", "of", "before"}
    assert (query["level"], query["of"]) == (["error"], ["task"])


def test_pages_of_a_log_lead_to_each_other(make: Make, operator: Client) -> None:
    task = make(Status.RUNNING)
    TaskLog.objects.bulk_create(
        TaskLog(root=task, task=task, created=task.submitted, message=f"line {n}.")
        for n in range(450)
    )
    page = reverse("admin:cq_task_change", args=[task.id])

    seen: list[str] = []
    way = "?tab=logs"
    for word in ("Older lines", "Older lines", "Newer lines", "Newer lines"):
        html = operator.get(page + way).content.decode()
        seen.append(re.findall(r"line (\d+)\.", html)[0])
        (found,) = re.findall(rf'href="([^"]+)">{word}', html)
        way = found.replace("&amp;", "&")
    last = operator.get(page + way).content.decode()

    assert seen == ["250", "50", "0", "50"]
    assert re.findall(r"line (\d+)\.", last)[0] == "250"


async def test_a_download_is_streamed_behind_asgi_too(
    transactional_db: None,
) -> None:
    task = await sync_to_async(long_log)(4_500)
    client = AsyncClient()
    await client.aforce_login(await sync_to_async(User.objects.create_superuser)("olga"))

    response: Any = await client.get(reverse("admin:cq_task_log", args=[task.id]))
    chunks = [chunk.decode() async for chunk in response]

    assert [chunk.count("\n") for chunk in chunks] == [2_000, 2_000, 500]
    assert chunks[-1].endswith("line 4499\n")


def long_log(number: int) -> Task:
    id = uuid7()
    task = Task.objects.create(id=id, root_id=id, func_name="shop.ship", status=Status.SUCCESS)
    TaskLog.objects.bulk_create(
        [
            TaskLog(root=task, task=task, created=timezone.now(), message=f"line {n}")
            for n in range(number)
        ],
        batch_size=500,
    )
    return task
