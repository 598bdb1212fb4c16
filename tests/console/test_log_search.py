"""How far does a search of a log go before it says so, and does going on find the rest?"""

from __future__ import annotations

from itertools import count

import pytest
from django.db.models import Max
from django.utils import timezone

from console.conftest import Make
from cq.models import TaskLog
from cq.states import Status
from cq_console.queries import logs

LINES = 300


@pytest.fixture
def searched(make: Make, monkeypatch: pytest.MonkeyPatch) -> logs.Scope:
    """A search that finds the oldest of many lines only; each window takes a second."""
    task = make(Status.SUCCESS)
    TaskLog.objects.bulk_create(
        TaskLog(
            root=task,
            task=task,
            created=timezone.now(),
            level=20,
            message="hay" if number else "a needle",
        )
        for number in range(LINES)
    )
    clock = count()
    monkeypatch.setattr(logs, "monotonic", lambda: float(next(clock)))
    monkeypatch.setattr(logs, "FIRST_WINDOW", 10)
    monkeypatch.setattr(logs, "WINDOW", 40)
    return logs.Scope(task.id, text="needle")


def test_a_window_that_would_end_too_late_is_not_begun(
    searched: logs.Scope, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Two windows are over after four seconds; the next one, twice as wide, takes two more.
    monkeypatch.setattr(logs, "SEARCH_SECONDS", 5.5)

    found = logs.tail(searched)

    assert found.searched_to == newest(searched) + 1 - 10 - 20
    assert found.lines == ()


def test_a_search_goes_on_where_it_stopped_until_it_has_found(
    searched: logs.Scope, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Less than a single window takes: each time it comes one further.
    monkeypatch.setattr(logs, "SEARCH_SECONDS", 0.5)
    found = logs.tail(searched)
    rounds = 1

    while not found.lines:
        assert found.searched_to is not None
        found = logs.tail(searched, found.searched_to)
        rounds += 1

    assert [line.message for line in found.lines] == ["a needle"]
    assert rounds == LINES // 10


def test_with_time_enough_a_search_is_complete(
    searched: logs.Scope, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "SEARCH_SECONDS", 1e9)
    monkeypatch.setattr(logs, "WINDOW", 10_000_000)

    found = logs.tail(searched)

    assert found.searched_to is None
    assert [line.message for line in found.lines] == ["a needle"]


def newest(scope: logs.Scope) -> int:
    last = TaskLog.objects.filter(root_id=scope.root_id).aggregate(last=Max("id"))["last"]
    assert isinstance(last, int)
    return last
