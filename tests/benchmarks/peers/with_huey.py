"""How does Huey run the bodies?"""

import bodies
from huey import RedisHuey

huey = RedisHuey("peers", url=bodies.REDIS, results=False)
TASKS = {body.__name__: huey.task()(body) for body in bodies.ALL}


def send(name, values):
    for value in values:
        TASKS[name](value)
