"""Whose effects are there exactly once after a storm of SIGKILLs? storm.py [name …] [--tasks N]

Four workers run tasks that each insert a row and increment one counter in one transaction. Twice a
second a random process of a random worker is killed with SIGKILL; a worker whose main process died
is started again at once, as a service manager would. Afterwards the workers go on undisturbed until
all is done, or until nothing has moved for a while.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
# A script's own folder is on the path; its modules are known by one name only.
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != HERE]
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1])]

import psycopg  # noqa: E402

from benchmarks import places, stage  # noqa: E402

BIN = Path(sys.prefix) / "bin"
POSTGRES = f"{places.POSTGRES}_storm"
WORKERS = 4
PAUSE = 0.5
CELERY = "celery -A with_celery worker -c 4 -l error --without-mingle --without-gossip"


@dataclass(frozen=True)
class Entrant:
    """A task queue, set up to lose nothing as its documentation says."""

    module: str
    command: str
    prepare: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)


DJANGO = "python -m django {} --settings django_peers.settings"
MIGRATE = DJANGO.format("migrate -v0")
ENTRANTS = {
    "django-cq": Entrant(
        "with_django",
        DJANGO.format("cq_runworker --threads 4"),
        MIGRATE,
        {"PEERS_ENGINE": "cq"},
    ),
    "django-ox": Entrant(
        "with_django",
        DJANGO.format("ox_worker --concurrency 4 --interval 0.05 --lock-timeout 10"),
        MIGRATE,
        {"PEERS_ENGINE": "django_ox"},
    ),
    "django-tasks-db": Entrant(
        "with_django",
        DJANGO.format("db_worker --interval 0.05"),
        MIGRATE,
        {"PEERS_ENGINE": "django_tasks_db"},
    ),
    "Celery acks_late": Entrant("with_celery", CELERY, environment={"LATE": "1"}),
    "Procrastinate": Entrant(
        "with_procrastinate",
        "procrastinate --log-level error --app=with_procrastinate.app worker -c 4",
        "procrastinate --app=with_procrastinate.app schema --apply",
        {"RETRY_STALLED": "1"},
    ),
}


@dataclass
class Result:
    """What was counted when nothing moved any more."""

    keys: int
    rows: int
    counter: int
    kills: int = 0
    seconds: float = 0.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=", ".join(ENTRANTS))
    parser.add_argument("--tasks", type=int, default=1_000)
    parser.add_argument("--kills", type=int, default=40, help="at most so many")
    parser.add_argument("--patience", type=float, default=90.0, help="seconds without a new row")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    options = parser.parse_args()
    if unknown := set(options.names) - set(ENTRANTS):
        parser.error(f"no such entrant: {', '.join(sorted(unknown))}")
    print(f"{options.tasks} tasks, at most {options.kills} kills, seed {options.seed}\n")
    print("| | kills | tasks never done | effects twice | counter | seconds |")
    print("| --- | --- | --- | --- | --- | --- |", flush=True)
    for name in options.names or ENTRANTS:
        chance = random.Random(options.seed)
        found = storm(ENTRANTS[name], options.tasks, options.kills, options.patience, chance)
        print(
            f"| {name} | {found.kills} | {options.tasks - found.keys} | {found.rows - found.keys}"
            f" | {found.counter} | {found.seconds:.0f} |",
            flush=True,
        )
    return 0


def storm(
    entrant: Entrant, tasks: int, kills: int, patience: float, chance: random.Random
) -> Result:
    with _environment(entrant, tasks) as environment:
        _run(f"python {HERE / 'peers' / 'send.py'} {entrant.module} effect {tasks}", environment)
        with _Workers(entrant.command, environment) as workers:
            stage.until(lambda: _count().rows, 60)
            began, killed = time.monotonic(), 0
            while killed < kills and _count().keys < tasks:
                killed += workers.kill_one(chance)
                time.sleep(PAUSE)
            seconds = _wait(tasks, patience) - began
            # Who does something twice may do so late.
            time.sleep(5)
    found = _count()
    found.kills, found.seconds = killed, seconds
    return found


def _wait(tasks: int, patience: float) -> float:
    """Wait for the last task, or until nothing has moved for *patience*; returns when it moved."""
    rows, moved = -1, time.monotonic()
    while (found := _count()).keys < tasks and time.monotonic() - moved < patience:
        if found.rows != rows:
            rows, moved = found.rows, time.monotonic()
        time.sleep(0.2)
    return time.monotonic() if found.keys == tasks else moved


def _count() -> Result:
    with psycopg.connect(POSTGRES, autocommit=True) as server:
        found = server.execute(
            "SELECT count(DISTINCT number), count(*), (SELECT value FROM storm_counter)"
            " FROM storm_effect"
        ).fetchone()
    assert found is not None
    return Result(*found)


class _Workers:
    """Four workers, each the main process of a service, with whatever it starts below it."""

    def __init__(self, command: str, environment: Mapping[str, str]) -> None:
        self._command = command.split()
        self._environment = environment

    def __enter__(self) -> _Workers:
        self._mains = [self._start() for _number in range(WORKERS)]
        return self

    def __exit__(self, *_error: object) -> None:
        for main in self._mains:
            main.send_signal(signal.SIGTERM)
        for main in self._mains:
            with contextlib.suppress(subprocess.TimeoutExpired):
                main.wait(10)
            self._kill_with_children(main)

    def kill_one(self, chance: random.Random) -> bool:
        """Kill one process; a main one takes its children along, and is started again."""
        position = chance.randrange(WORKERS)
        main = self._mains[position]
        victim = chance.choice([main.pid, *_below(main.pid)])
        if victim == main.pid:
            self._kill_with_children(main)
            self._mains[position] = self._start()
            return True
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
        return True

    def _kill_with_children(self, main: subprocess.Popen[bytes]) -> None:
        for pid in (main.pid, *_below(main.pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        main.wait()

    def _start(self) -> subprocess.Popen[bytes]:
        program, *arguments = self._command
        with (places.FOLDER / "storm.log").open("ab") as log:
            return subprocess.Popen(
                [str(BIN / program), *arguments],
                cwd=HERE / "peers",
                env=self._environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )


def _below(pid: int) -> list[int]:
    """The processes below *pid*, however deep."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for child in stage.task_processes(pid):
            found += [child, *_below(child)]
    return found


@contextlib.contextmanager
def _environment(entrant: Entrant, tasks: int) -> Iterator[dict[str, str]]:
    """An empty database and an empty Redis."""
    import redis

    places.FOLDER.mkdir(parents=True, exist_ok=True)
    stage.make_database(POSTGRES)
    with psycopg.connect(POSTGRES, autocommit=True) as server:
        # No unique key: a second effect is to be seen, not to be refused.
        server.execute("CREATE TABLE storm_effect (number integer)")
        server.execute("CREATE TABLE storm_counter (value integer)")
        server.execute("INSERT INTO storm_counter VALUES (0)")
    redis.Redis.from_url(places.REDIS).flushdb()
    environment = {
        **os.environ,
        **entrant.environment,
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join([str(HERE / "peers"), str(HERE.parent)]),
        "PEERS_POSTGRES": POSTGRES,
        "PEERS_REDIS": places.REDIS,
        "PEERS_MARKS": str(places.FOLDER),
        "PEERS_COUNT": str(tasks),
    }
    if entrant.prepare:
        _run(entrant.prepare, environment)
    yield environment


def _run(command: str, environment: Mapping[str, str]) -> None:
    program, *arguments = command.split()
    subprocess.run(
        [str(BIN / program), *arguments],
        cwd=HERE / "peers",
        env=environment,
        check=True,
        stdout=subprocess.DEVNULL,
    )


if __name__ == "__main__":
    sys.exit(main())
