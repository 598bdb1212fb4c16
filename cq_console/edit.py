"""With which form are a task's arguments edited, and which call does it make?

Each parameter of the function is a field: text stays text, everything else is JSON. Where the
function is not known here, the positional and the keyword arguments are one JSON field each.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from typing import Any, Final

from django import forms
from django.utils.translation import gettext as _

from cq import registry
from cq.exceptions import CQError
from cq.models import Task
from cq.redaction import MASK

from . import arguments, hostile
from .repeating.form import masked_args, unmasked

# Larger arguments than this are no matter for a form.
LARGEST = 100_000
LONG = 60


_STARS: Mapping[Any, str] = {
    inspect.Parameter.VAR_POSITIONAL: "*",
    inspect.Parameter.VAR_KEYWORD: "**",
}


class _LeftOut:
    """No value was given: the default of the parameter holds."""


LEFT_OUT: Final = _LeftOut()


class EditForm(forms.Form):
    """The arguments of *task*, secrets masked; one that is left masked stays as it is stored.

    Once valid, `call_args` and `call_kwargs` are the arguments of the new call.
    """

    def __init__(self, task: Task, data: Mapping[str, Any] | None = None) -> None:
        super().__init__(data, prefix="arg")
        self.task = task
        self.call_args: Any = []
        self.call_kwargs: Any = {}
        self.signature = _signature(task)
        if self.signature is None:
            self.raw = {"args": task.args, "kwargs": task.kwargs}
            self.fields["args"] = JSONValue(_("Arguments"), masked_args(task))
            shown = arguments.masked({"kwargs": task.kwargs})["kwargs"]
            self.fields["kwargs"] = JSONValue(_("Keyword arguments"), shown)
        else:
            self.raw = arguments.bound_raw(task.func_name, task.args, task.kwargs)
            shown = arguments.masked(self.raw)
            for parameter in self.signature.parameters.values():
                given = shown.get(parameter.name, LEFT_OUT)
                self.fields[parameter.name] = _field(parameter, given)

    def clean(self) -> None:
        if self.errors:
            return
        given = {}
        for name in self.fields:
            value = self._value(name)
            if value is not LEFT_OUT:
                given[name] = value
        if self.signature is None:
            self.call_args, self.call_kwargs = given["args"], given["kwargs"]
        else:
            self._bind(self.signature, given)
            if self.errors:
                return
        self._check()

    def _value(self, name: str) -> Any:
        typed, stored = self.cleaned_data[name], self.raw.get(name, LEFT_OUT)
        if stored is LEFT_OUT:
            return LEFT_OUT if typed == "" else typed
        if isinstance(typed, str) and isinstance(stored, str) and "\r" not in stored:
            # A browser sends each end of a line as two characters.
            typed = typed.replace("\r\n", "\n")
        return unmasked(typed, stored)

    def _bind(self, signature: inspect.Signature, given: dict[str, Any]) -> None:
        for parameter in signature.parameters.values():
            value = given.get(parameter.name)
            if parameter.kind is parameter.VAR_POSITIONAL and value:
                if not isinstance(value, list | tuple):
                    self.add_error(parameter.name, _("Write a list of values."))
                    return
                self._fill_before(signature, parameter, given)
            elif parameter.kind is parameter.VAR_KEYWORD and value and not isinstance(value, dict):
                self.add_error(parameter.name, _("Write names and values."))
                return
        in_order = {name: given[name] for name in signature.parameters if name in given}
        bound = inspect.BoundArguments(signature, in_order)
        self.call_args, self.call_kwargs = list(bound.args), dict(bound.kwargs)

    def _fill_before(
        self, signature: inspect.Signature, stars: inspect.Parameter, given: dict[str, Any]
    ) -> None:
        """Further positional arguments stand behind all others: none of these is left out."""
        for parameter in signature.parameters.values():
            if parameter.name == stars.name:
                break
            given.setdefault(parameter.name, parameter.default)

    def _check(self) -> None:
        if not isinstance(self.call_args, list):
            self.add_error("args", _('Write a list of values: [1, "two"].'))
        elif not isinstance(self.call_kwargs, dict):
            self.add_error("kwargs", _('Write names and values: {"name": "value"}.'))
        elif self.signature is not None:
            try:
                registry.check_call(self.task.func_name, self.call_args, self.call_kwargs)
            except CQError as error:
                self.add_error(None, hostile.one_line(str(error), 500))


class JSONValue(forms.Field):
    """Any JSON value, null too; nothing at all leaves a parameter that has a default out."""

    def __init__(
        self, label: str, value: Any, *, required: bool = True, help_text: str = ""
    ) -> None:
        text = "" if value is LEFT_OUT else json.dumps(value, indent=2)
        is_short = len(text) <= LONG and "\n" not in text
        super().__init__(
            label=label,
            required=required,
            initial=text,
            help_text=help_text,
            widget=_one_line() if is_short else _block(text),
        )

    def to_python(self, value: Any) -> Any:
        text = str(value or "").strip()
        if not text:
            return LEFT_OUT
        if text == MASK:
            return MASK
        try:
            return json.loads(text, parse_constant=_no_number)
        except RecursionError:
            raise forms.ValidationError(_("This is nested too deeply.")) from None
        except ValueError as error:
            said = _("This is not JSON: %(why)s.") % {"why": hostile.one_line(str(error), 200)}
            raise forms.ValidationError(said) from None

    def validate(self, value: Any) -> None:
        if value is LEFT_OUT and self.required:
            raise forms.ValidationError(_("Write a JSON value."))


def is_too_large(task: Task) -> bool:
    """Are the arguments of *task* no matter for a form?"""
    return len(json.dumps([task.args, task.kwargs])) > LARGEST


def _signature(task: Task) -> inspect.Signature | None:
    """How the function is called; None where it is not known, or no longer takes these."""
    try:
        parameters = registry.get(task.func_name).parameters
        parameters.bind(task.args, task.kwargs)
    except (CQError, TypeError):
        return None
    return parameters.signature


def _field(parameter: inspect.Parameter, given: Any) -> forms.Field:
    stars = _STARS.get(parameter.kind, "")
    is_required = parameter.default is parameter.empty and not stars
    label = stars + parameter.name
    default = ""
    if not is_required and not stars:
        shown = arguments.masked({parameter.name: parameter.default})[parameter.name]
        default = _("Default: %(value)s") % {"value": hostile.one_line(repr(shown), 80)}
    is_text = (
        isinstance(given, str) if given is not LEFT_OUT else parameter.annotation in (str, "str")
    )
    # What cannot be seen in a field of text is seen as JSON escapes.
    if is_text and (given is LEFT_OUT or hostile.visible(given, LARGEST) == given):
        text = "" if given is LEFT_OUT else given
        is_short = len(text) <= LONG and "\n" not in text
        return forms.CharField(
            label=label,
            required=False,
            strip=False,
            initial=text,
            help_text=default,
            widget=_one_line() if is_short else _block(text),
        )
    return JSONValue(label, given, required=is_required, help_text=default)


def _one_line() -> forms.Widget:
    return forms.TextInput(attrs={"class": "cq-json", "spellcheck": "false", "autocomplete": "off"})


def _block(text: str) -> forms.Widget:
    rows = min(max(text.count("\n") + 1, len(text) // LONG + 1, 2), 12)
    return forms.Textarea(attrs={"class": "cq-json", "spellcheck": "false", "rows": rows})


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no number")
