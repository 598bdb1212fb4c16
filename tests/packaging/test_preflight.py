"""Does `make demo` say in one line why it cannot run, before it does anything else?"""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

import preflight

REPOSITORY = Path(__file__).resolve().parent.parent.parent


def test_a_taken_port_is_named_with_another_one_to_try() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        complaint = make_demo(f"PORT={port}")

    assert f"Port {port}: Address already in use" in complaint
    assert f"make demo PORT={port % 65535 + 1}" in complaint


@pytest.mark.parametrize("port", ["70000", "80 90", "'", '"', "`id`", "8000;id"])
def test_a_port_that_is_no_port_is_refused(port: str) -> None:
    complaint = make_demo(f"PORT={port}")

    assert f"PORT={port} is not a port: give a number from 1 to 65535" in complaint


def test_a_python_that_is_too_old_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "OLDEST_PYTHON", (9, 1))

    complaint = preflight.complain_about_python()

    assert complaint.startswith(f"django-cq needs Python 9.1 or newer; {sys.executable} is 3.")


def test_a_missing_venv_module_is_named_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(preflight, "VENV_PIP", tmp_path / "pip")
    monkeypatch.setitem(sys.modules, "ensurepip", None)

    complaint = preflight.complain_about_python()

    assert "apt install python3-venv" in complaint


def test_a_python_that_is_not_there_is_named() -> None:
    complaint = make_demo("PYTHON=/nowhere/python3")

    assert "/nowhere/python3: not found" in complaint


def make_demo(*arguments: str) -> str:
    """Run `make demo`, which must fail at once with a single line; return that line."""
    ended = subprocess.run(
        ["make", "--no-print-directory", "demo", *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert ended.returncode != 0
    assert ended.stdout == ""
    (line,) = ended.stderr.splitlines()
    return line
