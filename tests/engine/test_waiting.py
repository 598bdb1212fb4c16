"""Does whoever waits for a task come back when it has ended, and not before?"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import connections, transaction

from cq import task, waiting
from cq.context import Context
from cq.exceptions import WaitInTransaction
from cq.models import Task
from cq.states import Status
from cq.testing import run_pending

pytestmark = pytest.mark.django_db(transaction=True)


@task
def double(cqt: Context, number: int) -> int:
    return number * 2


@task
def fail(cqt: Context) -> None:
    raise ValueError("broken")


@contextmanager
def soon(act: Callable[[], object]) -> Iterator[None]:
    """*act* in another thread, a moment after the block has begun to wait."""

    def work() -> None:
        act()
        connections.close_all()

    timer = threading.Timer(0.2, work)
    timer.start()
    yield
    timer.join(20)


def test_it_blocks_until_the_task_has_finished_and_gives_it_back_as_it_is_then() -> None:
    stored = double.delay(21)

    with soon(run_pending):
        waited = stored.wait(timeout=20)

    assert waited is stored
    assert (stored.status, stored.result) == (Status.SUCCESS, 42)


def test_it_waits_for_the_whole_tree_below() -> None:
    @task
    def parent(cqt: Context) -> None:
        cqt.subtask(double, 1)

    stored = parent.delay()
    run_pending(limit=1)

    with soon(run_pending):
        assert stored.wait(timeout=20).subtasks.get().status == Status.SUCCESS


def test_a_failure_is_an_end_as_well_and_is_not_raised() -> None:
    stored = fail.delay()
    run_pending()

    assert stored.wait().error == "ValueError: broken"


def test_past_its_timeout_in_seconds_it_raises_and_says_so() -> None:
    stored = double.delay(21)
    began = monotonic()

    with pytest.raises(TimeoutError, match=r"has not finished within 0.3 s"):
        stored.wait(timeout=0.3)

    assert 0.3 <= monotonic() - began < 5


def test_inside_a_transaction_it_raises_at_once_instead_of_waiting_for_ever() -> None:
    with transaction.atomic():
        stored = double.delay(21)
        with pytest.raises(WaitInTransaction, match="Wait after the block"):
            stored.wait()


@pytest.mark.parametrize("has_layer", [True, False])
def test_a_hint_wakes_it_and_without_one_it_polls(
    has_layer: bool, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = {"BACKEND": "channels.layers.InMemoryChannelLayer"}
    settings.CHANNEL_LAYERS = {"default": memory} if has_layer else {}
    # It would not look again by itself.
    pause = 0.5 if not has_layer else 15.0
    monkeypatch.setattr(waiting, "FIRST_PAUSE", pause)
    monkeypatch.setattr(waiting, "LAST_PAUSE", pause)
    stored = double.delay(21)
    began = monotonic()

    with soon(run_pending):
        stored.wait(timeout=20)

    assert stored.status == Status.SUCCESS
    assert monotonic() - began < 10


async def test_the_async_twin_waits_without_holding_up_its_loop() -> None:
    stored = await double.adelay(21)

    with soon(run_pending):
        waiting_for = asyncio.create_task(stored.await_(timeout=20))
        await asyncio.sleep(0.05)
        was_waiting = not waiting_for.done()
        waited = await waiting_for

    assert was_waiting
    assert waited is stored
    assert stored.result == 42


async def test_the_async_twin_raises_past_its_timeout() -> None:
    stored = await double.adelay(21)

    with pytest.raises(TimeoutError, match=r"has not finished within 0.2 s"):
        await stored.await_(timeout=0.2)

    assert (await Task.objects.aget()).status == Status.QUEUED


async def test_the_async_twin_refuses_to_wait_inside_a_transaction() -> None:
    def begin() -> Any:
        block = transaction.atomic()
        block.__enter__()
        return block

    stored = await double.adelay(21)
    block = await sync_to_async(begin)()
    try:
        with pytest.raises(WaitInTransaction):
            await stored.await_(timeout=5)
    finally:
        await sync_to_async(block.__exit__)(None, None, None)
