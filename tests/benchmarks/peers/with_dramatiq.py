"""How does Dramatiq run the bodies?"""

import bodies
import dramatiq
from dramatiq.brokers.redis import RedisBroker

dramatiq.set_broker(RedisBroker(url=bodies.REDIS))
TASKS = {body.__name__: dramatiq.actor(body) for body in bodies.ALL}


def send(name, values):
    for value in values:
        TASKS[name].send(value)
