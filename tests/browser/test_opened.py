"""Can everybody use what opens on a page: its menus, its dialogs, and what asks before it acts?

Looked at in the light on a wide screen and in the dark on a phone; CQ_BROWSER_FULL=1: on all four.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Locator, Page, expect

from browser.barriers import SCREENS, barriers, screen
from browser.stage import log_in, running_demo, watched_page

SETTINGS: dict[str, Any] = {
    "DJANGO_SETTINGS_MODULE": "browser.bustle.settings",
    "DEMO_SCHEDULER": "0",
}
PATIENCE = 90_000

# A failed call, a branch that waits, and a finished tree with more tasks than are done unasked.
STORED = """
import json
from browser.bustle.tasks import *
deep = {"orders": [{"id": 9007199254740993, "lines": ["a", None, True]}]}
failed = reject.delay("no", 7, deep, "x" * 90)
waiting = put_off.delay(12)
failed.wait(60)
ids = {"failed": failed.id, "waiting": waiting.id, "large": fill(1_300, 30)}
print(json.dumps({name: str(id) for name, id in ids.items()}))
"""

Opening = Callable[[Page, str, dict[str, str]], None]


# One demo and one test for all of them: what they open on is the same.
def test_nothing_that_opens_has_a_barrier_or_breaks_its_policy(
    browser: Browser, tmp_path: Path
) -> None:
    found = []
    with running_demo(tmp_path, **SETTINGS) as demo:
        ids = json.loads(demo.run(STORED))
        with watched_page(browser) as page:
            log_in(page, demo)
            session = page.context.storage_state()

        for look, width in SCREENS:
            with screen(browser, session, look, width, refusals=True) as page:
                for opening in OPENINGS:
                    opening(page, demo.url + "/admin/cq/", ids)
                    name = opening.__name__
                    found += [(name, look, width, barrier) for barrier in barriers(page)]

    assert not found, "\n".join(map(str, found))


def the_menu_of_rare_verbs(page: Page, cq: str, ids: dict[str, str]) -> None:
    page.goto(f"{cq}task/{ids['failed']}/")
    page.locator("#cq-verbs .cq-more-verbs summary").click()
    expect(page.locator("#cq-verbs [data-verb=edit]")).to_be_visible()


def the_form_of_edit_and_retry(page: Page, cq: str, ids: dict[str, str]) -> None:
    the_menu_of_rare_verbs(page, cq, ids)
    page.locator("#cq-verbs [data-verb=edit]").click()
    expect(dialog(page).get_by_label("number")).to_have_value("7")


def the_form_of_edit_and_retry_refused(page: Page, cq: str, ids: dict[str, str]) -> None:
    the_form_of_edit_and_retry(page, cq, ids)
    dialog(page).get_by_label("number").fill("{")
    dialog(page).get_by_role("button", name="Run with these").click()
    expect(dialog(page).get_by_role("alert")).to_contain_text("not JSON")


def the_page_of_edit_and_retry(page: Page, cq: str, ids: dict[str, str]) -> None:
    page.goto(f"{cq}task/{ids['failed']}/do/edit/")
    expect(page.get_by_label("number")).to_have_value("7")


def the_form_of_a_function_that_is_not_known(page: Page, cq: str, ids: dict[str, str]) -> None:
    page.goto(f"{cq}task/{ids['large']}/")
    url = page.locator("#cq-failed + ul .cq-node-link").first.get_attribute("href")
    page.goto(f"{page.url.partition('/admin/')[0]}{url}")
    page.locator("#cq-verbs .cq-more-verbs summary").click()
    page.locator("#cq-verbs [data-verb=edit]").click()
    expect(dialog(page).get_by_label("Keyword arguments")).to_have_value("{}")


def what_a_retry_means(page: Page, cq: str, ids: dict[str, str]) -> None:
    the_form_of_a_function_that_is_not_known(page, cq, ids)
    dialog(page).get_by_role("link", name="Back").click()
    page.locator("#cq-verbs [data-verb=retry]").click()
    expect(dialog(page)).to_contain_text("does not know the function")


def the_count_of_a_retry(page: Page, cq: str, ids: dict[str, str]) -> None:
    page.goto(f"{cq}task/{ids['large']}/")
    page.locator("#cq-verbs [data-verb=retry]").click()
    expect(dialog(page).get_by_role("button", name="Retry 13 failed")).to_be_visible()


def the_count_of_a_cancel(page: Page, cq: str, ids: dict[str, str]) -> None:
    page.goto(f"{cq}task/{ids['waiting']}/")
    page.locator("#cq-verbs [data-verb=cancel]").click()
    expect(dialog(page).get_by_role("button", name="Cancel 13 tasks")).to_be_visible()


def the_page_of_a_cancel(page: Page, cq: str, ids: dict[str, str]) -> None:
    page.goto(f"{cq}task/{ids['waiting']}/do/cancel/")
    expect(page.get_by_role("button", name="Cancel 13 tasks")).to_be_visible()


def a_count_to_be_typed(page: Page, cq: str, ids: dict[str, str]) -> None:
    page.goto(f"{cq}task/?q=status:succeeded+large.child")
    page.locator("[data-verb=run-again-all]").click()
    expect(dialog(page).get_by_label("Type 1,287 to confirm")).to_be_visible(timeout=PATIENCE)


def a_count_that_was_typed_wrong(page: Page, cq: str, ids: dict[str, str]) -> None:
    a_count_to_be_typed(page, cq, ids)
    dialog(page).get_by_label("Type 1,287 to confirm").fill("12")
    dialog(page).get_by_role("button", name="Run 1,287 tasks again").click()
    expect(dialog(page)).to_contain_text("That is not 1,287.")


def the_page_of_all_that_match(page: Page, cq: str, ids: dict[str, str]) -> None:
    page.goto(f"{cq}task/all/run-again/?q=status:succeeded+large.child")
    expect(page.get_by_label("Type 1,287 to confirm")).to_be_visible()


def the_verbs_for_all_that_match(page: Page, cq: str, ids: dict[str, str]) -> None:
    page.goto(f"{cq}task/?q=large.child")
    page.locator(".cq-all summary").click()
    expect(page.locator("[data-verb=retry-all]")).to_be_visible()


def the_page_of_a_selection(page: Page, cq: str, ids: dict[str, str]) -> None:
    page.goto(f"{cq}task/?q=status:succeeded+large.child")
    ticks = page.locator("input[name=task]")
    for number in range(12):
        ticks.nth(number).check()
    page.locator(".cq-bulk [data-verb=run-again]").click()
    expect(page.get_by_role("button", name="Run 12 tasks again")).to_be_visible()


def the_completions_of_the_search_box(page: Page, cq: str, ids: dict[str, str]) -> None:
    page.goto(f"{cq}task/")
    page.get_by_role("combobox", name="Search tasks").press_sequentially("stat")
    expect(page.get_by_role("option").first).to_be_visible()


def what_pausing_a_queue_means(page: Page, cq: str, ids: dict[str, str]) -> None:
    page.goto(f"{cq}queue/")
    page.locator("[data-queue=default] [data-verb=pause]").click()
    expect(dialog(page).get_by_role("button", name="Pause default")).to_be_visible()


def the_keys_of_the_overview(page: Page, cq: str, ids: dict[str, str]) -> None:
    page.goto(cq)
    page.keyboard.press("?")
    expect(keys(page)).to_contain_text("next link")


def the_keys_of_the_list(page: Page, cq: str, ids: dict[str, str]) -> None:
    page.goto(f"{cq}task/")
    page.keyboard.press("?")
    expect(keys(page)).to_contain_text("older tasks")


def the_keys_of_a_task(page: Page, cq: str, ids: dict[str, str]) -> None:
    page.goto(f"{cq}task/{ids['failed']}/")
    page.keyboard.press("?")
    expect(keys(page)).to_contain_text("show or hide its traceback")


def an_open_traceback(page: Page, cq: str, ids: dict[str, str]) -> None:
    page.goto(f"{cq}task/{ids['failed']}/?tab=attempts")
    expect(page.locator(".cq-frames").first).to_be_visible()


OPENINGS: tuple[Opening, ...] = (
    the_menu_of_rare_verbs,
    the_form_of_edit_and_retry,
    the_form_of_edit_and_retry_refused,
    the_page_of_edit_and_retry,
    the_form_of_a_function_that_is_not_known,
    what_a_retry_means,
    the_count_of_a_retry,
    the_count_of_a_cancel,
    the_page_of_a_cancel,
    a_count_to_be_typed,
    a_count_that_was_typed_wrong,
    the_page_of_all_that_match,
    the_verbs_for_all_that_match,
    the_page_of_a_selection,
    the_completions_of_the_search_box,
    what_pausing_a_queue_means,
    the_keys_of_the_overview,
    the_keys_of_the_list,
    the_keys_of_a_task,
    an_open_traceback,
)


def dialog(page: Page) -> Locator:
    return page.locator("#cq-dialog")


def keys(page: Page) -> Locator:
    return page.locator("#cq-keys")
