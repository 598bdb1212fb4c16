"""What does a web process do all day beside its embedded worker? (python web.py <seconds>)

It prints a line for each request whose transaction it has committed, and for each that was refused.
"""

from __future__ import annotations

import sys
import threading
from contextlib import suppress
from time import monotonic, sleep
from typing import Any

import django

RATE = 50
# Every so many requests one is made while somebody else provably holds SQLite's write lock.
EVERY, HELD_FOR = 25, 0.1


async def nothing(_scope: Any, _receive: Any, _send: Any) -> None:
    """The application that the worker stands beside."""


def main(seconds: float) -> None:
    from django.db import OperationalError, transaction

    from cq.asgi import with_worker
    from faults import effects
    from faults.tasks import add

    with_worker(nothing, threads=4)
    began = monotonic()
    number = 0
    while monotonic() - began < seconds:
        number += 1
        if number % EVERY == 0:
            start_a_writer()
        try:
            with transaction.atomic():
                effects.write_page(f"page {number}")
                if number % 5 == 0:
                    add.delay(f"task {number}", 0.01)
        except OperationalError as error:
            print("refused", number, error, flush=True)
        else:
            print("committed", number, flush=True)
        sleep(max(0.0, began + number / RATE - monotonic()))
    # Until it is killed.
    sleep(3_600)


def start_a_writer() -> None:
    """Return when another thread holds the write lock, which it then does for a while."""
    from django.db import OperationalError, connection, transaction

    from faults import effects

    has_lock = threading.Event()

    def write() -> None:
        # One that must not wait for the lock may have to ask for it more than once.
        while not has_lock.is_set():
            with suppress(OperationalError), transaction.atomic():
                effects.write_page("of another writer")
                has_lock.set()
                sleep(HELD_FOR)
        connection.close()

    threading.Thread(target=write, daemon=True).start()
    has_lock.wait()


if __name__ == "__main__":
    django.setup()
    main(float(sys.argv[1]))
