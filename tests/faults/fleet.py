"""How does a test start real workers, and find whom to kill?"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from cq.models import Task, Worker

# The full form takes an hour; the short one is part of the test matrix.
FULL = os.environ.get("CQ_FAULTS_FULL") == "1"
MANAGE = Path(__file__).resolve().parents[1] / "demo" / "manage.py"
OPEN = ("P", "Q", "R", "W", "Y")


# Seeds and measurements, shown when all tests have ended.
SAID: list[str] = []


def say(text: str) -> None:
    """Print *text*, and again at the end, whether the test passes or fails."""
    SAID.append(text)
    print(text)


@dataclass
class Fleet:
    """Workers of one test: supervisors, each with its task processes."""

    environment: Mapping[str, str]
    folder: Path
    supervisors: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(
        self,
        *,
        threads: int = 4,
        processes: int = 1,
        patience: float = 1.0,
        scheduler: bool = False,
        prefix: Sequence[str] = (),
        options: Sequence[str] = (),
        **environment: Any,
    ) -> subprocess.Popen[bytes]:
        """Start a supervisor; *prefix* is what runs its command line, *options* end it."""
        command = [*prefix, sys.executable, str(MANAGE), "cq_runworker"]
        command += [] if scheduler else ["--no-scheduler"]
        command += ["--threads", str(threads), "--processes", str(processes)]
        command += ["--shutdown-timeout", str(patience), *options]
        with (self.folder / "workers.log").open("ab") as log:
            supervisor = subprocess.Popen(
                command,
                env={**self.environment, "FAULTS_FOLDER": str(self.folder), **environment},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.supervisors.append(supervisor)
        return supervisor

    def kill(self, supervisor: subprocess.Popen[bytes]) -> None:
        supervisor.kill()
        supervisor.wait()
        self.supervisors.remove(supervisor)

    def kill_one(
        self,
        chance: random.Random,
        spared: subprocess.Popen[bytes] | None = None,
        **environment: Any,
    ) -> str:
        """SIGKILL a task process that runs tasks, or its supervisor, which is started again.

        Returns what was killed; nothing while nobody but the *spared* one runs anything.
        """
        busy = set(
            Task.objects.filter(status="R", worker__stopped__isnull=True)
            .values_list("worker__pid", flat=True)
            .distinct()
        )
        others = [one for one in self.supervisors if one is not spared]
        chosen = [(one, pid) for one in others for pid in children(one.pid)]
        chosen = [(one, pid) for one, pid in chosen if pid in busy]
        if not chosen:
            return ""
        supervisor, pid = chance.choice(chosen)
        if chance.random() < 0.3:
            self.kill(supervisor)
            self.start(**environment)
            return "supervisor"
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        return "task process"

    def stop(self) -> None:
        running = [one for one in self.supervisors if one.poll() is None]
        for supervisor in running:
            for pid in (supervisor.pid, *children(supervisor.pid)):
                os.kill(pid, signal.SIGCONT)
            supervisor.terminate()
        for supervisor in running:
            try:
                supervisor.wait(15)
            except subprocess.TimeoutExpired:
                supervisor.kill()
                supervisor.wait()
        self.supervisors.clear()

    def log(self) -> str:
        return (self.folder / "workers.log").read_text()


def children(pid: int) -> list[int]:
    """The task processes below the supervisor *pid*."""
    try:
        return [
            int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        ]
    except OSError:
        return []


def until(condition: Callable[[], object], seconds: float, what: str = "it") -> float:
    """Wait for *condition*; returns the seconds that it took."""
    began = monotonic()
    while not condition():
        waited = monotonic() - began
        assert waited < seconds, f"{what} did not come to pass within {seconds} s"
        sleep(0.02)
    return monotonic() - began


def are_registered(number: int) -> bool:
    """Have so many task processes started that live by all that is known?"""
    return Worker.objects.filter(stopped__isnull=True).count() >= number


def open_tasks() -> int:
    return Task.objects.filter(status__in=OPEN).count()


def statuses() -> dict[str, int]:
    """How many tasks there are in each status."""
    found: dict[str, int] = {}
    for status in Task.objects.values_list("status", flat=True):
        found[status] = found.get(status, 0) + 1
    return found


def errors() -> list[str]:
    """What the tasks that failed died of, for the message of a failing test."""
    return sorted(set(Task.objects.filter(status="F").values_list("error", flat=True)))
