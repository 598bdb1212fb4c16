"""How is a worker started from a shell?"""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError

from ... import conf
from ...database import connection, leave_pools
from ...exceptions import CQError, InvalidOption
from ...models import Worker
from ...options import Options, override
from ...supervisor import Supervisor, is_task_process, run_task_process, stop_on_signals
from ...worker import WorkerLoop, WorkerOptions

MEGABYTE = 1024 * 1024


class Command(BaseCommand):
    """A small supervisor with task processes below it; it runs until SIGTERM or SIGINT.

    Then running tasks may finish, and the rest is handed back; a second signal ends it at once.
    """

    help = "Run background tasks, ticks of repeating tasks, and housekeeping."

    def add_arguments(self, parser: CommandParser) -> None:
        default = WorkerOptions()
        parser.add_argument("--queues", default="", help="names, comma separated (default: all)")
        parser.add_argument("--threads", type=int, default=default.threads)
        parser.add_argument("--processes", type=int, default=1)
        parser.add_argument("--async-concurrency", type=int, default=default.async_concurrency)
        parser.add_argument(
            "--max-tasks", type=int, default=0, help="replace a task process after so many tasks"
        )
        parser.add_argument(
            "--max-memory", type=int, default=0, help="replace a task process above so many MB"
        )
        parser.add_argument(
            "--shutdown-timeout",
            type=float,
            default=default.shutdown_timeout,
            help="seconds that running tasks may take to end after SIGTERM",
        )
        parser.add_argument("--reload", action="store_true", help="take up changes of the code")
        parser.add_argument(
            "--burst", action="store_true", help="stop when nothing is due and nothing runs"
        )
        parser.add_argument(
            "--no-scheduler", action="store_true", help="do not tick repeating tasks"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if is_task_process():
            run_task_process()
            return
        worker_options = _checked(options)
        _check_tables()
        if options["verbosity"]:
            served = ", ".join(worker_options.queues) or "all queues"
            self.stdout.write(
                f"cq worker: {served}; processes: {options['processes']}, "
                f"threads in each: {worker_options.threads}. Ctrl-C stops it."
            )
            self.stdout.flush()
        if worker_options.burst:
            leave_pools()
            worker = WorkerLoop(worker_options)
            stop_on_signals(worker.stop)
            worker.run()
            return
        supervisor = Supervisor(worker_options, options["processes"], reload=options["reload"])
        stop_on_signals(supervisor.stop)
        try:
            supervisor.run()
        except CQError as error:
            raise CommandError(str(error)) from error


def _check_tables() -> None:
    database = connection()
    try:
        with database.cursor() as cursor:
            names = database.introspection.table_names(cursor)
    except DatabaseError:
        # Not there yet, perhaps: a worker waits for its database.
        return
    finally:
        database.close()
    if Worker._meta.db_table not in names:
        raise CommandError(
            f"Database {database.alias!r} has no tables of django-cq. Run: manage.py migrate"
        )


def _checked(options: dict[str, Any]) -> WorkerOptions:
    try:
        conf.get()
    except CQError as error:
        raise CommandError(str(error)) from error
    for name in ("threads", "processes", "async_concurrency"):
        if not 1 <= options[name] < conf.MOST:
            raise CommandError(f"--{name.replace('_', '-')} takes a number above 0.")
    for name in ("max_tasks", "max_memory", "shutdown_timeout"):
        # Not NaN, nor infinity, for which no thread waits.
        if not 0 <= options[name] < conf.MOST:
            raise CommandError(f"--{name.replace('_', '-')} takes 0 or more.")
    if options["burst"] and (options["processes"] > 1 or options["reload"]):
        raise CommandError("--burst runs in one process, without --processes and --reload.")
    queues = tuple(name.strip() for name in options["queues"].split(",") if name.strip())
    for name in queues:
        # Nothing would ever be found in it, and nobody would notice.
        try:
            override("--queues", Options(), {"queue": name})
        except InvalidOption as error:
            raise CommandError(str(error)) from error
    return WorkerOptions(
        queues=queues,
        threads=options["threads"],
        async_concurrency=options["async_concurrency"],
        shutdown_timeout=options["shutdown_timeout"],
        burst=options["burst"],
        scheduler=not options["no_scheduler"],
        max_tasks=options["max_tasks"],
        max_memory=options["max_memory"] * MEGABYTE,
    )
