"""Does the README's walk through the demo come true, step by step?"""

from __future__ import annotations

import os
import re
import sysconfig
from pathlib import Path

from playwright.sync_api import Browser, Locator, Page, expect

from browser.stage import Demo, running_demo, watched_page

SECONDS = 1000
CENSUS_TAKES = 240 * SECONDS
SUCCEEDED = re.compile(r"([\d,]+) succeeded")


def test_the_walk_of_the_readme(browser: Browser, tmp_path: Path) -> None:
    roots = None
    if "DEMO_REDIS_URL" in os.environ:
        # All that is installed was counted in the embedded run; Django alone takes less long.
        roots = [Path(sysconfig.get_path("purelib"), "django")]
    # At a full hour the schedule's census would come between.
    unscheduled = {"DEMO_SCHEDULER": "0"}
    with running_demo(tmp_path, roots, **unscheduled) as demo, watched_page(browser) as page:
        start_a_census(page, demo)
        see_it_grow_without_a_reload(page)
        read_the_traceback_of_the_red_branch(page)
        wait_until_everything_else_is_done(page)
        demo.fix_inbox()
        retry_and_see_it_turn_green(page)
        read_the_report(page, demo)


def start_a_census(page: Page, demo: Demo) -> None:
    page.goto(demo.url)
    page.get_by_role("button", name="Start a census").click()
    page.get_by_label("Username").fill("operator")
    page.get_by_label("Password").fill("operator")
    page.get_by_role("button", name="Log in").click()

    expect(page).to_have_url(re.compile(r"/admin/cq/task/[0-9a-f-]{36}/$"))
    expect(page.get_by_role("heading", name="census", exact=True)).to_be_visible()


def see_it_grow_without_a_reload(page: Page) -> None:
    mark(page)

    first = count_succeeded(page, more_than=0)
    second = count_succeeded(page, more_than=first)
    count_succeeded(page, more_than=second)

    assert is_the_same(page)


def read_the_traceback_of_the_red_branch(page: Page) -> None:
    failed = page.locator("#cq-failed + ul")
    expect(failed.or_(page.get_by_role("link", name="Show 1 failed"))).to_be_visible(
        timeout=CENSUS_TAKES
    )
    if not failed.is_visible():
        # The file failed after the page was opened: what is shown does not move by itself.
        page.get_by_role("link", name="Show 1 failed").click()
        mark(page)
    expect(failed.get_by_role("link", name="inbox/*.py").first).to_be_visible()
    twist = failed.get_by_role("button", name="Subtasks of count_package")
    if twist.get_attribute("aria-expanded") == "false":
        twist.click()
    with page.expect_response(re.compile("/_inspector/")):
        failed.locator("li[data-status=F]").get_by_role("link", name="count_modules").click()

    expect(inspector(page)).to_contain_text("SyntaxError: '(' was never closed (broken.py, line 5)")
    inspector(page).get_by_text("Traceback", exact=True).click()
    expect(line_of_the_traceback(page)).to_be_visible()
    assert is_the_same(page)


def wait_until_everything_else_is_done(page: Page) -> None:
    expect(head_status(page)).to_have_text("incomplete", timeout=CENSUS_TAKES)
    # What somebody reads stays open while the page goes on around it.
    expect(line_of_the_traceback(page)).to_be_visible()


def retry_and_see_it_turn_green(page: Page) -> None:
    inspector(page).get_by_role("button", name="Retry", exact=True).click()

    expect(head_status(page)).to_have_text("succeeded", timeout=60 * SECONDS)
    expect(inspector(page)).to_contain_text("succeeded")
    expect(page.locator(".cq-legend")).not_to_contain_text("failed")
    expect(page.locator(".cq-tree .cq-status[data-status=F]")).to_have_count(0)
    # Behind the census, the report.
    for status in ("pending", "queued", "running"):
        expect(page.locator(".cq-legend")).not_to_contain_text(status, timeout=60 * SECONDS)
    assert is_the_same(page)


def read_the_report(page: Page, demo: Demo) -> None:
    page.goto(demo.url)
    page.get_by_role("link", name="report 1").click()

    expect(page.get_by_role("heading", level=1)).to_have_text("Code census 1")
    expect(page.get_by_role("cell", name="inbox/*.py", exact=True)).to_be_visible()
    assert [path.name for path in demo.reports.iterdir()] == ["census-1.html"]


def head_status(page: Page) -> Locator:
    return page.locator("#cq-facts .cq-status")


def inspector(page: Page) -> Locator:
    return page.get_by_role("complementary", name="Selected task")


def line_of_the_traceback(page: Page) -> Locator:
    return inspector(page).locator(".cq-frames").get_by_text("ast.parse")


def mark(page: Page) -> None:
    page.evaluate("window.isMarked = true")


def is_the_same(page: Page) -> bool:
    """Whether the page has not been loaded anew since it was marked."""
    return bool(page.evaluate("window.isMarked === true"))


def count_succeeded(page: Page, *, more_than: int) -> int:
    """Wait until more tasks have succeeded than that, and return how many."""
    page.wait_for_function(
        """([pattern, least]) => {
            const legend = document.querySelector(".cq-legend")?.innerText ?? "";
            const found = legend.match(new RegExp(pattern));
            return found && Number(found[1].replaceAll(",", "")) > least;
        }""",
        arg=[SUCCEEDED.pattern, more_than],
        timeout=CENSUS_TAKES,
    )
    found = SUCCEEDED.search(page.locator(".cq-legend").inner_text())
    assert found is not None
    return int(found[1].replace(",", ""))
