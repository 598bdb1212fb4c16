"""How does a test get a PostgreSQL of its own, to be restarted, and to have its clock set?"""

from __future__ import annotations

import mmap
import os
import shutil
import socket
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from django.core.management import call_command
from django.db import connection

_DEBIAN = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
BIN = Path(shutil.which("initdb") or (_DEBIAN[-1] / "initdb" if _DEBIAN else "initdb")).parent
COMPILER = shutil.which("cc")


class PostgresServer:
    """A server with an empty data folder, listening on the loopback interface."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        # The server refuses to run as root.
        self._user = "postgres" if os.geteuid() == 0 else None
        if self._user:
            shutil.chown(folder, self._user)
        self._clock = _Clock(folder) if COMPILER else None
        self._run("initdb", "--username=postgres", "--auth=trust", "--no-sync")
        self.start()

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -k {self._folder}"
        self._run("pg_ctl", "start", "--wait", "-o", options, "-l", str(self._folder / "log"))

    def stop(self, mode: str = "fast") -> None:
        """*mode* is how pg_ctl calls it: smart, fast, or immediate, which is a crash."""
        self._run("pg_ctl", "stop", "--wait", "--mode", mode)

    def set_clock(self, seconds: float) -> None:
        """Let its clock be so far ahead of the true time."""
        assert self._clock is not None
        self._clock.set(seconds)

    def _run(self, program: str, *options: str) -> None:
        environment = {**os.environ, "PGDATA": str(self._folder / "data")}
        if self._clock is not None:
            environment |= self._clock.environment
        subprocess.run(
            [str(BIN / program), *options],
            check=True,
            user=self._user,
            cwd=self._folder,
            env=environment,
            stdout=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
        )


class _Clock:
    """A library that every process of the server loads first, and the offset that it reads."""

    def __init__(self, folder: Path) -> None:
        source = Path(__file__).with_name("clock.c")
        library, offset = folder / "clock.so", folder / "offset"
        subprocess.run(
            [str(COMPILER), "-shared", "-fPIC", "-O1", "-o", str(library), str(source)], check=True
        )
        offset.write_bytes(struct.pack("d", 0.0))
        for file in (library, offset):
            file.chmod(0o755)
        with offset.open("r+b") as opened:
            self._memory = mmap.mmap(opened.fileno(), 8)
        self.environment = {"LD_PRELOAD": str(library), "CLOCK_OFFSET": str(offset)}

    def set(self, seconds: float) -> None:
        self._memory[:] = struct.pack("d", seconds)


@contextmanager
def own_postgres() -> Iterator[PostgresServer]:
    """Let the test's database lie on a server of its own meanwhile."""
    settings = connection.settings_dict
    usual = {key: settings[key] for key in ("HOST", "PORT", "USER", "PASSWORD")}
    name = settings["NAME"]
    # Not below the test's own folder, which other users may not enter.
    with tempfile.TemporaryDirectory(prefix="cq-faults-") as folder:
        server = PostgresServer(Path(folder))
        connection.close()
        settings.update(HOST="127.0.0.1", PORT=str(server.port), USER="postgres", PASSWORD="")
        try:
            settings["NAME"] = "postgres"
            with connection.cursor() as cursor:
                cursor.execute(f"CREATE DATABASE {connection.ops.quote_name(name)}")
            connection.close()
            settings["NAME"] = name
            call_command("migrate", verbosity=0)
            yield server
        finally:
            connection.close()
            settings.update(usual, NAME=name)
            server.set_clock(0.0) if COMPILER else None
            server.stop("immediate")
