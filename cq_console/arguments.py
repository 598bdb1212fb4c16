"""How are a call's arguments shown, in brief and in full, without its secrets?"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cq import conf, registry
from cq.exceptions import CQError
from cq.models import Task
from cq.redaction import mask, mask_text
from cq.signature import STORED_PREVIOUS

from . import hostile

BRIEF = 80
VALUE = 40

_PLAIN = re.compile(r"(?!(?:true|false|null)\Z)[A-Za-z_./~][\w./@:*+~-]*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Name:
    """A function's registered name: what tells it apart, and where it lives."""

    short: str
    module: str
    full: str


def name_of(func_name: str) -> Name:
    shown = hostile.one_line(func_name, 255)
    module, _dot, short = shown.rpartition(".")
    return Name(short or shown, module, shown)


def bound(task: Task) -> dict[str, Any]:
    """Parameter name → value, masked; positions where the function is not known here."""
    return masked(bound_raw(task.func_name, task.args, task.kwargs))


def bound_raw(func_name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(args, list | tuple) or not isinstance(kwargs, Mapping):
        return {}
    try:
        return registry.get(func_name).parameters.bind(args, kwargs)
    except CQError:
        return {**{str(index): value for index, value in enumerate(args)}, **kwargs}


def positional(func_name: str, args: Sequence[Any]) -> dict[str, Any]:
    """The names of positional arguments alone; their places where the function is not known."""
    # Not by the error: it looks for names that are close, for each row of a list anew.
    if not registry.is_registered(func_name):
        return {str(index): value for index, value in enumerate(args)}
    try:
        signature = registry.get(func_name).parameters.signature
        return dict(signature.bind_partial(*args).arguments)
    except TypeError:
        return {str(index): value for index, value in enumerate(args)}


def masked(values: Mapping[str, Any]) -> dict[str, Any]:
    hidden: dict[str, Any] = mask(dict(values), conf.get().redact)
    return hidden


def without_masked(values: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that hold no secret anywhere inside."""
    return {name: value for name, value in values.items() if masked({name: value})[name] == value}


def safe_text(text: str) -> str:
    """*text* with the secrets that can be told in it masked, once more than when it was written."""
    return mask_text(text, conf.get().redact)


def brief(values: Mapping[str, Any], limit: int = BRIEF) -> str:
    """``roots=["stdlib"] depth=3``, cut at *limit*; *values* are masked already."""
    parts: list[str] = []
    length = 0
    for name, value in values.items():
        shown = _brief_value(value, limit if len(values) == 1 else VALUE)
        part = shown if name.isdecimal() else f"{hostile.one_line(str(name), VALUE)}={shown}"
        length += len(part) + 1
        if parts and length > limit:
            parts.append("…")
            break
        parts.append(part)
    return safe_text(" ".join(parts))


def brief_telling(values: Mapping[str, Any], limit: int = BRIEF) -> str:
    """*values* as a row shows them; a single one needs no name: ``asyncio``, ``broken.py``."""
    if len(values) != 1:
        return brief(values, limit)
    (value,) = values.values()
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return safe_text(_brief_value(value, limit)) if _is_plain(value) else brief(values, limit)


def telling(
    siblings: Sequence[tuple[str, Mapping[str, Any]]], above: Mapping[str, Any] | None = None
) -> list[dict[str, Any]]:
    """Of each call's arguments those that tell it apart from the calls of its function beside it.

    What was handed down unchanged from the arguments *above* tells nothing either. Where one
    argument alone tells all calls of a function apart, it stands alone; calls that would keep no
    argument keep all of them.
    """
    above = above or {}
    values: dict[tuple[str, str], list[Any]] = {}
    calls: dict[str, int] = {}
    for func_name, arguments in siblings:
        calls[func_name] = calls.get(func_name, 0) + 1
        for name, value in arguments.items():
            values.setdefault((func_name, name), []).append(value)
    same = {
        key
        for key, found in values.items()
        if calls[key[0]] > 1 and len(found) == calls[key[0]] and _all_equal(found)
    }
    telling_alone = _telling_alone(siblings, values, calls)
    result = []
    for func_name, arguments in siblings:
        if (alone := telling_alone.get(func_name)) is not None:
            result.append({alone: arguments[alone]})
            continue
        kept = {
            name: item
            for name, item in arguments.items()
            if (func_name, name) not in same and (name not in above or above[name] != item)
        }
        result.append(kept or dict(arguments))
    return result


def as_call(func_name: str, values: Mapping[str, Any]) -> str:
    """The call as Python, without masked values: ``send.delay(addr='a@b', tries=3)``."""
    shown = ", ".join(
        repr(value) if name.isdecimal() else f"{name}={value!r}" for name, value in values.items()
    )
    return hostile.visible(f"{name_of(func_name).short}.delay({shown})", hostile.BLOCK)


def _brief_value(value: Any, limit: int) -> str:
    if value == STORED_PREVIOUS:
        return "PREVIOUS"
    # Quotes only where a value could be taken for something else.
    if isinstance(value, str) and _PLAIN.fullmatch(value) and len(value) <= limit:
        return value
    return hostile.compact(value, limit)


def _is_plain(value: Any) -> bool:
    return isinstance(value, str) and bool(_PLAIN.fullmatch(value))


def _telling_alone(
    siblings: Sequence[tuple[str, Mapping[str, Any]]],
    values: Mapping[tuple[str, str], Sequence[Any]],
    calls: Mapping[str, int],
) -> dict[str, str]:
    """Function → its first argument that is another short text or number in each of its calls."""
    found: dict[str, str] = {}
    for func_name, arguments in siblings:
        if calls[func_name] < 2 or func_name in found:
            continue
        for name in arguments:
            given = values[func_name, name]
            plain = {value for value in given if isinstance(value, str | int) and value != ""}
            if len(plain) == len(given) == calls[func_name]:
                found[func_name] = name
                break
    return found


def _all_equal(values: Iterable[Any]) -> bool:
    first, *others = values
    return all(other == first for other in others)
