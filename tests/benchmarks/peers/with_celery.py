"""How does Celery run the bodies?"""

import os

import bodies
from celery import Celery

app = Celery("with_celery", broker=bodies.REDIS)
app.conf.task_ignore_result = True
# At least once, as far as Celery can: the nearest to what is compared with it.
if os.environ.get("LATE"):
    app.conf.task_acks_late = app.conf.task_reject_on_worker_lost = True
    # What a killed worker held comes back after so many seconds; an hour by default.
    app.conf.broker_transport_options = {"visibility_timeout": 30}
TASKS = {body.__name__: app.task(name=body.__name__)(body) for body in bodies.ALL}


def send(name, values):
    for value in values:
        TASKS[name].delay(value)
