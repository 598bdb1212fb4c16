"""Can everybody read the pages, in both themes and on a phone?

Each theme and each width once; CQ_BROWSER_FULL=1 takes every theme in every width.
"""

from __future__ import annotations

import sysconfig
from pathlib import Path

from playwright.sync_api import Browser, Page, expect

from browser.barriers import SCREENS, barriers, screen
from browser.stage import Demo, log_in, running_demo, watched_page

SECONDS = 1000

PAGES = (
    "/",
    "/reports/1/",
    "/admin/cq/",
    "/admin/cq/task/",
    "/admin/cq/task/?q=status:failed",
    "/admin/cq/task/?q=queue:mail+statsu:failed",
    "/admin/cq/task/all/retry/?q=status:failed",
    "/admin/cq/task/failures/",
    "/admin/cq/worker/",
    "/admin/cq/queue/",
    "/admin/cq/queue/do/pause/?name=default",
    "/admin/cq/task/{census}/",
    "/admin/cq/task/{census}/?tab=timeline",
    "/admin/cq/task/{census}/?tab=logs",
    "/admin/cq/task/{failed}/",
    "/admin/cq/task/{failed}/?tab=attempts",
    "/admin/cq/task/{failed}/?tab=data",
    "/admin/cq/task/{failed}/?tab=activity",
)


# One demo and one test for all: each would need a census that succeeded and one that failed.
def test_no_page_has_a_barrier_or_scrolls_sideways_or_breaks_its_policy(
    browser: Browser, tmp_path: Path
) -> None:
    roots = [Path(sysconfig.get_path("purelib"), "asgiref")]
    found = []
    with running_demo(tmp_path, roots) as demo:
        with watched_page(browser) as page:
            log_in(page, demo)
            demo.fix_inbox()
            take_census(page, demo, until="succeeded")
            demo.break_inbox()
            take_census(page, demo, until="incomplete")
            names = {"census": page.url.rstrip("/").rpartition("/")[2], "failed": failed_in(page)}
            session = page.context.storage_state()

        for look, width in SCREENS:
            with screen(browser, session, look, width) as page:
                for address in PAGES:
                    page.goto(demo.url + address.format(**names))
                    found += [(address, look, width, barrier) for barrier in barriers(page)]

    assert not found, "\n".join(map(str, found))


def take_census(page: Page, demo: Demo, *, until: str) -> None:
    """Start a census, and watch its page until it has that status and nothing moves any more."""
    page.goto(demo.url)
    page.get_by_role("button", name="Start a census").click()
    expect(page.locator("#cq-facts .cq-status")).to_have_text(until, timeout=60 * SECONDS)


def failed_in(page: Page) -> str:
    """Return the id of the task that failed in the census on the page."""
    page.reload()
    failed = page.locator("#cq-failed + ul li[data-status=F]").get_attribute("data-task")
    assert failed is not None
    return failed
