"""How is a census started from a shell?"""

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from demo.census.tasks import census


class Command(BaseCommand):
    """Enqueue a census; a worker takes it from there."""

    help = "Start a census of the installed Python source code."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("roots", nargs="*", help="folders to count (default: all of Python's)")

    def handle(self, *args: Any, roots: list[str], **options: Any) -> None:
        task = census.delay(*([roots] if roots else []))
        self.stdout.write(f"census {task.id} is queued: see /admin/cq/task/{task.id}/")
