"""How is text that a task produced made safe to look at?

Templates escape HTML; what is left are characters that change how other text is shown, and sizes.
"""

from __future__ import annotations

import json
import re
import unicodedata
from typing import Any

LINE = 2_000
BLOCK = 100_000

# C0 and C1 controls but tab and newline, marks that turn the direction of text, zero-width
# characters, separators that end a line in scripts, and halves of surrogate pairs.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    "\ufeff\ufff9-\ufffb\ud800-\udfff]"
)


def visible(text: str, limit: int = LINE) -> str:
    """*text* with its control characters and direction marks shown as symbols, cut at *limit*."""
    cut = len(text) > limit
    shown = _UNSAFE.sub(_symbol, text[:limit].replace("\r\n", "\n"))
    return f"{shown}… ({len(text):,} characters)" if cut else shown


def one_line(text: str, limit: int = LINE) -> str:
    """*text* as a single line."""
    return visible(text, limit).replace("\n", "⏎ ").replace("\t", " ")


def pretty(value: Any, limit: int = BLOCK) -> str:
    """*value* as indented JSON; whole numbers are never rounded."""
    try:
        text = json.dumps(value, indent=2, ensure_ascii=False, default=str)
    except RecursionError:
        text = "… (nested too deeply to be shown)"
    return visible(text, limit)


def compact(value: Any, limit: int) -> str:
    """*value* as JSON on one line, cut at *limit*."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=str)
    except RecursionError:
        text = "…"
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    return one_line(text, limit + 1)


def _symbol(match: re.Match[str]) -> str:
    character = match[0]
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "\u2421"
    name = unicodedata.name(character, "")
    return f"⟨{name or f'U+{code:04X}'}⟩" if len(name) <= 30 else f"⟨U+{code:04X}⟩"
