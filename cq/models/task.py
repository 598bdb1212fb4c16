"""What is stored of a task, its attempts and its log?"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, ClassVar

from django.core.serializers.json import DjangoJSONEncoder
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from ..ids import uuid7
from ..options import QUEUE_NAME_LENGTH
from ..states import ACTIVE, CLAIMABLE, DONE, ERROR, FAILED, Cause, Condition, Status
from .home import HomeManager
from .indexes import HasPartialIndexes, PartialIndex

FUNC_NAME_LENGTH = 255

# Of the columns that a list, a tree or a claim by id may show, these can be megabytes.
LARGE_COLUMNS = ("args", "kwargs", "named", "result", "error")


class TaskQuerySet(models.QuerySet["Task"]):
    def active(self) -> TaskQuerySet:
        """Those that can still move; a blocked follower cannot."""
        return self.filter(status__in=ACTIVE).exclude(cause=Cause.BLOCKED)

    def finished(self) -> TaskQuerySet:
        return self.filter(status__in=DONE)

    def failed(self) -> TaskQuerySet:
        return self.filter(status__in=FAILED)

    def roots(self) -> TaskQuerySet:
        """Those that head a family: not a subtask, and not chained behind another task."""
        return self.filter(root_id=models.F("id"))

    def tree(self, task: Task) -> TaskQuerySet:
        """The whole family of *task*, itself included, in the order of creation."""
        return self.filter(root_id=task.root_id).order_by("id")

    def without_large_columns(self) -> TaskQuerySet:
        return self.defer(*LARGE_COLUMNS)


class Task(HasPartialIndexes):
    """A call that was stored to run in the background.

    Only `cq.enqueue` inserts rows; only `cq.claims`, `cq.recorder` and `cq.operations` change them.
    """

    STATUS_PENDING = Status.PENDING
    STATUS_QUEUED = Status.QUEUED
    STATUS_RUNNING = Status.RUNNING
    STATUS_WAITING = Status.WAITING
    STATUS_RETRY = Status.RETRY
    STATUS_SUCCESS = STATUS_COMPLETE = Status.SUCCESS
    STATUS_FAILURE = Status.FAILURE
    STATUS_INCOMPLETE = Status.INCOMPLETE
    STATUS_LOST = Status.LOST
    STATUS_REVOKED = Status.REVOKED
    STATUS_DONE = DONE
    STATUS_ERROR = ERROR
    STATUS_ACTIVE = ACTIVE

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    status = models.CharField(max_length=1, choices=Status, default=Status.QUEUED)
    cause = models.CharField(max_length=12, choices=Cause, blank=True, default="", db_default="")
    reason = models.TextField(blank=True, default="", db_default="")

    func_name = models.CharField(_("function"), max_length=FUNC_NAME_LENGTH)
    args = models.JSONField(_("arguments"), encoder=DjangoJSONEncoder, default=list, blank=True)
    kwargs = models.JSONField(
        _("keyword arguments"), encoder=DjangoJSONEncoder, default=dict, blank=True
    )
    # Top-level scalars by parameter name, without masked keys: what a search by argument reads.
    named = models.JSONField(encoder=DjangoJSONEncoder, default=dict, blank=True)

    queue = models.CharField(max_length=QUEUE_NAME_LENGTH, default="default")
    priority = models.SmallIntegerField(default=0)
    # True while a worker may claim it now; NULL else, so that what is scheduled or has ended does
    # not lie in the claim's path.
    ready = models.BooleanField(null=True, default=None, editable=False)
    run_at = models.DateTimeField(db_default=Now())

    # Links carry no database constraint: locks on shared parents would deadlock siblings.
    parent = models.ForeignKey(
        "self",
        models.CASCADE,
        null=True,
        blank=True,
        related_name="subtasks",
        db_constraint=False,
        db_index=False,
    )
    previous = models.ForeignKey(
        "self",
        models.CASCADE,
        null=True,
        blank=True,
        related_name="next",
        db_constraint=False,
        db_index=False,
    )
    root = models.ForeignKey(
        "self", models.CASCADE, related_name="family", db_constraint=False, db_index=False
    )
    # No count is declared positive: PostgreSQL would read each such constraint anew in every
    # statement that writes a task, and there would be ten.
    depth = models.SmallIntegerField(default=0, db_default=0)
    condition = models.CharField(
        max_length=7, choices=Condition, blank=True, default="", db_default=""
    )
    # False: nothing was ever chained behind it, and whoever ends it need not look.
    has_followers = models.BooleanField(default=False, db_default=False, editable=False)
    # The parent's claim that it was made in: an attempt counts its own children only.
    parent_claim = models.IntegerField(default=0, db_default=0)
    open_children = models.IntegerField(default=0, db_default=0)
    # Its own function has returned; what remains is its children.
    returned = models.BooleanField(default=False, db_default=False)
    # The status that a waiting task takes once its last child has ended.
    ends_as = models.CharField(max_length=1, choices=Status, blank=True, default="", db_default="")
    # The returned task whose result becomes this task's own.
    adopted = models.ForeignKey(
        "self",
        models.DO_NOTHING,
        null=True,
        blank=True,
        related_name="+",
        db_constraint=False,
        db_index=False,
    )
    replaces = models.ForeignKey(
        "self",
        models.DO_NOTHING,
        null=True,
        blank=True,
        related_name="+",
        db_constraint=False,
        db_index=False,
    )

    # Options of this call; NULL means: as the function declares.
    retries = models.IntegerField(null=True, blank=True)
    timeout = models.FloatField(_("timeout (s)"), null=True, blank=True)
    result_ttl = models.IntegerField(_("result TTL (s)"), null=True, blank=True)
    expires = models.IntegerField(_("expires (s)"), null=True, blank=True)
    expires_at = models.DateTimeField(null=True, blank=True)
    # Set from the insert to the first claim: at most one instance per key was never started.
    coalesce_key = models.CharField(  # noqa: DJ001 - of empty keys there could be one only
        max_length=64, null=True, blank=True, default=None, editable=False
    )

    submitted = models.DateTimeField(db_default=Now())
    started = models.DateTimeField(null=True, blank=True)
    finished = models.DateTimeField(null=True, blank=True)
    keep_until = models.DateTimeField(null=True, blank=True)

    worker = models.ForeignKey(
        "cq.Worker",
        models.DO_NOTHING,
        null=True,
        blank=True,
        related_name="tasks",
        db_constraint=False,
        db_index=False,
    )
    # The fence: it grows with every claim, and a record must name the claim that it belongs to.
    claim = models.IntegerField(default=0, db_default=0)
    attempts = models.IntegerField(default=0, db_default=0)
    # Attempts made before the last retry by an operator: a fresh budget counts from here.
    attempts_before = models.IntegerField(default=0, db_default=0)
    # Workers that died while this task alone was running on them.
    deaths = models.SmallIntegerField(default=0, db_default=0)
    suspect = models.BooleanField(default=False, db_default=False)

    cancel_requested = models.DateTimeField(null=True, blank=True)
    cancelled_by = models.CharField(max_length=150, blank=True, default="", db_default="")

    result = models.JSONField(encoder=DjangoJSONEncoder, null=True, blank=True, default=None)
    error = models.TextField(blank=True, default="", db_default="")
    fingerprint = models.CharField(max_length=16, blank=True, default="", db_default="")

    objects = HomeManager.from_queryset(TaskQuerySet)()

    class Meta:
        verbose_name = _("task")
        verbose_name_plural = _("tasks")
        default_permissions = ("view",)
        permissions = [
            ("retry_task", "Can retry tasks"),
            ("cancel_task", "Can cancel tasks"),
            ("coalesce_task", "Can coalesce tasks"),
            ("keep_task", "Can keep tasks beyond their time"),
        ]
        constraints = [
            models.UniqueConstraint(fields=["coalesce_key"], name="cq_task_one_pending_per_key"),
            models.CheckConstraint(
                condition=Q(ready__isnull=True) | Q(status__in=sorted(CLAIMABLE)),
                name="cq_task_ready_is_claimable",
            ),
        ]
        indexes = [
            PartialIndex(
                fields=["queue", "-priority", "run_at", "id"],
                name="cq_task_for_claim",
                condition=Q(ready=True),
                leading=["ready"],
            ),
            PartialIndex(
                fields=["queue"],
                name="cq_task_suspects",
                condition=Q(ready=True, suspect=True),
                leading=["suspect", "ready"],
            ),
            PartialIndex(
                fields=["run_at"],
                name="cq_task_for_due",
                condition=Q(ready__isnull=True, status__in=sorted(CLAIMABLE)),
                leading=["ready", "status"],
            ),
            PartialIndex(
                fields=["expires_at"],
                name="cq_task_for_expiry",
                condition=Q(expires_at__isnull=False, started__isnull=True),
            ),
            PartialIndex(
                fields=["worker"],
                name="cq_task_for_rescue",
                condition=Q(status=Status.RUNNING),
                leading=["status"],
            ),
            models.Index(fields=["status", "id"], name="cq_task_by_status"),
            models.Index(fields=["func_name", "id"], name="cq_task_by_function"),
            models.Index(fields=["queue", "status", "id"], name="cq_task_by_queue"),
            PartialIndex(
                fields=["parent", "id"],
                name="cq_task_by_parent",
                condition=Q(parent__isnull=False),
            ),
            PartialIndex(
                fields=["previous"],
                name="cq_task_by_previous",
                condition=Q(previous__isnull=False),
            ),
            models.Index(fields=["root", "status", "parent"], name="cq_task_by_root"),
            PartialIndex(
                fields=["finished", "id"],
                name="cq_task_by_finished",
                condition=Q(finished__isnull=False),
            ),
            PartialIndex(
                fields=["parent", "id"],
                name="cq_task_failed_by_parent",
                condition=Q(status__in=sorted(FAILED)),
                leading=["status"],
            ),
            PartialIndex(
                fields=["fingerprint", "id"],
                name="cq_task_by_fingerprint",
                condition=Q(status__in=sorted(FAILED)),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.func_name} …{self.id.hex[-8:]}"

    @property
    def is_finished(self) -> bool:
        return self.status in DONE

    @property
    def is_blocked(self) -> bool:
        return self.status == Status.PENDING and self.cause == Cause.BLOCKED

    @property
    def is_root(self) -> bool:
        return self.root_id == self.id

    @property
    def is_scheduled(self) -> bool:
        """Is it queued for a later time?"""
        return self.status == Status.QUEUED and not self.ready

    @property
    def is_cancelling(self) -> bool:
        """Was a cancel asked for that the running code has not obeyed yet?"""
        return self.cancel_requested is not None and self.status in ACTIVE

    @property
    def traceback(self) -> str:
        """The traceback of the last attempt that did not succeed; empty when there is none."""
        last = self.attempt_set.order_by("-number", "-id").only("traceback").first()
        return last.traceback if last else ""

    @property
    def logs(self) -> models.QuerySet[TaskLog]:
        """Its lines, oldest first; a root's are those of its whole tree."""
        lines = TaskLog.objects.order_by("id")
        return lines.filter(root_id=self.id) if self.is_root else lines.filter(task_id=self.id)

    def format_logs(self) -> str:
        """The log as text, a line each: time, level from WARNING up, message."""
        return "\n".join(str(line) for line in self.logs)

    # The verbs live above the models; these are their short forms for one task.

    def wait(self, timeout: float | None = None) -> Task:
        """Block until it has finished or is blocked, refresh, and return self.

        *timeout* is in seconds; `TimeoutError` past it. Raises `WaitInTransaction` inside
        ``atomic()`` on the task database.
        """
        from ..waiting import wait

        return wait(self, timeout)

    async def await_(self, timeout: float | None = None) -> Task:
        """The async twin of `wait`."""
        from ..waiting import await_

        return await await_(self, timeout)

    def chain(
        self,
        func: Any,
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
        force_chain: bool = False,
    ) -> Task:
        """Store a follower that runs when this task has succeeded (*force_chain*: has ended)."""
        from ..workflow import chain

        condition = Condition.ALWAYS if force_chain else Condition.SUCCESS
        return chain(self, func, args, kwargs or {}, condition)

    def errorback(
        self, func: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Task:
        """Store a follower that runs only when this task has failed for good."""
        from ..workflow import chain

        return chain(self, func, args, kwargs or {}, Condition.FAILURE)

    def submit(self, *first_args: Any) -> None:
        """Queue a task stored with ``submit=False``, with *first_args* put before its own.

        Raises `DuplicateSubmitError` unless it is pending; does nothing when it was revoked.
        """
        from ..submitting import submit

        submit(self, first_args)

    def retry(self) -> None:
        """Run it again, or heal what failed below it; see `cq.operations.retry`."""
        from ..operations import retry

        retry([self])
        self.refresh_from_db()

    def cancel(self) -> None:
        """Ask it, what is below it and what is chained behind it to stop."""
        from ..operations import cancel

        cancel([self])
        self.refresh_from_db()

    revoke = cancel


class Attempt(models.Model):
    """One attempt that did not succeed; a task that succeeds at once has none."""

    id = models.BigAutoField(primary_key=True)
    task = models.ForeignKey(Task, models.CASCADE, db_constraint=False, db_index=False)
    number = models.PositiveIntegerField()
    # The status that the attempt led to: retrying, failed, lost or revoked.
    outcome = models.CharField(max_length=1, choices=Status)
    worker_name = models.CharField(max_length=255, blank=True, default="")
    started = models.DateTimeField(null=True, blank=True)
    finished = models.DateTimeField(db_default=Now())
    exception = models.CharField(max_length=255, blank=True, default="")
    error = models.TextField(blank=True, default="")
    traceback = models.TextField(blank=True, default="")
    # Of each frame: file, line, function, code, own.
    frames = models.JSONField(default=list, blank=True)

    objects: ClassVar[HomeManager[Attempt]] = HomeManager()

    class Meta:
        verbose_name = _("attempt")
        verbose_name_plural = _("attempts")
        default_permissions = ("view",)
        indexes = [models.Index(fields=["task", "number"], name="cq_attempt_by_task")]

    def __str__(self) -> str:
        return f"attempt {self.number}: {self.error or self.get_outcome_display()}"

    @property
    def duration(self) -> timedelta | None:
        return self.finished - self.started if self.started else None


class TaskLog(HasPartialIndexes):
    """One line, kept under the root of the tree in which it was logged."""

    id = models.BigAutoField(primary_key=True)
    root = models.ForeignKey(
        Task, models.CASCADE, related_name="+", db_constraint=False, db_index=False
    )
    task = models.ForeignKey(
        Task, models.CASCADE, related_name="own_logs", db_constraint=False, db_index=False
    )
    created = models.DateTimeField()
    level = models.PositiveSmallIntegerField(default=logging.INFO)
    message = models.TextField()
    # A line of `cqt.progress`: how many of how many are done.
    done = models.BigIntegerField(null=True, blank=True)
    total = models.BigIntegerField(null=True, blank=True)

    objects: ClassVar[HomeManager[TaskLog]] = HomeManager()

    class Meta:
        verbose_name = _("log line")
        verbose_name_plural = _("log lines")
        default_permissions = ()
        indexes = [
            models.Index(fields=["root", "id"], name="cq_log_by_root"),
            models.Index(fields=["task", "id"], name="cq_log_by_task"),
            PartialIndex(
                fields=["root", "id"],
                name="cq_log_warnings_by_root",
                condition=Q(level__gte=logging.WARNING),
            ),
        ]

    def __str__(self) -> str:
        level = f" {logging.getLevelName(self.level)}" if self.level >= logging.WARNING else ""
        return f"{self.created:%Y-%m-%d %H:%M:%S}{level} {self.message}"
