"""Does a worker get over the end of a connection that it has kept?"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from time import monotonic, sleep
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import Error, OperationalError, connection, connections

from cq import leases, supervisor, task
from cq.database import _socket_of, drop_ended, end_with_silence
from cq.models import Task, Worker
from cq.states import Status
from cq.worker import WorkerLoop, WorkerOptions

pytestmark = pytest.mark.django_db(transaction=True)
on_servers = pytest.mark.skipif("connection.vendor == 'sqlite'", reason="SQLite has no sessions")


def until(condition: Callable[[], object], seconds: float = 30) -> None:
    deadline = monotonic() + seconds
    while not condition():
        assert monotonic() < deadline, "the condition did not come true"
        sleep(0.02)


def other_sessions() -> set[int]:
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute(
                "SELECT pid FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        else:
            cursor.execute(
                "SELECT id FROM information_schema.processlist"
                " WHERE db = DATABASE() AND id <> CONNECTION_ID()"
            )
        return {row[0] for row in cursor.fetchall()}


def end_other_sessions() -> None:
    """End all sessions of the database but this thread's, and wait until they have ended."""
    ended = other_sessions()
    end = (
        "SELECT pg_terminate_backend({})"
        if connection.vendor == "postgresql"
        else "KILL CONNECTION {}"
    )
    with connection.cursor() as cursor:
        for session in ended:
            with suppress(OperationalError):
                cursor.execute(end.format(session))
    until(lambda: not ended & other_sessions())


@on_servers
@pytest.mark.parametrize("is_dropped", [True, False])
def test_a_connection_that_the_server_ended_while_it_was_idle_is_opened_again(
    is_dropped: bool,
) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")

    def end() -> None:
        end_other_sessions()
        connections.close_all()

    thread = threading.Thread(target=end)
    thread.start()
    thread.join(20)

    if is_dropped:
        drop_ended(connection)
        assert Task.objects.count() == 0
    else:
        with pytest.raises(Error):
            Task.objects.count()
        connection.close()


@on_servers
def test_a_vanished_server_is_noticed_after_the_seconds_that_are_asked_for() -> None:
    connection.ensure_connection()

    end_with_silence(connection, 20.0)

    with socket.socket(fileno=os.dup(_socket_of(connection))) as wire:
        assert wire.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert wire.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 5
        assert wire.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 20_000


@pytest.mark.skipif("connection.vendor != 'mysql'", reason="elsewhere sessions have names")
def test_a_session_that_only_has_the_number_of_a_dead_one_is_left_alone() -> None:
    dead = leases.register(queues=[], threads=1, is_embedded=False, is_scheduler=False)
    noted: list[int] = []

    def live() -> None:
        leases.note_session(dead, connections["default"])
        noted.append(connections["default"].connection.thread_id())
        may_end.wait(20)
        connections.close_all()

    may_end = threading.Event()
    thread = threading.Thread(target=live)
    thread.start()
    until(lambda: noted)
    (number,) = noted
    (session,) = [one for one in dead.sessions if one.startswith(f"{number} ")]

    dead.sessions = [f"{number} elsewhere:1"]
    leases._end_sessions(dead)
    assert number in other_sessions()

    dead.sessions = [session]
    leases._end_sessions(dead)
    until(lambda: number not in other_sessions())
    may_end.set()
    thread.join(20)


@task("connections.count_on_loop")
async def count_on_loop(cqt: Any) -> int:
    return await sync_to_async(Task.objects.count)()


@on_servers
def test_async_tasks_get_over_the_end_of_the_session_that_they_share() -> None:
    worker = WorkerLoop(WorkerOptions(scheduler=False, threads=1))
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        first = count_on_loop.delay()
        until(lambda: Task.objects.finished().count() == 1)
        end_other_sessions()
        second = count_on_loop.delay()
        until(lambda: Task.objects.finished().count() == 2)
    finally:
        worker.stop()
        thread.join(20)
        connections.close_all()

    for stored, number in ((first, 1), (second, 2)):
        stored.refresh_from_db()
        assert (stored.status, stored.result) == (Status.SUCCESS, number), stored.error


def test_a_supervisor_buries_a_process_as_soon_as_the_database_lets_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dead = leases.register(queues=[], threads=1, is_embedded=False, is_scheduler=False)
    keeper = supervisor.Supervisor(WorkerOptions(), processes=0)
    keeper._unburied.append(supervisor._Dead(dead.pk, [], is_doomed=False))
    with monkeypatch.context() as patched:
        patched.setattr(leases, "bury", locked)
        keeper._look_after_children()
    assert Worker.objects.filter(stopped__isnull=True).count() == 1

    keeper._bury_due = 0.0
    keeper._look_after_children()

    assert not Worker.objects.filter(stopped__isnull=True).exists()


def locked(*_args: Any, **_kwargs: Any) -> None:
    raise OperationalError("database is locked")
