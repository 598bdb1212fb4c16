"""Which browser plays the tests here?"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, sync_playwright

CHROMIUM = os.environ.get("CQ_TEST_CHROMIUM") or shutil.which("chromium")
QUIET_OFFLINE = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture
def browser() -> Iterator[Browser]:
    """Chromium, without a page yet.

    Started for each test: Playwright's loop stays on the thread that started it, where tests with
    a loop of their own would meet it.
    """
    if CHROMIUM is None:
        pytest.skip("no chromium on the PATH (CQ_TEST_CHROMIUM names another one)")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET_OFFLINE)
        yield chromium
        chromium.close()
