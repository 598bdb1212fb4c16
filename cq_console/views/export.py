"""How does the filtered list leave the console, as a file?"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from django.http import Http404, HttpRequest, StreamingHttpResponse
from django.utils import timezone

from .. import search, streams
from ..queries import export as queries
from . import tasks as list_views

LINES = 500
FORMATS = {"csv": "text/csv; charset=utf-8", "jsonl": "application/jsonl; charset=utf-8"}
# A spreadsheet runs a cell that begins with one of these as a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def download(model_admin: Any, request: HttpRequest, kind: str) -> StreamingHttpResponse:
    """Every task that the list would show, page after page, in the order of the list."""
    wanted = search.parse(request.GET.get("q", ""))
    if kind not in FORMATS or wanted.problem:
        raise Http404
    rows = queries.rows(model_admin.get_queryset(request), wanted, list_views.order_of(request))
    write: Callable[[Iterator[dict[str, Any]]], Iterator[str]] = _csv if kind == "csv" else _lines
    name = f"tasks-{timezone.localtime():%Y%m%d-%H%M%S}.{kind}"
    return streams.streamed(
        request,
        _pieces(write(rows)),
        FORMATS[kind],
        {"Content-Disposition": f'attachment; filename="{name}"'},
    )


def _pieces(lines: Iterator[str]) -> Iterator[str]:
    """Some lines at a time: each piece is a message to the server."""
    while piece := "".join(islice(lines, LINES)):
        yield piece


def _lines(rows: Iterator[dict[str, Any]]) -> Iterator[str]:
    for row in rows:
        yield json.dumps(row, ensure_ascii=False, default=str) + "\n"


def _csv(rows: Iterator[dict[str, Any]]) -> Iterator[str]:
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(queries.COLUMNS)
    for row in rows:
        writer.writerow([_cell(row[name]) for name in queries.COLUMNS])
        yield buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()
    yield buffer.getvalue()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else str(value)
    return f"'{text}" if text.startswith(_FORMULA) else text
