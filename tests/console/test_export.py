"""Is the file what the list shows, all of it, and masked as well?"""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest
from django.test import AsyncRequestFactory, Client
from django.urls import reverse
from django.utils import timezone

from console.conftest import Make, Staff
from cq.models import Worker
from cq.states import Status
from cq_console import streams


def download(client: Client, kind: str, **query: str) -> str:
    response: Any = client.get(reverse("admin:cq_task_export", args=[kind]), query)
    assert response.status_code == 200
    assert "attachment" in response["Content-Disposition"]
    return b"".join(response.streaming_content).decode()


def test_the_filtered_list_is_exported_as_lines_of_json(make: Make, operator: Client) -> None:
    worker = Worker.objects.create(host="build-2", pid=7, lease_expires_at=timezone.now())
    wanted = make(
        Status.FAILURE, worker=worker, args=["a@b"], named={"order_id": 2**53 + 1}, error="broken"
    )
    make(Status.SUCCESS)

    (line,) = download(operator, "jsonl", q="status:failed").splitlines()

    row = json.loads(line)
    assert row["id"] == str(wanted.id)
    assert (row["status"], row["worker"], row["error"]) == ("failure", "build-2:7", "broken")
    assert row["arguments"]["order_id"] == 2**53 + 1
    assert row["finished"]


def test_a_table_has_a_head_and_a_row_for_each(
    make: Make, operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cq_console.queries.export.CHUNK", 2)
    made = [str(make(error='a\n"b", c').id) for _ in range(5)]

    rows = list(csv.DictReader(io.StringIO(download(operator, "csv"))))

    assert [row["id"] for row in rows] == made[::-1]
    assert {row["error"] for row in rows} == {'a\n"b", c'}


def test_an_empty_list_is_a_head_alone(db: None, operator: Client) -> None:
    assert download(operator, "csv").startswith("id,status,reason,function")
    assert download(operator, "jsonl") == ""


def test_secrets_are_masked_in_the_file_too(make: Make, operator: Client) -> None:
    make(kwargs={"password": "hunter2"}, args=[{"apiKey": "hunter2"}], error="token=hunter2")

    assert "hunter2" not in download(operator, "jsonl") + download(operator, "csv")


def test_no_cell_is_run_as_a_formula(make: Make, operator: Client) -> None:
    make(queue="=HYPERLINK(1)", error="@SUM(1)")

    rows = list(csv.DictReader(io.StringIO(download(operator, "csv"))))

    assert (rows[0]["queue"], rows[0]["error"]) == ("'=HYPERLINK(1)", "'@SUM(1)")


def test_a_wrong_search_or_kind_is_no_file(make: Make, operator: Client) -> None:
    for kind, query in (("xml", ""), ("csv", "statsu:failed")):
        url = reverse("admin:cq_task_export", args=[kind])
        assert operator.get(url, {"q": query}).status_code == 404


def test_who_may_not_see_tasks_exports_none(make: Make, staff: Staff) -> None:
    make()

    client = staff("view_worker")

    assert client.get(reverse("admin:cq_task_export", args=["csv"])).status_code == 403


def test_the_file_leaves_piece_by_piece_under_asgi(
    make: Make, operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cq_console.views.export.LINES", 2)
    for _ in range(5):
        make()

    response: Any = operator.get(reverse("admin:cq_task_export", args=["jsonl"]))
    pieces = list(response.streaming_content)
    request = AsyncRequestFactory().get("/")
    wrapped: Any = streams.streamed(request, iter(["a", "b"]), "text/plain", {})

    assert [piece.count(b"\n") for piece in pieces] == [2, 2, 1]
    assert wrapped.is_async
