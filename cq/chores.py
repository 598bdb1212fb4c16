"""What does a worker do beside its tasks, on threads of its own?"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from django.db import DatabaseError, InterfaceError, connections

from . import conf, maintenance, scheduler

logger = logging.getLogger("cq")


def keep_house(stopping: threading.Event) -> None:
    """Take back what dead workers held, and remove what is old, until told to stop."""
    house = maintenance.Housekeeper()
    while not stopping.is_set():
        _try("housekeeping", house.keep)
        stopping.wait(conf.get().heartbeat)
    connections.close_all()


def keep_schedule(stopping: threading.Event, changed: threading.Event) -> None:
    """Fire what repeats at its time; *changed* makes it look at the entries again at once."""
    ticker = scheduler.Ticker()
    while not stopping.is_set():
        changed.clear()
        pause = _try("scheduler", ticker.tick)
        if not stopping.is_set():
            changed.wait(conf.get().heartbeat if pause is None else pause)
    connections.close_all()


def _try(name: str, chore: Callable[[], float | None]) -> float | None:
    """Do a chore; whatever goes wrong is logged, and the next round begins afresh."""
    try:
        return chore()
    except (DatabaseError, InterfaceError) as error:
        logger.warning("%s waits for the database: %s", name, error)
        connections.close_all()
    except Exception:
        logger.exception("%s fault", name)
    return None
