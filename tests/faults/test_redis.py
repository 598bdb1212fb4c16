"""Does an outage of Redis cost anything but latency?"""

from __future__ import annotations

import asyncio
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from statistics import median
from time import monotonic, sleep
from typing import Any
from unittest.mock import patch

import pytest
import redis
from asgiref.sync import async_to_sync
from channels.layers import channel_layers, get_channel_layer
from django.db import connection
from django.db.models import F
from pytest_django import Settings

from cq import enqueue
from cq.models import Task

from . import effects
from . import fleet as workers
from .fleet import FULL, Fleet, say, until
from .tasks import add

SECONDS = 20.0 if FULL else 3.0
POLL = 0.5
# The bounds are those of a machine that does nothing else.
SLACK = 1.0

pytestmark = [
    pytest.mark.skipif(not shutil.which("redis-server"), reason="no redis-server here"),
    pytest.mark.skipif(connection.vendor != "postgresql", reason="shown on PostgreSQL"),
]


class RedisServer:
    """A Redis of our own, to be stopped, emptied and silenced."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"redis://127.0.0.1:{port}/0"
        command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
        self._command = [*command, "--dir", str(folder)]
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        until(self._answers, 10, "Redis")

    def stop(self) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait()

    def flush(self) -> None:
        with redis.Redis.from_url(self.url) as client:
            client.flushall()

    def _answers(self) -> bool:
        with suppress(redis.RedisError), redis.Redis.from_url(self.url) as client:
            return bool(client.ping())
        return False


@pytest.fixture
def server(tmp_path: Path, settings: Settings) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path)
    settings.CHANNEL_LAYERS = {
        "default": {
            "BACKEND": "channels_redis.core.RedisChannelLayer",
            "CONFIG": {"hosts": [{"address": server.url, "socket_timeout": None}]},
        }
    }
    channel_layers.backends.clear()
    yield server
    server.stop()


def enqueue_for(seconds: float, prefix: str) -> list[float]:
    """Twenty delay() a second; returns for how long each was kept by its hints."""
    kept: list[float] = []
    send_hints = enqueue.send_hints

    def timed(*args: Any) -> None:
        began = monotonic()
        send_hints(*args)
        kept.append(monotonic() - began)

    with patch.object(enqueue, "send_hints", timed):
        deadline = monotonic() + seconds
        while monotonic() < deadline:
            add.delay(f"{prefix} {len(kept)}")
            sleep(0.05)
    return kept


def starts(prefix: str) -> list[float]:
    """Seconds from due to started, shortest first."""
    tasks = Task.objects.filter(args__0__startswith=prefix, started__isnull=False)
    waited = tasks.values_list(F("started") - F("run_at"), flat=True)
    return sorted(pause.total_seconds() for pause in waited)


def most(seconds: list[float]) -> float:
    """What all but one in a hundred keep within; this process, too, waits for its turn."""
    return sorted(seconds)[len(seconds) * 99 // 100]


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param("stopped", marks=pytest.mark.full),
        pytest.param("flushed", marks=pytest.mark.full),
        "silent",
        # The control: it does not come back.
        pytest.param("gone", marks=pytest.mark.full),
    ],
)
def test_an_outage_of_redis_costs_latency_and_nothing_else(
    fleet: Fleet, server: RedisServer, fault: str
) -> None:
    fleet.start(DEMO_REDIS_URL=server.url, FAULTS_POLL=str(POLL))
    add.delay("warm up")
    until(lambda: not workers.open_tasks(), 180, "the first task")
    before = enqueue_for(SECONDS / 4, "before")
    if fault in ("stopped", "gone"):
        server.stop()
    elif fault == "flushed":
        server.flush()
    else:
        server.process.send_signal(signal.SIGSTOP)

    during = enqueue_for(SECONDS, "during")

    if fault == "stopped":
        server.start()
    if fault == "silent":
        server.process.send_signal(signal.SIGCONT)
    sleep(5.0)
    after = enqueue_for(SECONDS / 4, "after")
    until(lambda: not workers.open_tasks(), 10 + SLACK, "the end of all tasks")

    number = 1 + len(before) + len(during) + len(after)
    say(
        f"Redis {fault} for {SECONDS} s: hints kept delay() for {most(during) * 1000:.1f} ms "
        f"(usually {most(before) * 1000:.1f}), slowest start {starts('during')[-1]:.2f} s; the "
        f"usual start {median(starts('before')):.3f} s, 5 s later {median(starts('after')):.3f} s"
    )
    assert workers.statuses() == {"S": number}
    assert effects.seen() == effects.exactly_once(number)
    assert most(during) < 0.05
    assert starts("during")[-1] < POLL + SLACK
    is_back = median(starts("after")) < POLL / 4
    assert is_back is (fault != "gone")


def test_control_a_message_sent_directly_fails_or_blocks_while_redis_is_away(
    fleet: Fleet, server: RedisServer
) -> None:
    layer: Any = get_channel_layer()

    async def send() -> None:
        async with asyncio.timeout(0.5):
            await layer.send("somebody", {"type": "hint"})

    async_to_sync(send)()
    server.process.send_signal(signal.SIGSTOP)
    with pytest.raises(TimeoutError):
        async_to_sync(send)()

    server.stop()
    with pytest.raises((OSError, redis.RedisError)):
        async_to_sync(send)()


@pytest.mark.full
def test_control_without_polls_an_outage_leaves_tasks_behind(
    fleet: Fleet, server: RedisServer
) -> None:
    fleet.start(DEMO_REDIS_URL=server.url, FAULTS_POLL="3600")
    until(lambda: workers.are_registered(1), 60, "the worker")
    # The hint before it listens is kept by Redis.
    add.delay("warm up")
    until(lambda: not workers.open_tasks(), 180, "the first task")
    server.stop()

    during = enqueue_for(1.0, "during")

    with pytest.raises(AssertionError, match="did not come to pass"):
        until(lambda: len(starts("during")) == len(during), 3 * POLL + SLACK, "their starts")


def test_control_hints_that_are_waited_for_block_delay(fleet: Fleet, server: RedisServer) -> None:
    layer: Any = get_channel_layer()

    async def send() -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(0.2):
                await layer.send("cq-tasks", {"type": "hint"})

    async_to_sync(send)()
    server.process.send_signal(signal.SIGSTOP)
    with patch.object(enqueue, "send_hints", lambda *_args: async_to_sync(send)()):
        during = enqueue_for(1.0, "during")

    assert most(during) >= 0.05
