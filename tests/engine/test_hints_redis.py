"""Do hints travel between processes over Redis, and survive its outages?"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pytest_django import Settings

from cq import hints
from cq.hints import outbox

REPOSITORY = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(
    "DEMO_REDIS_URL" not in os.environ, reason="DEMO_REDIS_URL names no Redis"
)


def until(condition: Callable[[], object], seconds: float = 20.0, pause: float = 0.005) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(pause)


def redis_layer(
    url: str, *, kind: str = "core.RedisChannelLayer", prefix: str = "", **host: Any
) -> dict[str, Any]:
    return {
        "default": {
            "BACKEND": f"channels_redis.{kind}",
            "CONFIG": {
                "hosts": [{"address": url, **host}],
                "prefix": prefix or f"test-{uuid.uuid4().hex}",
            },
        }
    }


@pytest.fixture(params=["core.RedisChannelLayer", "pubsub.RedisPubSubChannelLayer"])
def any_redis(request: pytest.FixtureRequest, settings: Settings) -> None:
    settings.CHANNEL_LAYERS = redis_layer(
        os.environ["DEMO_REDIS_URL"], kind=request.param, socket_timeout=None
    )


class RedisServer:
    """A Redis of our own, to be killed and started again on the same port."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        self.process = subprocess.Popen(
            [*command, "--dir", str(self.folder)], stdout=subprocess.DEVNULL
        )
        until(self.answers)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def freeze(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def answers(self) -> bool:
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", self.port)) == 0


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed here")
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.kill()


def hint_warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if record.levelno >= logging.WARNING and record.name == "cq.hints"
    ]


def test_wakes_and_control_messages_arrive_over_redis(any_redis: None) -> None:
    woken: list[str] = []
    heard: list[Any] = []
    receiver = hints.Receiver(["mail"], woken.append, heard.append)
    receiver.start()

    def wake_and_ask() -> bool:
        hints.wake("mail")
        hints.control({"verb": "cancel", "task": "ab"})
        return bool(woken and heard)

    # Control messages go first: asked faster than a busy machine sends them, no wake gets out.
    until(wake_and_ask, pause=0.2)

    receiver.stop()
    assert heard[0] == {"type": "cq.control", "verb": "cancel", "task": "ab"}
    assert woken[0] == "mail"


def test_a_nudge_arrives_over_redis(any_redis: None) -> None:
    root = uuid.uuid4()
    heard: list[Any] = []
    subscription = hints.Subscription(hints.tree_group(root), heard.append)
    subscription.start()

    def nudge_again() -> bool:
        hints.nudge(root)
        return bool(heard)

    until(nudge_again)

    subscription.stop()
    assert heard[0] == {"type": "cq.nudge", "root": root.hex}


WORKER = """
import sys
from django.conf import settings
settings.configure(CHANNEL_LAYERS={layers!r}, DATABASES={{"default": {{}}}})
from cq import hints
def on_wake(queue):
    receiver.listening = {takes_more}
    print("woken", flush=True)
receiver = hints.Receiver({queues!r}, on_wake, print)
receiver.start()
print("started", flush=True)
sys.stdin.readline()
receiver.stop()
"""

COMMAND = """
from django.conf import settings
settings.configure(CHANNEL_LAYERS={layers!r}, DATABASES={{"default": {{}}}})
from cq import hints
hints.wake("mail")
"""


def run_python(code: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


class WorkerProcess:
    """A process that counts the wakes of its queues; *busy* from the first one on, or never."""

    def __init__(self, layers: dict[str, Any], *queues: str, busy: bool = False) -> None:
        self.process = run_python(WORKER.format(layers=layers, queues=queues, takes_more=not busy))
        self.wakes = 0
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "started\n"
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.wakes += line == "woken\n"

    def stop(self) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.process.stdin.write("\n")
        self.process.stdin.close()
        self.process.wait(10)
        self._reader.join()
        with self.process.stdout, self.process.stderr as errors:
            return errors.read()


def test_each_wake_goes_to_one_worker_process(settings: Settings) -> None:
    layers = redis_layer(os.environ["DEMO_REDIS_URL"], socket_timeout=None)
    settings.CHANNEL_LAYERS = layers
    workers = [WorkerProcess(layers, "mail") for _ in range(3)]

    for number in range(1, 21):
        hints.wake("mail")
        until(lambda: sum(worker.wakes for worker in workers) >= number)  # noqa: B023

    errors = [worker.stop() for worker in workers]
    # channels_redis brings a message twice now and then; sent to all it would be 60.
    assert 20 <= sum(worker.wakes for worker in workers) < 30
    assert errors == ["", "", ""]


def test_a_worker_that_has_become_busy_sends_a_wake_on(settings: Settings) -> None:
    layers = redis_layer(os.environ["DEMO_REDIS_URL"], socket_timeout=None)
    settings.CHANNEL_LAYERS = layers
    busy = WorkerProcess(layers, "other", "mail", busy=True)
    hints.wake("other")
    until(lambda: busy.wakes == 1)
    idle = WorkerProcess(layers, "mail")

    for number in range(1, 6):
        hints.wake("mail")
        until(lambda: idle.wakes >= number)  # noqa: B023

    assert (busy.stop(), idle.stop()) == ("", "")
    assert (busy.wakes, idle.wakes) == (1, 5)


def test_a_command_that_ends_at_once_still_sends_its_wake(settings: Settings) -> None:
    # By name: resolving it takes the interpreter's threads, which end early.
    url = os.environ["DEMO_REDIS_URL"].replace("127.0.0.1", "localhost")
    layers = redis_layer(url, socket_timeout=None)
    worker = WorkerProcess(layers, "mail")

    command = run_python(COMMAND.format(layers=layers))
    _, errors = command.communicate(timeout=20)
    until(lambda: worker.wakes == 1)

    worker.stop()
    assert (command.returncode, errors) == (0, "")


def test_a_command_ends_soon_although_redis_does_not_answer(redis_server: RedisServer) -> None:
    layers = redis_layer(redis_server.url)
    redis_server.freeze()
    code = "import time, atexit\n" + COMMAND.format(layers=layers)
    code += "\nimport threading\nbegan = time.monotonic()\n"
    code += "atexit.register(lambda: print(time.monotonic() - began))\n"

    command = run_python(code)
    output, errors = command.communicate(timeout=20)

    assert errors == ""
    assert float(output) < 0.5


def test_a_receiver_outlives_the_read_timeout_of_the_redis_client(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    settings.CHANNEL_LAYERS = redis_layer(os.environ["DEMO_REDIS_URL"], socket_timeout=1.2)
    woken: list[str] = []
    heard: list[Any] = []
    receiver = hints.Receiver(["mail"], woken.append, heard.append)
    receiver.start()

    silent_until = time.monotonic() + 3.0
    until(lambda: time.monotonic() > silent_until)
    hints.wake("mail")
    hints.control({"verb": "quiet"})
    until(lambda: woken and heard)

    receiver.stop()
    assert hint_warnings(caplog) == []


def test_an_outage_is_told_once_and_hints_come_back_by_themselves(
    settings: Settings, redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    settings.CHANNEL_LAYERS = redis_layer(redis_server.url, socket_timeout=None)
    woken: list[str] = []
    heard: list[Any] = []
    receiver = hints.Receiver(["mail", "default"], woken.append, heard.append)
    receiver.start()

    def wake_again() -> bool:
        hints.wake("mail")
        return bool(woken)

    def ask_again() -> bool:
        hints.control({"verb": "quiet"})
        return bool(heard)

    until(wake_again)

    redis_server.kill()
    hints.wake("mail")
    until(lambda: hint_warnings(caplog))
    for number in range(2_000):
        hints.wake("mail")
        hints.nudge(uuid.uuid4())
        hints.control({"verb": "cancel", "task": str(number)})
    redis_server.start()
    woken.clear()
    until(lambda: woken)
    until(ask_again)
    until(lambda: len(hint_warnings(caplog)) == 2)

    receiver.stop()
    paused, recovered = hint_warnings(caplog)
    assert paused.startswith("hints paused: channel layer 'default' cannot be reached")
    assert recovered.startswith("hints recovered after")


def test_sending_waits_for_nothing_while_redis_is_down_or_frozen(
    settings: Settings, redis_server: RedisServer
) -> None:
    settings.CHANNEL_LAYERS = redis_layer(redis_server.url)
    hints.wake("mail")
    until(lambda: not outbox.outbox().wakes)
    seconds = []

    for interrupt in (redis_server.freeze, redis_server.kill):
        interrupt()
        began = time.monotonic()
        for number in range(1_000):
            hints.wake(f"queue{number % 50}")
            hints.nudge(uuid.uuid4())
            hints.control({"verb": "cancel", "task": str(number)})
        seconds.append(time.monotonic() - began)

    assert max(seconds) < 1.0
