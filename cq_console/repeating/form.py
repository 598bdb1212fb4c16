"""How is a repeating task typed in?"""

from __future__ import annotations

import zoneinfo
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from django import forms
from django.utils.translation import gettext_lazy as _

from cq import registry
from cq.models import RepeatingTask, Task
from cq.redaction import MASK

from .. import arguments, words
from . import preview

if TYPE_CHECKING:
    FormBase = forms.ModelForm[RepeatingTask]
else:
    FormBase = forms.ModelForm

Offered = Callable[[], Iterable[tuple[str, str]]]


class ListedInput(forms.TextInput):
    """A text field that offers what it knows, with a word about each, and searches in it."""

    template_name = "cq_console/widgets/listed.html"

    def __init__(self, offered: Offered, attrs: dict[str, Any] | None = None) -> None:
        super().__init__({"autocomplete": "off", "spellcheck": "false", **(attrs or {})})
        self.offered = offered

    def get_context(self, name: str, value: Any, attrs: dict[str, Any] | None) -> dict[str, Any]:
        context = super().get_context(name, value, attrs)
        context["offered"] = list(self.offered())
        context["list_id"] = f"{context['widget']['attrs'].get('id', name)}_list"
        return context


class CrontabInput(ListedInput):
    """A CRON entry, with what each of its five columns is and takes below it."""

    template_name = "cq_console/widgets/crontab.html"

    def get_context(self, name: str, value: Any, attrs: dict[str, Any] | None) -> dict[str, Any]:
        return {**super().get_context(name, value, attrs), "columns": COLUMNS}


COLUMNS = (
    (_("minute"), "0-59"),
    (_("hour"), "0-23"),
    (_("day of month"), "1-31 L"),
    (_("month"), "1-12 jan"),
    (_("day of week"), "0-7 sun"),
)
EXAMPLES = (
    "*/15 * * * *",
    "0 * * * *",
    "30 2 * * *",
    "0 9 * * mon-fri",
    "0 4 * * sun",
    "0 0 1 * *",
    "0 0 L * *",
    "0 9 * * mon#1",
)


def examples() -> Iterable[tuple[str, str]]:
    for expression in EXAMPLES:
        yield expression, words.describe(expression)


def functions() -> Iterable[tuple[str, str]]:
    """Every registered task, and what its docstring promises."""
    for name in registry.names():
        yield name, preview.first_line(registry.get(name).func)


def zones() -> Iterable[tuple[str, str]]:
    for name in sorted(zoneinfo.available_timezones()):
        yield name, ""


def queues() -> Iterable[tuple[str, str]]:
    """The queues that a declaration names."""
    for name in sorted({registry.get(name).options.queue for name in registry.names()}):
        yield name, ""


class RepeatingTaskForm(FormBase):
    """Secrets among the arguments are shown masked; what is sent back masked stays as it was."""

    class Meta:
        model = RepeatingTask
        fields = (
            "name",
            "func_name",
            "args",
            "kwargs",
            "crontab",
            "timezone",
            "missed",
            "queue",
            "priority",
            "result_ttl",
            "coalesce",
            "overlap",
            "enabled",
            "pause_reason",
        )
        widgets = {
            "name": forms.TextInput(attrs={"class": "vTextField"}),
            "func_name": ListedInput(functions, {"class": "vTextField"}),
            "args": forms.Textarea(attrs={"rows": 2, "class": "cq-json", "spellcheck": "false"}),
            "kwargs": forms.Textarea(attrs={"rows": 2, "class": "cq-json", "spellcheck": "false"}),
            "crontab": CrontabInput(examples, {"class": "cq-crontab", "autocapitalize": "none"}),
            "timezone": ListedInput(zones, {"class": "vTextField"}),
            "queue": ListedInput(queues, {"class": "vTextField"}),
            "pause_reason": forms.TextInput(attrs={"class": "vTextField"}),
        }
        help_texts = {
            "crontab": _("Or @hourly, @daily, @weekly, @monthly, @yearly."),
            "queue": _("Empty: the queue of the function."),
            "priority": _("Empty: that of the function. Higher runs first, -100 to 100."),
            "result_ttl": _("How long a finished run is kept. Empty: as the function says."),
            "missed": _("What becomes of runs whose time passed while no scheduler ran."),
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        stored = self.instance
        if stored.pk:
            self.initial["args"] = masked_args(stored)
            self.initial["kwargs"] = arguments.masked(stored.kwargs or {})

    def clean_args(self) -> Any:
        return unmasked(self.cleaned_data["args"], self.instance.args)

    def clean_kwargs(self) -> Any:
        return unmasked(self.cleaned_data["kwargs"], self.instance.kwargs)

    def is_valid(self) -> bool:
        """A preview is never valid: it is shown again, with its errors, and not stored."""
        return super().is_valid() and "_preview" not in self.data


def masked_args(stored: RepeatingTask | Task) -> Any:
    """The positional arguments; a secret is known by the name of its parameter."""
    if not isinstance(stored.args, list):
        return stored.args
    named = arguments.positional(stored.func_name, stored.args)
    if len(named) != len(stored.args):
        return list(arguments.masked({"": stored.args})[""])
    return list(arguments.masked(named).values())


def unmasked(typed: Any, stored: Any) -> Any:
    """*typed*, with what was left masked as it is stored."""
    if typed == MASK:
        return stored
    if isinstance(typed, dict):
        known = stored if isinstance(stored, dict) else {}
        return {key: unmasked(value, known.get(key, value)) for key, value in typed.items()}
    if isinstance(typed, list):
        known_items = stored if isinstance(stored, list) else []
        return [
            unmasked(value, known_items[index] if index < len(known_items) else value)
            for index, value in enumerate(typed)
        ]
    return typed
