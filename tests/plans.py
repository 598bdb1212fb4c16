"""How does a database carry out what is asked of it, and does it read any large table whole?"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

# What can be explained without being carried out.
_EXPLAINED = re.compile(
    r"((?:SET LOCAL [^;]+; )*)((?:SELECT|WITH|UPDATE|DELETE|EXECUTE)\b.*)", re.DOTALL
)
SMALL = "cq_act|cq_queue|cq_heldfunction|cq_repeatingtask|cq_worker|found|given|json_each"
LARGE = ("cq_task", "cq_tasklog", "cq_attempt", "cq_actitem")


@dataclass(frozen=True)
class Plan:
    """A statement, and how the database would carry it out."""

    sql: str
    text: str

    @property
    def reads_whole(self) -> bool:
        """Would a large table be read from one end to the other?"""
        if connection.vendor == "sqlite":
            # Scanned too: what a subquery answers or the statement brings along, small tables, an
            # index whose first rows suffice.
            whole = rf"^SCAN (?!\(|subquery|CONSTANT|(?:{SMALL})\b)(?!.* USING .*INDEX)"
            found = re.search(whole, self.text, re.MULTILINE)
        else:
            tables = "|".join(LARGE)
            found = re.search(rf'"Seq Scan"[^{{}}]*"Relation Name": "(?:{tables})"', self.text)
        return bool(found)

    @property
    def sorts(self) -> bool:
        """Would SQLite sort all that it found, however few of it are asked for?

        Not asked of PostgreSQL, which counts its rows: it sorts what is few.
        """
        return connection.vendor == "sqlite" and "ORDER BY" in self.text


def plans_of(act: Callable[[], Any]) -> list[Plan]:
    """The plan of each statement about a large table that *act* sent."""
    with CaptureQueriesContext(connection) as captured:
        act()
    plans = [
        Plan(sql, _plan(sql))
        for sql in (query["sql"] for query in captured.captured_queries)
        if (found := _EXPLAINED.match(sql))
        and (found[2].startswith("EXECUTE") or any(f'"{table}"' in sql for table in LARGE))
    ]
    assert plans
    return plans


def assert_bounded(act: Callable[[], Any], *indexes: str) -> None:
    """No large table is read whole, skipped through or counted without end; *indexes* are used."""
    plans = plans_of(act)
    for plan in plans:
        assert not plan.reads_whole, plan
        assert "OFFSET" not in plan.sql
        assert "DISTINCT" not in plan.sql
        if "COUNT(" in plan.sql and "GROUP BY" not in plan.sql:
            assert "LIMIT" in plan.sql, plan.sql
    for index in indexes:
        assert any(index in plan.text for plan in plans), (index, [plan.text for plan in plans])


def start_afresh() -> None:
    """Leave nothing in the tables that plans are read of, dead rows of other tests neither.

    A table costs what its pages cost: how many of them the tests before have left behind would
    decide which index is the cheapest.
    """
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(f"TRUNCATE {', '.join(LARGE)} CASCADE")


def analyze() -> None:
    """Let the database count what it holds, in the tables that plans are read of.

    Not in all: catalogs are shared by the databases of a server, and stay locked until the end.
    """
    with connection.cursor() as cursor:
        for table in (*LARGE, "cq_act"):
            cursor.execute(f"ANALYZE {table}")


def _plan(sql: str) -> str:
    with transaction.atomic(), connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            cursor.execute("EXPLAIN QUERY PLAN " + sql)
            return "\n".join(row[3] for row in cursor.fetchall())
        found = _EXPLAINED.match(sql)
        assert found
        settings, statement = found.groups()
        if settings:
            cursor.execute(settings)
        cursor.execute("EXPLAIN (FORMAT JSON) " + statement)
        (plan,) = cursor.fetchone()
        return plan if isinstance(plan, str) else json.dumps(plan)
