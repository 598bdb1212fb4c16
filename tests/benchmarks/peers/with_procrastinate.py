"""How does Procrastinate run the bodies?"""

import os

import bodies
import procrastinate

app = procrastinate.App(
    connector=procrastinate.PsycopgConnector(conninfo=bodies.POSTGRES, max_size=12)
)


@app.task(name="noop")
async def noop(number):
    bodies.noop(number)


@app.task(name="stamp")
async def stamp(number):
    bodies.stamp(number)


@app.task(name="effect")
def effect(number):
    bodies.effect(number)


if os.environ.get("RETRY_STALLED"):
    # As its documentation proposes, only more often.
    @app.periodic(cron="* * * * * */10")
    @app.task(queueing_lock="retry_stalled", pass_context=True)
    async def retry_stalled(context, timestamp):
        for job in await app.job_manager.get_stalled_jobs(seconds_since_heartbeat=10):
            await app.job_manager.retry_job(job)


TASKS = {"noop": noop, "stamp": stamp, "effect": effect}


def send(name, values):
    connector = procrastinate.SyncPsycopgConnector(conninfo=bodies.POSTGRES)
    with app.replace_connector(connector) as sync, sync.open():
        for value in values:
            TASKS[name].defer(number=value)
