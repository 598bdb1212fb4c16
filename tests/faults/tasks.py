"""Which tasks does the fault suite run while it breaks what they run on?"""

from __future__ import annotations

import asyncio
import ctypes
import os
import random
import time
from pathlib import Path
from typing import Any

from django.db import connection, transaction

from cq import task

from . import effects
from .injection import die


@task
def add(_cqt: Any, name: str, pause: float = 0.0) -> None:
    """Have an effect in two halves."""
    effects.insert(name)
    time.sleep(pause)
    effects.increment()


@task(atomic=False)
def add_at_least_once(_cqt: Any, name: str, pause: float = 0.0) -> None:
    """The same by the rule of other engines: effects first, done afterwards."""
    effects.insert(name)
    effects.increment()
    time.sleep(pause)


@task
def add_with_callback(cqt: Any, name: str) -> None:
    effects.insert(name)
    effects.increment()
    task_id = cqt.id
    transaction.on_commit(lambda: die("in on_commit", task_id))


@task
def add_with_children(cqt: Any, name: str) -> None:
    """Have one effect here and one in each of three subtasks."""
    effects.insert(name)
    effects.increment()
    for number in range(3):
        cqt.subtask(add, f"{name}/{number}")
        if number == 1:
            die("among children", cqt.id)


@task(atomic=False)
def spread(cqt: Any, name: str) -> None:
    """Make subtasks that are visible at once, and be killed before the last."""
    for number in range(3):
        cqt.subtask(add, f"{name}/{number}")
        if number == 1:
            die("among children", cqt.id)


@task
def fail(_cqt: Any, name: str) -> None:
    """Have an effect that its failure takes back."""
    effects.insert(name)
    effects.increment()
    raise ValueError(name)


@task(retries=5, backoff=0.2)
def add_at_last(cqt: Any, name: str) -> None:
    """The same twice, then succeed."""
    effects.insert(name)
    effects.increment()
    if cqt.attempt < 3:
        raise ValueError(name)


@task
def talk(cqt: Any, name: str, lines: int) -> None:
    for number in range(lines):
        cqt.log(f"{name}: line {number}")
        cqt.progress(number + 1, lines)
    effects.insert(name)
    effects.increment()


@task
def lead(cqt: Any, name: str) -> None:
    """Have followers for both ends, and a child that fails now and then."""
    cqt.subtask(add, f"{name}/child")
    if name.endswith("7"):
        cqt.subtask(fail, f"{name}/failing")
    cqt.chain(add, (f"{name}/after",))
    cqt.errorback(rest, (0.01,))


@task(atomic=False)
async def rest_on_loop(_cqt: Any, seconds: float) -> None:
    await asyncio.sleep(seconds)


_leaked: list[Any] = []


@task
def leak(_cqt: Any) -> None:
    """Keep a file open and half a megabyte of memory, for ever."""
    _leaked.append((os.open(os.devnull, os.O_RDONLY), os.urandom(524_288)))


@task
def add_and_leak(_cqt: Any, name: str, megabytes: int) -> None:
    """Have an effect, and keep so much memory for ever."""
    effects.insert(name)
    _leaked.append(os.urandom(megabytes * 1_048_576))
    time.sleep(0.2)
    effects.increment()


@task
def rest(_cqt: Any, seconds: float) -> None:
    time.sleep(seconds)


@task
def leave(_cqt: Any, code: int) -> None:
    """End the process as C code would that calls exit()."""
    os._exit(code)


@task
def end_session(_cqt: Any) -> None:
    """End one's own session, as a server does that tolerates no idle transaction."""
    with connection.cursor() as cursor:
        if connection.vendor == "mysql":
            cursor.execute("KILL CONNECTION_ID()")
        else:
            cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")


@task
def fault(_cqt: Any) -> None:
    """End the process by reading where nothing is."""
    ctypes.string_at(0)


@task
def stop_python(_cqt: Any) -> None:
    raise SystemExit(3)


@task(timeout=1)
def stick_in_c(_cqt: Any, seconds: int) -> None:
    """Sleep in C with the interpreter's lock held: no thread of this process runs meanwhile."""
    ctypes.PyDLL(None).sleep(seconds)


@task(timeout=1)
def loop(_cqt: Any, started: str) -> None:
    Path(started).touch()
    while True:
        pass


@task
def write_and_wait(_cqt: Any, name: str, folder: str) -> None:
    """Write, say who has written, wait until somebody opens the gate, and write the rest."""
    effects.insert(name)
    Path(folder, f"written.{os.getpid()}").touch()
    while not Path(folder, f"gate.{os.getpid()}").exists():
        time.sleep(0.02)
    effects.increment()


@task(backoff=0)
def branch(cqt: Any, spec: dict[str, Any]) -> Any:
    """A node of a random tree; see `test_operators`."""
    return _grow(cqt, spec)


@task(atomic=False, backoff=0)
def loose_branch(cqt: Any, spec: dict[str, Any]) -> Any:
    return _grow(cqt, spec)


@task
def twig(_cqt: Any) -> str:
    return "twig"


def branch_for(spec: dict[str, Any]) -> Any:
    """The task that shall run *spec*."""
    return (loose_branch if spec["is_loose"] else branch).using(retries=spec["retries"])


def _grow(cqt: Any, spec: dict[str, Any]) -> Any:
    cqt.log("begins")
    for child in spec["children"]:
        made = cqt.subtask(branch_for(child), child)
        for condition in child["behind"]:
            follow(made, condition)
    for condition in spec["own"]:
        follow(cqt, condition)
    time.sleep(spec["pause"])
    cqt.log("ends")
    if random.random() < spec["fails"]:
        raise ValueError("broken")
    if spec["adopts"]:
        adopted = branch_for(spec["adopts"]).delay(spec["adopts"])
        adopted.chain(twig)
        return adopted
    return spec["pause"]


def follow(target: Any, condition: str) -> None:
    if condition == "failure":
        target.errorback(twig)
    else:
        target.chain(twig, force_chain=condition == "always")
