"""Does a worker take up changes of the code, and wait for broken code to be mended?"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from cq import task
from cq.models import Task, Worker
from engine.looking import until

pytestmark = [
    pytest.mark.full,
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(connection.vendor != "sqlite", reason="no matter of the database"),
]
MANAGE = Path(__file__).resolve().parent.parent / "demo" / "manage.py"


@task("fresh.answer", atomic=False)
def answer(cqt: Any) -> int:
    raise AssertionError("the one of the worker runs")


def write_code(folder: Path, body: str) -> None:
    code = [
        "from cq import task",
        "@task('fresh.answer', atomic=False)",
        f"def answer(cqt): {body}",
    ]
    (folder / "tasks.py").write_text("\n".join(code))


def answers() -> Any:
    stored = answer.delay()
    until(lambda: Task.objects.finished().filter(pk=stored.pk).exists(), 60)
    return Task.objects.get(pk=stored.pk).result


def test_changed_code_is_taken_up_and_broken_code_waited_for(
    tmp_path: Path, process_environment: dict[str, str]
) -> None:
    package = tmp_path / "fresh"
    package.mkdir()
    (package / "__init__.py").touch()
    (tmp_path / "fresh_settings.py").write_text(
        "from demo.settings import *\nINSTALLED_APPS = [*INSTALLED_APPS, 'fresh']\n"
    )
    write_code(package, "return 1")
    environment = {
        **process_environment,
        "DJANGO_SETTINGS_MODULE": "fresh_settings",
        "PYTHONPATH": os.pathsep.join([str(tmp_path), process_environment["PYTHONPATH"]]),
        # Two versions within one second must not share their byte code.
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    errors: list[str] = []
    process = subprocess.Popen(
        [sys.executable, str(MANAGE), "cq_runworker", "--reload", "--threads", "1"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    reader = threading.Thread(target=lambda: errors.extend(process.stderr or ()))
    reader.start()
    try:
        assert answers() == 1
        write_code(package, "return 2")
        until(lambda: answers() == 2, 60)
        write_code(package, "return (")
        until(lambda: any("waiting for the code to change" in line for line in errors), 60)
        write_code(package, "return 3")
        until(lambda: answers() == 3, 60)
    finally:
        process.terminate()
        process.wait(60)
        reader.join(60)
        process.stderr.close()  # type: ignore[union-attr]
    assert not Task.objects.exclude(status="S").exists()
    assert not Worker.objects.filter(stopped=None).exists()
