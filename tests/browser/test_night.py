"""Does a night on call take no more clicks than it should?"""

from __future__ import annotations

import re
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Locator, Page, expect

from browser.stage import Demo, log_in, running_demo, watched_page

SECONDS = 1000
LONG = 60 * SECONDS


class Operator:
    """Somebody who starts at the overview and counts clicks."""

    def __init__(self, page: Page, demo: Demo) -> None:
        self.page = page
        self.demo = demo
        self.clicks = 0

    @contextmanager
    def asks(self, at_most: int) -> Iterator[Operator]:
        self.page.goto(f"{self.demo.url}/admin/cq/")
        self.clicks = 0
        yield self
        assert self.clicks <= at_most

    def click(self, what: Locator) -> None:
        self.clicks += 1
        what.first.click()

    def page_of(self, name: str) -> Locator:
        pages = self.page.get_by_role("navigation", name="CQ pages")
        return pages.get_by_role("link", name=name, exact=True)


# One night and one demo: each question needs what happened before it.
def test_eight_questions_of_a_night_on_call(browser: Browser, tmp_path: Path) -> None:
    roots = [Path(sysconfig.get_path("purelib"), "asgiref")]
    with running_demo(tmp_path, roots) as demo, watched_page(browser) as page:
        log_in(page, demo)
        page.goto(demo.url)
        page.get_by_role("button", name="Start a census").click()
        expect(page.locator("#cq-facts .cq-status")).to_have_text("incomplete", timeout=LONG)
        operator = Operator(page, demo)

        is_it_fine(operator)
        what_fails_most_and_since_when(operator)
        why_did_this_one_fail_and_with_which_arguments(operator)
        when_does_it_run_next(operator)
        stop_that_one(operator)
        who_cancelled_this(operator)
        demo.fix_inbox()
        retry_all_of_these(operator)
        what_the_box_completes_and_understands(operator)


def is_it_fine(operator: Operator) -> None:
    with operator.asks(at_most=0):
        sentence = operator.page.locator(".cq-sentence")
        expect(sentence).to_have_text("One thing needs you.")


def what_fails_most_and_since_when(operator: Operator) -> None:
    with operator.asks(at_most=1):
        operator.click(operator.page_of("Failures"))

        worst = operator.page.locator(".cq-causes > li").first
        # A worker writes causes every five seconds.
        expect(worst).to_contain_text("SyntaxError", timeout=LONG)
        expect(worst.locator(".cq-cause-seen time")).to_have_count(2)


def why_did_this_one_fail_and_with_which_arguments(operator: Operator) -> None:
    with operator.asks(at_most=3):
        page = operator.page
        operator.click(page.get_by_role("link", name=re.compile("^Show")))
        operator.click(page.locator(".cq-list-name a"))
        expect(page.locator("#cq")).to_contain_text("SyntaxError")
        assert operator.clicks <= 2

        operator.click(page.get_by_role("link", name="Arguments and result"))
        expect(page.locator("#cq")).to_contain_text("broken.py")


def when_does_it_run_next(operator: Operator) -> None:
    with operator.asks(at_most=2):
        operator.click(operator.page.locator("#cq-next a"))

        rows = operator.page.locator("#cq-preview tbody tr")
        expect(rows).to_have_count(10)


def stop_that_one(operator: Operator) -> None:
    page = operator.page
    page.goto(f"{operator.demo.url}/admin/cq/queue/")
    page.locator("[data-queue=default]").get_by_role("button", name="Pause").click()
    page.get_by_role("dialog").get_by_label("Why").fill("so that something waits")
    page.get_by_role("button", name="Pause default").click()
    expect(page.locator("[data-queue=default]")).to_contain_text("so that something waits")
    page.goto(operator.demo.url)
    page.get_by_role("button", name="Start a census").click()

    with operator.asks(at_most=3):
        operator.click(page.locator("[data-queue=default] td a"))
        operator.click(page.locator(".cq-list-name a"))
        operator.click(page.get_by_role("button", name="Cancel"))

        expect(page.locator("#cq-facts .cq-status")).to_have_text("cancelled")


def who_cancelled_this(operator: Operator) -> None:
    with operator.asks(at_most=3):
        page = operator.page
        operator.click(operator.page_of("Tasks"))
        operator.click(page.locator("tr[data-status=E] .cq-list-name a"))
        operator.click(page.get_by_role("link", name="Activity"))

        expect(page.get_by_role("row", name=re.compile("operator.*cancel"))).to_be_visible()


def retry_all_of_these(operator: Operator) -> None:
    page = operator.page
    page.goto(f"{operator.demo.url}/admin/cq/queue/")
    page.locator("[data-queue=default]").get_by_role("button", name="Resume").click()
    expect(page.locator("[data-queue=default] [data-verb=pause]")).to_be_visible()

    with operator.asks(at_most=4):
        operator.click(page.get_by_role("link", name=re.compile("^Show")))
        operator.click(page.get_by_role("button", name="Retry all that match"))
        dialog = page.get_by_role("dialog")
        expect(dialog).to_contain_text("count_modules")
        operator.click(dialog.get_by_role("button", name=re.compile("^Retry")))

        expect(page.locator("#cq-facts .cq-status")).to_have_text("succeeded", timeout=LONG)
    page.goto(f"{operator.demo.url}/admin/cq/task/?q=status:failed")
    expect(page.get_by_text("No task matches.")).to_be_visible(timeout=LONG)


def what_the_box_completes_and_understands(operator: Operator) -> None:
    page = operator.page
    page.goto(f"{operator.demo.url}/admin/cq/task/")
    box = page.get_by_role("combobox", name="Search tasks")
    box.press_sequentially("stat")
    option = page.get_by_role("option")
    expect(option.first).to_contain_text("status:")
    box.press("ArrowDown")
    box.press("Enter")
    expect(box).to_have_value("status:")
    box.press_sequentially("canc")
    expect(option).to_have_count(0)
    box.fill("status:rev")
    expect(option.first).to_contain_text("status:revoked")
    box.press("ArrowDown")
    box.press("Tab")
    expect(box).to_have_value("status:revoked ")
    box.press("Escape")
    box.press("Enter")

    expect(page.locator("tr[data-status=E]")).to_have_count(1)
    expect(page.locator("#cq-matches")).to_have_text("1 matches")
