"""Which changes of files does a worker notice with --reload?"""

from __future__ import annotations

import importlib
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cq import reloading
from cq.reloading import CodeWatch


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file of a module that this process has imported."""
    path = tmp_path / "watched_code.py"
    path.write_text("version = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.import_module("watched_code")
    yield path
    del sys.modules["watched_code"]


def test_a_change_of_an_imported_module_is_noticed_once(module: Path) -> None:
    watch = CodeWatch()
    before = watch.has_changed()

    os.utime(module, (1, 1))

    assert not before
    assert watch.has_changed()
    assert not watch.has_changed()


def test_a_module_that_vanished_has_changed(module: Path) -> None:
    watch = CodeWatch()

    module.unlink()

    assert watch.has_changed()


def test_waiting_ends_with_a_change_or_when_told(
    module: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reloading, "LOOK_INTERVAL", 0.01)
    stopping, changed = threading.Event(), threading.Event()
    CodeWatch().call_when_changed(changed.set)

    os.utime(module, (1, 1))

    assert changed.wait(30)
    stopping.set()
    assert not CodeWatch().wait(stopping)
    assert not CodeWatch().wait(threading.Event(), seconds=0)
