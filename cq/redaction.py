"""Which values must not be shown?"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

MASK = "••••••••"

_SECRET_WORDS = (
    "password",
    "passwd",
    "secret",
    "token",
    "api key",
    "authorization",
    "cookie",
    "credential",
    "private key",
)

# Deeper values than these are nobody's arguments; hiding them costs less than a stack overflow.
_DEEPEST = 200
_LONGEST_KEY = 100
# Replacing every "a" of a text would destroy it, and hide nothing.
_SHORTEST_VALUE = 4

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")


def is_secret(key: str, extra: Iterable[str] = ()) -> bool:
    """Tell whether *key* contains a secret word, or one of *extra*, as a whole word.

    Words are told apart in snake_case, kebab-case and camelCase; a plural counts.
    """
    return _is_secret(key[:_LONGEST_KEY], tuple(extra))


def mask(value: Any, extra: Iterable[str] = ()) -> Any:
    """Return a copy of a JSON *value* with everything below a secret key masked.

    Numbers, booleans and None are shown also there: ``{"max_tokens": 512}`` is no secret.
    """
    return _mask(value, tuple(extra), _DEEPEST)


def secret_values(value: Any, extra: Iterable[str] = ()) -> list[str]:
    """Return the texts that :func:`mask` hides in *value*: what a log must not repeat."""
    found: dict[str, None] = {}
    _collect(value, tuple(extra), is_hidden=False, depth=_DEEPEST, found=found)
    return list(found)


def mask_text(text: str, extra: Iterable[str] = (), values: Iterable[str] = ()) -> str:
    """Return *text* with the secrets in it masked, whatever surrounds them.

    Masked are the given *values*, what follows a secret key (``key=value``, ``"key": "value"``,
    headers), bearer tokens, private keys in PEM form, and passwords in URLs. The time is linear
    in the length of the text. Masking twice changes nothing.
    """
    text = _mask_values(text, values)
    words = tuple(extra)
    lowered = text.lower()
    if not any(sign in lowered for sign in _signs(words)):
        return text
    text = _PEM.sub(MASK, text)
    text = _URL_PASSWORD.sub(rf"\g<before>{MASK}@", text)
    text = _mask_assignments(text, words)
    return _BEARER.sub(rf"\g<before>{MASK}", text)


def _mask(value: Any, extra: tuple[str, ...], depth: int) -> Any:
    if depth == 0:
        return value if _is_plain(value) else MASK
    if isinstance(value, Mapping):
        return {
            key: MASK
            if not _is_plain(item) and is_secret(str(key), extra)
            else _mask(item, extra, depth - 1)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_mask(item, extra, depth - 1) for item in value]
    return value


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, (bool, int, float))


def _collect(
    value: Any, extra: tuple[str, ...], *, is_hidden: bool, depth: int, found: dict[str, None]
) -> None:
    if depth == 0:
        return
    if isinstance(value, Mapping):
        for key, item in value.items():
            hides = is_hidden or is_secret(str(key), extra)
            _collect(item, extra, is_hidden=hides, depth=depth - 1, found=found)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _collect(item, extra, is_hidden=is_hidden, depth=depth - 1, found=found)
    elif is_hidden and isinstance(value, str) and len(value) >= _SHORTEST_VALUE:
        found[value] = None


@lru_cache(maxsize=4096)
def _is_secret(key: str, extra: tuple[str, ...]) -> bool:
    words = [word.lower() for word in _WORD.findall(key)]
    phrases = _phrases(extra)
    longest = max(len(phrase) for phrase in phrases)
    return any(
        tuple(words[start : start + length]) in phrases
        for start in range(len(words))
        for length in range(1, longest + 1)
    )


@lru_cache(maxsize=64)
def _phrases(extra: tuple[str, ...]) -> frozenset[tuple[str, ...]]:
    """Return the secret words as tuples: apart, written together, and in the plural."""
    found: set[tuple[str, ...]] = set()
    for name in (*_SECRET_WORDS, *extra):
        words = tuple(word.lower() for word in _WORD.findall(name))
        if words:
            for phrase in (words, ("".join(words),)):
                found |= {phrase, (*phrase[:-1], phrase[-1] + "s")}
    return frozenset(found)


_PEM = re.compile(
    r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----.*?(?:-----END [A-Z ]{0,30}PRIVATE KEY-----|\Z)",
    re.DOTALL,
)
_URL_PASSWORD = re.compile(r"(?P<before>://[^\s/:@]{0,200}:)[^\s/@]{1,500}@")
_BEARER = re.compile(r"(?P<before>\bbearer\s{1,8})[A-Za-z0-9\-._~+/=]{6,}", re.IGNORECASE)

# Quantifiers are bounded or possessive: no text makes them go back over what they have read.
_KEY = re.compile(
    r"(?<![\w-])(?P<key>[A-Za-z_-][\w-]{0,99}(?: [Kk]ey)?)\\?[\"'`]?\]?\s{0,8}(?:=>|:=|:|=)\s{0,8}"
)
_VALUE = re.compile(
    r"""
      [bru]{0,2} " (?: [^"\\] | \\. )*+ (?: " | \Z )
    | [bru]{0,2} ' (?: [^'\\] | \\. )*+ (?: ' | \Z )
    | \\" (?: [^"\\] )*+ (?: \\" | \Z )?
    | [\[({] [^\n]*+
    | [^\s,;&'"<>()\[\]{}]++
    """,
    re.VERBOSE | re.DOTALL,
)
_HEADER = re.compile(r"[^\n\"']++")
_COOKIES = re.compile(r"[^\n]++")
_SHOWN = re.compile(r"(?:true|false|none|null)\b", re.IGNORECASE)
_NUMBER = re.compile(r"-?[0-9]{1,12}(?:\.[0-9]{1,12})?(?![\w.\-/+=])")
_STARTS_QUOTED = re.compile(r"[bru]{0,2}\\?[\"']")


def _mask_assignments(text: str, extra: tuple[str, ...]) -> str:
    parts: list[str] = []
    done = position = 0
    while found := _KEY.search(text, position):
        # A key that is no secret may have one inside its value: look on right behind it.
        position = found.end()
        key = found["key"]
        if is_secret(key, extra) and (end := _end_of_secret(text, position, key)) > position:
            parts += (text[done:position], _in_its_quotes(text[position:end]))
            done = position = end
    parts.append(text[done:])
    return "".join(parts)


def _end_of_secret(text: str, start: int, key: str) -> int:
    """Return where the value that starts at *start* ends; *start* when it may be shown."""
    words = {word.lower() for word in _WORD.findall(key)}
    if _SHOWN.match(text, start):
        return start
    # In a text a number may be a PIN; a number of tokens is not.
    if words & {"token", "tokens"} and _NUMBER.match(text, start):
        return start
    pattern = _VALUE
    if not _STARTS_QUOTED.match(text, start):
        if words & {"cookie", "cookies"}:
            pattern = _COOKIES
        elif "authorization" in words:
            pattern = _HEADER
    found = pattern.match(text, start)
    return found.end() if found else start


def _in_its_quotes(value: str) -> str:
    opening = _STARTS_QUOTED.match(value)
    if opening is None:
        return MASK
    quote = opening[0].lstrip("bru")
    return opening[0] + MASK + (quote if value.endswith(quote) else "")


def _mask_values(text: str, values: Iterable[str]) -> str:
    forms = {
        form
        for value in values
        if len(value) >= _SHORTEST_VALUE
        for form in (value, repr(value)[1:-1])
    }
    # The longest first: one value may be part of another.
    for form in sorted(forms, key=len, reverse=True):
        text = text.replace(form, MASK)
    return text


@lru_cache(maxsize=64)
def _signs(extra: tuple[str, ...]) -> tuple[str, ...]:
    """Return what a text with a secret contains, so that most texts are done with at once."""
    starts = {phrase[0] for phrase in _phrases(extra)}
    return ("bearer", "://", *sorted(start for start in starts if start[:-1] not in starts))
