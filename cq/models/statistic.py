"""Which numbers and causes outlive the tasks they come from?"""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.utils.translation import gettext_lazy as _

from ..options import QUEUE_NAME_LENGTH
from .home import HomeManager
from .task import FUNC_NAME_LENGTH


class Statistic(models.Model):
    """What one function did on one queue in one span of time.

    Workers write their own minutes; housekeeping folds them into quarter hours and hours of
    no worker (``worker`` 0). Histograms are 12 counts; the bounds are `cq.statistics.BOUNDS`.
    """

    id = models.BigAutoField(primary_key=True)
    bucket = models.DateTimeField()
    length = models.PositiveSmallIntegerField(_("length (minutes)"))
    queue = models.CharField(max_length=QUEUE_NAME_LENGTH)
    func_name = models.CharField(max_length=FUNC_NAME_LENGTH)
    worker = models.BigIntegerField(default=0)
    started = models.PositiveIntegerField(default=0)
    succeeded = models.PositiveIntegerField(default=0)
    failed = models.PositiveIntegerField(default=0)
    retried = models.PositiveIntegerField(default=0)
    waits = models.JSONField(default=list)
    runs = models.JSONField(default=list)

    objects: ClassVar[HomeManager[Statistic]] = HomeManager()

    class Meta:
        verbose_name = _("statistic")
        verbose_name_plural = _("statistics")
        default_permissions = ()
        constraints = [
            models.UniqueConstraint(
                fields=["length", "bucket", "queue", "func_name", "worker"],
                name="cq_statistic_one_per_bucket",
            )
        ]

    def __str__(self) -> str:
        return f"{self.func_name} on {self.queue}, {self.bucket} + {self.length} min"


class FailureGroup(models.Model):
    """A cause that tasks failed of; `Task.fingerprint` names it."""

    fingerprint = models.CharField(primary_key=True, max_length=16)
    exception = models.CharField(max_length=255)
    message = models.TextField(blank=True, default="")
    frame = models.CharField(max_length=500, blank=True, default="")
    first_seen = models.DateTimeField()
    last_seen = models.DateTimeField()

    objects: ClassVar[HomeManager[FailureGroup]] = HomeManager()

    class Meta:
        verbose_name = _("failure")
        verbose_name_plural = _("failures")
        default_permissions = ("view",)
        indexes = [models.Index(fields=["last_seen"], name="cq_failuregroup_by_last_seen")]

    def __str__(self) -> str:
        return f"{self.exception}: {self.message}"
