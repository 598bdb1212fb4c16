"""How is housekeeping done once, from a shell?"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db.models import F, Q, QuerySet
from django.db.models.functions import Now

from ... import conf, leases, maintenance, mending, removal, trimming
from ...models import Task
from ...states import DONE, FAILED, Status
from .. import selection


class Command(BaseCommand):
    """Without options it does what every worker does now and then."""

    help = "Do housekeeping once; with --clear remove old trees, by status and age."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--clear", action="store_true", help="remove finished trees")
        parser.add_argument("--failed", action="store_true", help="with --clear: also failed ones")
        parser.add_argument("--lost", action="store_true", help="with --clear: also lost ones")
        parser.add_argument(
            "--pending",
            action="store_true",
            help="with --clear: also those that still wait for submit() or are blocked",
        )
        parser.add_argument(
            "--prior",
            type=selection.days,
            default=timedelta(),
            metavar="DAYS",
            help="with --clear: only what is older",
        )
        parser.add_argument(
            "--dry-run", action="store_true", help="with --clear: only say what would be done"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if options["clear"]:
            self._clear(options)
            return
        named = ("failed", "lost", "pending", "prior", "dry_run")
        given = [f"--{name.replace('_', '-')}" for name in named if options[name]]
        if given:
            raise CommandError(f"{', '.join(given)} goes with --clear.")
        self._keep_house()

    def _keep_house(self) -> None:
        rescued = leases.rescue()
        expired = maintenance.expire_all()
        mended = mending.mend_all()
        before = self._count()
        place = removal.remove_finished()
        while place is not None:
            place = removal.remove_finished(place)
        removed = before - self._count()
        trimmed = trimming.trim_all()
        self.stdout.write(
            f"{rescued} dead workers, {expired} expired tasks, {mended} forgotten ones; "
            f"{max(removed, 0)} tasks removed, {trimmed} log lines trimmed."
        )

    def _count(self) -> int:
        return Task.objects.using(conf.get().database).count()

    def _clear(self, options: dict[str, Any]) -> None:
        or_pending = options["pending"]
        roots = self._roots(options).values_list("pk", flat=True)
        removable = [
            root_id
            for root_id in roots.iterator()
            if removal.is_still(root_id, or_pending=or_pending)
        ]
        if options["dry_run"]:
            self.stdout.write(f"{len(removable)} trees would be removed.")
            return
        removed = sum(removal.remove_tree(root_id, or_pending=or_pending) for root_id in removable)
        self.stdout.write(f"{len(removable)} trees removed, {removed} tasks.")

    def _roots(self, options: dict[str, Any]) -> QuerySet[Task]:
        wanted = set(DONE) - set(FAILED)
        if options["failed"]:
            wanted |= {Status.FAILURE, Status.INCOMPLETE}
        if options["lost"]:
            wanted.add(Status.LOST)
        condition = Q(status__in=sorted(wanted))
        if options["pending"]:
            condition |= Q(status=Status.PENDING)
        roots = Task.objects.using(conf.get().database).filter(condition, root_id=F("id"))
        return roots.filter(submitted__lte=Now() - options["prior"])
