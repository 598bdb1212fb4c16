"""Which settings are in force?"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from difflib import get_close_matches
from functools import cache
from typing import Any

from django.conf import settings as django_settings
from django.core.signals import setting_changed
from django.db import connections
from django.dispatch import receiver

from .exceptions import ConfigurationError

PREFIX = "CQ_"
MOST = 2**31


@dataclass(frozen=True, slots=True)
class Settings:
    """The ``CQ_`` settings, in lower case and without their prefix. Times are in seconds."""

    channel_layer: str = "default"
    serial: bool = False
    scheduler: bool = True
    poll_interval: float = 1.0
    lease: float = 30.0
    heartbeat: float = 5.0
    max_lost: int = 3
    result_ttl: int = 1800
    failure_ttl: int = 604_800
    log_limit: int = 100_000
    redact: tuple[str, ...] = ()
    database: str = "default"
    long_transaction: float = 60.0


def get() -> Settings:
    """The validated settings; raises `ConfigurationError` when one is wrong."""
    return _load()


def problems() -> list[str]:
    """What is wrong with the ``CQ_`` settings, a sentence each; empty when all is well."""
    found = [
        _unknown(name)
        for name in _given()
        if name.removeprefix(PREFIX).lower() not in Settings.__dataclass_fields__
    ]
    values: dict[str, Any] = {}
    for field in fields(Settings):
        name = PREFIX + field.name.upper()
        value = getattr(django_settings, name, field.default)
        if field.name == "redact" and isinstance(value, (list, set, frozenset)):
            value = tuple(value)
        problem = _problem(name, value, field.default)
        if problem:
            found.append(problem)
        values[field.name] = value
    if not found and values["heartbeat"] * 2 > values["lease"]:
        found.append(
            f"CQ_HEARTBEAT ({values['heartbeat']} s) must be at most half of CQ_LEASE "
            f"({values['lease']} s), or a busy worker is taken for dead."
        )
    if not django_settings.USE_TZ:
        found.append(
            "django-cq needs USE_TZ = True: times are compared with the database's clock, and "
            "without time zones an hour of each autumn comes twice."
        )
    if values["database"] not in django_settings.DATABASES:
        found.append(f"CQ_DATABASE names {values['database']!r}, which is not in DATABASES.")
    elif zone := _local_zone(values["database"]):
        found.append(
            f"DATABASES[{values['database']!r}] stores its times in TIME_ZONE = {zone!r}, and they "
            "would be compared with the database's clock, which is UTC: leave TIME_ZONE out there, "
            "or name another database in CQ_DATABASE."
        )
    return found


_UTC = (None, "UTC", "Etc/UTC", "GMT", "Etc/GMT")


def _local_zone(alias: str) -> str:
    """The zone in which a database stores times without saying so; empty when all is well."""
    zone = django_settings.DATABASES[alias].get("TIME_ZONE")
    # https://docs.djangoproject.com/en/stable/ref/settings/#time-zone: PostgreSQL's times bear
    # theirs, and the setting only changes how they are written.
    is_local = zone not in _UTC and connections[alias].vendor != "postgresql"
    return str(zone) if is_local else ""


# MariaDB's own limit; elsewhere reading deeper values back would overflow the stack at last.
DEEPEST_ON_MYSQL, DEEPEST = 31, 200


def deepest() -> int:
    """How many levels deep a value may be nested that the database shall store as JSON."""
    engine = django_settings.DATABASES[get().database]["ENGINE"]
    return DEEPEST_ON_MYSQL if engine.endswith("mysql") else DEEPEST


@cache
def _load() -> Settings:
    wrong = [problem for problem in problems() if "is not a setting" not in problem]
    if wrong:
        raise ConfigurationError(" ".join(wrong))
    values: dict[str, Any] = {}
    for field in fields(Settings):
        value: Any = getattr(django_settings, PREFIX + field.name.upper(), field.default)
        values[field.name] = tuple(value) if field.name == "redact" else value
    return Settings(**values)


def _given() -> Iterable[str]:
    return [name for name in dir(django_settings) if name.startswith(PREFIX)]


def _unknown(name: str) -> str:
    known = [PREFIX + field.name.upper() for field in fields(Settings)]
    close = get_close_matches(name, known, n=1)
    hint = f" Did you mean {close[0]}?" if close else ""
    return f"{name} is not a setting of django-cq.{hint}"


def _problem(name: str, value: Any, default: Any) -> str:
    if isinstance(default, bool):
        return "" if isinstance(value, bool) else f"{name} must be True or False, not {value!r}."
    if isinstance(default, (int, float)):
        kind = "whole number" if isinstance(default, int) else "number"
        wanted = int if isinstance(default, int) else (int, float)
        is_number = isinstance(value, wanted) and not isinstance(value, bool)
        # Not infinity, for which no clock waits, and not NaN.
        is_right = is_number and 0 < value < MOST
        return "" if is_right else f"{name} must be a {kind} above 0, not {value!r}."
    if isinstance(default, tuple):
        is_names = isinstance(value, tuple) and all(isinstance(item, str) for item in value)
        return "" if is_names else f"{name} must be a list of key names, not {value!r}."
    return "" if isinstance(value, str) else f"{name} must be a name, not {value!r}."


@receiver(setting_changed)
def _forget(*, setting: str, **_kwargs: Any) -> None:
    if setting.startswith(PREFIX) or setting in ("DATABASES", "USE_TZ"):
        _load.cache_clear()
