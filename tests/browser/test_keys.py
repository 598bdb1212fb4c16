"""Does each single key do what the list of keys promises, and nothing while somebody types?"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Locator, Page, expect

from browser.stage import Demo, log_in, running_demo, watched_page

SETTINGS: dict[str, Any] = {
    "DJANGO_SETTINGS_MODULE": "browser.bustle.settings",
    "DEMO_SCHEDULER": "0",
}
PATIENCE = 90_000
EVERY_KEY = "jkhlnNotrRcemfuxJ/?123456"
# A tree with a failed task, one that logged, and a branch that waits; more tasks than a page lists.
STORED = """
import json, time
from browser.bustle.tasks import *
from cq.models import Task
tree = branch.delay(500)
ids = {"tree": str(tree.id), "large": str(fill(130, 0))}
children = Task.objects.filter(parent_id=tree.id)
while children.filter(status__in="SFW").count() < 3:
    time.sleep(0.1)
ids |= {child.func_name.rpartition(".")[2]: str(child.id) for child in children}
print(json.dumps(ids))
"""
ANOTHER = "from browser.bustle.tasks import *; print(stir.using(run_after=86_400).delay(0, 0.0).id)"


class Keyboard:
    """Presses keys, and remembers which: none of those that a page lists may be left out."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.pressed: set[str] = set()

    def press(self, *keys: str) -> None:
        for key in keys:
            self.pressed.add(key)
            self.page.keyboard.press(key)

    def has_pressed_all_that_are_listed(self) -> None:
        self.page.keyboard.press("?")
        table = self.page.locator("#cq-keys")
        expect(table).to_be_visible()
        listed = table.locator("[data-key]").evaluate_all(
            "rows => rows.flatMap(row => row.dataset.key.split(' '))"
        )
        assert len(listed) > 1
        assert set(listed) <= self.pressed
        # The dialog has the focus: a key acts on nothing behind it.
        self.page.keyboard.press("j")
        expect(table.get_by_role("button", name="Back")).to_be_focused()
        self.page.keyboard.press("Escape")
        expect(table).to_be_hidden()


# One demo for all pages: each needs tasks in every state.
def test_each_key_does_what_is_listed(browser: Browser, tmp_path: Path) -> None:
    with running_demo(tmp_path, **SETTINGS) as demo, watched_page(browser) as page:
        log_in(page, demo)
        ids = json.loads(demo.run(STORED))

        walk_through_the_overview(page, demo)
        walk_through_the_list(page, demo)
        walk_through_a_task(page, demo, ids)
        type_into_fields(page, demo, ids)
        switch_them_off_and_on(page, demo)


def walk_through_the_overview(page: Page, demo: Demo) -> None:
    keyboard = Keyboard(page)
    page.goto(f"{demo.url}/admin/cq/")
    links = page.locator(".cq-needs a, .cq-queues tbody a, .cq-plain a")
    expect(links.nth(2)).to_be_visible(timeout=PATIENCE)

    keyboard.press("j")
    expect(links.nth(0)).to_be_focused()
    keyboard.press("j", "j")
    expect(links.nth(2)).to_be_focused()
    keyboard.press("k")
    expect(links.nth(1)).to_be_focused()
    keyboard.has_pressed_all_that_are_listed()

    target = links.nth(1).get_attribute("href")
    assert target is not None
    links.nth(1).focus()
    page.keyboard.press("Enter")
    expect(page).to_have_url(f"{demo.url}{target}")


def walk_through_the_list(page: Page, demo: Demo) -> None:
    keyboard = Keyboard(page)
    page.goto(f"{demo.url}/admin/cq/task/?q=status:failed")
    links, ticks = page.locator(".cq-list-name a"), page.locator("input[name=task]")

    keyboard.press("j", "j")
    expect(links.nth(1)).to_be_focused()
    keyboard.press("k")
    expect(links.nth(0)).to_be_focused()
    keyboard.press("r")
    expect(page.locator("[data-verb=retry-all]")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#cq-dialog")).to_contain_text("Retry 3 tasks")
    page.keyboard.press("Escape")
    links.nth(1).focus()
    keyboard.press("x")
    expect(ticks.nth(1)).to_be_checked()
    keyboard.press("r")
    expect(page.locator(".cq-bulk [data-verb=retry]")).to_be_focused()
    links.nth(1).focus()
    keyboard.press("x")
    expect(ticks.nth(1)).not_to_be_checked()
    keyboard.press("/")
    expect(page.get_by_role("combobox", name="Search tasks")).to_be_focused()

    page.goto(f"{demo.url}/admin/cq/task/?q=stir")
    keyboard.press("j", "x", "c")
    expect(page.locator(".cq-bulk [data-verb=cancel]")).to_be_focused()

    page.goto(f"{demo.url}/admin/cq/task/?q=large.child")
    newest = links.first.get_attribute("href")
    keyboard.press("o")
    expect(page).to_have_url(re.compile("[?&]before="))
    assert links.first.get_attribute("href") != newest

    page.goto(f"{demo.url}/admin/cq/task/")
    another = demo.run(ANOTHER)
    expect(page.locator("#cq-new a")).to_be_visible(timeout=PATIENCE)
    keyboard.press("n")
    expect(page.locator(f"tr[data-task='{another}']")).to_be_visible()
    keyboard.has_pressed_all_that_are_listed()
    keyboard.press("j")
    page.keyboard.press("Enter")
    expect(page).to_have_url(f"{demo.url}/admin/cq/task/{another}/")


def walk_through_a_task(page: Page, demo: Demo, ids: dict[str, str]) -> None:
    keyboard = Keyboard(page)
    walk_through_the_tree(keyboard, demo, ids)
    use_the_verbs(keyboard, demo, ids)
    walk_through_the_log(keyboard, demo, ids)

    for number, tab in enumerate(("tree", "timeline", "logs", "attempts", "data", "activity")):
        keyboard.press(str(number + 1))
        expect(page).to_have_url(re.compile(f"[?]tab={tab}$"))
        expect(page.locator(".cq-tabs [aria-current=page]")).to_have_attribute(
            "href", f"?tab={tab}"
        )
    keyboard.has_pressed_all_that_are_listed()


def walk_through_the_tree(keyboard: Keyboard, demo: Demo, ids: dict[str, str]) -> None:
    page = keyboard.page
    page.goto(f"{demo.url}/admin/cq/task/{ids['tree']}/")
    inspector = page.locator("#cq-inspector")

    # The inspector shows what failed already: only a mark tells when it has come anew.
    inspector.locator("h2").evaluate("heading => { heading.dataset.old = '' }")
    link_of(page, ids["tree"]).focus()
    keyboard.press("n")
    expect(link_of(page, ids["fall"])).to_be_focused()
    expect(inspector.locator("h2:not([data-old])")).to_be_visible()
    expect(inspector).to_contain_text("the floor is wet")
    expect(page).to_have_url(re.compile(f"node={ids['fall']}"))
    keyboard.press("t")
    expect(inspector.locator(".cq-frames")).to_be_visible()
    keyboard.press("t")
    expect(inspector.locator(".cq-frames")).to_be_hidden()

    # It stands among all in order as well, where nobody needs to be led to it again.
    link_of(page, ids["fall"]).focus()
    keyboard.press("n")
    expect(link_of(page, ids["fall"])).to_be_focused()
    link_of(page, ids["put_off"]).focus()
    keyboard.press("N")
    expect(link_of(page, ids["fall"])).to_be_focused()

    waiting = link_of(page, ids["put_off"])
    waiting.focus()
    below = page.locator(f"[data-task='{ids['put_off']}'] .cq-level .cq-node-link")
    for opens, closes in (("l", "h"), ("ArrowRight", "ArrowLeft")):
        keyboard.press(opens)
        expect(below).to_have_count(3)
        expect(below.first).to_be_visible()
        expect(waiting).to_be_focused()
        keyboard.press(closes)
        expect(below.first).to_be_hidden()
    keyboard.press("l", "j")
    expect(below.first).to_be_focused()
    keyboard.press("k")
    expect(waiting).to_be_focused()

    page.keyboard.press("Enter")
    expect(inspector.locator("h2")).to_contain_text("put_off")
    keyboard.press("o")
    expect(page).to_have_url(f"{demo.url}/admin/cq/task/{ids['put_off']}/")
    keyboard.press("u")
    expect(page).to_have_url(f"{demo.url}/admin/cq/task/{ids['tree']}/")


def use_the_verbs(keyboard: Keyboard, demo: Demo, ids: dict[str, str]) -> None:
    page = keyboard.page
    page.goto(f"{demo.url}/admin/cq/task/{ids['tree']}/?node={ids['fall']}")
    inspector, verbs = page.locator("#cq-inspector"), page.locator("#cq-verbs")

    keyboard.press("R")
    expect(verbs.locator("[data-verb=retry]")).to_be_focused()
    keyboard.press("m")
    expect(verbs.locator("[data-verb=keep]")).to_be_visible()
    page.keyboard.press("Escape")
    expect(verbs.locator("[data-verb=keep]")).to_be_hidden()

    keyboard.press("e")
    expect(inspector.locator("[data-verb=edit]")).to_be_visible()
    keyboard.press("e")
    dialog = page.locator("#cq-dialog")
    expect(dialog.get_by_role("link", name="Back")).to_be_focused()
    expect(inspector.locator(".cq-more-verbs[open]")).to_have_count(0)
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(inspector.locator(".cq-more-verbs summary")).to_be_focused()

    attempts = inspector.locator(".cq-inspector-status")
    expect(attempts).to_contain_text("attempt 1")
    keyboard.press("r")
    expect(inspector.locator("[data-verb=retry]")).to_be_focused()
    page.keyboard.press("Enter")
    expect(attempts).to_contain_text("attempt 2", timeout=PATIENCE)

    link_of(page, ids["put_off"]).click()
    expect(inspector.locator("h2")).to_contain_text("put_off")
    keyboard.press("c")
    expect(inspector.locator("[data-verb=cancel]")).to_be_focused()
    page.keyboard.press("Enter")
    expect(inspector).to_contain_text("cancelled", timeout=PATIENCE)


def walk_through_the_log(keyboard: Keyboard, demo: Demo, ids: dict[str, str]) -> None:
    page = keyboard.page
    page.goto(f"{demo.url}/admin/cq/task/{ids['chatter']}/?tab=logs")
    times = page.locator(".cq-line[data-level=warning] .cq-line-time")
    expect(times.nth(1)).to_be_visible()

    keyboard.press("n", "n")
    expect(times.nth(1)).to_be_focused()
    keyboard.press("N")
    expect(times.nth(0)).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("[data-linked]")).to_be_visible()
    keyboard.press("f")
    expect(page.locator("[data-linked]")).to_have_count(0)
    keyboard.press("/")
    expect(page.get_by_role("searchbox", name="Text in the lines")).to_be_focused()
    page.get_by_role("searchbox", name="Text in the lines").blur()


def type_into_fields(page: Page, demo: Demo, ids: dict[str, str]) -> None:
    """What is typed stands in the field, whatever it is; the focus stays, and nothing opens."""
    page.goto(f"{demo.url}/admin/cq/task/?q=status:failed")
    stays(page, page.get_by_role("combobox", name="Search tasks"))
    page.goto(f"{demo.url}/admin/cq/task/{ids['chatter']}/?tab=logs")
    stays(page, page.get_by_role("searchbox", name="Text in the lines"))
    page.goto(f"{demo.url}/admin/cq/task/{ids['fall']}/do/edit/")
    stays(page, page.get_by_label("Why"))


def stays(page: Page, field: Locator) -> None:
    url = page.url
    field.fill("")
    field.press_sequentially(EVERY_KEY)

    expect(field).to_have_value(EVERY_KEY)
    expect(field).to_be_focused()
    expect(page.locator("dialog[open]")).to_have_count(0)
    expect(page.locator(":checked:not(#cq-keys *)")).to_have_count(0)
    assert page.url == url


def switch_them_off_and_on(page: Page, demo: Demo) -> None:
    page.goto(f"{demo.url}/admin/cq/task/?q=status:failed")
    offered = page.get_by_role("button", name="Keyboard shortcuts")
    switch = page.get_by_label("Single keys work on the pages of CQ")
    box = page.get_by_role("combobox", name="Search tasks")

    # With a modifier a key is the browser's.
    page.keyboard.press("Control+j")
    expect(page.locator(".cq-list-name a:focus")).to_have_count(0)
    offered.click()
    switch.uncheck()
    page.keyboard.press("Escape")
    page.reload()
    page.keyboard.press("/")
    page.keyboard.press("?")
    page.keyboard.press("j")
    expect(page.locator("dialog[open], .cq-list-name a:focus")).to_have_count(0)
    expect(box).not_to_be_focused()

    offered.click()
    switch.check()
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    expect(box).to_be_focused()


def link_of(page: Page, task: str) -> Locator:
    return page.locator(f"[data-task='{task}'] > .cq-row .cq-node-link").first
