"""How does Taskiq run the bodies?"""

import asyncio
import os

import bodies
from taskiq_redis import ListQueueBroker, RedisStreamBroker

broker = (RedisStreamBroker if os.environ.get("STREAM") else ListQueueBroker)(bodies.REDIS)


@broker.task(task_name="noop")
async def noop(number):
    bodies.noop(number)


@broker.task(task_name="stamp")
async def stamp(sent):
    bodies.stamp(sent)


TASKS = {"noop": noop, "stamp": stamp}


def send(name, values):
    async def send_all():
        await broker.startup()
        for value in values:
            await TASKS[name].kiq(value)
        await broker.shutdown()

    asyncio.run(send_all())
