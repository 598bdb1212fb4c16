"""Does a worker get by in a project whose connections come from a psycopg pool, or are kept?"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
from django.db import connection

from conftest import REPOSITORY
from engine.looking import until

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(connection.vendor != "postgresql", reason="pools are psycopg's"),
]

SCRIPT = """
import django
from django.conf import settings

settings.configure(
    USE_TZ=True,
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "cq"],
    DATABASES={{"default": {database!r}}},
)
django.setup()

from django.core.management import call_command
from django.db import close_old_connections
from cq import task
from cq.models import Task

@task("pools.count")
def count(cqt):
    return Task.objects.count()

@task("pools.loosely", atomic=False)
def loosely(cqt):
    return Task.objects.count()

count.delay_many([()] * 20)
loosely.delay_many([()] * 20)
close_old_connections()
call_command("cq_runworker", "--burst", "--threads", "8", verbosity=0)
print(Task.objects.filter(status="S").count())
"""


@pytest.mark.parametrize(
    "kept",
    [
        {"OPTIONS": {"pool": {"min_size": 1, "max_size": 2, "timeout": 5}}},
        {"CONN_MAX_AGE": None, "CONN_HEALTH_CHECKS": True},
    ],
)
def test_more_threads_than_a_pool_has_connections_all_work(kept: dict[str, Any]) -> None:
    own = connection.settings_dict
    names = ("ENGINE", "NAME", "USER", "PASSWORD", "HOST", "PORT")
    database = {**{name: own[name] for name in names}, **kept}

    # Threads of other tests give theirs back one by one.
    before = other_sessions()

    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(database=database)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=300,
    )

    assert ran.stdout == "40\n", ran.stderr
    until(lambda: other_sessions() <= before)


def other_sessions() -> int:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        return int(cursor.fetchone()[0])
