"""What do the others reach, with the same tasks on the same machine?"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import places, stage
from benchmarks.figures import Figure

HERE = Path(__file__).resolve().parent / "peers"
# Not `sys.executable`: that may be a link to the interpreter outside the environment.
BIN = Path(sys.prefix) / "bin"
POSTGRES = f"{places.POSTGRES}_peers"
PATIENCE = 120.0
LATENCIES = 200


@dataclass(frozen=True)
class Peer:
    """Another task queue, in one configuration."""

    module: str
    command: str
    count: int = 20_000
    environment: Mapping[str, str] = field(default_factory=dict)
    is_fast: bool = False
    inserts: bool = False
    has_latency: bool = False


PEERS = {
    "Taskiq list, 1 process": Peer(
        "with_taskiq",
        "taskiq worker with_taskiq:broker -w 1 --log-level ERROR",
        is_fast=True,
        has_latency=True,
    ),
    "Taskiq list, 2 processes": Peer(
        "with_taskiq", "taskiq worker with_taskiq:broker -w 2 --log-level ERROR", is_fast=True
    ),
    "Taskiq stream, 1 process": Peer(
        "with_taskiq",
        "taskiq worker with_taskiq:broker -w 1 --log-level ERROR",
        environment={"STREAM": "1"},
        is_fast=True,
    ),
    "Huey, 10 threads": Peer(
        "with_huey", "huey_consumer with_huey.huey -w 10 -q", is_fast=True, has_latency=True
    ),
    "Dramatiq, 2 x 8": Peer("with_dramatiq", "dramatiq with_dramatiq -p 2 -t 8", is_fast=True),
    "Dramatiq, 1 x 10": Peer("with_dramatiq", "dramatiq with_dramatiq -p 1 -t 10"),
    "Celery, 10 threads": Peer(
        "with_celery",
        "celery -A with_celery worker -P threads -c 10 -l error",
        is_fast=True,
        has_latency=True,
    ),
    "Celery acks_late, 2 processes": Peer(
        "with_celery",
        "celery -A with_celery worker -c 2 -l error",
        environment={"LATE": "1"},
        is_fast=True,
        inserts=True,
    ),
    "Procrastinate": Peer(
        "with_procrastinate",
        "procrastinate --log-level error --app=with_procrastinate.app worker -c 10",
        count=5_000,
        has_latency=True,
    ),
    "django-ox, 10 threads": Peer(
        "with_django",
        "python -m django ox_worker --concurrency 10 --interval 0.05 --lock-timeout 10"
        " --settings django_peers.settings",
        count=5_000,
        environment={"PEERS_ENGINE": "django_ox"},
        has_latency=True,
    ),
}


def measure(scale: float) -> Iterator[Figure]:
    only_fast = bool(os.environ.get("BENCH_FAST_PEERS_ONLY"))
    chosen = os.environ.get("BENCH_PEERS", "")
    for name, peer in PEERS.items():
        if chosen not in name or (only_fast and not peer.is_fast):
            continue
        if not (BIN / peer.command.split()[0]).exists():
            print(f"{name}: not installed in {BIN}", flush=True)
            continue
        try:
            yield from _measure(name, peer, max(100, int(peer.count * scale)))
        except (TimeoutError, subprocess.CalledProcessError) as error:
            print(f"{name}: {error}", flush=True)


def _measure(name: str, peer: Peer, count: int) -> Iterator[Figure]:
    rate, drained = _throughput(peer, count)
    yield Figure("drain", name, drained, "/s", f"first to last of {count}")
    yield Figure("delay(), autocommit", name, rate, "/s", f"{count} sent")
    if peer.inserts:
        inserts = max(100, count // 4)
        found = _inserts(peer, inserts)
        yield Figure("atomic INSERT, two processes", name, found, "/s", f"{inserts} rows")
    if peer.has_latency:
        waits = _latencies(peer)
        cuts = statistics.quantiles(waits, n=100)
        yield Figure("start latency p50", name, cuts[49], "ms", f"{len(waits)} tasks")
        yield Figure("start latency p99", name, cuts[98], "ms", f"{len(waits)} tasks")


def _throughput(peer: Peer, count: int) -> tuple[float, float]:
    with _environment(peer, count) as environment:
        sent = _send(peer, "noop", count, environment)
        first, last = (Path(environment["PEERS_MARKS"], str(n)) for n in (0, count - 1))
        with _worker(peer, environment):
            stage.until(lambda: first.exists() and last.exists() and last.read_text(), PATIENCE)
        took = float(last.read_text()) - float(first.read_text())
    return count / sent, count / took


def _inserts(peer: Peer, count: int) -> float:
    """Rows a second, from the first row on."""
    import psycopg

    with (
        _environment(peer, count) as environment,
        psycopg.connect(POSTGRES, autocommit=True) as server,
    ):
        server.execute(
            "CREATE TABLE bench_effect (number integer, made timestamptz DEFAULT clock_timestamp())"
        )

        def rows() -> int:
            found = server.execute("SELECT count(*) FROM bench_effect").fetchone()
            return 0 if found is None else int(found[0])

        _send(peer, "insert", count, environment)
        with _worker(peer, environment):
            stage.until(lambda: rows() >= count, PATIENCE)
        took = server.execute(
            "SELECT extract(epoch FROM max(made) - min(made)) FROM bench_effect"
        ).fetchone()
    assert took is not None
    return count / float(took[0])


def _latencies(peer: Peer) -> list[float]:
    with _environment(peer, 0) as environment:
        marks = Path(environment["PEERS_MARKS"], "latency")
        with _worker(peer, environment):
            _send(peer, "stamp", 1, environment)
            stage.until(marks.exists, 30)
            time.sleep(1)
            marks.unlink()
            _send(peer, "stamp", LATENCIES, environment)
            stage.until(lambda: marks.exists() and marks.read_text().count("\n") == LATENCIES, 30)
        return [1000 * float(line) for line in marks.read_text().split()]


@contextlib.contextmanager
def _environment(peer: Peer, count: int) -> Iterator[dict[str, str]]:
    """An empty database, an empty Redis and an empty folder for marks."""
    import redis

    stage.make_database(POSTGRES)
    redis.Redis.from_url(places.REDIS).flushdb()
    marks = tempfile.mkdtemp(prefix="cq-bench-peers-")
    environment = {
        **os.environ,
        **peer.environment,
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(HERE),
        "PEERS_POSTGRES": POSTGRES,
        "PEERS_REDIS": places.REDIS,
        "PEERS_MARKS": marks,
        "PEERS_COUNT": str(count),
    }
    try:
        if peer.module == "with_procrastinate":
            _run("procrastinate --app=with_procrastinate.app schema --apply", environment)
        if peer.module == "with_django":
            _run("python -m django migrate -v0 --settings django_peers.settings", environment)
        yield environment
    finally:
        shutil.rmtree(marks, ignore_errors=True)


def _run(command: str, environment: Mapping[str, str]) -> str:
    program, *arguments = command.split()
    return subprocess.run(
        [str(BIN / program), *arguments],
        cwd=HERE,
        env=environment,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout


def _send(peer: Peer, body: str, count: int, environment: Mapping[str, str]) -> float:
    """Seconds that the peer's own caller took."""
    return float(_run(f"python {HERE / 'send.py'} {peer.module} {body} {count}", environment))


@contextlib.contextmanager
def _worker(peer: Peer, environment: Mapping[str, str]) -> Iterator[None]:
    program, *arguments = peer.command.split()
    places.FOLDER.mkdir(parents=True, exist_ok=True)
    with (places.FOLDER / "peers.log").open("ab") as log:
        worker = subprocess.Popen(
            [str(BIN / program), *arguments],
            cwd=HERE,
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(worker.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            worker.wait(10)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()
