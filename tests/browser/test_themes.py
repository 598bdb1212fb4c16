"""Can the console be read in another theme of the admin than its first, light and dark?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, expect

from browser.barriers import SCREENS, barriers, screen
from browser.stage import log_in, running_demo, watched_page

SETTINGS: dict[str, Any] = {
    "DJANGO_SETTINGS_MODULE": "browser.bustle.settings",
    "DEMO_SCHEDULER": "0",
}
# The theme's header is white, its links and buttons have colours of their own. It is loaded
# before the first page: a server keeps the theme in mind.
STORED = """
import json
from django.core.management import call_command
from browser.bustle.tasks import *
call_command("loaddata", "admin_interface_theme_bootstrap.json", verbosity=0)
failed = reject.delay("no", 7, {"deep": [1, None]}, "x" * 90)
failed.wait(60)
failed.retry()
failed.wait(60)
ids = {"failed": failed.id, "large": fill(130, 30)}
print(json.dumps({name: str(id) for name, id in ids.items()}))
"""
PAGES = (
    "",
    "task/",
    "task/?q=status:failed",
    "task/failures/",
    "task/all/retry/?q=status:failed",
    "worker/",
    "queue/",
    "task/{large}/",
    "task/{large}/?tab=timeline",
    "task/{large}/?tab=logs",
    "task/{failed}/",
    "task/{failed}/?tab=attempts",
    "task/{failed}/?tab=data",
    "task/{failed}/?tab=activity",
    "task/{failed}/do/edit/",
)


def test_another_theme_has_no_barrier_either(browser: Browser, tmp_path: Path) -> None:
    found = []
    with running_demo(tmp_path, **SETTINGS) as demo:
        ids = json.loads(demo.run(STORED))
        with watched_page(browser) as page:
            log_in(page, demo)
            session = page.context.storage_state()

        for look, width in SCREENS:
            with screen(browser, session, look, width) as page:
                for address in PAGES:
                    page.goto(f"{demo.url}/admin/cq/{address.format(**ids)}")
                    expect(page.locator("#header")).to_have_css(
                        "background-color", "rgb(255, 255, 255)"
                    )
                    found += [(address, look, width, barrier) for barrier in barriers(page)]

    assert not found, "\n".join(map(str, found))
