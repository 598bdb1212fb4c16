"""Which workers live, and what were they and their queues told?"""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from ..options import QUEUE_NAME_LENGTH
from .home import HomeManager
from .task import FUNC_NAME_LENGTH


class Ask(models.TextChoices):
    """What an operator asked of a worker; it obeys at its next heartbeat or hint."""

    QUIET = "quiet", _("quiet: claim nothing more")
    STOP = "stop", _("stop")
    REPLACE = "replace", _("replace its process")


class Worker(models.Model):
    """A process that runs tasks. Leases belong to workers, not to tasks.

    A worker whose ``lease_expires_at`` has passed, by the database's clock, and whose heartbeat
    stands still is dead: others take back what it held.
    """

    id = models.BigAutoField(primary_key=True)
    host = models.CharField(max_length=255)
    pid = models.PositiveIntegerField()
    # Together they say whether a pid of this host still names the same process.
    boot_id = models.CharField(max_length=64, blank=True, default="")
    pid_namespace = models.CharField(max_length=64, blank=True, default="")
    pid_started = models.CharField(max_length=32, blank=True, default="")
    # Pid and start time of the supervisor that looks after this process; empty: none.
    supervisor = models.CharField(max_length=64, blank=True, default="")

    queues = models.JSONField(default=list, blank=True)  # empty: every queue
    threads = models.PositiveIntegerField(default=1)
    is_embedded = models.BooleanField(default=False)
    is_scheduler = models.BooleanField(default=False)
    asked = models.CharField(max_length=8, choices=Ask, blank=True, default="")

    started = models.DateTimeField(db_default=Now())
    heartbeat = models.DateTimeField(db_default=Now())
    lease_expires_at = models.DateTimeField()
    stopped = models.DateTimeField(null=True, blank=True)
    running = models.PositiveIntegerField(default=0)
    memory = models.PositiveBigIntegerField(_("memory (bytes)"), default=0)
    # Number and address of its database sessions, to end them before its tasks come back (MariaDB).
    sessions = models.JSONField(default=list, blank=True)

    objects: ClassVar[HomeManager[Worker]] = HomeManager()

    class Meta:
        verbose_name = _("worker")
        verbose_name_plural = _("workers")
        default_permissions = ("view",)
        permissions = [("control_worker", "Can quiet, resume and stop workers")]
        indexes = [
            models.Index(fields=["stopped", "lease_expires_at"], name="cq_worker_by_lease"),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def name(self) -> str:
        return f"{self.host}:{self.pid}"


class Queue(models.Model):
    """What was said of a queue; one without a row runs."""

    name = models.CharField(primary_key=True, max_length=QUEUE_NAME_LENGTH)
    paused = models.DateTimeField(null=True, blank=True)
    paused_by = models.CharField(max_length=150, blank=True, default="")
    reason = models.TextField(blank=True, default="")

    objects: ClassVar[HomeManager[Queue]] = HomeManager()

    class Meta:
        verbose_name = _("queue")
        verbose_name_plural = _("queues")
        default_permissions = ("view",)
        permissions = [("pause_queue", "Can pause and resume queues and hold functions")]

    def __str__(self) -> str:
        return self.name


class HeldFunction(models.Model):
    """A function that claims pass over until it is released."""

    func_name = models.CharField(primary_key=True, max_length=FUNC_NAME_LENGTH)
    held = models.DateTimeField(db_default=Now())
    held_by = models.CharField(max_length=150, blank=True, default="")
    reason = models.TextField(blank=True, default="")

    objects: ClassVar[HomeManager[HeldFunction]] = HomeManager()

    class Meta:
        verbose_name = _("held function")
        verbose_name_plural = _("held functions")
        default_permissions = ("view",)

    def __str__(self) -> str:
        return self.func_name
