"""Does what was forgotten, because rows were changed behind the engine's back, move on?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from cq import mending, task
from cq.context import Context
from cq.mending import Mender
from cq.models import Task
from cq.states import Cause, Status
from cq.testing import run_pending
from engine.looking import status_of, statuses_of

pytestmark = pytest.mark.django_db

S, E, P, Q, W = (
    Status.SUCCESS,
    Status.REVOKED,
    Status.PENDING,
    Status.QUEUED,
    Status.WAITING,
)


@task
def step(cqt: Context) -> str:
    return "done"


@task
def fail(cqt: Context) -> None:
    raise ValueError("broken")


@task
def parent(cqt: Context, children: int) -> None:
    cqt.subtask_many(step, [()] * children)


def family_of(stored: Task) -> Any:
    return Task.objects.filter(parent=stored).order_by("id")


def blocked() -> Task:
    first = fail.delay()
    follower = first.chain(step)
    run_pending()
    assert status_of(follower) == P
    return follower


class TestFollowers:
    def test_one_whose_predecessor_has_ended_is_queued(self) -> None:
        first = step.delay()
        follower = first.chain(step)
        Task.objects.filter(pk=first.pk).update(status=S, ready=None)

        assert mending.mend_all() == 1

        assert status_of(follower) == Q

    def test_one_that_was_blocked_behind_what_has_succeeded_since_is_queued(self) -> None:
        first = fail.delay()
        follower = first.chain(step)
        run_pending()
        Task.objects.filter(pk=first.pk).update(status=S)

        mending.mend_all()

        assert status_of(follower) == Q

    def test_one_whose_predecessor_is_gone_ends(self) -> None:
        first = step.delay()
        follower = first.chain(step)
        last = follower.chain(step)
        Task.objects.filter(pk=first.pk)._raw_delete("default")

        mending.mend_all()

        assert statuses_of(follower, last) == [E, E]
        assert follower.reason == "its predecessor was removed"

    @pytest.mark.parametrize(
        "store",
        [
            lambda: step.delay().chain(step),
            lambda: step.delay_args(submit=False),
            blocked,
        ],
    )
    def test_one_that_waits_rightly_is_left_alone(self, store: Callable[[], Task]) -> None:
        waiting = store()

        assert mending.mend_all() == 0

        assert status_of(waiting) == P


class TestParents:
    def test_one_whose_last_child_was_deleted_ends(self) -> None:
        stored = parent.delay(2)
        run_pending(limit=2)
        family_of(stored).filter(status=Q).delete()
        follower = stored.chain(step)

        assert mending.mend_all() == 1

        assert statuses_of(stored, follower) == [S, Q]

    def test_one_that_miscounted_ends(self) -> None:
        stored = parent.delay(1)
        run_pending(limit=1)
        Task.objects.filter(pk=stored.pk).update(open_children=5)
        run_pending()
        assert status_of(stored) == W

        mending.mend_all()

        assert status_of(stored) == S

    def test_a_cancelled_one_ends_as_it_was_told(self) -> None:
        stored = parent.delay(1)
        run_pending(limit=1)
        family_of(stored)._raw_delete("default")
        stored.cancel()

        mending.mend_all()

        assert (status_of(stored), stored.cause) == (E, Cause.CANCELLED)

    def test_one_with_an_open_child_is_left_alone(self) -> None:
        stored = parent.delay(2)
        run_pending(limit=2)

        assert mending.mend_all() == 0

        assert status_of(stored) == W

    def test_those_above_it_end_too(self) -> None:
        @task
        def grandparent(cqt: Context) -> None:
            cqt.subtask(parent, 1)

        stored = grandparent.delay()
        run_pending(limit=2)
        Task.objects.filter(parent__parent=stored)._raw_delete("default")

        mending.mend_all()

        assert status_of(stored) == S


def test_a_round_looks_at_so_many_and_goes_on_where_it_stopped() -> None:
    first = [step.delay() for _ in range(5)]
    followers = [one.chain(step) for one in first]
    Task.objects.filter(pk__in=[one.pk for one in first]).update(status=S, ready=None)
    mender = Mender()

    mended = [mender.mend(limit=2)]
    while mender.is_underway:
        mended.append(mender.mend(limit=2))

    assert mended == [2, 2, 1]
    assert statuses_of(*followers) == [Q] * 5
