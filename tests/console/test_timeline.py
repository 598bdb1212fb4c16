"""Does the timeline show when everything ran, within its bounds, and what the end waited for?"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from console.conftest import Make
from cq.ids import uuid7
from cq.states import Condition, Status
from cq_console import durations, timeline
from cq_console.timeline import Span

START = datetime(2026, 3, 1, 2, 30, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def span(
    begin: float | None,
    end: float | None,
    *,
    parent: Span | None = None,
    previous: Span | None = None,
    status: str = Status.SUCCESS,
    function: str = "shop.ship",
) -> Span:
    return Span(
        uuid7(),
        parent.id if parent else None,
        previous.id if previous else None,
        function,
        status,
        START,
        None if begin is None else at(begin),
        None if end is None else at(end),
    )


def test_the_critical_path_takes_the_child_then_the_predecessor_that_finished_last() -> None:
    root = span(0, 9)
    early = span(1, 3, parent=root)
    first = span(1, 4, parent=root)
    second = span(4, 9, parent=root, previous=first)
    below = span(5, 8, parent=second)
    quick = span(5, 6, parent=second)
    report = span(9, 10, previous=root)

    spans = [root, early, first, second, below, quick, report]
    found = timeline.critical_path(spans, [root.id, report.id], at(20))

    assert found == {root.id, first.id, second.id, below.id, report.id}


def test_what_still_runs_is_the_last_of_all() -> None:
    root = span(0, None, status=Status.WAITING)
    done = span(1, 30, parent=root)
    running = span(2, None, parent=root, status=Status.RUNNING)
    waiting = span(None, None, parent=root, status=Status.QUEUED)

    found = timeline.critical_path([root, done, running, waiting], [root.id], at(40))

    assert found == {root.id, running.id}


def test_a_predecessor_in_a_circle_does_not_hang() -> None:
    one = span(0, 1)
    other = Span(uuid7(), None, one.id, "f", Status.SUCCESS, START, at(1), at(2))
    one = Span(one.id, None, other.id, "f", Status.SUCCESS, START, at(0), at(1))

    assert timeline.critical_path([one, other], [one.id], at(3)) == {one.id, other.id}


def test_bars_lie_on_one_axis_in_per_cent() -> None:
    root = span(0, 10)
    child = span(5, 10, parent=root)

    picture = timeline.draw([root, child], [root.id], at(99))

    assert picture is not None
    assert [(bar.run, bar.depth) for bar in picture.bars] == [((0.0, 100.0), 0), ((50.0, 50.0), 1)]
    assert [durations.axis(tick.after) for tick in picture.ticks] == [
        "0", "2 s", "4 s", "6 s", "8 s",
    ]  # fmt: skip


def test_siblings_of_one_function_are_merged_but_not_what_failed_or_held_up_the_end() -> None:
    root = span(0, 100)
    children = [span(index / 10, index / 10 + 1, parent=root) for index in range(900)]
    failed = span(1, 2, parent=root, status=Status.FAILURE)
    last = span(50, 100, parent=root)
    other = span(1, 2, parent=root, function="shop.bill")

    picture = timeline.draw([root, *children, failed, last, other], [root.id], at(200))

    assert picture is not None
    assert sorted((bar.count, bar.kind, bar.is_critical) for bar in picture.bars) == [
        (1, "done", False),
        (1, "done", True),
        (1, "done", True),
        (1, "failed", False),
        (900, "done", False),
    ]
    (merged,) = (bar for bar in picture.bars if bar.count > 1)
    assert re.fullmatch(r"M0 12(H[\d.]+V[\d.]+)+H100V12Z", merged.silhouette)


@pytest.mark.parametrize("width", [3, 60])
def test_there_are_never_more_than_two_hundred_bars(width: int) -> None:
    spans = [span(0, 100)]
    heads = [spans[0].id]
    for _index in range(width):
        branch = span(1, 99, parent=spans[0], function=f"shop.f{_index}")
        spans += [branch, *(span(2, 3, parent=branch, function=f"f{n}") for n in range(120))]

    picture = timeline.draw(spans, heads, at(200))

    assert picture is not None
    assert len(picture.bars) == timeline.BARS
    assert picture.left_out


@pytest.mark.parametrize("seconds", [0.0, 0.004, 1, 3, 59, 7_000, 86_400 * 40])
def test_an_axis_has_few_marks_for_any_length(seconds: float) -> None:
    picture = timeline.draw([root := span(0, seconds)], [root.id], START)

    assert picture is not None
    said = [durations.axis(tick.after) for tick in picture.ticks]
    assert 1 < len(said) <= timeline.TICKS + 1
    assert len(set(said)) == len(said)


def page(client: Client, id: UUID) -> str:
    response = client.get(reverse("admin:cq_task_change", args=[id]), {"tab": "timeline"})
    assert response.status_code == 200
    return response.content.decode()


def test_the_page_draws_the_family_with_its_followers(make: Make, operator: Client) -> None:
    root = make(Status.SUCCESS)
    make(Status.FAILURE, parent=root, func_name="shop.tasks.pack", args=["order-7"])
    make(Status.SUCCESS, root=root, previous=root, condition=Condition.SUCCESS, func_name="a.bill")

    html = page(operator, root.id)

    rows = re.findall(r'<li class="cq-gantt-row".*?</li>', html, re.DOTALL)
    assert ["pack" in row for row in rows] == [False, True, False]
    assert 'data-kind="failed"' in rows[1]
    assert "order-7" in rows[1]
    assert "style=" not in html.partition("cq-gantt")[2]


def test_nothing_has_started_yet(make: Make, operator: Client) -> None:
    task = make(Status.QUEUED)

    assert "Nothing has started yet." in page(operator, task.id)


def test_a_huge_tree_draws_what_is_directly_below_its_top(
    make: Make, operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cq_console.queries.tree.ROLL_UP_LIMIT", 3)
    now = timezone.now()
    root = make(Status.SUCCESS, now=now)
    branch = make(Status.SUCCESS, parent=root, func_name="shop.tasks.direct")
    make(Status.SUCCESS, parent=branch, func_name="shop.tasks.deeper")
    make(Status.SUCCESS, parent=branch, func_name="shop.tasks.deeper")

    html = page(operator, root.id).partition('id="cq-timeline"')[2]

    assert "direct" in html
    assert "deeper" not in html
    assert "very large" in html
