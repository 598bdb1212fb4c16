"""Which function is meant by a task's name, and what did its declaration say?"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from django.apps import apps
from django.core.serializers.json import DjangoJSONEncoder
from django.db import DatabaseError, InterfaceError

from .exceptions import (
    CQError,
    DuplicateTaskName,
    InvalidArguments,
    InvalidOption,
    TaskNotRegistered,
)
from .options import Options, declared, override
from .signature import Parameters, encode, plain


@dataclass(frozen=True, slots=True)
class Definition:
    """A registered function with its options."""

    name: str
    func: Callable[..., Any]
    options: Options
    parameters: Parameters = field(repr=False)
    is_async: bool
    atomic: bool


@dataclass(frozen=True, slots=True)
class Call:
    """A function, the options that differ from its declaration, and its arguments."""

    definition: Definition
    options: Options
    overridden: frozenset[str]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    def coalesce_key(self) -> str | None:
        """The key under which at most one instance waits for its first start, or None.

        Raises `InvalidArguments` when none can be made of the arguments.
        """
        wanted = self.options.coalesce
        if wanted is False:
            return None
        if wanted is True:
            said: Any = self.definition.parameters.bind(self.args, self.kwargs)
        elif isinstance(wanted, str):
            said = wanted
        else:
            try:
                said = wanted(*self.args, **self.kwargs)
            except (CQError, DatabaseError, InterfaceError):
                # The transaction's, or the connection's, not the arguments'.
                raise
            except Exception as error:
                raise InvalidArguments(
                    f"{self.definition.name}: coalesce made no key of these arguments: {error!r}."
                ) from error
        text = key_of(plain([self.definition.name, said], "coalesce key"))
        return hashlib.sha256(text.encode()).hexdigest()


_definitions: dict[str, Definition] = {}
_async_names: set[str] = set()
# Names whose module was looked for already: one that is gone is not sought for every row.
_sought: set[str] = set()


def register(func: Callable[..., Any], name: str | None, options: Mapping[str, Any]) -> Definition:
    """Make *func* known under *name*, its import path when left out.

    Raises `InvalidOption` and `DuplicateTaskName`; a module that is imported anew may register its
    functions again.
    """
    import_path = f"{func.__module__}.{func.__qualname__}"
    name = name or import_path
    checked = declared(name, options)
    is_async = inspect.iscoroutinefunction(func)
    if is_async and checked.atomic:
        raise InvalidOption(
            f"Task {name!r} is async, and an async task cannot be atomic: Django's transactions "
            "belong to a thread. Leave atomic out, or make the function a plain one."
        )
    known = _definitions.get(name)
    if known and (known.func.__module__, known.func.__qualname__) != (
        func.__module__,
        func.__qualname__,
    ):
        raise DuplicateTaskName(
            name, f"{known.func.__module__}.{known.func.__qualname__}", import_path
        )
    definition = Definition(
        name=name,
        func=func,
        options=checked,
        parameters=Parameters(func, name),
        is_async=is_async,
        atomic=checked.atomic if checked.atomic is not None else not is_async,
    )
    _definitions[name] = definition
    if is_async:
        _async_names.add(name)
    return definition


def get(name: str) -> Definition:
    """The definition registered as *name*; raises `TaskNotRegistered`."""
    if not is_registered(name):
        raise TaskNotRegistered(name, _definitions)
    return _definitions[name]


def is_registered(name: str) -> bool:
    """Is *name* known, perhaps from a module of an installed app that was not imported yet?"""
    if name not in _definitions and name not in _sought:
        _sought.add(name)
        _import_home(name)
    return name in _definitions


def names() -> list[str]:
    """Every registered name, in order."""
    return sorted(_definitions)


def queues() -> set[str]:
    """The queues that declarations name, and the default one."""
    declared_queues = {definition.options.queue for definition in _definitions.values()}
    return {Options().queue, *declared_queues}


def async_names() -> frozenset[str]:
    """The functions that run on a worker's event loop."""
    return frozenset(_async_names)


def key_of(value: Any) -> str:
    """A text that is equal for equal arguments."""
    return json.dumps(value, sort_keys=True, cls=DjangoJSONEncoder)


def check_call(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Would this call be accepted? Raises the `CQError` that ``delay()`` would raise."""
    get(name).parameters.bind(args, kwargs)
    encode(list(args), "args")
    encode(dict(kwargs), "kwargs")


def call(
    task: Any, args: Sequence[Any], kwargs: Mapping[str, Any] | None = None, **options: Any
) -> Call:
    """A checked call of *task*: what ``@task`` or its ``using()`` returned, or a name."""
    if isinstance(task, str):
        definition = get(task)
        base, overridden = definition.options, frozenset[str]()
    else:
        try:
            definition, base, overridden = task.definition, task.options, task.overridden
        except AttributeError:
            raise TaskNotRegistered(getattr(task, "__name__", repr(task)), _definitions) from None
    if options:
        base = override(definition.name, base, options)
        overridden = overridden | options.keys()
    return Call(definition, base, overridden, positional(definition.name, args), kwargs or {})


def positional(name: str, args: Any) -> tuple[Any, ...]:
    """*args* as a tuple; of a text each letter would be one: `InvalidArguments`."""
    if isinstance(args, tuple):
        return args
    if isinstance(args, (str, bytes, Mapping)) or not isinstance(args, Iterable):
        raise InvalidArguments(f"The arguments of {name} go into a list or tuple, not {args!r}.")
    return tuple(args)


def _import_home(name: str) -> None:
    """Import the module that a name of the default form points into, if an app contains it."""
    home = name.rpartition(".")[0]
    is_of_app = any(
        home == app.name or home.startswith(f"{app.name}.") for app in apps.get_app_configs()
    )
    if home and is_of_app and apps.ready:
        with suppress(ImportError):
            import_module(home)
