"""Does everything hold when CQ_DATABASE names another database than the project's own?

In a process of its own, whose default database has none of the tables.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.db import connection

from conftest import REPOSITORY

SCRIPT = """
import os
import django
from django.conf import settings

here = os.environ["HERE"]
lite = {"ENGINE": "django.db.backends.sqlite3"}
settings.configure(
    SECRET_KEY="x",
    USE_TZ=True,
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "cq"],
    DATABASES={
        "default": {**lite, "NAME": f"{here}/own.sqlite3"},
        "tasks": {**lite, "NAME": f"{here}/tasks.sqlite3"},
    },
    CQ_DATABASE="tasks",
)
django.setup()

from django.contrib.auth.models import Group, User
from django.core.management import call_command
from django.db import connections, transaction

call_command("migrate", "auth", database="default", verbosity=0)
call_command("migrate", "cq", database="tasks", verbosity=0)

from cq import operations, task
from cq.models import Act, RepeatingTask, Task, TaskLog, Worker, schedule_task
from cq.testing import run_pending

@task("other.child")
def child(cqt): ...

@task("other.work")
def work(cqt, name):
    cqt.log("working")
    Group.objects.create(name=name)
    cqt.subtask(child)
    cqt.chain(child)
    if name == "broken":
        raise ValueError("broken")
    return name

assert not [t for t in connections["default"].introspection.table_names() if t.startswith("cq_")]
operator = User.objects.create(username="ada")
good, bad = work.delay("good"), work.delay("broken")
with transaction.atomic(using="tasks"):
    work.delay("never")
    transaction.set_rollback(True, using="tasks")
assert run_pending() == 4
good.refresh_from_db()
bad.refresh_from_db()
assert (good.status, bad.status) == ("S", "F"), (good.error, bad.error)
assert [line.message for line in good.logs] == ["working"]
assert good.format_logs().endswith("working")
assert good.subtasks.count() == 1 and good.next.count() == 1
assert bad.attempt_set.get().error == bad.error and "ValueError" in bad.traceback
assert Task.objects.tree(good).count() == 3
assert Task.objects.failed().get() == bad
assert operations.retry(Task.objects.failed(), by=operator).done == [bad.pk]
assert Act.objects.get().by_name == "ada"
bad.cancel()
assert bad.status == "E"
assert good.chain(child).wait is not None and run_pending() == 1
RepeatingTask(name="new", crontab="@daily", func_name="other.child").save()
entry = schedule_task(RepeatingTask, "@hourly", child)
assert set(RepeatingTask.objects.values_list("func_name", flat=True)) == {"other.child"}
entry.submit()
call_command("cq_maintenance", stdout=open(os.devnull, "w"))
call_command("cq_clear_logs", stdout=open(os.devnull, "w"))
assert not TaskLog.objects.exists()
call_command("cq_maintenance", "--clear", stdout=open(os.devnull, "w"))
work.delay("burst")
call_command("cq_runworker", "--burst", verbosity=0)
assert Task.objects.filter(func_name="other.work", status="S").exists()
assert not Worker.objects.filter(stopped=None).exists()
assert Group.objects.filter(name="burst").exists()
print("all well")
"""


@pytest.mark.skipif(connection.vendor != "sqlite", reason="with two databases of its own")
def test_tasks_live_in_the_database_that_the_setting_names_without_a_router(
    tmp_path: Path,
) -> None:
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT],
        env={**os.environ, "HERE": str(tmp_path), "PYTHONPATH": str(REPOSITORY)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )

    assert ran.stdout.endswith("all well\n"), ran.stderr
