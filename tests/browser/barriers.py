"""What keeps somebody from using a page: what does axe object to, and does it fit the screen?"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, ViewportSize

from browser.stage import watched_page

Look = Literal["light", "dark"]
ALL_SCREENS: tuple[tuple[Look, int], ...] = (
    ("light", 1280),
    ("light", 320),
    ("dark", 1280),
    ("dark", 320),
)
# Each look and each width once: axe takes a second for a page. CQ_BROWSER_FULL=1 is `make browser`.
SCREENS = ALL_SCREENS if os.environ.get("CQ_BROWSER_FULL") else (ALL_SCREENS[0], ALL_SCREENS[-1])

# The theme's own: its colours are the host's to choose. Nothing else is left out.
OF_THE_THEME = {"exclude": [["#header"], [".breadcrumbs"], ["#nav-sidebar"]]}
# To look at style sheets axe would load them in a way that the pages' policy forbids.
WITHOUT_PRELOAD = {"resultTypes": ["violations"], "preload": False}
# In the strip of pages and among tabs, which scroll where they are too wide.
CURRENT_OUT_OF_SIGHT = """
[...document.querySelectorAll(":is(.cq-strip, .cq-tabs) [aria-current=page]")].some((here) => {
  const line = here.closest("nav").getBoundingClientRect();
  const box = here.getBoundingClientRect();
  return box.left < line.left || box.right > line.right + 1;
})
"""
# On a phone the verbs stand in a bar over the page, which may need two lines.
BAR_HIDES_THE_END = """
[...document.querySelectorAll(".cq-head > .cq-verbs")].some((bar) => {
  const content = getComputedStyle(document.querySelector("#main > .content"));
  const isOver = getComputedStyle(bar).position === "fixed";
  return isOver && bar.offsetHeight > parseFloat(content.paddingBottom);
})
"""


def barriers(page: Page) -> list[str]:
    """Return what axe objects to, with the elements, and whether the page is too wide."""
    result = Axe().run(page, OF_THE_THEME, WITHOUT_PRELOAD).response["violations"]
    found = [f"{one['id']}: {[node['target'] for node in one['nodes']]}" for one in result]
    if page.evaluate("document.documentElement.scrollWidth > innerWidth"):
        found.append("scrolls sideways")
    if page.evaluate(CURRENT_OUT_OF_SIGHT):
        found.append("the current page or tab is out of sight")
    if page.evaluate(BAR_HIDES_THE_END):
        found.append("the bar of verbs hides the end of the page")
    if (
        page.get_by_role("heading", level=1).count() == 0
        and not page.locator("dialog[open]").count()
    ):
        found.append("has no heading: an error page?")
    return found


@contextmanager
def screen(
    browser: Browser, session: Any, look: Look, width: int, *, refusals: bool = False
) -> Iterator[Page]:
    """A watched page of somebody who is logged in, light or dark, on a screen of that width."""
    with watched_page(
        browser,
        refusals=refusals,
        storage_state=session,
        viewport=ViewportSize(width=width, height=800),
        color_scheme=look,
    ) as page:
        page.add_init_script(f"localStorage.setItem('theme', '{look}')")
        yield page
