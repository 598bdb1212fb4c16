"""Is every effect there exactly once when connections to the database break, at any moment?"""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import partial
from time import monotonic, sleep

import pytest
from django.db import connection

from . import effects
from . import fleet as workers
from .fleet import FULL, Fleet, children, say, until
from .network import OUTSIDE, is_possible, network
from .proxy import Proxy
from .servers import PostgresServer
from .tasks import add, add_at_least_once

pytestmark = pytest.mark.skipif(connection.vendor == "sqlite", reason="SQLite has no connections")


@pytest.fixture
def proxy(fleet: Fleet, chance: random.Random) -> Iterator[Proxy]:
    proxy = Proxy(fleet.environment["DEMO_DATABASE_URL"], chance)
    yield proxy
    fleet.stop()
    proxy.close()


@pytest.mark.parametrize(
    ("broken", "holds"),
    [("", True), pytest.param("answer,fence", False, marks=pytest.mark.full("mysql"))],
)
def test_a_lost_answer_to_commit_neither_doubles_nor_fails_a_task(
    fleet: Fleet, proxy: Proxy, broken: str, holds: bool
) -> None:
    number = 1_000 if FULL else 100
    add.delay_many([(f"task {n}", 0.01) for n in range(number)])
    proxy.cut_rate, proxy.cuts_left = 0.3, number // 5

    fleet.start(DEMO_DATABASE_URL=proxy.url, FAULTS_BROKEN=broken, FAULTS_LEASE="5")
    until(lambda: not workers.open_tasks(), 600 if FULL else 180, "the end of all tasks")

    say(f"{number} tasks, {proxy.cuts} answers to COMMIT lost, broken: {broken or 'nothing'}")
    say(f"    {workers.statuses()}, {effects.seen()}")
    assert proxy.cuts >= number // 10
    if holds:
        assert workers.statuses() == {"S": number}, workers.errors()
        assert effects.seen() == effects.exactly_once(number)
    else:
        assert effects.seen().rows > number, workers.errors()


@pytest.mark.skipif(connection.vendor != "postgresql", reason="fence and COMMIT go as one message")
@pytest.mark.parametrize(("broken", "holds"), [("", True), ("late", False)])
def test_a_commit_that_arrives_after_its_connection_was_lost_meets_no_second_run(
    fleet: Fleet, proxy: Proxy, broken: str, holds: bool
) -> None:
    number = 60
    add.delay_many([(f"task {n}", 0.01) for n in range(number)])
    proxy.cut_rate, proxy.cuts_left, proxy.lateness = 0.3, number // 5, 0.5

    fleet.start(DEMO_DATABASE_URL=proxy.url, FAULTS_BROKEN=broken, FAULTS_LEASE="5")
    until(lambda: not workers.open_tasks(), 120, "the end of all tasks")

    second_runs = fleet.log().count("lost lease")
    say(f"{proxy.cuts} commits arrived late, {second_runs} met a second run, broken: {broken}")
    assert proxy.cuts >= number // 10
    assert workers.statuses() == {"S": number}, workers.errors()
    assert effects.seen() == effects.exactly_once(number)
    assert (second_runs == 0) is holds


@pytest.mark.full("mysql")
@pytest.mark.parametrize(
    ("broken", "holds"), [("", True), pytest.param("session", False, marks=pytest.mark.full)]
)
def test_an_outage_of_the_database_loses_nothing_and_needs_nobody(
    fleet: Fleet, proxy: Proxy, broken: str, holds: bool
) -> None:
    number, seconds = (2_000, 20.0) if FULL else (150, 3.0)
    add.delay_many([(f"task {n}", 0.03) for n in range(number)])
    supervisor = fleet.start(DEMO_DATABASE_URL=proxy.url, FAULTS_BROKEN=broken)
    until(lambda: effects.seen().rows > number // 10, 60, "the first effects")

    proxy.is_refusing = True
    proxy.reset()
    sleep(seconds)
    proxy.is_refusing = False
    began, before = monotonic(), effects.seen().rows
    until(lambda: effects.seen().rows > before, 60, "the next effect")
    say(
        f"database gone for {seconds} s: effects again {monotonic() - began:.1f} s after, broken: "
        f"{broken or 'nothing'}"
    )
    until(lambda: not workers.open_tasks(), 300 if FULL else 180, "the end of all tasks")

    say(f"    {workers.statuses()}")
    assert supervisor.poll() is None
    assert (workers.statuses() == {"S": number}) is holds, workers.errors()
    assert (effects.seen() == effects.exactly_once(number)) is holds


@pytest.mark.full
@pytest.mark.skipif(connection.vendor != "postgresql", reason="starts a PostgreSQL of its own")
@pytest.mark.parametrize(
    ("mode", "broken", "holds"),
    [("fast", "", True), ("immediate", "", True), ("immediate", "session", False)],
)
@pytest.mark.usefixtures("own_server")
def test_restarts_of_the_database_server_lose_nothing(
    own_server: PostgresServer, fleet: Fleet, mode: str, broken: str, holds: bool
) -> None:
    number = 1_000
    add.delay_many([(f"task {n}", 0.03) for n in range(number)])
    supervisors = [fleet.start(FAULTS_BROKEN=broken) for _number in range(2)]
    for part in range(1, 4):
        enough = number * part // 10
        until(partial(have_effects, enough), 60, "some effects")
        connection.close()

        own_server.stop(mode)
        sleep(2.0)
        own_server.start()
        took = until(partial(have_effects, effects.seen().rows), 60, "the next effect")
        say(f"restarted ({mode}, broken: {broken or 'nothing'}): effects again {took:.1f} s after")
    until(lambda: not workers.open_tasks(), 120, "the end of all tasks")

    say(f"    {workers.statuses()}")
    assert all(one.poll() is None for one in supervisors)
    assert (workers.statuses() == {"S": number}) is holds, workers.errors()
    assert (effects.seen() == effects.exactly_once(number)) is holds


def have_effects(more_than: int) -> bool:
    return effects.seen().rows > more_than


def terminate_sessions(chance: random.Random, seconds: float) -> int:
    """End a random session of the workers five times a second; returns how many."""
    ended = 0
    until_then = monotonic() + seconds
    with connection.cursor() as cursor:
        while monotonic() < until_then and workers.open_tasks():
            cursor.execute(
                "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
                " AND pid <> pg_backend_pid() ORDER BY pid"
            )
            if sessions := [row[0] for row in cursor.fetchall()]:
                cursor.execute("SELECT pg_terminate_backend(%s)", [chance.choice(sessions)])
                ended += 1
            sleep(0.2)
    return ended


@pytest.mark.skipif(connection.vendor != "postgresql", reason="asks PostgreSQL to end sessions")
@pytest.mark.parametrize(
    ("broken", "holds"), [("", True), pytest.param("session", False, marks=pytest.mark.full)]
)
def test_sessions_ended_by_the_server_lose_nothing(
    fleet: Fleet, chance: random.Random, broken: str, holds: bool
) -> None:
    number, seconds = (3_000, 20.0) if FULL else (200, 3.0)
    add.delay_many([(f"task {n}", 0.05) for n in range(number)])
    supervisor = fleet.start(FAULTS_BROKEN=broken)
    until(lambda: effects.seen().rows, 60, "the first effect")

    ended = terminate_sessions(chance, seconds)
    until(lambda: not workers.open_tasks(), 300 if FULL else 180, "the end of all tasks")

    say(f"{number} tasks, {ended} sessions ended, broken: {broken or 'nothing'}")
    say(f"    {workers.statuses()}")
    assert ended > 5
    assert supervisor.poll() is None
    assert (workers.statuses() == {"S": number}) is holds, workers.errors()
    if holds:
        assert effects.seen() == effects.exactly_once(number)


@pytest.mark.full
@pytest.mark.skipif(connection.vendor != "postgresql", reason="asks PostgreSQL to end sessions")
@pytest.mark.parametrize(("broken", "holds"), [("", True), ("ended", False)])
def test_a_session_ended_between_two_tasks_fails_neither(
    fleet: Fleet, broken: str, holds: bool
) -> None:
    fleet.start(threads=4, FAULTS_BROKEN=broken)
    # Not atomic: such a task is not run again in place.
    add_at_least_once.delay_many([(f"first {n}", 0.2) for n in range(8)])
    until(lambda: effects.seen().rows == 8 and not workers.open_tasks(), 180, "the first tasks")
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )

    add_at_least_once.delay_many([(f"second {n}", 0.2) for n in range(8)])
    until(lambda: not workers.open_tasks(), 180, "the second tasks")

    assert (workers.statuses() == {"S": 16}) is holds, workers.errors()


@pytest.mark.full
@pytest.mark.skipif(not is_possible(), reason="needs root and the command ip")
@pytest.mark.parametrize(
    ("is_forgotten", "broken"), [(False, ""), (True, ""), (False, "silence,silence of beats")]
)
def test_a_worker_whose_packets_vanish_comes_back_by_itself(
    fleet: Fleet, chance: random.Random, is_forgotten: bool, broken: str
) -> None:
    """For 30 s; meanwhile the server may give its end of the connections up, unheard.

    Only who was told to give a dead network up has by then noticed that it is one.
    """
    number, lease = 1_500, "10"
    add.delay_many([(f"task {n}", 0.1) for n in range(number)])
    with network() as net:
        proxy = Proxy(fleet.environment["DEMO_DATABASE_URL"], chance, host=OUTSIDE)
        try:
            cut_off = fleet.start(
                prefix=net.prefix,
                DEMO_DATABASE_URL=proxy.url,
                DEMO_REDIS_URL="",
                FAULTS_LEASE=lease,
                FAULTS_BROKEN=broken,
            )
            until(lambda: effects.seen().rows, 120, "the first effect")
            children_before = children(cut_off.pid)

            net.swallow()
            began = monotonic()
            fleet.start(FAULTS_LEASE=lease)
            until(lambda: "rescued the tasks of dead" in fleet.log(), 120, "the rescue")
            if is_forgotten:
                proxy.reset()
            sleep(began + 30.0 - monotonic())
            assert not workers.are_registered(2), "it was not cut off"
            assert ("waits for the database" in fleet.log()) is (not broken)
            if broken:
                return
            net.deliver()

            took = until(lambda: workers.are_registered(2), 60, "the return of the worker")
            until(lambda: not workers.open_tasks(), 300, "the end of all tasks")
        finally:
            fleet.stop()
            proxy.close()

    forgotten = ", connections given up by the server" if is_forgotten else ""
    say(f"packets vanished for 30 s (lease {lease} s{forgotten}): back {took:.1f} s after")
    assert children_before
    assert workers.statuses() == {"S": number}, workers.errors()
    assert effects.seen() == effects.exactly_once(number)


@pytest.mark.full
def test_a_worker_that_the_database_does_not_answer_comes_back_by_itself(
    fleet: Fleet, proxy: Proxy
) -> None:
    number, seconds, lease = 1_000, 30.0, "10"
    add.delay_many([(f"task {n}", 0.05) for n in range(number)])
    fleet.start(DEMO_DATABASE_URL=proxy.url, FAULTS_LEASE=lease)
    until(lambda: effects.seen().rows, 60, "the first effect")

    proxy.hold()
    fleet.start(FAULTS_LEASE=lease)
    sleep(seconds)
    # What a late one would double, test_zombie shows.
    assert "rescued the tasks of dead" in fleet.log()
    proxy.flow()
    took = until(lambda: workers.are_registered(2), 60, "the return of the worker")
    until(lambda: not workers.open_tasks(), 180, "the end of all tasks")

    say(f"no answers for {seconds} s (lease {lease} s): back {took:.1f} s after")
    assert workers.statuses() == {"S": number}, workers.errors()
    assert effects.seen() == effects.exactly_once(number)
