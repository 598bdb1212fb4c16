"""How does a measure get an empty database and a real worker?"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit

import django

TESTS = Path(__file__).resolve().parents[1]


def set_up() -> None:
    """Make the benchmark's database anew, and let Django use it."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "benchmarks.settings")
    from benchmarks import places

    places.FOLDER.mkdir(parents=True, exist_ok=True)
    url = places.database_url()
    if url.startswith("sqlite"):
        for file in places.FOLDER.glob("bench.sqlite3*"):
            file.unlink()
    else:
        make_database(url)
    _empty_redis(places.REDIS)
    django.setup()
    from django.core.management import call_command
    from django.db import connection

    call_command("migrate", verbosity=0)
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE bench_effect (number integer)")


def make_database(url: str) -> None:
    """Drop and create the PostgreSQL database that *url* names."""
    import psycopg

    name = urlsplit(url).path[1:]
    with psycopg.connect(url.replace(f"/{name}", "/postgres"), autocommit=True) as server:
        server.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        server.execute(f'CREATE DATABASE "{name}"')


def empty() -> None:
    """Leave no task behind."""
    from django.db import connection

    with connection.cursor() as cursor:
        for name in ("cq_task", "cq_tasklog", "cq_attempt", "cq_statistic", "bench_effect"):
            if connection.vendor == "postgresql":
                cursor.execute(f"TRUNCATE {name}")
            else:
                cursor.execute(f"DELETE FROM {name}")
        cursor.execute("VACUUM ANALYZE" if connection.vendor == "postgresql" else "ANALYZE")


@contextlib.contextmanager
def worker(*options: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A `cq_runworker` of its own, as an operator starts it; it has registered when this yields."""
    from benchmarks import places
    from cq.models import Worker

    before = Worker.objects.count()
    with (places.FOLDER / "worker.log").open("ab") as log:
        popen = subprocess.Popen(
            [sys.executable, "-m", "django", "cq_runworker", *options],
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)]),
                **environment,
            },
            stdout=log,
            stderr=log,
        )
    try:
        until(lambda: Worker.objects.count() > before, 60)
        yield popen
    finally:
        popen.send_signal(signal.SIGTERM)
        try:
            popen.wait(20)
        except subprocess.TimeoutExpired:
            popen.kill()
            popen.wait()


def until(condition: Callable[[], object], seconds: float) -> None:
    """Wait for *condition*; whoever waits in vain has nothing to report."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds} s")
        time.sleep(0.05)


def until_done(count: int, seconds: float = 300) -> str:
    """Wait until *count* tasks are done; returns what became of them, e.g. ``20000 x S``."""
    from django.db.models import Count

    from cq.models import Task

    # One row a look: counting would compete with what is measured.
    until(lambda: not Task.objects.filter(status__in=["P", "Q", "R", "W", "Y"]).exists(), seconds)
    found = Task.objects.values_list("status").annotate(Count("pk")).order_by("status")
    statuses = dict(found.values_list("status", "pk__count"))
    if statuses != {"S": count}:
        raise AssertionError(f"expected {count} x S, found {statuses}")
    return f"{count} x S"


def seconds_of_work() -> float:
    """From the start of the first task to the end of the last, by the rows' times."""
    from django.db.models import Max, Min

    from cq.models import Task

    found = Task.objects.aggregate(first=Min("started"), last=Max("finished"))
    first, last = found["first"], found["last"]
    assert isinstance(first, datetime)
    assert isinstance(last, datetime)
    return (last - first).total_seconds()


def task_processes(supervisor: int) -> list[int]:
    """The processes below *supervisor*."""
    path = Path(f"/proc/{supervisor}/task/{supervisor}/children")
    return [int(child) for child in path.read_text().split()]


def resident_megabytes(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise ProcessLookupError(pid)


def _empty_redis(url: str) -> None:
    import redis

    redis.Redis.from_url(url).flushdb()
