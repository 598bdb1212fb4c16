"""Are failures with one cause grouped, and shown safely whatever the user's exception does?"""

from __future__ import annotations

import json
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cq.fingerprints import (
    TEXT_BYTES,
    clean,
    deepest_own_frame,
    error_message,
    exception_name,
    fingerprint,
    frame_label,
    frames,
    pattern,
    traceback_text,
)

HERE = Path(__file__).resolve()
PROJECT = HERE.parents[1]


def caught(function: Callable[[], object]) -> BaseException:
    try:
        function()
    except Exception as error:  # noqa: BLE001 - whatever the case raises
        return error
    raise AssertionError("nothing was raised")


def raise_from_own_code() -> None:
    json.loads("{")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("order 17 not found", "order 18,321 not found"),
        ("took 1.5 s", "took 12.25 s"),
        (f"no task {uuid.uuid4()}", f"no task {uuid.uuid4()}"),
        ("commit deadbeef01 is gone", "commit 0123abcdef99 is gone"),
        ("<Order object at 0x7f3aa>", "<Order object at 0xffeedd>"),
        ("No such file: '/tmp/a1/x/in.csv'", "No such file: '/srv/data/in.csv'"),
        (r"No such file: 'C:\\tmp\\in.csv'", "No such file: '/srv/data/in.csv'"),
    ],
)
def test_messages_that_differ_in_numbers_ids_and_folders_have_one_fingerprint(
    first: str, second: str
) -> None:
    assert pattern(first) == pattern(second)
    assert fingerprint("ValueError", first, "a.py in f") == fingerprint(
        "ValueError", second, "a.py in f"
    )


def test_another_class_text_or_frame_is_another_failure() -> None:
    prints = {
        fingerprint(name, message, frame)
        for name in ("ValueError", "KeyError")
        for message in ("order 17 not found", "customer 17 not found")
        for frame in ("a.py in f", "a.py in g")
    }

    assert len(prints) == 8
    assert all(len(one) == 16 and int(one, 16) >= 0 for one in prints)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("order 17 of 2026-11-23", "order <n> of <n>-<n>-<n>"),
        ("cannot read '/tmp/q/in.csv'", "cannot read '…/in.csv'"),
        ("'x' and/or 'y' is missing", "'x' and/or 'y' is missing"),
        ("the facade is defaced", "the facade is defaced"),
        ("", ""),
        ("a\0b\ud800", "a\ufffdb\ufffd"),
    ],
)
def test_a_pattern_keeps_what_tells_causes_apart(message: str, expected: str) -> None:
    assert pattern(message) == expected


@given(st.text())
def test_a_pattern_of_any_text_can_be_stored_and_is_bounded(text: str) -> None:
    found = pattern(text * 50)

    assert len(found) <= 500
    assert clean(found) == found
    found.encode()


@pytest.mark.parametrize(
    "piece", ["a", "0", "1,", "'/", "'", "0x", "a0", "-", "/", "12345678-1234-"]
)
def test_a_megabyte_of_message_is_handled_in_linear_time(piece: str) -> None:
    message = piece * (1_000_000 // len(piece))
    started = time.process_time()

    fingerprint("ValueError", message, "a.py in f")
    traceback_text(ValueError(message))

    assert time.process_time() - started < 3


def test_frames_tell_own_code_from_libraries() -> None:
    error = caught(raise_from_own_code)

    described = frames(error.__traceback__, PROJECT)

    own = [frame for frame in described if frame["own"]]
    assert [frame["function"] for frame in own] == ["caught", "raise_from_own_code"]
    assert own[-1] == {
        "file": "rules/test_fingerprints.py",
        "line": raise_from_own_code.__code__.co_firstlineno + 1,
        "function": "raise_from_own_code",
        "code": 'json.loads("{")',
        "own": True,
    }
    assert described[-1]["file"] == "json/decoder.py"
    assert deepest_own_frame(described) == own[-1]
    assert frame_label(own[-1]) == "rules/test_fingerprints.py in raise_from_own_code"


@pytest.mark.parametrize(
    ("filename", "shown"),
    [
        ("{project}/.venv/lib/python3/site-packages/shop/pay.py", "shop/pay.py"),
        ("/usr/lib/python3/dist-packages/shop/pay.py", "shop/pay.py"),
        ("<string>", "<string>"),
        ("/elsewhere/pay.py", "/elsewhere/pay.py"),
        ("{project}-other/pay.py", "{project}-other/pay.py"),
    ],
)
def test_code_outside_the_project_is_not_own(filename: str, shown: str) -> None:
    code = compile("1 / 0", filename.format(project=PROJECT), "exec")
    error = caught(lambda: exec(code))

    described = frames(error.__traceback__, PROJECT)

    assert described[-1]["own"] is False
    assert described[-1]["file"] == shown.format(project=PROJECT)
    assert described[-1]["code"] == ""


def test_a_failure_outside_own_code_is_named_by_its_innermost_frame() -> None:
    error = caught(raise_from_own_code)

    described = frames(error.__traceback__, "/nowhere")

    assert deepest_own_frame(described) == described[-1]
    assert deepest_own_frame([]) is None
    assert frame_label(None) == ""
    assert frames(None, PROJECT) == []


def test_a_deep_traceback_keeps_its_first_and_last_frames() -> None:
    def dig(depth: int) -> None:
        if depth == 0:
            raise ValueError("the bottom")
        dig(depth - 1)

    error = caught(lambda: dig(200))

    described = frames(error.__traceback__, PROJECT)

    assert len(described) == 50
    assert described[0]["function"] == "caught"
    assert described[-1]["code"] == 'raise ValueError("the bottom")'
    assert [frame.get("skipped") for frame in described if "skipped" in frame] == [153]
    assert "skipped" in described[10]


def test_frames_are_json() -> None:
    described = frames(caught(raise_from_own_code).__traceback__, PROJECT)

    assert json.loads(json.dumps(described)) == described


class Hostile(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no")

    __repr__ = __str__


class NotText(Exception):
    def __str__(self) -> str:
        return 17  # type: ignore[return-value]  # noqa: PLE0307


@pytest.mark.parametrize(
    "error", [Hostile(), NotText(), KeyError(Hostile()), ExceptionGroup("g", [Hostile()])]
)
def test_an_exception_that_cannot_show_itself_is_still_recorded(error: Exception) -> None:
    error.add_note("a note")

    assert type(error).__name__ in traceback_text(error)
    assert error_message(error)


def test_a_traceback_has_its_cause_and_no_byte_that_a_database_refuses() -> None:
    def fail() -> None:
        try:
            dict[str, str]()["first\0\ud800"]
        except KeyError as cause:
            raise ValueError("second") from cause

    text = traceback_text(caught(fail))

    assert "KeyError" in text
    assert "direct cause" in text
    assert text.endswith("ValueError: second\n")
    assert clean(text) == text


@pytest.mark.parametrize("letter", ["x", "ü", "😀"])
def test_a_traceback_is_bounded_and_keeps_both_ends(letter: str) -> None:
    def fail() -> None:
        raise ValueError("begin" + letter * 3_000_000 + "end")

    text = traceback_text(caught(fail))

    assert len(text.encode()) <= TEXT_BYTES
    assert text.startswith("Traceback (most recent call last)")
    assert "ValueError: begin" in text
    assert text.endswith("end\n")


def test_a_long_chain_of_causes_does_not_overflow_the_stack() -> None:
    error: Exception = ValueError("the first")
    for number in range(5_000):
        following = ValueError(str(number))
        following.__cause__ = error
        error = following

    text = traceback_text(error)

    assert "4999" in text
    assert len(text.encode()) <= TEXT_BYTES


def test_an_endless_recursion_is_described() -> None:
    def again() -> None:
        again()

    error = caught(again)

    assert len(frames(error.__traceback__, PROJECT)) == 50
    assert "RecursionError" in traceback_text(error)
    assert sys.getrecursionlimit() > 50


def test_names_and_messages_of_exceptions() -> None:
    assert exception_name(ValueError("x")) == "ValueError"
    assert exception_name(json.JSONDecodeError("x", "", 0)) == "json.decoder.JSONDecodeError"
    assert error_message(ValueError("a\0b")) == "a\ufffdb"
    assert len(error_message(ValueError("x" * 10**6))) <= 4_000
