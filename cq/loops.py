"""How does plain code run where an event loop must not be kept waiting by a query?"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

from django.db import connections

ResultT = TypeVar("ResultT")


def off_the_loop(act: Callable[[], ResultT]) -> ResultT:
    """Call *act*; from async code in another thread, as Django lets no loop wait for a query.

    The loop stands still meanwhile: a few milliseconds for a statement or two.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return act()

    def work() -> ResultT:
        try:
            return act()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1, thread_name_prefix="cq-off-loop") as helper:
        return helper.submit(copy_context().run, work).result()
