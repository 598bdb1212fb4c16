"""Where did it fail, and is it the same failure as another one?"""

from __future__ import annotations

import hashlib
import linecache
import os
import re
import sysconfig
import traceback
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from types import CodeType, FrameType, TracebackType
from typing import Any, NotRequired, TypedDict

FIRST_FRAMES = 10
LAST_FRAMES = 40
TEXT_BYTES = 64 * 1024
ERROR_LENGTH = 4_000

_CODE_LENGTH = 200
_NAME_LENGTH = 200
_FILE_LENGTH = 500
_PATTERN_LENGTH = 500
# What lies behind the first few thousand characters of a message does not tell failures apart.
_MESSAGE_LENGTH = 4_000


class Frame(TypedDict):
    """One line of a traceback, outermost first; *skipped* frames were left out before it."""

    file: str
    line: int
    function: str
    code: str
    own: bool
    skipped: NotRequired[int]


def fingerprint(exception_name: str, message: str, frame: str) -> str:
    """Return 16 hex digits that are equal for failures with the same cause.

    The cause is the exception's name, the message without what differs from run to run, and the
    *frame*, see :func:`frame_label`.
    """
    cause = "\0".join([exception_name, pattern(message), frame])
    return hashlib.sha256(cause.encode(errors="surrogatepass")).hexdigest()[:16]


def pattern(message: str) -> str:
    """Return *message* without numbers, ids, and the folders of quoted paths; 500 characters."""
    text = _QUOTED_PATH.sub(r"\g<quote>…/\g<name>\g<quote>", clean(message[:_MESSAGE_LENGTH]))
    text = _ID.sub("<id>", text)
    return _NUMBER.sub("<n>", text)[:_PATTERN_LENGTH]


def frames(tb: TracebackType | None, project_root: str | os.PathLike[str]) -> list[Frame]:
    """Return the first 10 and the last 40 frames of a traceback, as JSON values.

    A frame is *own* when its file lies below *project_root*, and is neither an installed package
    nor part of django-cq. Files of the project and of packages are named relative to their root.
    """
    root = os.path.realpath(project_root)
    first: list[_Place] = []
    last: deque[_Place] = deque(maxlen=LAST_FRAMES)
    total = 0
    while tb is not None:
        place = _Place(tb.tb_frame, tb.tb_lineno)
        (first if total < FIRST_FRAMES else last).append(place)
        total += 1
        tb = tb.tb_next
    described = [_describe(place, root) for place in (*first, *last)]
    skipped = total - len(described)
    if skipped:
        described[FIRST_FRAMES]["skipped"] = skipped
    return described


def deepest_own_frame(described: Sequence[Frame]) -> Frame | None:
    """Return the innermost frame of own code, else the innermost of all; None without frames."""
    for frame in reversed(described):
        if frame["own"]:
            return frame
    return described[-1] if described else None


def frame_label(frame: Mapping[str, Any] | None) -> str:
    """Return ``file in function``, without the line number, which every edit above it moves."""
    return f"{frame['file']} in {frame['function']}" if frame else ""


def exception_name(error: BaseException) -> str:
    """Return the name of the exception's class with its module, as ``shop.errors.OutOfStock``."""
    cls = type(error)
    name = clean(f"{cls.__module__}.{cls.__qualname__}")
    return name.removeprefix("builtins.")[:_NAME_LENGTH]


def error_message(error: BaseException) -> str:
    """Return the exception's message, whatever its ``__str__`` does; at most 4,000 characters."""
    try:
        return _shortened(clean(str(error)[: 2 * ERROR_LENGTH]), ERROR_LENGTH)
    except Exception as broken:  # noqa: BLE001 - the class is the user's, and may fail as it likes
        return f"<its message cannot be shown: {type(broken).__name__}>"


def traceback_text(error: BaseException) -> str:
    """Return the traceback of *error* as Python prints it, with causes; at most 64 kB of UTF-8.

    It can be stored anywhere, and no ``__str__`` or ``__repr__`` of the user's makes it fail.
    """
    try:
        text = "".join(_bounded(traceback.TracebackException.from_exception(error).format()))
    except Exception as broken:  # noqa: BLE001 - see error_message; a long chain overflows the stack
        text = (
            f"<the traceback cannot be shown: {type(broken).__name__}>\n"
            f"{exception_name(error)}: {error_message(error)}\n"
        )
    return _shortened_to_bytes(clean(text), TEXT_BYTES)


def clean(text: str) -> str:
    """Return *text* with NUL and lone surrogates replaced: no database stores them."""
    return _UNSTORABLE.sub("\ufffd", text)


_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_ID = re.compile(
    r"""
      (?<![0-9a-z]) [0-9a-f]{8} - (?:[0-9a-f]{4}-){3} [0-9a-f]{12} (?![0-9a-z])
    | \b 0x [0-9a-f]++
    | (?<![0-9a-z]) (?= [a-f]*+ [0-9] ) (?= [0-9]*+ [a-f] ) [0-9a-f]{8,200}+ (?![0-9a-z])
    """,
    re.VERBOSE | re.IGNORECASE,
)
_NUMBER = re.compile(r"[0-9]++(?:[.,:][0-9]++)*+")
_QUOTED_PATH = re.compile(
    r"""
    (?P<quote>["'`]) (?=\S) [^"'`\n]{0,1000} [/\\] (?P<name>[^"'`\n/\\]*+) (?P=quote)
    """,
    re.VERBOSE,
)


class _Place:
    """A frame with the line it was at: ``tb_frame.f_lineno`` may have moved on."""

    __slots__ = ("frame", "line")

    def __init__(self, frame: FrameType, line: int | None) -> None:
        self.frame = frame
        self.line = line or 0


def _describe(place: _Place, root: str) -> Frame:
    code: CodeType = place.frame.f_code
    known = _locate(code.co_filename, root)
    return {
        "file": known.file,
        "line": place.line,
        "function": clean(code.co_qualname)[:_NAME_LENGTH],
        "code": _source_line(place),
        "own": known.own,
    }


class _Location:
    __slots__ = ("file", "own")

    def __init__(self, file: str, *, own: bool) -> None:
        self.file = clean(file)[-_FILE_LENGTH:]
        self.own = own


@lru_cache(maxsize=1024)
def _locate(filename: str, root: str) -> _Location:
    if filename.startswith("<"):
        return _Location(filename, own=False)
    path = os.path.realpath(filename)
    for marker in ("site-packages", "dist-packages"):
        _, found, inside = path.rpartition(f"{os.sep}{marker}{os.sep}")
        if found:
            return _Location(inside, own=False)
    for folder, prefix in _LIBRARIES:
        if path.startswith(folder + os.sep):
            return _Location(prefix + path[len(folder) + 1 :], own=False)
    if path.startswith(root.rstrip(os.sep) + os.sep):
        return _Location(path[len(root.rstrip(os.sep)) + 1 :], own=True)
    return _Location(path, own=False)


_LIBRARIES = (
    (str(Path(__file__).resolve().parent), "cq/"),
    (os.path.realpath(sysconfig.get_path("stdlib")), ""),
)


def _source_line(place: _Place) -> str:
    try:
        source = linecache.getline(
            place.frame.f_code.co_filename, place.line, place.frame.f_globals
        )
    except Exception:  # noqa: BLE001 - the loader of a module may be the user's
        return ""
    return clean(source.strip()[:_CODE_LENGTH])


def _bounded(lines: Iterable[str]) -> Iterable[str]:
    # A line with a message of megabytes is cut before the pieces are joined.
    return (_shortened(line, TEXT_BYTES) for line in lines)


def _shortened(text: str, length: int) -> str:
    if len(text) <= length:
        return text
    half = length // 2 - 20
    return f"{text[:half]}\n… {len(text) - 2 * half} characters …\n{text[-half:]}"


def _shortened_to_bytes(text: str, size: int) -> str:
    encoded = text.encode()
    if len(encoded) <= size:
        return text
    half = size // 2 - 30
    begin = encoded[:half].decode(errors="ignore")
    end = encoded[-half:].decode(errors="ignore")
    return f"{begin}\n… {len(encoded) - 2 * half} bytes …\n{end}"
