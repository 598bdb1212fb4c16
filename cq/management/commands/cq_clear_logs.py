"""How are the logs of finished trees removed, and the tasks kept?"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from django.db.models import F
from django.db.models.functions import Now

from ... import conf, removal
from ...models import Task
from ...states import DONE
from .. import selection


class Command(BaseCommand):
    help = "Remove the log lines of finished trees."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--prior",
            type=selection.days,
            default=timedelta(),
            metavar="DAYS",
            help="only of trees finished so long ago",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        roots = Task.objects.using(conf.get().database).filter(
            root_id=F("id"),
            status__in=sorted(DONE),
            finished__lte=Now() - options["prior"],
        )
        removed = sum(
            removal.remove_lines([root_id])
            for root_id in roots.values_list("pk", flat=True).iterator()
            if removal.is_still(root_id)
        )
        self.stdout.write(f"{removed} lines removed.")
