"""How is the demo served, with everything it needs in one process?"""

import asyncio
import logging
import socket
from typing import Any

from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser

from demo.census.operator import OPERATOR_NAME, OPERATOR_PASSWORD, ensure_operator

HOST = "127.0.0.1"

BANNER = """
  django-cq demo: a census of the Python code on this machine

    start page   http://{host}:{port}/
    console      http://{host}:{port}/admin/cq/
    operator     {name}, password {password}

  Open the start page, press "Start a census" and watch its tree of tasks. Ctrl-C ends the demo.
"""


class Command(BaseCommand):
    """Prepare the database, then serve pages and run tasks until interrupted."""

    help = "Serve the demo on the loopback interface, with a worker in the same process."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--port", type=int, default=8000)

    def handle(self, *args: Any, port: int, **options: Any) -> None:
        # First of all: nothing is touched when somebody else has the port.
        listener = listen(port)
        call_command("migrate", verbosity=0, interactive=False)
        ensure_operator()
        self.stdout.write(
            BANNER.format(
                host=HOST,
                port=listener.getsockname()[1],
                name=OPERATOR_NAME,
                password=OPERATOR_PASSWORD,
            )
        )
        self.stdout.flush()
        serve(listener)


def listen(port: int) -> socket.socket:
    """Return a socket that listens on the port; 0 takes a free one."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
    except OSError as error:
        raise CommandError(
            f"Port {port} of {HOST} cannot be used ({error.strerror}). "
            f"Stop what listens there, or choose another port: make demo PORT={port + 1}"
        ) from None
    listener.listen(100)
    return listener


def serve(listener: socket.socket) -> None:
    """Serve the demo's ASGI application on a listening socket until SIGINT or SIGTERM."""
    # Late: importing the server installs its event loop for the whole process.
    from daphne.server import Server, twisted_loop

    from demo.asgi import application

    logging.getLogger("daphne").setLevel(logging.WARNING)
    Server(
        application=application,
        endpoints=[f"fd:fileno={listener.fileno()}"],
        signal_handlers=True,
        application_close_timeout=1,
        verbosity=0,
    ).run()
    end_what_waits(twisted_loop)


def end_what_waits(loop: asyncio.AbstractEventLoop) -> None:
    """Cancel what still waits on the loop of a server that has stopped, such as websockets.

    Python 3.11 may crash on coroutines that are left for the end of the process.
    """
    waiting = asyncio.all_tasks(loop)
    for task in waiting:
        task.cancel()
    loop.run_until_complete(asyncio.gather(*waiting, return_exceptions=True))
