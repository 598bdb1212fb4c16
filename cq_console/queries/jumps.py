"""Which values does an indexed column have, without reading every row?

DISTINCT would read the whole index; this jumps from each value to the next one. No ORM says it.
"""

from __future__ import annotations

from typing import Any

from django.db import connections
from django.db.models import QuerySet

from cq.models import Task


def values(
    tasks: QuerySet[Task], name: str, limit: int, *, beyond: Any = None, descending: bool = False
) -> list[Any]:
    """The first *limit* values of the column *name* of the whole table, in order.

    With *beyond* those that come after it.
    """
    current = connections[tasks.db]
    field: Any = Task._meta.get_field(name)
    table = current.ops.quote_name(Task._meta.db_table)
    column = current.ops.quote_name(str(field.column))
    sign, order, least = ("<", "DESC", "MAX") if descending else (">", "ASC", "MIN")

    def jump(condition: str) -> str:
        if current.vendor == "postgresql":
            # It knows neither MAX nor MIN of ids.
            return f"(SELECT t.{column} FROM {table} t{condition} ORDER BY 1 {order} LIMIT 1)"
        return f"(SELECT {least}(t.{column}) FROM {table} t{condition})"

    first = f" WHERE t.{column} {sign} %s" if beyond is not None else ""
    given = [] if beyond is None else [field.get_db_prep_value(beyond, current)]
    with current.cursor() as cursor:
        cursor.execute(
            f"WITH RECURSIVE found(v, n) AS (SELECT {jump(first)}, 1 UNION ALL SELECT"
            f" {jump(f' WHERE t.{column} {sign} found.v')}, n + 1 FROM found"
            f" WHERE found.v IS NOT NULL AND n < %s)"
            f" SELECT v FROM found WHERE v IS NOT NULL",
            [*given, limit],
        )
        return [row[0] for row in cursor.fetchall()]
