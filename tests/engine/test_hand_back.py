"""What becomes of a task that a worker gives back without having finished it?"""

from __future__ import annotations

import pytest

from cq import claims, leases, recorder, task
from cq.context import Context
from cq.models import Attempt, Task
from cq.outcomes import Claimed, Outcome
from cq.states import Status
from cq.testing import run_pending
from engine.looking import status_of

pytestmark = pytest.mark.django_db

Q, R, S, W = Status.QUEUED, Status.RUNNING, Status.SUCCESS, Status.WAITING


@task
def step(cqt: Context) -> int:
    return cqt.attempt


def claim_one() -> Claimed:
    worker = leases.register(queues=[], threads=1, is_embedded=False, is_scheduler=False)
    return claims.claim(worker, "default", 1)[0]


def hand_back(claimed: Claimed) -> None:
    now = claimed.now()
    recorded = recorder.record([Outcome(claimed, Q, now, now)])
    assert len(recorded.written) == 1


def test_its_attempt_is_not_counted_but_its_claim_stays_used() -> None:
    stored = step.delay()
    claimed = claim_one()

    hand_back(claimed)

    assert status_of(stored) == Q
    assert (stored.attempts, stored.claim, stored.ready) == (0, 1, True)
    assert stored.worker_id is None
    assert not stored.suspect
    assert not Attempt.objects.exists()
    run_pending()
    assert (status_of(stored), stored.result, stored.claim) == (S, 1, 2)


def test_a_late_outcome_of_the_claim_that_was_handed_back_is_dropped() -> None:
    stored = step.delay()
    first = claim_one()
    hand_back(first)
    second = claim_one()
    assert second.attempt == first.attempt  # so the number of the attempt could not tell
    now = first.now()

    recorded = recorder.record([Outcome(first, S, now, now, result="late")])

    assert len(recorded.lost) == 1
    assert (status_of(stored), stored.result) == (R, None)


def test_a_suspect_stays_one() -> None:
    stored = step.delay()
    Task.objects.filter(pk=stored.pk).update(suspect=True)
    worker = leases.register(queues=[], threads=1, is_embedded=False, is_scheduler=False)
    (claimed,) = claims.claim(worker, "default", 1, suspects=True)

    hand_back(claimed)

    assert (status_of(stored), stored.suspect) == (Q, True)


def test_a_retry_that_was_handed_back_keeps_its_budget() -> None:
    @task(retries=1, backoff=0)
    def flaky(cqt: Context) -> int:
        if cqt.attempt == 1:
            raise ValueError("broken")
        return cqt.attempt

    stored = flaky.delay()
    run_pending(limit=1)
    hand_back(claim_one())
    run_pending()

    assert (status_of(stored), stored.result, stored.attempts) == (S, 2, 2)


@pytest.mark.django_db(transaction=True)
def test_subtasks_of_an_async_task_are_stored_at_once() -> None:
    @task
    async def parent(cqt: Context) -> None:
        cqt.subtask(step)
        cqt.log("made one")
        cqt.chain(step)

    stored = parent.delay()
    run_pending(limit=1)

    assert status_of(stored) == W
    assert Task.objects.filter(parent=stored).count() == 1
    run_pending()
    assert status_of(stored) == S
