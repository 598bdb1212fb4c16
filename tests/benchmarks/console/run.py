"""Measure the console's budgets: run.py [--tasks N] [--lines N] [--database postgresql|sqlite]"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
# A script's own folder is on the path; its modules are known by one name only.
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != HERE]
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parents[2])]

VIEWERS = 5
RATE = 1_000
# Tasks a second, of those, that must have been done meanwhile.
LEAST = 900
WARM_UP = 3
READY = "ready\n"
LIST = "/admin/cq/task/"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int)
    parser.add_argument("--lines", type=int)
    parser.add_argument("--database", choices=("postgresql", "sqlite"), default="postgresql")
    parser.add_argument("--requests", type=int, default=30, help="of each page")
    parser.add_argument("--child", choices=("viewer", "feeder"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.environ["BENCH_DATABASE"] = options.database
    os.environ["DJANGO_SETTINGS_MODULE"] = "benchmarks.console.settings"
    if options.child:
        return _be_viewer() if options.child == "viewer" else _be_feeder()
    is_small = options.database == "sqlite"
    tasks = options.tasks or (100_000 if is_small else 1_000_000)
    return _measure(tasks, options.lines or 10 * tasks, options.database, options.requests)


def _measure(tasks: int, lines: int, database: str, requests: int) -> int:
    from benchmarks import stage
    from benchmarks.console import crowd
    from benchmarks.figures import Figure, table

    began = time.monotonic()
    stage.set_up()
    found = crowd.fill(tasks, lines)
    print(f"{tasks:,} tasks and {lines:,} lines in {time.monotonic() - began:.0f} s", flush=True)
    figures = []
    client = _client("measurer")
    who = f"{database}, {tasks:,} tasks, {lines:,} lines"
    with _everyday(database) as load:
        for name, budget, ask in _asked(client, found):
            took, verified = _p95(ask, requests)
            figures.append(Figure(name, who, took * 1000, "ms", verified, f"<= {budget}"))
            print(table(figures[-1:]).splitlines()[-1], flush=True)
        done, looks = load()
    # Without its load a budget is easily kept.
    figures.append(Figure("load: tasks done", who, done, "/s", "rows that ended", f">= {LEAST}"))
    watched = f"{VIEWERS} viewers' requests, each answered"
    figures.append(Figure("load: looks", who, looks, "/s", watched, f">= {VIEWERS}"))
    print(table(figures))
    return int(any(figure.verdict == "MISSED" for figure in figures))


def _asked(client: Any, found: Any) -> Iterator[tuple[str, int, Callable[[], Any]]]:
    """Each line of the table of budgets: what, at most how many milliseconds, and how."""
    from cq.models import Task
    from cq_console.queries import walk
    from cq_console.views import overview

    middle = walk.SUBMITTED.place(Task.objects.order_by("id").only("id")[found.tasks // 3])
    number = found.tasks // 2
    page = f"{LIST}{found.tree}/"

    def fresh() -> Any:
        overview.forget()
        return client.get("/admin/cq/")

    def get(url: str) -> Callable[[], Any]:
        return lambda: client.get(url)

    failed = iter(Task.objects.filter(status="F").order_by("id")[:500])

    def post() -> Any:
        task = next(failed)
        return client.post(f"{LIST}{task.id}/do/retry/", {"seen": f"F:{task.attempts}"})

    yield "task list, first page", 200, get(LIST)
    yield "task list, deep page", 200, get(f"{LIST}?q=is:any&before={middle}")
    yield "task list, failed", 200, get(f"{LIST}?q=status:failed")
    yield "task list, by end", 200, get(f"{LIST}?q=is:any&sort=finished")
    yield "counts of the list", 500, get(f"{LIST}_count/?q=status:failed")
    yield "search by argument", 500, get(f"{LIST}?q=args.order_id:{number}")
    yield "search, many find it", 500, get(f"{LIST}?q=args.country:at+status:failed")
    yield "search, nothing finds it", 500, get(f"{LIST}?q=args.order_id:-1+queue:mail")
    yield "task page, 10,000 nodes", 500, get(page)
    yield "log, last page", 500, get(f"{LIST}{found.logged}/?tab=logs")
    yield "log, one search window", 500, get(f"{LIST}{found.logged}/?tab=logs&text=nowhere")
    yield "overview, computed anew", 300, fresh
    yield "failures", 300, get(f"{LIST}failures/")
    yield "workers", 300, get("/admin/cq/worker/")
    yield "queues, a day", 300, get("/admin/cq/queue/?span=day")
    yield "POST retry", 300, post
    yield "bulk preview, failed", 5_000, get(f"{LIST}all/retry/?q=status:failed")
    yield "bulk preview, everything", 5_000, get(f"{LIST}all/run-again/?q=is:any")


def _p95(ask: Callable[[], Any], requests: int) -> tuple[float, str]:
    took = []
    statuses: set[int] = set()
    for _ in range(WARM_UP):
        ask()
    for _ in range(requests):
        began = time.perf_counter()
        response = ask()
        took.append(time.perf_counter() - began)
        statuses.add(response.status_code)
        assert response.status_code in (200, 302, 303), response.status_code
    took.sort()
    median = took[len(took) // 2] * 1000
    return took[int(len(took) * 0.95)], f"{len(took)} x {sorted(statuses)}, median {median:.0f} ms"


@contextmanager
def _everyday(database: str) -> Iterator[Callable[[], tuple[float, float]]]:
    """Five viewers who watch, and a worker that runs what comes, a thousand tasks a second.

    Yields a function that ends the watching and says how many tasks ended, and how often the
    viewers looked, a second.
    """
    from benchmarks import stage, tasks
    from cq.models import Task

    def ended() -> int:
        return Task.objects.filter(status="S", func_name=tasks.noop.name).count()

    with ExitStack() as stack:
        stack.enter_context(stage.worker("--threads", "4"))
        children = []
        for child in ["feeder", *["viewer"] * VIEWERS]:
            command = [sys.executable, __file__, "--child", child, "--database", database]
            process = subprocess.Popen(command, env=os.environ, stdout=subprocess.PIPE, text=True)
            stack.callback(process.wait)
            stack.callback(process.terminate)
            children.append(process)
        # To start six processes keeps both cores busy for a while: that is no everyday load.
        for process in children:
            assert process.stdout is not None
            assert process.stdout.readline() == READY
        stage.until(lambda: Task.objects.filter(ready=True).count() < RATE, 60)
        began, before = time.monotonic(), ended()

        def load() -> tuple[float, float]:
            seconds, number = time.monotonic() - began, ended() - before
            looks = 0
            for viewer in children[1:]:
                viewer.terminate()
                looks += int(viewer.communicate(timeout=30)[0] or 0)
            return number / seconds, looks / seconds

        yield load


def _be_viewer() -> int:
    """Look at the overview, the list and a failed list, as a page that is nudged does."""
    import django

    django.setup()
    client = _client(f"viewer{os.getpid()}")
    pages = ["/admin/cq/task/_overview/?have=cq-health:0", f"{LIST}_live/", LIST]
    looks = 0

    def say(*_signal: Any) -> None:
        print(looks, flush=True)
        os._exit(0)

    signal.signal(signal.SIGTERM, say)
    while True:
        response = client.get(pages[looks % len(pages)], headers={"HX-Request": "true"})
        assert response.status_code in (200, 204), response.status_code
        looks += 1
        if looks == len(pages):
            print(READY, end="", flush=True)
        time.sleep(0.5)


def _be_feeder() -> int:
    import django

    django.setup()
    from django.db import OperationalError

    from benchmarks import tasks

    print(READY, end="", flush=True)
    due = time.monotonic()
    while True:
        due += 0.1
        try:
            tasks.noop.delay_many([(number,) for number in range(RATE // 10)])
        except OperationalError as error:
            print("feeder:", error, file=sys.stderr)
        time.sleep(max(0.0, due - time.monotonic()))


def _client(name: str) -> Any:
    from django.contrib.auth.models import User
    from django.test import Client

    user, _made = User.objects.get_or_create(
        username=name, defaults={"is_staff": True, "is_superuser": True}
    )
    client = Client()
    client.force_login(user)
    return client


if __name__ == "__main__":
    sys.exit(main())
