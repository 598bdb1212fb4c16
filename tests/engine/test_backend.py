"""Do Django's own tasks run on this engine, in Django's words?"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import pytest
from django.test import override_settings

if find_spec("django.tasks") is not None:
    from django.tasks import TaskResultStatus, task, task_backends
    from django.tasks.exceptions import TaskResultDoesNotExist
    from django.tasks.signals import task_enqueued, task_finished
else:
    from django_tasks import TaskResultStatus, task, task_backends
    from django_tasks.exceptions import TaskResultDoesNotExist
    from django_tasks.signals import task_enqueued, task_finished

from cq.models import Task
from cq.testing import run_pending

TASKS = {"default": {"BACKEND": "cq.backend.CQBackend", "QUEUES": [], "OPTIONS": {"retries": 0}}}


def _forget_backends() -> None:
    # Each thread keeps its own; a changed setting is not noticed by the ones that exist.
    handler: Any = task_backends
    handler.__dict__.pop("settings", None)
    handler._settings = None
    for alias in TASKS:
        if hasattr(handler._connections, alias):
            delattr(handler._connections, alias)


with override_settings(TASKS=TASKS):
    _forget_backends()

    @task(priority=7, queue_name="mail")
    def greet(name: str, *, loudly: bool = False) -> str:
        return name.upper() if loudly else name

    @task(takes_context=True)
    def attempt_of(context: Any) -> int:
        return int(context.attempt)

    @task
    def stumble() -> None:
        raise LookupError("no such thing")

    @task
    async def later(number: int) -> int:
        return number + 1


@pytest.fixture(autouse=True)
def _backend() -> Any:
    with override_settings(TASKS=TASKS):
        _forget_backends()
        yield
    _forget_backends()


@pytest.mark.django_db
def test_a_task_of_django_is_a_row_with_its_queue_and_priority() -> None:
    result = greet.enqueue("ann", loudly=True)

    row = Task.objects.get()
    assert (row.func_name, row.queue, row.priority) == (greet.module_path, "mail", 7)
    assert row.named == {"name": "ann"}
    assert (result.id, result.status) == (str(row.pk), TaskResultStatus.READY)


@pytest.mark.django_db
def test_its_return_value_is_read_back() -> None:
    result = greet.enqueue("ann", loudly=True)

    run_pending()

    assert greet.get_result(result.id).return_value == "ANN"


@pytest.mark.django_db
def test_an_async_one_runs_as_well() -> None:
    result = later.enqueue(4)

    run_pending()

    found: Any = later.get_result(result.id)
    assert found.return_value == 5


@pytest.mark.django_db
def test_one_that_takes_context_is_given_it() -> None:
    result = attempt_of.enqueue()

    run_pending()

    assert attempt_of.get_result(result.id).return_value == 1


@pytest.mark.django_db
def test_a_failure_is_told_with_its_exception() -> None:
    result = stumble.enqueue()

    run_pending()

    found = stumble.get_result(result.id)
    assert found.status == TaskResultStatus.FAILED
    assert found.errors[0].exception_class is LookupError


@pytest.mark.django_db
def test_an_unknown_result_does_not_exist() -> None:
    with pytest.raises(TaskResultDoesNotExist):
        task_backends["default"].get_result("01900000-0000-7000-8000-000000000000")


@pytest.mark.django_db(transaction=True)
def test_its_signals_are_sent() -> None:
    seen = []

    def note(*, task_result: Any, **_kwargs: Any) -> None:
        seen.append(task_result.status)

    task_enqueued.connect(note)
    task_finished.connect(note)
    try:
        greet.enqueue("ann")
        run_pending()
    finally:
        task_enqueued.disconnect(note)
        task_finished.disconnect(note)

    assert seen == [TaskResultStatus.READY, TaskResultStatus.SUCCESSFUL]
