"""On which databases, channel layers and Pythons does the suite run here, and does it pass on all?

Everything runs on SQLite and the in-memory layer; the engine and console tests run again on each
server that is found, and on the oldest and the newest supported Python. Where there are two, the
first runs on SQLite only what that database or its Django do in their own way. What was not found
is said, and is a failure when it was required (--require-all, or CQ_TEST_REQUIRE=postgres,...).
Two runs go on at a time: tests wait more than they compute.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import os
import platform
import random
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit
from xml.etree import ElementTree as ET

import django
import psycopg
import redis

REPOSITORY = Path(__file__).resolve().parent.parent
OLDEST = ("3.11", "5.2")
NEWEST = ("3.13", "6.1")
SERVERS = {
    "postgres": "CQ_TEST_POSTGRES_URL",
    "mariadb": "CQ_TEST_MARIADB_URL",
    "redis": "CQ_TEST_REDIS_URL",
}
ON_SERVERS = ("tests/engine", "tests/console")
# Long ones first, and apart: the other lane runs the rest meanwhile.
ONCE = ("tests/browser", "tests/demo_project", "tests/faults", "tests/packaging")
# Where the workers are processes of their own, pages come to know of them in another way.
LIVE = tuple(f"tests/browser/test_{name}.py" for name in ("bustle", "night", "walk"))
# What is about SQLite, or depends on how a Django words a query; another one runs all the rest.
ABOUT_SQLITE = (
    "tests/rules",
    *(
        f"tests/engine/test_{name}.py"
        for name in (
            "atomic",
            "claims",
            "due",
            "moves",
            "query_plans",
            "rescue",
            "task_logs",
            "worker",
        )
    ),
    *(f"tests/console/test_{name}.py" for name in ("list_plans", "search", "task_plans")),
)
LANES = 2
REDIS_DATABASES = 16

_printing = threading.Lock()


@dataclass(frozen=True)
class Service:
    """Something that the tests need from outside: found at *where*, or missing for a reason."""

    name: str
    where: str = ""
    missing: str = ""

    def __str__(self) -> str:
        where = re.sub(r":[^:/@]*@", "@", self.where)  # no password in a log
        return f"{self.name}: {where or f'NOT FOUND: {self.missing}'}"


@dataclass(frozen=True)
class Interpreter:
    """A Python with this project and a Django installed."""

    python: Path
    label: str


@dataclass(frozen=True)
class Run:
    """One call of pytest."""

    interpreter: Interpreter
    database: str
    folders: tuple[str, ...]
    database_url: str = ""
    redis_url: str = ""

    @property
    def label(self) -> str:
        layer = "Redis" if self.redis_url else "in-memory layer"
        folders = ", ".join(folder.removeprefix("tests/") for folder in self.folders)
        return f"{self.interpreter.label}, {self.database}, {layer} ({folders})"


@dataclass(frozen=True)
class Counts:
    """What became of the tests of one or more runs."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    # What failed, each with its first line of why.
    names: tuple[str, ...] = ()

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.passed + other.passed,
            self.failed + other.failed,
            self.skipped + other.skipped,
            self.names + other.names,
        )

    def __str__(self) -> str:
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"


def main() -> int:
    options = parse_options()
    services = {service.name: service for service in find_services()}
    interpreters, missing_pythons = find_interpreters()
    services.update(missing_pythons)

    required = set(services) if options.require_all else set(options.require)
    # Who names a server wants it tested.
    required |= {name for name, variable in SERVERS.items() if os.environ.get(variable)}
    lacking = [s for s in services.values() if s.missing and s.name in required]
    for service in lacking:
        print(f"Required: {service}")
    if unknown := required - set(services) - {f"python{v}" for v, _ in (OLDEST, NEWEST)}:
        sys.exit(f"CQ_TEST_REQUIRE names what the matrix does not know: {', '.join(unknown)}")
    if lacking:
        print(Counts(failed=len(lacking)))
        return 1

    print(f"Random order, seed {options.seed} (again: --seed {options.seed})", flush=True)
    runs = list(plan(interpreters, services))
    if options.only:
        chosen = [list(only_below(options.only, run.folders)) for run in runs]
        runs = [
            replace(run, folders=tuple(folders))
            for run, folders in zip(runs, chosen, strict=True)
            if folders
        ]
    counts = execute_all(runs, interpreters[0], options)

    print("\nRan:")
    for run, count in zip(runs, counts, strict=True):
        print(f"  {run.label}: {count}")
    print("Services:")
    for service in services.values():
        print(f"  {service}")
    # Said again at the end: of a long output, it is the end that is read and kept.
    for run, count in zip(runs, counts, strict=True):
        for name in count.names:
            print(f"FAILED on {run.label}: {name}")
    total = sum(counts, Counts())
    print(f"\n{total}")
    return 1 if total.failed else 0


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    parser.add_argument("--only", metavar="PATH", help="run only this file, or what is below it")
    parser.add_argument("--lanes", type=int, default=LANES, help="how many runs at a time")
    parser.add_argument(
        "--coverage", action="store_true", help="count branches; takes half as long again"
    )
    parser.add_argument("--require-all", action="store_true", help="a missing service is a failure")
    parser.set_defaults(
        require=[name for name in os.environ.get("CQ_TEST_REQUIRE", "").split(",") if name]
    )
    return parser.parse_args()


def only_below(path: str, folders: tuple[str, ...]) -> Iterator[str]:
    """Yield of *folders* what lies below *path*, and *path* itself where it lies in one of them."""
    for folder in folders:
        if folder.startswith(path):
            yield folder
        elif path.startswith(f"{folder}/"):
            yield path


def plan(interpreters: list[Interpreter], services: dict[str, Service]) -> Iterator[Run]:
    """Yield the runs: everything once, the engine and the console wherever they may differ."""
    first, *others = interpreters
    redis_urls = databases_of(services["redis"].where)
    postgres_url = services["postgres"].where
    mariadb_url = services["mariadb"].where

    yield Run(first, "SQLite", ONCE)
    if postgres_url:
        yield Run(first, "PostgreSQL", (*LIVE, "tests/faults"), postgres_url, next(redis_urls))
        yield Run(first, "PostgreSQL", ON_SERVERS, postgres_url, next(redis_urls))
    if mariadb_url:
        with_faults = (*ON_SERVERS, "tests/faults")
        yield Run(first, "MariaDB", with_faults, mariadb_url, next(redis_urls))
    for other in others:
        if postgres_url:
            yield Run(other, "PostgreSQL", ON_SERVERS, postgres_url, next(redis_urls))
        yield Run(other, "SQLite", ("tests/rules", *ON_SERVERS))
    yield Run(first, "SQLite", ABOUT_SQLITE if others else ("tests/rules", *ON_SERVERS))


def databases_of(redis_url: str) -> Iterator[str]:
    """Yield URLs of Redis databases from that of *redis_url* on: two runs must not share one."""
    parts = urlsplit(redis_url)
    number = int(parts.path.strip("/") or 0)
    while True:
        path = f"/{number % REDIS_DATABASES}"
        yield urlunsplit(parts._replace(path=path)) if redis_url else ""
        number += 1


def execute_all(runs: list[Run], first: Interpreter, options: argparse.Namespace) -> list[Counts]:
    """Carry out *runs*, two at a time; what counts the coverage is installed in *first* alone."""
    covered = {run for run in runs if options.coverage and run.interpreter == first}
    if covered:
        subprocess.call([sys.executable, "-m", "coverage", "erase"], cwd=REPOSITORY)
    with ThreadPoolExecutor(options.lanes) as lanes:
        counts = list(
            lanes.map(lambda run: execute(run, options.seed, is_covered=run in covered), runs)
        )
    if covered:
        report_coverage()
    return counts


def execute(run: Run, seed: int, *, is_covered: bool) -> Counts:
    """Run pytest, show what it printed once it has ended, and return what it counted."""
    folders = [folder for folder in run.folders if (REPOSITORY / folder).exists()]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("DEMO_")}
    if run.database_url:
        environment["DEMO_DATABASE_URL"] = run.database_url
    if run.redis_url:
        environment["DEMO_REDIS_URL"] = run.redis_url

    say(f"--- {run.label} ...")
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        report, output = Path(scratch, "report.xml"), Path(scratch, "output")
        covered = ["-m", "coverage", "run"] if is_covered else []
        pytest = [*covered, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        pytest.append(f"--junitxml={report}")
        if os.environ.get("CQ_FAULTS_FULL"):
            # Minutes of load are no hang.
            pytest += ["-o", "faulthandler_timeout=3600"]
        with output.open("w") as written:
            code = subprocess.call(
                [str(run.interpreter.python), *pytest, f"--randomly-seed={seed}", *folders],
                cwd=REPOSITORY,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=written,
                stderr=subprocess.STDOUT,
            )
        counts = read_counts(report)
        said = output.read_text(errors="replace")
    if code and not counts.failed:
        said += f"pytest ended with exit code {code} without naming a failed test.\n"
        counts += Counts(failed=1, names=(f"pytest itself, exit code {code}",))
    seconds = time.monotonic() - started
    say(f"\n=== {run.label}\n{said}=== {run.label}: {counts} in {seconds:.0f} s")
    return counts


def say(text: str) -> None:
    """Print *text* whole, whatever the other lane has to say."""
    with _printing:
        print(text, flush=True)


def read_counts(report: Path) -> Counts:
    if not report.exists():
        return Counts()
    suites = list(ET.parse(report).getroot().iter("testsuite"))
    total = Counts()
    for suite in suites:
        tests, skipped = int(suite.get("tests", 0)), int(suite.get("skipped", 0))
        failed = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
        total += Counts(max(tests - failed - skipped, 0), failed, skipped)
    return replace(total, names=tuple(read_failures(suites)))


def read_failures(suites: list[ET.Element]) -> Iterator[str]:
    """Yield the name of each test that failed, and the first line of why."""
    for case in (case for suite in suites for case in suite.iter("testcase")):
        for found in (*case.findall("failure"), *case.findall("error")):
            why = (found.get("message") or "").partition("\n")[0][:200]
            yield f"{case.get('classname')}::{case.get('name')}: {why}"


def report_coverage() -> None:
    print("\n=== Branch coverage over all runs", flush=True)
    coverage = [sys.executable, "-m", "coverage"]
    subprocess.call([*coverage, "combine", "--quiet"], cwd=REPOSITORY)
    subprocess.call([*coverage, "report", "--show-missing"], cwd=REPOSITORY)


def find_services() -> Iterator[Service]:
    yield find_server("postgres", "postgresql://postgres@127.0.0.1:5432/postgres", connect_postgres)
    yield find_server("mariadb", "mysql://root@127.0.0.1:3306/mysql", connect_mariadb)
    # One of Redis's sixteen databases, so that two matrices at a time hardly ever share one.
    own_database = f"redis://127.0.0.1:6379/{1 + os.getpid() % 15}"
    yield find_server("redis", own_database, connect_redis)
    chromium = shutil.which("chromium")
    missing = "" if chromium else "no chromium on the PATH; the browser tests are skipped"
    yield Service("chromium", chromium or "", missing)


def find_server(name: str, usual: str, connect: Callable[[str], object]) -> Service:
    variable = SERVERS[name]
    url = os.environ.get(variable) or usual
    try:
        connect(url)
    except (OSError, psycopg.Error, redis.RedisError) as error:
        reason = " ".join(str(error).split())
        return Service(name, missing=f"{reason} (set {variable} to use another one)")
    return Service(name, where=url)


def connect_postgres(url: str) -> None:
    psycopg.connect(url, connect_timeout=3).close()


def connect_redis(url: str) -> None:
    client = redis.Redis.from_url(url, socket_connect_timeout=3, socket_timeout=3)
    try:
        client.ping()
    finally:
        client.close()


def connect_mariadb(url: str) -> None:
    parts = urlsplit(url)
    address = parts.hostname or "127.0.0.1", parts.port or 3306
    # Asked for before the driver, which needs a C compiler and is installed only for a server.
    with socket.create_connection(address, timeout=3):
        pass
    install_mysqlclient()
    import MySQLdb

    try:
        MySQLdb.connect(
            host=address[0],
            port=address[1],
            user=unquote(parts.username or ""),
            password=unquote(parts.password or ""),
            connect_timeout=3,
        ).close()
    except MySQLdb.Error as error:
        raise ConnectionError(error.args[-1]) from error


def install_mysqlclient() -> None:
    if importlib.util.find_spec("MySQLdb"):
        return
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--editable", ".[mysql]"]
    built = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    if built.returncode:
        raise ConnectionError(
            "it answers, but its driver mysqlclient cannot be built "
            "(on Debian or Ubuntu: apt install gcc python3-dev libmariadb-dev pkg-config)"
        )
    importlib.invalidate_caches()


def find_interpreters() -> tuple[list[Interpreter], dict[str, Service]]:
    """Return the Python that runs this, then the oldest and newest supported ones, if others."""
    own = ".".join(platform.python_version_tuple()[:2])
    interpreters = [Interpreter(Path(sys.executable), label(own, django.get_version()))]
    services = {}
    for version, django_version in (OLDEST, NEWEST):
        name = f"python{version}"
        if version == own:
            services[name] = Service(name, where=sys.executable)
            continue
        found = find_python(version)
        if found is None:
            services[name] = Service(name, missing=f"no {name} on the PATH, nor pyenv's")
            continue
        python = install_into_venv(found, version, django_version)
        interpreters.append(Interpreter(python, label(version, django_version)))
        services[name] = Service(name, where=str(found))
    return interpreters, services


def label(python_version: str, django_version: str) -> str:
    return f"Python {python_version} + Django {'.'.join(django_version.split('.')[:2])}"


def find_python(version: str) -> Path | None:
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv", "versions")
    candidates = [shutil.which(f"python{version}"), *pyenv.glob(f"{version}.*/bin/python{version}")]
    for candidate in candidates:
        # pyenv puts a python3.13 on the PATH that only says that it is not chosen.
        works = candidate and not subprocess.call(
            [candidate, "-c", "import ensurepip, venv"], stderr=subprocess.DEVNULL
        )
        if candidate and works:
            return Path(candidate)
    return None


def install_into_venv(found: Path, version: str, django_version: str) -> Path:
    """Return the Python of an environment with this project and that Django, made when outdated."""
    folder = REPOSITORY / f".venv{version.replace('.', '')}"
    python, stamp = folder / "bin" / "python", folder / ".installed"
    wanted = hashlib.sha256((REPOSITORY / "pyproject.toml").read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    print(f"Installing django-cq and Django {django_version} into {folder.name} ...", flush=True)
    subprocess.check_call([found, "-m", "venv", folder])
    pip: list[str | Path] = [
        python,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
    ]
    subprocess.check_call(
        [*pip, "--editable", ".[dev]", f"django~={django_version}.0"], cwd=REPOSITORY
    )
    stamp.write_text(wanted)
    return python


if __name__ == "__main__":
    sys.exit(main())
