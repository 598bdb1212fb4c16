"""What do the processes of a benchmark count?"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from django.apps import AppConfig
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created


class BenchmarksConfig(AppConfig):
    """Writes a line for each statement to the file that BENCH_STATEMENTS names, if it does."""

    name = "benchmarks"

    def ready(self) -> None:
        if os.environ.get("BENCH_STATEMENTS"):
            connection_created.connect(_count_statements, weak=False)


def _count_statements(*, connection: BaseDatabaseWrapper, **_kwargs: Any) -> None:
    if any(getattr(wrapper, "__name__", "") == "_count" for wrapper in connection.execute_wrappers):
        # The same connection again, after it was closed.
        return
    file = os.open(os.environ["BENCH_STATEMENTS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def _count(execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:
        os.write(file, f"{' '.join(sql.split())[:200]}\n".encode())
        return execute(sql, params, many, context)

    connection.execute_wrappers.append(_count)
