"""How does Channels' own worker run tasks? (`manage.py runworker cq-tasks`)"""

from __future__ import annotations

from typing import Any

from asgiref.sync import sync_to_async
from channels.consumer import AsyncConsumer

from .worker import WorkerLoop, WorkerOptions


class TaskConsumer(AsyncConsumer):
    """Runs what is due whenever a hint arrives."""

    async def cq_wake(self, message: dict[str, Any]) -> None:
        queue = str(message.get("queue", "default"))
        options = WorkerOptions(queues=(queue,), burst=True, scheduler=False)
        await sync_to_async(WorkerLoop(options).run, thread_sensitive=False)()


channel_routing = {"cq-tasks": TaskConsumer.as_asgi()}
