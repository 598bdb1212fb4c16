"""Do a web process and the worker in it share one SQLite file in peace?"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from time import sleep

import pytest
from django.db import connection

from cq.models import Task

from . import effects
from . import fleet as workers
from .fleet import FULL, Fleet, say, until
from .web import EVERY

SECONDS = 60.0 if FULL else 6.0
Served = Callable[..., list[list[str]]]

pytestmark = pytest.mark.skipif(connection.vendor != "sqlite", reason="about SQLite")


@pytest.fixture
def serve_and_kill(fleet: Fleet) -> Iterator[Served]:
    """Run a web process for a time and until it said enough, kill it, and return all that it said.

    Of each request it says whether it was committed. Again and again one is made while another
    thread holds the lock.
    """
    started: list[subprocess.Popen[bytes]] = []

    def serve(
        seconds: float, is_enough: Callable[[list[list[str]]], object], **environment: str
    ) -> list[list[str]]:
        said = fleet.folder / "web.log"
        with said.open("wb") as output, (fleet.folder / "workers.log").open("ab") as log:
            web = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("web.py")), str(seconds + 60)],
                env={**fleet.environment, **environment},
                stdout=output,
                stderr=log,
            )
        started.append(web)
        until(lambda: lines_of(said), 60, "the first request")
        sleep(seconds)
        until(lambda: is_enough(lines_of(said)), 60, "enough requests")
        web.kill()
        web.wait()
        return lines_of(said)

    yield serve
    for web in started:
        web.kill()
        web.wait()


def lines_of(said: Path) -> list[list[str]]:
    return [line.split() for line in said.read_text().splitlines()]


def refusals(requests: list[list[str]]) -> list[list[str]]:
    return [line for line in requests if line[0] == "refused"]


def test_a_web_process_is_never_told_that_the_database_is_locked(
    fleet: Fleet, serve_and_kill: Served
) -> None:
    requests = serve_and_kill(SECONDS, lambda lines: effects.seen().rows and len(lines) > 2 * EVERY)

    fleet.start()
    until(
        lambda: workers.are_registered(1) and not workers.open_tasks(), 120, "the end of all tasks"
    )

    committed = {int(line[1]) for line in requests if line[0] == "committed"}
    refused = refusals(requests)
    say(f"{len(committed)} requests in {SECONDS} s, {len(refused)} refused, then kill -9")
    assert len(committed) > SECONDS * 10
    assert not refused
    assert {f"page {number}" for number in committed} <= effects.pages()
    # The last transaction may have been committed and not yet been told of.
    ordered = Task.objects.count()
    assert ordered - sum(number % 5 == 0 for number in committed) in (0, 1)
    assert workers.statuses() == {"S": ordered}, workers.errors()
    assert effects.seen() == effects.exactly_once(ordered)


def test_control_a_web_process_that_does_not_wait_is_told_so(serve_and_kill: Served) -> None:
    requests = serve_and_kill(0.0, refusals, FAULTS_BUSY_TIMEOUT="0")

    assert any("locked" in line for line in refusals(requests))
