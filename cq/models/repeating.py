"""What repeats, and what came of each tick?"""

from __future__ import annotations

import zoneinfo
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, ClassVar

from django.core.exceptions import ValidationError
from django.core.serializers.json import DjangoJSONEncoder
from django.db import models, transaction
from django.db.models import Q
from django.db.models.functions import Now
from django.utils import timezone as clock
from django.utils.translation import gettext_lazy as _

from .. import conf
from .. import crontab as crontabs
from ..exceptions import CQError, InvalidCrontab, TaskNotRegistered
from ..options import QUEUE_NAME_LENGTH, unknown_option
from .home import HomeManager
from .indexes import HasPartialIndexes
from .task import FUNC_NAME_LENGTH, Task


class Missed(models.TextChoices):
    """What becomes of ticks that passed while no scheduler ran."""

    SKIP = "skip", _("skip: none of them runs")
    LATEST = "latest", _("latest: the last one runs")
    ALL = "all", _("all: each one runs")


def is_timezone(name: str) -> bool:
    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True


def validate_timezone(name: str) -> None:
    if not is_timezone(name):
        raise ValidationError(_("%(name)r is not a time zone."), params={"name": name})


def current_timezone() -> str:
    return clock.get_default_timezone_name()


class RepeatingTask(HasPartialIndexes):
    """A function that runs at the times of a CRON entry."""

    id = models.BigAutoField(primary_key=True)
    name = models.CharField(max_length=150, blank=True, default="")
    crontab = models.CharField(_("CRON entry"), max_length=150)
    timezone = models.CharField(
        _("time zone"), max_length=64, default=current_timezone, validators=[validate_timezone]
    )
    func_name = models.CharField(_("function"), max_length=FUNC_NAME_LENGTH)
    args = models.JSONField(_("arguments"), encoder=DjangoJSONEncoder, default=list, blank=True)
    kwargs = models.JSONField(
        _("keyword arguments"), encoder=DjangoJSONEncoder, default=dict, blank=True
    )
    queue = models.CharField(max_length=QUEUE_NAME_LENGTH, blank=True, default="")
    priority = models.SmallIntegerField(null=True, blank=True)
    result_ttl = models.PositiveIntegerField(_("result TTL (s)"), null=True, blank=True)
    coalesce = models.BooleanField(
        default=True, help_text=_("A tick is skipped while the last one still waits to start.")
    )
    overlap = models.BooleanField(
        default=True, help_text=_("If off, a tick is skipped while the last one still runs.")
    )
    missed = models.CharField(max_length=8, choices=Missed, default=Missed.LATEST)
    enabled = models.BooleanField(default=True)
    pause_reason = models.CharField(max_length=255, blank=True, default="")
    last_run = models.DateTimeField(null=True, blank=True, editable=False)
    next_run = models.DateTimeField(null=True, blank=True, editable=False)
    # Why it cannot run: its function has vanished, its arguments do not fit.
    error = models.TextField(blank=True, default="", editable=False)

    objects: ClassVar[HomeManager[RepeatingTask]] = HomeManager()

    class Meta:
        verbose_name = _("repeating task")
        verbose_name_plural = _("repeating tasks")
        permissions = [("run_repeatingtask", "Can run repeating tasks now")]
        indexes = [
            models.Index(
                fields=["next_run"],
                name="cq_repeatingtask_for_tick",
                condition=Q(enabled=True),
            )
        ]

    def __str__(self) -> str:
        return self.name or f"{self.func_name} {self.crontab}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Store it; a new or changed entry takes effect at once: `next_run` is computed anew.

        What the scheduler keeps in the row is left alone otherwise: it may have moved on since
        this instance was read. A change that may mend the entry clears its error.
        """
        using = kwargs.get("using") or self._state.db or conf.get().database
        kwargs["using"] = using
        stored = type(self)._default_manager.using(using).filter(pk=self.pk).first()
        if stored is None or kwargs.get("force_insert"):
            self.next_run = self._first_run(using)
        else:
            names = kwargs.get("update_fields")
            fields = _WRITTEN_BY_PEOPLE if names is None else {*names}
            changed = {name for name in fields if getattr(stored, name) != getattr(self, name)}
            self.next_run, self.last_run = stored.next_run, stored.last_run
            if changed & _TIMES or (self.enabled and stored.next_run is None):
                self.next_run = self._first_run(using)
                fields = {*fields, "next_run"}
            if changed & _CALL:
                self.error = ""
                fields = {*fields, "error"}
            kwargs["update_fields"] = fields
        super().save(*args, **kwargs)
        _tell_schedulers(using)

    def clean(self) -> None:
        errors: dict[str, Any] = {}
        try:
            self.schedule()
        except InvalidCrontab as error:
            # A wrong zone is refused by its own field.
            if is_timezone(self.timezone):
                errors["crontab"] = str(error)
        errors |= self._wrong_call()
        if errors:
            raise ValidationError(errors)

    def _wrong_call(self) -> dict[str, Any]:
        from ..registry import call, check_call

        if not isinstance(self.args, list):
            return {"args": _('Write a list of values: [1, "two"].')}
        if not isinstance(self.kwargs, dict):
            return {"kwargs": _('Write names and values: {"name": "value"}.')}
        try:
            check_call(self.func_name, self.args, self.kwargs)
        except TaskNotRegistered as error:
            return {"func_name": str(error)}
        except CQError as error:
            return {"args": str(error)}
        wrong = {}
        for name in ("queue", "priority", "result_ttl"):
            value = getattr(self, name)
            if value not in ("", None):
                try:
                    call(self.func_name, self.args, self.kwargs, **{name: value})
                except CQError as error:
                    wrong[name] = str(error)
        return wrong

    def schedule(self) -> crontabs.Crontab:
        """The parsed entry; raises `InvalidCrontab`."""
        return crontabs.parse(self.crontab, self.timezone)

    def upcoming(self, n: int, after: datetime | None = None) -> list[datetime]:
        """The next *n* times, in UTC, after *after* (now when left out)."""
        return self.schedule().upcoming(n, after or clock.now())

    def submit(self) -> Task:
        """Run it now, beside its schedule."""
        from ..scheduler import run_now

        return run_now(self)

    def _first_run(self, using: str) -> datetime | None:
        if not self.enabled:
            return None
        return self.schedule().next_after(_database_now(type(self), using))


_TIMES = frozenset({"crontab", "timezone", "enabled"})
_CALL = _TIMES | {"func_name", "args", "kwargs", "queue", "priority", "result_ttl"}
# The rest belongs to the scheduler.
_WRITTEN_BY_PEOPLE = frozenset(
    field.name
    for field in RepeatingTask._meta.concrete_fields
    if field.name not in ("id", "last_run", "next_run", "error")
)


def _database_now(cls: type[RepeatingTask], using: str) -> datetime:
    """The time by the clock that the schedulers read, not by that of this machine."""
    rows = cls._default_manager.using(using).order_by().values_list(Now())[:1]
    row = next(iter(rows), None)
    return row[0] if row else clock.now()


def _tell_schedulers(using: str) -> None:
    from ..scheduler import look_again

    transaction.on_commit(look_again, using=using, robust=True)


class RepeatingRun(HasPartialIndexes):
    """One tick that was taken, or one run by hand (without tick). It outlives its task."""

    class Outcome(models.TextChoices):
        QUEUED = "queued", _("queued")
        SKIPPED = "skipped", _("skipped")
        SUCCEEDED = "succeeded", _("succeeded")
        FAILED = "failed", _("failed")
        CANCELLED = "cancelled", _("cancelled")
        REFUSED = "refused", _("refused")
        # Its task was removed before anybody saw how it ended.
        GONE = "gone", _("not known")

    id = models.BigAutoField(primary_key=True)
    entry = models.ForeignKey(RepeatingTask, models.CASCADE, related_name="runs")
    tick = models.DateTimeField(null=True)
    task_id = models.UUIDField(null=True)
    outcome = models.CharField(max_length=9, choices=Outcome, default=Outcome.QUEUED)
    reason = models.CharField(max_length=255, blank=True, default="")
    created = models.DateTimeField(default=clock.now)
    started = models.DateTimeField(null=True)
    finished = models.DateTimeField(null=True)

    objects: ClassVar[HomeManager[RepeatingRun]] = HomeManager()

    class Meta:
        verbose_name = _("run of a repeating task")
        verbose_name_plural = _("runs of repeating tasks")
        default_permissions = ()
        constraints = [
            # The claim of a tick: however many schedulers run, it is taken once.
            models.UniqueConstraint(fields=["entry", "tick"], name="cq_repeatingrun_one_per_tick")
        ]
        indexes = [
            models.Index(fields=["entry", "id"], name="cq_repeatingrun_by_entry"),
            models.Index(fields=["task_id"], name="cq_repeatingrun_by_task"),
            models.Index(
                fields=["id"],
                name="cq_repeatingrun_open",
                condition=Q(outcome="queued"),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.entry_id} at {self.tick or self.created}: {self.outcome}"


def schedule_task(
    cls: type[RepeatingTask],
    crontab: str,
    func: Any,
    args: Sequence[Any] = (),
    kwargs: dict[str, Any] | None = None,
    **fields: Any,
) -> RepeatingTask:
    """Store a repeating task; *func* is a task or its registered name.

    It works in data migrations with historical models, which have no methods: names are resolved
    and arguments checked when it runs. Raises `InvalidCrontab` and `InvalidOption` at once. An
    entry of the same function and name is changed, not doubled.
    """
    _refuse_unknown(cls, fields)
    name = fields.pop("name", "")
    func_name = func if isinstance(func, str) else func.name
    zone = fields.pop("timezone", None) or current_timezone()
    schedule = crontabs.parse(crontab, zone)
    values = {
        "crontab": crontab,
        "timezone": zone,
        "args": list(args),
        "kwargs": kwargs or {},
        **fields,
    }
    using = conf.get().database
    values["error"] = ""
    entries = cls._default_manager.using(using)
    is_enabled = values.get("enabled", True)
    as_before = entries.filter(
        func_name=func_name, name=name, crontab=crontab, timezone=zone, enabled=is_enabled
    )
    # Written here: a historical model has no save() of ours. A tick that is due stays due.
    if not as_before.exists():
        values["next_run"] = schedule.next_after(_database_now(cls, using)) if is_enabled else None
    entry, _created = entries.update_or_create(func_name=func_name, name=name, defaults=values)
    _tell_schedulers(using)
    return entry


def _refuse_unknown(cls: type[RepeatingTask], fields: Iterable[str]) -> None:
    """Refuse what is mistyped, or not for people: of an entry that exists Django stores neither."""
    columns = {field.name for field in cls._meta.concrete_fields}
    allowed = columns & (_WRITTEN_BY_PEOPLE - {"func_name"})
    for name in fields:
        if name not in allowed:
            raise unknown_option("schedule_task", name, allowed)
