"""Do the system checks name what is wrong with a project's set-up?"""

from __future__ import annotations

import ast
import re
from dataclasses import fields
from pathlib import Path

import pytest
from django.conf import settings
from django.core.checks import run_checks
from django.db import connection, connections
from django.test import override_settings

from cq import conf
from cq.exceptions import ConfigurationError


def ids(messages: list[object]) -> list[str]:
    return [str(getattr(message, "id", "")) for message in messages]


def test_an_unknown_setting_is_named_with_the_nearest_one() -> None:
    with override_settings(CQ_LEASES=10):
        found = [message for message in run_checks() if message.id == "cq.W001"]

    assert [message.msg for message in found] == [
        "CQ_LEASES is not a setting of django-cq. Did you mean CQ_LEASE?"
    ]


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("CQ_LEASE", "long", "CQ_LEASE must be a number above 0, not 'long'."),
        ("CQ_SERIAL", 1, "CQ_SERIAL must be True or False, not 1."),
        ("CQ_POLL_INTERVAL", -1, "CQ_POLL_INTERVAL must be a number above 0, not -1."),
        ("CQ_LEASE", float("inf"), "CQ_LEASE must be a number above 0, not inf."),
        ("CQ_MAX_LOST", 2.5, "CQ_MAX_LOST must be a whole number above 0, not 2.5."),
        ("CQ_LOG_LIMIT", 0, "CQ_LOG_LIMIT must be a whole number above 0, not 0."),
        ("CQ_REDACT", [3], "CQ_REDACT must be a list of key names, not (3,)."),
        ("CQ_DATABASE", "tasks", "CQ_DATABASE names 'tasks', which is not in DATABASES."),
    ],
)
def test_a_wrong_value_is_an_error_that_says_what_it_takes(
    name: str, value: object, says: str
) -> None:
    with override_settings(**{name: value}):
        found = [message.msg for message in run_checks() if message.id == "cq.E001"]

    assert found == [says]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CQ_CHANNEL_LAYER", 1),
        ("CQ_SERIAL", "no"),
        ("CQ_SCHEDULER", None),
        ("CQ_POLL_INTERVAL", "1"),
        ("CQ_LEASE", True),
        ("CQ_HEARTBEAT", 0),
        ("CQ_MAX_LOST", 0),
        ("CQ_RESULT_TTL", 0.5),
        ("CQ_FAILURE_TTL", -1),
        ("CQ_LOG_LIMIT", float("nan")),
        ("CQ_REDACT", "token"),
        ("CQ_DATABASE", None),
        ("CQ_LONG_TRANSACTION", 0),
    ],
)
def test_an_ill_formed_value_of_any_setting_is_refused_by_the_check_and_by_who_reads_it(
    name: str, value: object
) -> None:
    with override_settings(**{name: value}):
        found = [message.msg for message in run_checks() if message.id == "cq.E001"]
        with pytest.raises(ConfigurationError, match=name):
            conf.get()

    assert any(text.startswith(name) for text in found)


def test_every_setting_is_in_the_list_of_the_readme() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    told = dict(re.findall(r"^\| `(CQ_\w+)` \| `([^`]+)` \|", readme, re.MULTILINE))

    assert {name: ast.literal_eval(value) for name, value in told.items()} == {
        "CQ_" + field.name.upper(): [] if field.default == () else field.default
        for field in fields(conf.Settings)
    }


@override_settings(CHANNEL_LAYERS={"hints": {}})
def test_a_channel_layer_that_does_not_exist_is_named_with_the_nearest_one() -> None:
    with override_settings(CQ_CHANNEL_LAYER="hint"):
        (found,) = [message for message in run_checks() if message.id == "cq.W002"]

    assert found.msg == (
        "CQ_CHANNEL_LAYER names 'hint', which is not in CHANNEL_LAYERS. Did you mean 'hints'?"
    )


@override_settings(CHANNEL_LAYERS={"hints": {}})
def test_a_project_that_names_no_channel_layer_or_one_that_exists_is_not_warned() -> None:
    assert "cq.W002" not in ids([*run_checks()])
    with override_settings(CQ_CHANNEL_LAYER="hints"):
        assert "cq.W002" not in ids([*run_checks()])


def test_a_project_without_time_zones_is_told_that_it_needs_them() -> None:
    with override_settings(USE_TZ=False):
        (found,) = [message.msg for message in run_checks() if message.id == "cq.E001"]

    assert found.startswith("django-cq needs USE_TZ = True")


@pytest.mark.parametrize(
    ("vendor", "zone", "is_wrong"),
    [
        ("sqlite", "Asia/Tokyo", True),
        ("mysql", "Asia/Tokyo", True),
        ("mysql", "Etc/UTC", False),
        # Whatever its backend is called.
        ("postgresql", "Asia/Tokyo", False),
    ],
)
def test_a_database_that_stores_local_times_is_refused(
    monkeypatch: pytest.MonkeyPatch, vendor: str, zone: str, is_wrong: bool
) -> None:
    monkeypatch.setitem(settings.DATABASES["default"], "TIME_ZONE", zone)
    monkeypatch.setattr(connections["default"], "vendor", vendor)

    assert any("leave TIME_ZONE out" in text for text in conf.problems()) == is_wrong


def test_a_heartbeat_that_the_lease_cannot_hold_is_an_error() -> None:
    with override_settings(CQ_LEASE=8, CQ_HEARTBEAT=5):
        assert "cq.E001" in ids([*run_checks()])


@pytest.mark.django_db
def test_the_tables_of_this_version_are_no_old_ones() -> None:
    assert "cq.E002" not in ids([*run_checks(databases=["default"])])


@pytest.mark.django_db(transaction=True)
def test_the_tables_of_0_3_are_recognised_before_they_are_migrated() -> None:
    with connection.schema_editor() as editor:
        editor.execute("ALTER TABLE cq_task ADD COLUMN signature integer NULL")
    try:
        found = [one for one in run_checks(databases=["default"]) if one.id == "cq.E002"]
    finally:
        with connection.schema_editor() as editor:
            editor.execute("ALTER TABLE cq_task DROP COLUMN signature")

    assert len(found) == 1
    assert "django_migrations" in str(found[0].hint)
