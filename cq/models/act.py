"""Who did what, to which?"""

from __future__ import annotations

from typing import ClassVar

from django.conf import settings
from django.db import models
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from .home import HomeManager


class Act(models.Model):
    """One verb of an operator, written in the transaction that carried it out."""

    id = models.BigAutoField(primary_key=True)
    at = models.DateTimeField(db_default=Now())
    by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        models.DO_NOTHING,
        null=True,
        blank=True,
        related_name="+",
        db_constraint=False,
    )
    # The name outlives the user.
    by_name = models.CharField(max_length=150, blank=True, default="")
    way = models.CharField(max_length=16, blank=True, default="")
    verb = models.CharField(max_length=32)
    predicate = models.TextField(blank=True, default="")
    # The queue, function, worker or repeating task, when it is not about tasks.
    target = models.CharField(max_length=255, blank=True, default="")
    done = models.PositiveIntegerField(default=0)
    skipped = models.PositiveIntegerField(default=0)
    reason = models.TextField(blank=True, default="")

    objects: ClassVar[HomeManager[Act]] = HomeManager()

    class Meta:
        verbose_name = _("act")
        verbose_name_plural = _("acts")
        default_permissions = ("view",)

    def __str__(self) -> str:
        return f"{self.by_name or '-'}: {self.verb} {self.target or self.done}"


class ActItem(models.Model):
    """One task that an act was about; the task itself may be gone."""

    id = models.BigAutoField(primary_key=True)
    act = models.ForeignKey(Act, models.CASCADE, related_name="items")
    task_id = models.UUIDField()
    root_id = models.UUIDField(null=True)
    # Why it was skipped; empty when it was done.
    skipped = models.CharField(max_length=200, blank=True, default="")

    objects: ClassVar[HomeManager[ActItem]] = HomeManager()

    class Meta:
        verbose_name = _("item of an act")
        verbose_name_plural = _("items of acts")
        default_permissions = ()
        indexes = [
            models.Index(fields=["task_id"], name="cq_actitem_by_task"),
            models.Index(fields=["root_id"], name="cq_actitem_by_root"),
        ]

    def __str__(self) -> str:
        return str(self.task_id)
