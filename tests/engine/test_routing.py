"""Does Channels' own worker run tasks? (`manage.py runworker cq-tasks`)"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from channels.testing import ApplicationCommunicator

from cq import task
from cq.models import Task, Worker
from cq.routing import channel_routing
from cq.states import Status

pytestmark = pytest.mark.django_db(transaction=True)


@task("routing.double", atomic=False)
def double(cqt: Any, number: int) -> int:
    return 2 * number


@task("routing.parent")
def parent(cqt: Any) -> None:
    cqt.subtask_many(double, [(1,), (2,)])


async def test_a_wake_lets_what_is_due_run_with_all_that_follows() -> None:
    await parent.adelay()
    consumer = ApplicationCommunicator(
        channel_routing["cq-tasks"], {"type": "channel", "channel": "cq-tasks"}
    )

    await consumer.send_input({"type": "cq.wake", "queue": "default"})
    async with asyncio.timeout(60):
        while await Task.objects.active().aexists():
            await consumer.receive_nothing(0.05)

    assert {row.status async for row in Task.objects.all()} == {Status.SUCCESS}
    assert await Task.objects.acount() == 3
    async with asyncio.timeout(60):
        while await Worker.objects.filter(stopped=None).aexists():
            await consumer.receive_nothing(0.05)
