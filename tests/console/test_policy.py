"""Does every page of the console send its policy, and keep the theme's markup within it?"""

from __future__ import annotations

import re

import pytest
from django.contrib.auth.models import User
from django.test import Client, RequestFactory
from django.urls import reverse

from console.conftest import Make
from cq.models import RepeatingTask
from cq_console import csp


def pages(make: Make) -> list[str]:
    task = make()
    entry = RepeatingTask.objects.create(
        crontab="5 4 * * *", timezone="Europe/Berlin", func_name="demo.census.tasks.heartbeat"
    )
    return [
        reverse("admin:cq_task_changelist"),
        reverse("admin:cq_task_change", args=[task.id]),
        reverse("admin:cq_task_verb", args=[task.id, "cancel"]),
        reverse("admin:cq_worker_changelist"),
        reverse("admin:cq_queue_changelist"),
        reverse("admin:cq_repeatingtask_changelist"),
        reverse("admin:cq_repeatingtask_add"),
        reverse("admin:cq_repeatingtask_change", args=[entry.pk]),
    ]


def test_every_page_sends_the_policy_with_a_nonce_of_its_own(make: Make, operator: Client) -> None:
    nonces = set()

    for url in pages(make):
        response = operator.get(url)
        policy = response["Content-Security-Policy"]
        found = re.search(r"script-src 'self' 'nonce-([\w-]+)'", policy)
        assert found, url
        nonces.add(found[1])
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy

    assert len(nonces) == 8


def test_inline_parts_of_the_theme_carry_the_nonce(make: Make, operator: Client) -> None:
    for url in pages(make):
        html = operator.get(url).content.decode()
        nonce = re.search(r"'nonce-([\w-]+)'", operator.get(url)["Content-Security-Policy"])
        assert nonce
        for tag in re.findall(r"<style[^>]*>", html):
            assert " nonce=" in tag, (url, tag)
        for tag in re.findall(r"<script(?![^>]*\ssrc=)(?![^>]*json)[^>]*>", html):
            assert " nonce=" in tag, (url, tag)


def test_no_page_has_a_style_attribute_or_a_handler(make: Make, operator: Client) -> None:
    for url in pages(make):
        html = operator.get(url).content.decode()
        main = html.partition('id="cq"')[2]
        assert main, url
        assert not re.search(r"<[^>]+\sstyle=", html), url
        assert not re.search(r"<[^>]+\son\w+=", main), url


def test_a_phone_may_zoom(make: Make, operator: Client) -> None:
    for url in pages(make):
        assert "user-scalable=no" not in operator.get(url).content.decode()


def test_the_overview_carries_the_policy_in_its_markup(db: None, operator: Client) -> None:
    html = operator.get("/admin/cq/").content.decode()

    found = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', html)
    assert found
    assert "default-src &#x27;none&#x27;" in found[1]
    assert "frame-ancestors" not in found[1]


def test_the_hosts_nonce_is_used(rf: RequestFactory) -> None:
    request = rf.get("/")
    request._csp_nonce = "of-the-host"  # type: ignore[attr-defined]

    assert csp.nonce(request) == "of-the-host"


def test_other_pages_of_the_admin_are_left_alone(db: None, operator: Client) -> None:
    response = operator.get("/admin/")

    assert "Content-Security-Policy" not in response
    assert "cq_console" not in response.content.decode()


@pytest.mark.parametrize(
    ("markup", "expected"),
    [
        ("<style>a{}</style>", '<style nonce="N">a{}</style>'),
        ('<style nonce="M">a{}</style>', '<style nonce="M">a{}</style>'),
        (
            '<img class="logo" style="display:none;" src="x">',
            '<img class="logo" hidden alt="" src="x">',
        ),
        ("<link rel='stylesheet'>", "<link rel='stylesheet'>"),
        (
            '<meta name="viewport" content="user-scalable=no, maximum-scale=1.0">',
            '<meta name="viewport" content="width=device-width, initial-scale=1.0">',
        ),
    ],
)
def test_the_themes_markup_is_made_fit(markup: str, expected: str) -> None:
    assert csp.secured(markup, "N") == expected


def test_the_console_works_without_the_middleware_of_csrf_for_get(db: None) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(User.objects.create_superuser("olga"))

    assert client.get(reverse("admin:cq_task_changelist")).status_code == 200
