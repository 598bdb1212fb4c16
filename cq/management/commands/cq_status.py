"""How is the engine asked from a shell, or by monitoring, whether it is well?"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from django.core.serializers.json import DjangoJSONEncoder

from ... import status


class Command(BaseCommand):
    """Exit code 1 says that something is wrong."""

    help = "Show queues, workers and the next ticks; exit with 1 when something is wrong."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="one JSON object")

    def handle(self, *args: Any, **options: Any) -> None:
        found = status.current()
        if options["json"]:
            self.stdout.write(json.dumps(asdict(found), cls=DjangoJSONEncoder))
        else:
            self._write(found)
        if found.problems:
            sys.exit(1)

    def _write(self, found: status.EngineStatus) -> None:
        for queue in found.queues:
            waits = f", oldest waits {queue.oldest:.0f} s" if queue.oldest is not None else ""
            paused = ", paused" if queue.is_paused else ""
            self.stdout.write(
                f"queue {queue.name}: {queue.ready} ready, {queue.running} running, "
                f"{queue.scheduled} scheduled{waits}{paused}"
            )
        for worker in found.workers:
            self.stdout.write(
                f"worker {worker.name}: {', '.join(worker.queues) or 'all queues'}, "
                f"{worker.running} of {worker.threads} busy, heard {worker.heard:.0f} s ago"
            )
        if not found.workers:
            self.stdout.write("no worker is alive")
        for tick in found.ticks:
            self.stdout.write(f"next {tick.entry}: {tick.next_run:%Y-%m-%d %H:%M:%S} UTC")
        oldest = found.oldest_transaction
        if oldest is not None:
            self.stdout.write(
                f"longest atomic task: {oldest.task} {oldest.func_name}, {oldest.seconds:.0f} s"
            )
        for problem in found.problems:
            self.stdout.write(self.style.ERROR(problem))
        if not found.problems:
            self.stdout.write(self.style.SUCCESS("all is well"))
