"""Does the demo start where it can, say so where it cannot, and end when asked to?"""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

MANAGE = Path(__file__).resolve().parent.parent / "demo" / "manage.py"


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("DEMO_")}
    return kept | {
        "DEMO_DATABASE_URL": f"sqlite:///{tmp_path / 'demo.sqlite3'}",
        "DEMO_REPORTS": str(tmp_path / "reports"),
        "PYTHONUNBUFFERED": "1",
    }


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_a_taken_port_is_one_clear_line(
    environment: dict[str, str], taken_port: int, tmp_path: Path
) -> None:
    command = [sys.executable, str(MANAGE), "demo", "--port", str(taken_port)]

    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)

    assert ended.returncode == 1
    assert ended.stdout == ""
    assert len(ended.stderr.splitlines()) == 1
    assert f"Port {taken_port} of 127.0.0.1 cannot be used" in ended.stderr
    assert not (tmp_path / "demo.sqlite3").exists()


def test_an_interrupt_ends_a_demo_that_served_within_three_seconds(
    environment: dict[str, str],
) -> None:
    # As in a terminal: a suite that runs in the background ignores Ctrl-C, and so would this.
    as_in_a_terminal = ["env", "--default-signal=INT"]
    command = [*as_in_a_terminal, sys.executable, str(MANAGE), "demo", "--port", "0"]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as server:
        assert server.stdout is not None
        try:
            line = next(line for line in server.stdout if "start page" in line)
            with urllib.request.urlopen(line.split()[-1], timeout=30) as response:
                page = response.read().decode()
            asked = time.monotonic()
            server.send_signal(signal.SIGINT)
            said = server.stdout.read()
            code = server.wait(timeout=20)
        finally:
            server.kill()

    assert "Start a census" in page
    assert code == 0
    assert "Traceback" not in said
    assert time.monotonic() - asked < 3
