"""Does a page stand still for who reads it, whatever happens around it?

CQ_BROWSER_FULL=1 takes longer, with a larger tree and log, and kills Redis.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import redis
from playwright.sync_api import Browser, BrowserContext, Page, WebSocket, expect

from browser.stage import Demo, log_in, running_demo, watched_page

FULL = bool(os.environ.get("CQ_BROWSER_FULL"))
SECONDS = 30 if FULL else 8
CHILDREN = 10_000 if FULL else 320
LINES = 1_000_000 if FULL else 2_300
LINES_A_SECOND = 500
SETTINGS: dict[str, Any] = {"DJANGO_SETTINGS_MODULE": "browser.bustle.settings"}
PATIENCE = 90_000

# Where everything is that somebody may look at, hold, or be about to press.
PLACES = """() => {
  const place = (element) => {
    const box = element?.getBoundingClientRect();
    return box && [box.x, box.y];
  };
  return {
    selected: place(document.querySelector("#cq-failed + ul [data-selected] .cq-node-link")),
    verb: place(document.querySelector("#cq-verbs")),
    panel: document.querySelector("#cq-inspector .cq-trace").open,
    frame: place(document.querySelector("#cq-inspector .cq-frames")),
    selection: getSelection().toString(),
    focus: document.activeElement.outerHTML,
    scrolled: scrollY,
    open: [...document.querySelectorAll("[aria-expanded=true]")].map(place),
  };
}"""
READ = """() => {
  const box = document.getElementById("cq-log-box");
  const top = box.getBoundingClientRect().top;
  const bottom = (line) => line.getBoundingClientRect().bottom;
  const line = [...box.querySelectorAll("[data-line]")].find((line) => bottom(line) > top + 30);
  return [box.scrollTop, line.id, bottom(line), box.querySelectorAll("li").length];
}"""
SUCCEEDED = "() => Number(document.querySelector('.cq-legend [data-status=S] b')?.textContent ?? 0)"


def test_nothing_that_is_held_moves_while_ten_states_change_a_second(
    browser: Browser, tmp_path: Path
) -> None:
    with running_demo(tmp_path, **SETTINGS) as demo, watched_page(browser) as tree:
        log_in(tree, demo)
        # More than will be done: it goes on for as long as somebody looks.
        call = (
            f"children={SECONDS * 100}, pause=1.0, seconds={SECONDS * 20}, lines={LINES_A_SECOND}"
        )
        task = demo.run(f"from browser.bustle.tasks import *; print(bustle.delay({call}).id)")
        log = tree.context.new_page()
        read_in_the_tree(tree, demo, task)
        read_in_the_log(log, demo, task)

        places, reading, before = (
            tree.evaluate(PLACES),
            log.evaluate(READ),
            tree.evaluate(SUCCEEDED),
        )
        # Two changes for each child: it starts, and it ends.
        tree.wait_for_function(
            f"least => ({SUCCEEDED})() > least", arg=before + SECONDS * 4, timeout=PATIENCE
        )

        assert tree.evaluate(PLACES) == places
        assert log.evaluate(READ) == reading
        follow_the_log_again(log)


def read_in_the_tree(page: Page, demo: Demo, task: str) -> None:
    """Select what failed, open its traceback, select its text, and scroll."""
    page.goto(f"{demo.url}/admin/cq/task/{task}/")
    failed = page.locator("#cq-failed + ul .cq-node-link").first
    pill = page.locator("#cq-more-failed a")
    expect(failed.or_(pill).first).to_be_visible(timeout=PATIENCE)
    if not failed.is_visible():
        pill.click()
    with page.expect_response(lambda response: "/_inspector/" in response.url):
        failed.click()
    page.locator("#cq-inspector .cq-trace > summary").click()
    expect(page.locator("#cq-inspector .cq-frames")).to_be_visible()
    page.evaluate(
        "() => getSelection().selectAllChildren(document.querySelector('#cq-inspector .cq-error'))"
    )
    page.evaluate("scrollTo(0, 90)")


def read_in_the_log(page: Page, demo: Demo, task: str) -> None:
    page.goto(f"{demo.url}/admin/cq/task/{task}/?tab=logs")
    page.wait_for_function(
        "() => document.querySelectorAll('#cq-lines [data-line]').length > 150", timeout=PATIENCE
    )
    page.evaluate("document.getElementById('cq-log-box').scrollTop = 200")
    expect(page.locator("#cq-new-lines")).to_be_visible(timeout=PATIENCE)


def follow_the_log_again(page: Page) -> None:
    # From ten thousand on it says 10,000+.
    shown = page.locator("#cq-new-lines b").inner_text()
    assert int(shown.replace(",", "").rstrip("+")) > 100
    page.locator("#cq-new-lines").click()

    expect(page.locator(".cq-passed").first).to_be_attached(timeout=PATIENCE)
    page.wait_for_function(
        """() => {
            const box = document.getElementById("cq-log-box");
            return box.scrollHeight - box.scrollTop - box.clientHeight < 8;
        }""",
        timeout=PATIENCE,
    )
    assert page.locator("#cq-lines li").count() <= 500
    assert page.locator("#cq-lines li").first.get_attribute("data-minute")


def test_a_large_tree_and_a_long_log_stay_small_on_the_page(
    browser: Browser, tmp_path: Path
) -> None:
    with running_demo(tmp_path, **SETTINGS) as demo, watched_page(browser) as page:
        code = f"from browser.bustle.tasks import *; print(fill({CHILDREN}, {LINES}))"
        task = demo.run(code)
        log_in(page, demo)

        took = opened(page, f"{demo.url}/admin/cq/task/{task}/")
        failed, all_of_them = (
            page.locator("#cq-failed + ul > li"),
            page.locator("[data-cq-level] > li.cq-node"),
        )
        at_first = failed.count(), all_of_them.count()
        page.locator("[data-cq-level] > .cq-more a").first.click()
        expect(all_of_them).to_have_count(200, timeout=PATIENCE)
        log_took = opened(page, f"{demo.url}/admin/cq/task/{task}/?tab=logs")

        print(f"{CHILDREN} children in {took:.2f} s, {LINES} lines in {log_took:.2f} s")
        assert at_first == (min(CHILDREN // 100 + (CHILDREN % 100 > 7), 100), 100)
        assert page.locator("#cq-lines [data-line]").count() == 200
        opened(page, f"{demo.url}/admin/cq/task/{task}/?tab=timeline")
        assert 2 <= page.locator(".cq-gantt-row").count() <= 200


def opened(page: Page, url: str) -> float:
    """Seconds from asking for a page to its last byte."""
    page.goto(url)
    timing: dict[str, Any] = page.evaluate("performance.getEntriesByType('navigation')[0].toJSON()")
    return float(timing["responseEnd"] - timing["requestStart"]) / 1000


@pytest.mark.skipif(not FULL, reason="takes a minute: CQ_BROWSER_FULL=1")
@pytest.mark.skipif(not shutil.which("redis-server"), reason="no redis-server here")
def test_a_page_goes_on_without_redis_and_hears_it_again(browser: Browser, tmp_path: Path) -> None:
    port = free_port()
    nudges: list[float] = []
    settings = {**SETTINGS, "DEMO_REDIS_URL": f"redis://127.0.0.1:{port}/0"}
    with (
        running_redis(port, tmp_path) as server,
        running_demo(tmp_path, **settings) as demo,
        context_of(browser) as context,
    ):
        page = context.new_page()
        page.on("websocket", lambda opened: note_frames(opened, nudges))
        log_in(page, demo)
        call = "children=900, pause=1.0, seconds=1, lines=10"
        task = demo.run(f"from browser.bustle.tasks import *; print(bustle.delay({call}).id)")
        page.goto(f"{demo.url}/admin/cq/task/{task}/")
        until(page, lambda: len(nudges) > 3)

        server.kill()
        server.wait()
        time.sleep(1)
        heard, before = len(nudges), page.evaluate(SUCCEEDED)
        page.wait_for_function(f"n => ({SUCCEEDED})() > n", arg=before, timeout=PATIENCE)
        assert len(nudges) == heard

        with running_redis(port, tmp_path):
            until(page, lambda: len(nudges) > heard + 3)


def note_frames(opened: WebSocket, nudges: list[float]) -> None:
    opened.on("framereceived", lambda _payload: nudges.append(time.monotonic()))


def until(page: Page, condition: Any) -> None:
    end = time.monotonic() + PATIENCE / 1000
    while not condition():
        assert time.monotonic() < end
        page.wait_for_timeout(100)


@contextmanager
def context_of(browser: Browser) -> Iterator[BrowserContext]:
    with browser.new_context() as context:
        yield context


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def running_redis(port: int, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A Redis of this test's own."""
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    server = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 20
        with redis.Redis(port=port) as client:
            while time.monotonic() < end:
                with suppress(redis.RedisError):
                    client.ping()
                    break
                time.sleep(0.05)
        yield server
    finally:
        server.kill()
        server.wait()
