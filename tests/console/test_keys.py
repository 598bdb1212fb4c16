"""Are the single keys of a page listed in it, where its script finds what each of them does?"""

from __future__ import annotations

import re

from django.test import Client
from django.urls import reverse

from console.conftest import Make
from cq.states import Status


def test_no_key_of_the_task_page_means_two_things(make: Make, operator: Client) -> None:
    task = make(Status.FAILURE)

    html = operator.get(reverse("admin:cq_task_change", args=[task.id])).content.decode()

    table = html.partition('id="cq-keys"')[2].partition("</dialog>")[0]
    keys = [key for found in re.findall(r'data-key="([^"]+)"', table) for key in found.split()]
    assert {"j", "k", "n", "r", "c", "1", "/"} <= set(keys)
    assert len(keys) == len(set(keys))
    assert "?" not in keys


def test_a_key_without_a_place_on_the_page_is_not_written_twice(operator: Client) -> None:
    html = operator.get("/admin/cq/").content.decode()

    assert html.count('id="cq-keys"') == 1
