"""How are tasks retried from a shell?"""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from ... import operations
from ...states import FAILED
from .. import selection


class Command(BaseCommand):
    help = "Retry tasks by id, or those that failed."

    def add_arguments(self, parser: CommandParser) -> None:
        selection.add_arguments(parser)
        parser.add_argument("--failed", action="store_true", help="every failed or lost task")

    def handle(self, *args: Any, **options: Any) -> None:
        if not options["ids"] and not options["failed"]:
            raise CommandError("Name tasks by their ids, or give --failed.")
        tasks = selection.selected(options)
        if options["failed"]:
            tasks = tasks.filter(status__in=sorted(FAILED))
        if options["dry_run"]:
            self.stdout.write(f"{tasks.count()} tasks would be retried.")
            return
        affected = operations.retry(tasks, reason=options["reason"], way="shell")
        self.stdout.write(f"{len(affected.done)} retried, {len(affected.skipped)} skipped.")
        for task_id, why in affected.skipped.items():
            self.stdout.write(f"  {task_id}: {why}")
