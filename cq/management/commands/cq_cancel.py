"""How are tasks cancelled from a shell?"""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from ... import operations
from ...states import ACTIVE
from .. import selection


class Command(BaseCommand):
    help = (
        "Cancel tasks by id, or those of a function or queue, with what is below and behind them."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        selection.add_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        if not any(options[name] for name in ("ids", "func", "queue", "since")):
            raise CommandError("Name tasks by their ids, or give --func, --queue or --since.")
        tasks = selection.selected(options)
        if not options["ids"]:
            tasks = tasks.filter(status__in=sorted(ACTIVE))
        if options["dry_run"]:
            self.stdout.write(f"{tasks.count()} tasks would be cancelled.")
            return
        affected = operations.cancel(tasks, reason=options["reason"], way="shell")
        self.stdout.write(f"{len(affected.done)} cancelled, {len(affected.skipped)} skipped.")
        for task_id, why in affected.skipped.items():
            self.stdout.write(f"  {task_id}: {why}")
