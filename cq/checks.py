"""Which mistakes in a project's set-up can be told before a task is lost to them?"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.db import connections

from . import conf
from .exceptions import ConfigurationError


@register(Tags.compatibility)
def check_settings(**_kwargs: Any) -> list[CheckMessage]:
    """Every ``CQ_`` setting is known and has a usable value."""
    return [
        Warning(problem, id="cq.W001")
        if "is not a setting" in problem
        else Error(problem, id="cq.E001")
        for problem in conf.problems()
    ]


@register(Tags.compatibility)
def check_channel_layer(**_kwargs: Any) -> list[CheckMessage]:
    """``CQ_CHANNEL_LAYER`` names a channel layer; without one there are no hints."""
    named = getattr(settings, "CQ_CHANNEL_LAYER", None)
    layers = getattr(settings, "CHANNEL_LAYERS", None) or {}
    if named is None or named in layers:
        return []
    close = get_close_matches(str(named), layers, n=1)
    return [
        Warning(
            f"CQ_CHANNEL_LAYER names {named!r}, which is not in CHANNEL_LAYERS."
            + (f" Did you mean {close[0]!r}?" if close else ""),
            hint="Without a channel layer everything works, but workers and consoles poll.",
            id="cq.W002",
        )
    ]


@register(Tags.database)
def check_old_tables(databases: Sequence[str] | None = None, **_kwargs: Any) -> list[CheckMessage]:
    """The tables are not those of django-cq 0.3, which bear the same names."""
    try:
        alias = conf.get().database
    except ConfigurationError:
        # That is an error of its own.
        return []
    if alias not in (databases or ()):
        return []
    database = connections[alias]
    with database.cursor() as cursor:
        if _TASK_TABLE not in database.introspection.table_names(cursor):
            return []
        columns = database.introspection.get_table_description(cursor, _TASK_TABLE)
    if "signature" not in {column.name for column in columns}:
        return []
    return [
        Error(
            f"Table {_TASK_TABLE!r} is that of django-cq 0.3, which this version cannot read.",
            hint=(
                "Let the old workers finish, drop the tables cq_task and cq_repeatingtask, delete "
                "the rows of app 'cq' from django_migrations, then migrate."
            ),
            id="cq.E002",
        )
    ]


_TASK_TABLE = "cq_task"
