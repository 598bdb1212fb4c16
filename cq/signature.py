"""How is a call checked, bound to parameter names, and stored as JSON?"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from django.core.serializers.json import DjangoJSONEncoder

from . import conf
from .exceptions import InvalidArguments, NotEncodable
from .jsontext import writer
from .redaction import is_secret

NAMED_LENGTH = 200


class _Previous:
    """Stands in a follower's arguments for the result of its predecessor."""

    def __repr__(self) -> str:
        return "cq.PREVIOUS"


PREVIOUS: Final = _Previous()
STORED_PREVIOUS: Final = {"__cq__": "previous"}


class _Encoder(DjangoJSONEncoder):
    def default(self, o: Any) -> Any:
        return STORED_PREVIOUS if o is PREVIOUS else super().default(o)


_to_json = writer(_Encoder(ensure_ascii=False, allow_nan=False))


def encode(value: Any, path: str) -> str:
    """*value* as JSON text that every supported database stores unchanged.

    Raises `NotEncodable` with the path to what cannot be stored, such as ``args[0].when``: objects
    JSON does not know, NaN and infinities, NUL and lone surrogates, and what is nested too deep.
    """
    if type(value) is dict and not value:
        return "{}"  # the keyword arguments of most calls
    try:
        text = _to_json(value)
        if not text.isascii():
            text.encode()
    except (TypeError, ValueError, RecursionError):
        where, problem = _culprit(value, path)
        raise NotEncodable(where, problem) from None
    if text.count("[") + text.count("{") > conf.DEEPEST_ON_MYSQL and _is_too_deep(value):
        raise NotEncodable(path, _too_deep())
    # PostgreSQL's jsonb refuses NUL. A backslash followed by u0000 looks alike: look closer then.
    if "\\u0000" in text:
        culprit = _find(value, path, lambda item: isinstance(item, str) and "\x00" in item)
        if culprit:
            raise NotEncodable(culprit, "it contains a NUL character")
    return text


def plain(value: Any, path: str) -> Any:
    """*value* as it will be read back from the database."""
    return json.loads(encode(value, path))


def mentions_previous(args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Is `PREVIOUS` anywhere in these stored arguments?"""
    marked = resolve_previous([args, kwargs], PREVIOUS)
    return bool(marked != [args, kwargs])


def resolve_previous(value: Any, result: Any) -> Any:
    """*value* with every stored `PREVIOUS` replaced by *result*."""
    if value == STORED_PREVIOUS:
        return result
    if isinstance(value, list):
        return [resolve_previous(item, result) for item in value]
    if isinstance(value, dict):
        return {key: resolve_previous(item, result) for key, item in value.items()}
    return value


class Parameters:
    """The parameters of a task's function, without its context."""

    def __init__(self, func: Callable[..., Any], name: str) -> None:
        self.name = name
        signature = inspect.signature(func)
        parameters = list(signature.parameters.values())
        if not parameters or parameters[0].kind not in (
            inspect.Parameter.POSITIONAL_ONLY,
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
        ):
            raise InvalidArguments(
                f"Task {name!r} takes no context. Declare it as: def {func.__name__}(cqt, …)."
            )
        self.signature = signature.replace(parameters=parameters[1:])
        # The usual case, bound without inspect: plain parameters, no defaults to think of.
        self._plain = tuple(
            parameter.name
            for parameter in parameters[1:]
            if parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
        )
        self._is_plain = len(self._plain) == len(parameters) - 1

    def bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Parameter name → value; raises `InvalidArguments` when they do not fit."""
        if self._is_plain and not kwargs and len(args) == len(self._plain):
            return dict(zip(self._plain, args, strict=True))
        try:
            return dict(self.signature.bind(*args, **kwargs).arguments)
        except TypeError as error:
            raise InvalidArguments(
                f"These arguments do not fit {self.name}{self.signature}: {error}."
            ) from None


def named(bound: Mapping[str, Any], redact: Sequence[str] = ()) -> dict[str, Any]:
    """What a search by argument may find: short top-level scalars, without masked keys."""
    return {
        name: value if isinstance(value, (int, float)) else str(value)
        for name, value in bound.items()
        if isinstance(value, (str, int, float))
        and not isinstance(value, bool)
        and len(str(value)) <= NAMED_LENGTH
        and not is_secret(name, redact)
    }


def _too_deep() -> str:
    return f"it is nested more than {conf.deepest()} levels deep"


def _is_too_deep(value: Any) -> bool:
    level = [value]
    for _depth in range(conf.deepest()):
        # Each object once: one that contains itself twice would double at every level.
        inside = {id(item): item for outer in level for item in _items(outer)}
        if not inside:
            return False
        level = list(inside.values())
    return True


def _items(value: Any) -> Iterable[Any]:
    """The containers directly inside a container."""
    items = value.values() if isinstance(value, Mapping) else value
    if not isinstance(items, Iterable) or isinstance(items, str):
        return ()
    return (item for item in items if isinstance(item, (Mapping, list, tuple)))


def _culprit(value: Any, path: str) -> tuple[str, str]:
    if _is_too_deep(value):
        return path, _too_deep()
    return _find_culprit(value, path)


def _find_culprit(value: Any, path: str) -> tuple[str, str]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, (str, int, float, bool, type(None))):
                return path, f"the key {key!r} is not text"
            if _fails(item):
                return _find_culprit(item, f"{path}.{key}")
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            if _fails(item):
                return _find_culprit(item, f"{path}[{index}]")
    return path, _problem(value)


def _problem(value: Any) -> str:
    if isinstance(value, float):
        return f"{value!r} is not a JSON number"
    if isinstance(value, str):
        return "it contains half of a surrogate pair"
    if isinstance(value, int):
        return "it is a number of more digits than Python writes"
    return f"a {type(value).__name__} is not a JSON value"


def _fails(value: Any) -> bool:
    try:
        _to_json(value).encode()
    except (TypeError, ValueError, RecursionError):
        return True
    return False


def _find(value: Any, path: str, is_culprit: Callable[[Any], bool]) -> str:
    if is_culprit(value):
        return path
    items: Any = ()
    if isinstance(value, Mapping):
        items = [(f"{path}.{key}", item) for key, item in value.items()]
        if any(is_culprit(key) for key in value):
            return path
    elif isinstance(value, (list, tuple)):
        items = [(f"{path}[{index}]", item) for index, item in enumerate(value)]
    for inner, item in items:
        found = _find(item, inner, is_culprit)
        if found:
            return found
    return ""
