"""Does Channels' own worker run what another process delays? (`manage.py runworker cq-tasks`)"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cq import task
from cq.models import Task, Worker
from cq.states import Status
from engine.looking import until

pytestmark = [pytest.mark.full, pytest.mark.django_db(transaction=True)]


@task("faults.routing.double", atomic=False)
def double(cqt: Any, number: int) -> int:
    return 2 * number


@pytest.mark.skipif("DEMO_REDIS_URL" not in os.environ, reason="needs Redis between processes")
def test_channels_own_worker_runs_what_another_process_delays(
    tmp_path: Path, process_environment: dict[str, str]
) -> None:
    package = tmp_path / "routed"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "tasks.py").write_text(
        "from cq import task\n"
        "@task('faults.routing.double', atomic=False)\n"
        "def double(cqt, number): return 2 * number\n"
    )
    (package / "settings.py").write_text(
        "from demo.settings import *\n"
        "INSTALLED_APPS = [*INSTALLED_APPS, 'routed']\n"
        "ASGI_APPLICATION = 'routed.asgi.application'\n"
    )
    (package / "asgi.py").write_text(
        "from channels.routing import ChannelNameRouter, ProtocolTypeRouter\n"
        "from cq.routing import channel_routing\n"
        "application = ProtocolTypeRouter({'channel': ChannelNameRouter(channel_routing)})\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "django", "runworker", "cq-tasks"],
        env={
            **process_environment,
            "DJANGO_SETTINGS_MODULE": "routed.settings",
            "PYTHONPATH": os.pathsep.join([str(tmp_path), process_environment["PYTHONPATH"]]),
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        # Of the wakes that come before it listens one is kept.
        first = double.delay(4)
        until(lambda: Task.objects.get(pk=first.pk).status == Status.SUCCESS, 60)
        until(lambda: not Worker.objects.filter(stopped=None).exists(), 60)
        second = double.delay(5)
        until(lambda: Task.objects.get(pk=second.pk).result == 10, 60)
        until(lambda: not Worker.objects.filter(stopped=None).exists(), 60)
    finally:
        process.terminate()
        process.wait(60)
