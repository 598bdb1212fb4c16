"""How many of a worker's threads work, and does any task wait for longer because of that?"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic, sleep
from typing import Any

import pytest

from cq import executors
from cq.executors import ThreadPool
from engine.looking import until

THREADS = 6


class Place:
    """Where tasks of a pool wait to be let go, and who has come there."""

    def __init__(self) -> None:
        self.come: list[int] = []
        self.open = threading.Event()

    def task(self) -> None:
        self.come.append(threading.get_ident())
        assert self.open.wait(30)


@contextmanager
def running(pool: ThreadPool) -> Iterator[ThreadPool]:
    pool.start()
    try:
        yield pool
    finally:
        assert pool.stop(30)


def new_pool() -> ThreadPool:
    def call(task: Any) -> None:
        task()

    return ThreadPool(THREADS, call, lambda: None)


def submit(pool: ThreadPool, task: Callable[[], None], number: int) -> None:
    tasks: list[Any] = [task] * number
    pool.submit(tasks)


def make_brief(pool: ThreadPool) -> None:
    """Let it run brief tasks until it takes them for usual."""
    while not pool._brevity.is_usual:
        submit(pool, lambda: None, 50)
        until(lambda: pool.is_idle)
    until(lambda: len(pool._seats) == THREADS)


def test_all_threads_work_on_what_takes_long() -> None:
    place = Place()
    with running(new_pool()) as pool:
        submit(pool, place.task, 2 * THREADS)
        until(lambda: len(place.come) == THREADS)
        place.open.set()

    assert len(set(place.come)) == THREADS
    assert len(place.come) == 2 * THREADS


def test_few_work_while_tasks_are_brief(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executors, "LOOK_SECONDS", 0.3)
    # However little of a busy machine this process gets.
    monkeypatch.setattr(executors, "BUSY", 0.0)
    workers = set()
    with running(new_pool()) as pool:
        make_brief(pool)
        submit(pool, lambda: workers.add(threading.get_ident()), 3_000)
        until(lambda: pool.is_idle)

    assert 1 <= len(workers) <= executors.FEW


def test_the_control_when_brief_tasks_are_unknown_all_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(executors, "BRIEF_SECONDS", 0.0)
    gate, workers = threading.Barrier(THREADS), set()

    def task() -> None:
        workers.add(threading.get_ident())
        gate.wait(30)

    with running(new_pool()) as pool:
        submit(pool, lambda: None, 500)
        submit(pool, task, THREADS)
        until(lambda: pool.is_idle)

    assert len(workers) == THREADS


def test_long_ones_behind_brief_ones_do_not_wait_for_each_other() -> None:
    place = Place()
    with running(new_pool()) as pool:
        make_brief(pool)
        began = monotonic()
        submit(pool, place.task, THREADS)
        until(lambda: len(place.come) == THREADS)
        took = monotonic() - began
        place.open.set()

    assert len(set(place.come)) == THREADS
    # One lookout after the other; far below the time of a poll, however busy the machine is.
    assert took < 5


@contextmanager
def brief_ones_behind_long_ones() -> Iterator[tuple[ThreadPool, list[int]]]:
    """As many long tasks as threads that work on brief ones, and twenty of these behind them."""
    place, brief = Place(), list[int]()
    with running(new_pool()) as pool:
        make_brief(pool)
        submit(pool, place.task, executors.FEW)
        until(lambda: len(place.come) == executors.FEW)
        submit(pool, lambda: brief.append(1), 20)
        yield pool, brief
        place.open.set()


def test_one_more_is_called_when_few_do_not_get_on() -> None:
    with brief_ones_behind_long_ones() as (_pool, brief):
        until(lambda: len(brief) == 20)


def test_the_control_when_nobody_looks_out_in_time_they_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(executors, "LOOK_SECONDS", 2.0)
    with brief_ones_behind_long_ones() as (pool, brief):
        sleep(0.2)
        were_waiting = pool.queued

    assert were_waiting == 20
    assert len(brief) == 20


def workers_on_tasks_that_wait(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """Who works on tasks that are taken for brief, and wait for something else than the lock."""
    monkeypatch.setattr(executors, "BRIEF_SECONDS", 10.0)
    workers = set()

    def task() -> None:
        workers.add(threading.get_ident())
        sleep(0.002)

    with running(new_pool()) as pool:
        make_brief(pool)
        submit(pool, task, 300)
        until(lambda: pool.is_idle)
    return workers


def test_all_are_called_when_those_who_work_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    # One of them may have looked out all the time.
    assert len(workers_on_tasks_that_wait(monkeypatch)) >= THREADS - 1


def test_the_control_when_waiting_looks_like_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executors, "BUSY", 0.0)
    # On a busy machine it may be long until one of them takes a task.
    monkeypatch.setattr(executors, "LOOK_SECONDS", 0.2)

    assert len(workers_on_tasks_that_wait(monkeypatch)) == executors.FEW


def test_who_is_not_needed_any_more_leaves_while_tasks_still_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(executors, "BUSY", 0.0)
    monkeypatch.setattr(executors, "LOOK_SECONDS", 0.02)
    is_over = threading.Event()
    place = Place()
    with running(new_pool()) as pool:

        def task() -> None:
            if not is_over.is_set():
                submit(pool, task, 1)

        submit(pool, place.task, THREADS)
        until(lambda: len(place.come) == THREADS)
        submit(pool, task, 50)
        place.open.set()
        # There is always something to do, and nobody sits down for lack of it.
        until(lambda: pool._brevity.is_usual and pool._working == executors.FEW)
        were_waiting = pool.queued
        is_over.set()

    assert were_waiting > 0


def test_a_pool_that_stops_runs_what_was_submitted_and_ends_at_once() -> None:
    done: list[int] = []
    pool = new_pool()
    pool.start()
    make_brief(pool)
    submit(pool, lambda: done.append(1), 500)
    began = monotonic()

    assert pool.stop(30)

    assert len(done) == 500
    assert monotonic() - began < executors.IDLE_SECONDS


def test_what_is_withdrawn_does_not_run() -> None:
    place, later = Place(), []
    with running(new_pool()) as pool:
        submit(pool, place.task, THREADS)
        until(lambda: len(place.come) == THREADS)
        submit(pool, lambda: later.append(1), 5)
        withdrawn = pool.withdraw()
        place.open.set()

    assert len(withdrawn) == 5
    assert later == []


def test_an_idle_thread_gives_its_connections_back(monkeypatch: pytest.MonkeyPatch) -> None:
    given_back = []
    monkeypatch.setattr(executors, "IDLE_SECONDS", 0.05)
    monkeypatch.setattr(executors, "close_old_connections", lambda: given_back.append(1))
    done: list[int] = []
    with running(new_pool()) as pool:
        until(lambda: len(given_back) > 2 * THREADS)
        submit(pool, lambda: done.append(1), 50)
        until(lambda: len(done) == 50)


def test_many_rounds_lose_no_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads sit down, get up, look out and are called, by single tasks and by crowds."""
    monkeypatch.setattr(executors, "IDLE_SECONDS", 0.001)
    left, lock = [0], threading.Lock()

    def task() -> None:
        with lock:
            left[0] -= 1

    with running(new_pool()) as pool:
        for round_ in range(300):
            size = (1, 2, 40)[round_ % 3]
            with lock:
                left[0] += size
            submit(pool, task, size)
            if round_ % 5 == 0:
                until(lambda: left[0] == 0)
        until(lambda: left[0] == 0)
        until(lambda: pool._working == 0 and len(pool._seats) == THREADS)
