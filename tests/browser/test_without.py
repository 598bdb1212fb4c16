"""Do pages work without a script, ask nothing while hidden, and keep still where asked to?"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, Request, expect

from browser.stage import Demo, log_in, running_demo, watched_page

SETTINGS: dict[str, Any] = {
    "DJANGO_SETTINGS_MODULE": "browser.bustle.settings",
    "DEMO_SCHEDULER": "0",
}
PATIENCE = 90_000
STORED = """
import json
from browser.bustle.tasks import *
failed = reject.delay("the till is jammed", 7, {})
failed.wait(60)
fill(60, 0)
print(json.dumps({"failed": str(failed.id), "busy": str(chatter.delay(600.0, 1).id)}))
"""
ANOTHER = "from browser.bustle.tasks import *; print(reject.delay('no', 1, {}).id)"


# One demo for all three: what they look at is the same.
def test_pages_do_without_what_somebody_has_not(browser: Browser, tmp_path: Path) -> None:
    with running_demo(tmp_path, **SETTINGS) as demo:
        ids = json.loads(demo.run(STORED))
        with watched_page(browser, java_script_enabled=False) as page:
            log_in(page, demo)
            work_without_a_script(page, demo, ids)
        with watched_page(browser) as page:
            log_in(page, demo)
            session = page.context.storage_state()
            leave_a_hidden_page_alone(page, demo)
            assert moving(page, demo, ids) > 0
        with watched_page(browser, storage_state=session, reduced_motion="reduce") as page:
            assert moving(page, demo, ids) == 0


def work_without_a_script(page: Page, demo: Demo, ids: dict[str, str]) -> None:
    page.goto(f"{demo.url}/admin/cq/")
    page.get_by_role("navigation", name="CQ pages").get_by_role("link", name="Tasks").click()
    page.get_by_role("searchbox", name="Search tasks").fill("is:any")
    page.get_by_role("button", name="Search").click()
    page.get_by_role("link", name="Older").click()
    expect(page).to_have_url(re.compile("[?&]before="))

    page.goto(f"{demo.url}/admin/cq/task/?q=status:failed+reject")
    page.get_by_role("link", name="reject", exact=True).click()
    page.get_by_role("link", name="Attempts").click()
    page.locator(".cq-fold summary").filter(has_text="As Python prints it").click()
    expect(page.locator(".cq-fold pre")).to_contain_text("ValueError: the till is jammed")
    page.locator("#cq-verbs summary").click()
    page.locator("#cq-verbs [data-verb=edit]").click()
    expect(page).to_have_url(re.compile(f"/task/{ids['failed']}/do/edit/"))
    page.get_by_role("link", name="Back").click()
    page.locator("#cq-verbs [data-verb=retry]").click()
    expect(page).to_have_url(re.compile(f"/task/{ids['failed']}/"))
    page.get_by_role("link", name="Activity").click()
    expect(page.locator(".cq-activity")).to_contain_text("retry")

    page.goto(f"{demo.url}/admin/cq/queue/")
    page.locator("[data-queue=default] [data-verb=pause]").click()
    page.get_by_role("button", name="Pause default").click()
    expect(page.locator("[data-queue=default]")).to_contain_text("paused")
    page.locator("[data-queue=default] [data-verb=resume]").click()
    expect(page.locator("[data-queue=default] [data-verb=pause]")).to_be_visible()


def leave_a_hidden_page_alone(page: Page, demo: Demo) -> None:
    asked: list[str] = []

    def note(request: Request) -> None:
        if "live" in request.url:
            asked.append(request.url)

    page.goto(f"{demo.url}/admin/cq/task/?q=reject")
    expect(page.locator("tr[data-task]").first).to_be_visible()
    hide(page, is_hidden=True)
    page.wait_for_load_state("networkidle")
    page.on("request", note)
    demo.run(ANOTHER)
    # It was nudged; a page in sight would have asked by now.
    page.wait_for_timeout(6_000)
    assert asked == []

    hide(page, is_hidden=False)

    expect(page.locator("#cq-new a")).to_be_visible(timeout=PATIENCE)
    assert asked


def hide(page: Page, *, is_hidden: bool) -> None:
    """What a browser says when another tab is looked at, and when this one is again."""
    page.evaluate(
        "is_hidden => { Object.defineProperty(document, 'hidden',"
        " { configurable: true, get: () => is_hidden });"
        " document.dispatchEvent(new Event('visibilitychange')); }",
        is_hidden,
    )


def moving(page: Page, demo: Demo, ids: dict[str, str]) -> int:
    """How much moves on the page of a task that runs."""
    page.goto(f"{demo.url}/admin/cq/task/{ids['busy']}/")
    expect(page.locator("#cq-facts .cq-status")).to_have_text("running", timeout=PATIENCE)
    count: int = page.evaluate("document.getAnimations().length")
    return count
