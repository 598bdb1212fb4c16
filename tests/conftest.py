"""What does every test share: a database of its own, and the means to start processes on it?"""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import Iterator
from pathlib import Path
from time import monotonic, sleep
from urllib.parse import quote

import hypothesis
import pytest
import pytest_django
from asgiref.sync import sync_to_async
from django.db import connection, connections

REPOSITORY = Path(__file__).resolve().parent.parent

# A busy machine is slow now and then; that is no finding.
hypothesis.settings.register_profile("suite", deadline=None, print_blob=True)
hypothesis.settings.load_profile("suite")


@pytest.fixture(scope="session")
def django_db_modify_db_settings(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Name the test database after this process: runs side by side must not meet in it."""
    name = f"cq_test_{os.getpid()}"
    if connection.vendor == "sqlite":
        # A file, since :memory: is one database per connection, and workers are threads.
        name = str(tmp_path_factory.mktemp("database") / f"{name}.sqlite3")
    connection.settings_dict["TEST"]["NAME"] = name


@pytest.fixture(scope="session")
def django_db_setup(
    django_db_setup: None, django_db_blocker: pytest_django.DjangoDbBlocker
) -> Iterator[None]:
    """Name the sessions that a test left open, where DROP DATABASE would only count them."""
    yield
    if connection.vendor != "postgresql":
        return
    with django_db_blocker.unblock():
        deadline = monotonic() + 5
        while (left := _other_sessions()) and monotonic() < deadline:
            sleep(0.05)
    assert not left, f"Database sessions that no test has closed: {left}"


@pytest.fixture(autouse=True)
def closed_thread_of_async_code(request: pytest.FixtureRequest) -> Iterator[None]:
    """Close what an async test has opened in the thread that asgiref keeps for all of them."""
    yield
    if inspect.iscoroutinefunction(getattr(request, "function", None)):
        asyncio.run(sync_to_async(connections.close_all)())


def _other_sessions() -> list[tuple[str, str, str]]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT application_name, state, query FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        sessions: list[tuple[str, str, str]] = cursor.fetchall()
    return sessions


@pytest.fixture
def process_environment(transactional_db: None) -> dict[str, str]:
    """The environment for a process that works on the test database."""
    return {
        **os.environ,
        "DEMO_DATABASE_URL": _database_url(),
        "DJANGO_SETTINGS_MODULE": "demo.settings",
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests")]),
        "PYTHONUNBUFFERED": "1",
    }


def _database_url() -> str:
    database = connection.settings_dict
    if connection.vendor == "sqlite":
        return f"sqlite:///{database['NAME']}"
    user = quote(database["USER"])
    if database["PASSWORD"]:
        user += ":" + quote(database["PASSWORD"], safe="")
    host = database["HOST"] or "127.0.0.1"
    port = f":{database['PORT']}" if database["PORT"] else ""
    return f"{connection.vendor}://{user}@{host}{port}/{quote(database['NAME'])}"
