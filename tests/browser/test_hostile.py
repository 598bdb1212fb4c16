"""Does the browser show what is hostile as text, and does a form hand it back unchanged?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Locator, Page, expect

from browser.stage import Demo, log_in, running_demo, watched_page

SETTINGS: dict[str, Any] = {
    "DJANGO_SETTINGS_MODULE": "browser.bustle.settings",
    "DEMO_SCHEDULER": "0",
}
TABS = ("tree", "timeline", "logs", "attempts", "data", "activity")
PATIENCE = 90_000
# What runs would say so: nothing on a page may have set this.
RAN = "window.hasRun === true"

HTML = '"><script>hasRun = true</script><img src=x onerror="hasRun = true"></textarea>'
MARKS = "safe\u202egnp.exe\u2066\u200b\x1b[31m\x7f\ufeff"
# The largest and the smallest 64-bit integers, and one that a double would round.
LARGE = [9223372036854775807, -9223372036854775808, 9007199254740993]


def nested(depth: int) -> Any:
    value: Any = {HTML: HTML, MARKS: MARKS}
    for level in range(depth):
        value = [value] if level % 2 else {"a": value}
    return value


TEXTS = {
    "html": HTML,
    "marks": MARKS,
    "lines": "one\r\ntwo\rthree\n\n  four\t",
    # Looks like a secret, like JSON, like nothing, like NUL.
    "words": "null",
    "spaces": "  ",
    "escape": "\\u0000 \\ud800 ${7*7} {{ 7 }} {% now %}",
    "long": HTML * 40,
}


# One demo for all of them: what is hostile is the arguments, not the pages.
def test_hostile_arguments_come_back_from_the_form_unchanged(
    browser: Browser, tmp_path: Path
) -> None:
    deep = nested(20)
    with running_demo(tmp_path, **SETTINGS) as demo, watched_page(browser, refusals=True) as page:
        log_in(page, demo)
        calls = [
            [text, LARGE[0], {"deep": deep, "large": LARGE, name: text}]
            for name, text in TEXTS.items()
        ]
        failed = fail(demo, calls)
        # Each of them has what is hostile in its depths.
        look_at_all_pages(page, demo, failed[0])
        made = []
        for task in failed:
            look_at(page, demo, f"task/{task}/?tab=data")
            made.append(edit_the_note_only(page, demo, task))

        assert stored(demo, made) == [[*args, NOTE] for args in calls]
        refuse_what_no_database_stores(page, demo, failed[0])


NOTE = f"a note & {HTML}"


def fail(demo: Demo, calls: list[list[Any]]) -> list[str]:
    """Run the calls until they have failed; their ids."""
    text = demo.run(
        f"""
import json
from browser.bustle.tasks import *
tasks = [reject.delay(*args) for args in json.loads({json.dumps(json.dumps(calls))!s})]
print(json.dumps([str(task.wait(60).id) for task in tasks]))
"""
    )
    failed: list[str] = json.loads(text)
    return failed


def stored(demo: Demo, tasks: list[str]) -> list[Any]:
    """All positional arguments of each task, as the database has them."""
    text = demo.run(
        f"""
import json
from cq import registry
from cq.models import Task
found = []
for id in {tasks!r}:
    task = Task.objects.get(id=id)
    bound = registry.get(task.func_name).parameters.bind(task.args, task.kwargs)
    found.append([bound[name] for name in ("text", "number", "deep", "note")])
print(json.dumps(found))
"""
    )
    found: list[Any] = json.loads(text)
    return found


def look_at_all_pages(page: Page, demo: Demo, task: str) -> None:
    for address in (
        *(f"task/{task}/?tab={tab}" for tab in TABS),
        "task/?q=status:failed",
        "task/failures/",
        "task/all/retry/?q=status:failed",
        "",
    ):
        look_at(page, demo, address)


def look_at(page: Page, demo: Demo, address: str) -> None:
    page.goto(f"{demo.url}/admin/cq/{address}")
    expect(page.locator("#cq")).to_be_visible()
    nothing_ran(page)


def edit_the_note_only(page: Page, demo: Demo, task: str) -> str:
    """Change one field of the form in the dialog, send it, and return the id of the new task."""
    form = open_the_form(page, demo, task)
    nothing_ran(page)
    form.get_by_label("note").fill(NOTE)
    form.get_by_role("button", name="Run with these").click()
    link = page.locator("#cq-said").get_by_role("link", name="Open it")
    expect(link).to_be_visible(timeout=PATIENCE)
    link.click()
    expect(page.locator("#cq h1")).to_contain_text("reject")
    nothing_ran(page)
    return page.url.rstrip("/").rpartition("/")[2]


def open_the_form(page: Page, demo: Demo, task: str) -> Locator:
    page.goto(f"{demo.url}/admin/cq/task/{task}/")
    page.locator("#cq-verbs .cq-more-verbs summary").click()
    page.locator("#cq-verbs [data-verb=edit]").click()
    form = page.locator("#cq-dialog form")
    expect(form.get_by_label("number")).to_have_value(str(LARGE[0]))
    return form


def refuse_what_no_database_stores(page: Page, demo: Demo, task: str) -> None:
    """Each is refused with words in the dialog; what was typed stays to be mended."""
    form = open_the_form(page, demo, task)
    for typed, why in (
        ('"a\\u0000b"', "NUL"),
        ('"\\ud800"', "surrogate"),
        ("1e999", "inf"),
        ("[" * 30_000, "nested too deeply"),
    ):
        form.get_by_label("number").fill(typed)
        form.get_by_role("button", name="Run with these").click()
        expect(form.get_by_role("alert")).to_contain_text(why)
        expect(form.get_by_label("number")).to_have_value(typed)
    nothing_ran(page)


def nothing_ran(page: Page) -> None:
    assert page.evaluate(RAN) is False
    # The marks themselves would turn what stands around them.
    assert not set("\u202e\u2066\u200b\x1b") & set(page.locator("body").inner_text())
