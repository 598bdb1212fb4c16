"""Which tasks does somebody mean on a command line?"""

from __future__ import annotations

import re
from argparse import ArgumentTypeError
from collections.abc import Iterable
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.core.management.base import CommandError, CommandParser
from django.db.models import QuerySet
from django.db.models.functions import Now

from .. import conf
from ..models import Task

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
LONGEST = 100 * 365 * 86_400


def add_arguments(parser: CommandParser) -> None:
    parser.add_argument("ids", nargs="*", help="ids of tasks")
    parser.add_argument("--since", help="submitted within, such as 30m, 12h, 7d")
    parser.add_argument("--func", help="registered name of the function")
    parser.add_argument("--queue")
    parser.add_argument("--reason", default="", help="why; kept with the act")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be done")


def selected(options: dict[str, Any]) -> QuerySet[Task]:
    """The tasks that ids or filters name, oldest first; raises `CommandError` for neither."""
    tasks = Task.objects.using(conf.get().database).order_by("id")
    if options["ids"]:
        filters = [f"--{name}" for name in ("since", "func", "queue") if options[name]]
        if filters:
            raise CommandError(f"Name tasks by their ids or by {', '.join(filters)}, not by both.")
        return tasks.filter(pk__in=_stored_ids(options["ids"]))
    if options["func"]:
        tasks = tasks.filter(func_name=options["func"])
    if options["queue"]:
        tasks = tasks.filter(queue=options["queue"])
    if options["since"]:
        tasks = tasks.filter(submitted__gte=Now() - span(options["since"]))
    return tasks


def span(text: str) -> timedelta:
    """``7d`` as a timedelta; raises `CommandError`."""
    match = re.fullmatch(r"([0-9]{1,9})([smhdw])", text)
    seconds = int(match[1]) * _UNITS[match[2]] if match else LONGEST + 1
    if match is None or seconds > LONGEST:
        raise CommandError(
            f"{text!r} is not a span of time. Write 30m, 12h or 7d, up to a hundred years."
        )
    return timedelta(seconds=seconds)


def days(text: str) -> timedelta:
    """A number of days as an argument of the command line."""
    if not re.fullmatch(r"[0-9]{1,5}", text):
        raise ArgumentTypeError(f"{text!r} is not a number of days from 0 to 99999.")
    return timedelta(days=int(text))


def _stored_ids(given: Iterable[str]) -> list[UUID]:
    try:
        ids = [UUID(text) for text in given]
    except ValueError:
        raise CommandError(f"These are not all ids of tasks: {' '.join(given)}") from None
    stored = Task.objects.using(conf.get().database).in_bulk(ids)
    missing = [str(task_id) for task_id in ids if task_id not in stored]
    if missing:
        raise CommandError(f"No task is stored as {', '.join(missing)}.")
    return ids
