"""What does the census remember?"""

from pathlib import Path

from django.conf import settings
from django.db import models
from django.utils import timezone


class CensusRun(models.Model):
    """One census, from its start until its report is written."""

    # The census task. Not a foreign key: tasks are removed after a while, the count stays.
    task_id = models.UUIDField(unique=True)
    started = models.DateTimeField(default=timezone.now)
    packages = models.PositiveIntegerField(default=0)
    reported = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"census {self.pk}"

    @property
    def report_path(self) -> Path:
        """The file that the report of this census is written to."""
        return Path(settings.DEMO_REPORTS) / f"census-{self.pk}.html"


class ModuleCount(models.Model):
    """What one census found in one module."""

    run = models.ForeignKey(CensusRun, on_delete=models.CASCADE, related_name="modules")
    package = models.CharField(max_length=200)
    path = models.CharField(max_length=500)
    lines = models.PositiveIntegerField()
    functions = models.PositiveIntegerField()
    classes = models.PositiveIntegerField()
    todos = models.PositiveIntegerField()
    longest_function = models.CharField(max_length=200, blank=True)
    longest_function_lines = models.PositiveIntegerField(default=0)
    imports = models.JSONField(default=list)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["run", "path"], name="census_module_once_per_run"),
        ]
        indexes = [models.Index(fields=["run", "package"], name="census_module_by_package")]

    def __str__(self) -> str:
        return self.path
