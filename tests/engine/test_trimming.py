"""Which lines of a tree that logs too much stay?"""

from __future__ import annotations

from typing import Any

import pytest
from django.db.models.functions import Now

from cq import task, trimming
from cq.context import Context
from cq.models import Task, TaskLog
from cq.testing import run_pending
from cq.trimming import Trimmer

pytestmark = pytest.mark.django_db


@task
def child(cqt: Context, name: str, lines: int) -> None:
    for number in range(lines):
        cqt.log(f"{name} {number}")


@task
def parent(cqt: Context) -> None:
    for name in ("a", "b"):
        cqt.subtask(child, name, 6)


def messages(stored: Task) -> list[str]:
    return [line.message for line in stored.logs]


def add_lines(stored: Task, number: int) -> None:
    lines = [
        TaskLog(root_id=stored.root_id, task_id=stored.pk, message="more", created=Now())
        for _ in range(number)
    ]
    TaskLog.objects.bulk_create(lines)


def test_of_a_tree_the_newest_lines_stay_whoever_wrote_them(settings: Any) -> None:
    settings.CQ_LOG_LIMIT = 8
    stored, other = parent.delay(), child.delay("other", 5)
    run_pending()
    before = messages(stored)

    assert Trimmer().trim() == 4

    assert messages(stored) == before[-8:]
    assert len(messages(other)) == 5


def test_it_goes_in_bounded_batches(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.CQ_LOG_LIMIT = 2
    monkeypatch.setattr(trimming, "BATCH", 3)
    stored = child.delay("a", 12)
    run_pending()

    assert trimming.trim(stored.pk) == 10

    assert messages(stored) == ["a 10", "a 11"]


def test_a_tree_at_its_limit_loses_nothing(settings: Any) -> None:
    settings.CQ_LOG_LIMIT = 12
    stored = child.delay("a", 12)
    run_pending()

    assert Trimmer().trim() == 0

    assert len(messages(stored)) == 12


def test_what_was_logged_since_the_last_round_is_looked_at(settings: Any) -> None:
    settings.CQ_LOG_LIMIT = 10
    stored = child.delay("a", 4)
    run_pending()
    trimmer = Trimmer()
    assert trimmer.trim() == 0

    add_lines(stored, 40)

    assert trimmer.trim() == 34
    assert trimmer.trim() == 0


def test_a_round_without_new_lines_costs_one_statement(
    settings: Any, django_assert_num_queries: Any
) -> None:
    child.delay("a", 4)
    run_pending()
    trimmer = Trimmer()
    trimmer.trim()

    with django_assert_num_queries(1):
        trimmer.trim()


def test_a_noisy_tree_among_many_quiet_ones_is_found(settings: Any) -> None:
    settings.CQ_LOG_LIMIT = 50
    child.delay_many([(f"quiet {number}", 1) for number in range(60)])
    noisy = child.delay("noisy", 1)
    run_pending()
    trimmer = Trimmer()
    trimmer.trim()

    # By chance: of the new lines nine in ten are its own, and twenty are drawn.
    add_lines(noisy, 900)
    for quiet in Task.objects.exclude(pk=noisy.pk):
        add_lines(quiet, 1)
    trimmer.trim()

    assert len(messages(noisy)) == 50


def test_every_tree_is_trimmed_by_hand(settings: Any) -> None:
    settings.CQ_LOG_LIMIT = 3
    stored = [child.delay("a", 5), child.delay("b", 4)]
    run_pending()

    assert trimming.trim_all() == 3

    assert [len(messages(one)) for one in stored] == [3, 3]
