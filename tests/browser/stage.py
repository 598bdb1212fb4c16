"""What does a browser test need around it: a demo that really runs, and a page that is watched?"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
from playwright.sync_api import Browser, ConsoleMessage, Page

DEMO = Path(__file__).resolve().parent.parent / "demo"


@dataclass(frozen=True)
class Demo:
    """A demo that serves, and the folders that it reads and writes."""

    url: str
    inbox: Path
    reports: Path
    environment: Mapping[str, str]

    def run(self, code: str) -> str:
        """Run some Python in the demo's project, beside the server; what it printed last."""
        done = subprocess.run(
            [sys.executable, str(DEMO / "manage.py"), "shell", "-v", "0", "-c", code],
            env=dict(self.environment),
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip().splitlines()[-1]

    def fix_inbox(self) -> None:
        """Close the parenthesis of the broken file."""
        broken = self.inbox / "broken.py"
        broken.write_text(broken.read_text().replace("sum(prices, 2)", "sum(prices), 2)"))

    def break_inbox(self) -> None:
        """Open it again."""
        shutil.copy(DEMO / "inbox" / "broken.py", self.inbox)


@dataclass(frozen=True)
class Started:
    """A process, and the file that it writes to."""

    process: subprocess.Popen[bytes]
    log: Path


@contextmanager
def running_demo(folder: Path, roots: list[Path] | None = None, **settings: str) -> Iterator[Demo]:
    """Serve the demo, with a database and an inbox of its own in *folder*, until the block ends.

    One process on SQLite; or, where the test run has Redis, on PostgreSQL with the worker in a
    process beside it. *settings* are further variables of the demo's environment; with a Redis of
    its own it is one process all the same.
    """
    inbox, reports = folder / "inbox", folder / "reports"
    shutil.copytree(DEMO / "inbox", inbox, ignore=shutil.ignore_patterns("__pycache__"))
    redis_url = None if "DEMO_REDIS_URL" in settings else os.environ.get("DEMO_REDIS_URL")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("DEMO_")}
    environment |= {
        "DEMO_INBOX": str(inbox),
        "DEMO_REPORTS": str(reports),
        "DEMO_CENSUS_ROOTS": os.pathsep.join(map(str, roots or [])),
        "PYTHONFAULTHANDLER": "1",
        "PYTHONUNBUFFERED": "1",
        **settings,
    }
    with ExitStack() as stack:
        if redis_url:
            server_url = os.environ["DEMO_DATABASE_URL"]
            environment |= {
                "DEMO_DATABASE_URL": stack.enter_context(postgres_database(server_url)),
                "DEMO_REDIS_URL": redis_url,
                "DEMO_EMBEDDED_WORKER": "0",
            }
        else:
            environment["DEMO_DATABASE_URL"] = f"sqlite:///{folder / 'demo.sqlite3'}"
        server = command(["demo", "--port", "0"], environment, folder / "server.log")
        url = address_in(stack.enter_context(server))
        if redis_url:
            worker = ["cq_runworker", "--threads", "4"]
            stack.enter_context(command(worker, environment, folder / "worker.log"))
        yield Demo(url, inbox, reports, environment)


def log_in(page: Page, demo: Demo) -> None:
    """Be the operator from here on."""
    page.goto(f"{demo.url}/admin/login/")
    page.get_by_label("Username").fill("operator")
    page.get_by_label("Password").fill("operator")
    page.get_by_role("button", name="Log in").click()


@contextmanager
def watched_page(browser: Browser, *, refusals: bool = False, **options: Any) -> Iterator[Page]:
    """Open a page; at the end of the block nothing may have gone wrong that only its console says.

    That is where violations of the Content-Security-Policy appear, and errors of scripts. With
    *refusals* forms may be sent back, which a browser reports as an error 422.
    """
    complaints: list[str] = []

    def note(message: ConsoleMessage) -> None:
        if refusals and "status of 422" in message.text:
            return
        if message.type in {"error", "warning"}:
            complaints.append(f"{message.text} ({message.location.get('url')})")

    with browser.new_context(**options) as context:
        page = context.new_page()
        page.on("console", note)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        yield page
    assert complaints == []


@contextmanager
def command(arguments: list[str], environment: dict[str, str], log: Path) -> Iterator[Started]:
    """Run a management command until the block ends; what it wrote is shown with a failed test."""
    with log.open("w") as output:
        process = subprocess.Popen(
            # As in a terminal: a suite that runs in the background ignores Ctrl-C.
            ["env", "--default-signal=INT", sys.executable, str(DEMO / "manage.py"), *arguments],
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield Started(process, log)
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        print(f"--- {' '.join(arguments)}, exit code {process.returncode}\n{log.read_text()}")
    assert process.returncode == 0


@contextmanager
def postgres_database(server_url: str) -> Iterator[str]:
    """Create a database on the server that a URL points to; drop it when the block ends."""
    name = f"cq_browser_{os.getpid()}"
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        connection.execute(f"CREATE DATABASE {name}")
    try:
        yield urlunsplit(urlsplit(server_url)._replace(path=f"/{name}"))
    finally:
        with psycopg.connect(server_url, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def address_in(server: Started, seconds: float = 60) -> str:
    """Wait until a demo has said where it serves, and return that."""
    deadline = time.monotonic() + seconds
    while server.process.poll() is None and time.monotonic() < deadline:
        for line in server.log.read_text().splitlines():
            if "start page" in line:
                return line.split()[-1].rstrip("/")
        time.sleep(0.05)
    raise RuntimeError("The demo ended, or has not started in a minute; see its log.")
