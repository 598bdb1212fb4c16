"""How does Django's own task API (`django.tasks`) run on this engine?

``TASKS = {"default": {"BACKEND": "cq.backend.CQBackend"}}``. On Django 5.2 the API comes from the
django-tasks package (``pip install django-cq[tasks]``). A function declared with Django's ``@task``
is registered under its import path, so the console shows it like every other one.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from importlib.util import find_spec
from typing import Any
from uuid import UUID

from django.dispatch import receiver

from . import conf, enqueue, registry, signals
from .models import Task as Row
from .options import override
from .states import DONE, FAILED, Status

# Their classes are twins: one that comes from the other package is not an instance.
if find_spec("django.tasks") is not None:
    from django.tasks import TaskContext, TaskResultStatus
    from django.tasks.backends.base import BaseTaskBackend
    from django.tasks.base import TaskError, TaskResult
    from django.tasks.exceptions import TaskResultDoesNotExist
    from django.tasks.signals import task_enqueued, task_finished, task_started
else:
    from django_tasks.backends.base import BaseTaskBackend
    from django_tasks.base import TaskContext, TaskError, TaskResult, TaskResultStatus
    from django_tasks.exceptions import TaskResultDoesNotExist
    from django_tasks.signals import task_enqueued, task_finished, task_started

_tasks: dict[str, tuple[Any, CQBackend]] = {}


class CQBackend(BaseTaskBackend):
    """Stores Django's tasks in the caller's transaction; OPTIONS take those of cq's ``@task``.

    ``{"OPTIONS": {"atomic": False, "retries": 3}}`` holds for every task of the alias; atomic is
    the default, as everywhere in this engine.
    """

    supports_defer = True
    supports_async_task = True
    supports_get_result = True
    supports_priority = True

    def validate_task(self, task: Any) -> None:
        super().validate_task(task)
        # Declaring is what a worker's import does as well: from here on both know the name.
        if task.module_path not in _tasks:
            _declare(task, self)

    def enqueue(self, task: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        self.validate_task(task)
        definition = registry.get(task.module_path)
        changes = {"queue": task.queue_name, "priority": task.priority}
        if task.run_after is not None:
            changes["run_at"] = task.run_after
        options = override(definition.name, definition.options, changes)
        call = registry.Call(
            definition, options, frozenset(changes), tuple(args), dict(kwargs or {})
        )
        row = enqueue.enqueue(call)
        result = _result(row, task, self)
        task_enqueued.send(type(self), task_result=result)
        return result

    def get_result(self, result_id: str) -> Any:
        try:
            row = Row.objects.using(conf.get().database).get(pk=UUID(str(result_id)))
            task, backend = _tasks[row.func_name]
        except (Row.DoesNotExist, ValueError, KeyError):
            raise TaskResultDoesNotExist(result_id) from None
        return _result(row, task, backend)


def _declare(task: Any, backend: CQBackend) -> None:
    """Register the function of Django's *task* under its import path."""
    options = dict(backend.options)
    options.pop("name", None)
    registry.register(_with_our_context(task), task.module_path, options)
    _tasks[task.module_path] = (task, backend)


def _with_our_context(task: Any) -> Callable[..., Any]:
    """The function as the engine calls it: our context first, theirs made from it."""
    function = task.func

    def given(cqt: Any, args: Sequence[Any]) -> Sequence[Any]:
        result = _result(_row(cqt.id), task, _tasks[task.module_path][1])
        task_started.send(type(_tasks[task.module_path][1]), task_result=result)
        return [TaskContext(task_result=result), *args] if task.takes_context else args

    if inspect.iscoroutinefunction(function):

        @wraps(function)
        async def run_async(cqt: Any, *args: Any, **kwargs: Any) -> Any:
            from asgiref.sync import sync_to_async

            return await function(*await sync_to_async(given)(cqt, args), **kwargs)

        run: Callable[..., Any] = run_async
    else:

        @wraps(function)
        def run(cqt: Any, *args: Any, **kwargs: Any) -> Any:
            return function(*given(cqt, args), **kwargs)

    run.__signature__ = _signature(function, task.takes_context)  # type: ignore[attr-defined]
    return run


def _signature(function: Callable[..., Any], takes_context: bool) -> inspect.Signature:
    signature = inspect.signature(function)
    parameters = list(signature.parameters.values())
    first = inspect.Parameter("cqt", inspect.Parameter.POSITIONAL_ONLY)
    return signature.replace(parameters=[first, *parameters[bool(takes_context) :]])


def _row(task_id: UUID) -> Row:
    # One that runs here and now has no row.
    found = Row.objects.using(conf.get().database).filter(pk=task_id).first()
    return found or Row(pk=task_id, root_id=task_id, status=Status.RUNNING)


def _result(row: Row, task: Any, backend: CQBackend) -> Any:
    result: Any = TaskResult(
        task=task,
        id=str(row.pk),
        status=_status(Status(row.status)),
        enqueued_at=row.submitted,
        started_at=row.started,
        finished_at=row.finished if row.status in DONE else None,
        last_attempted_at=row.started,
        args=list(row.args),
        kwargs=dict(row.kwargs),
        backend=backend.alias,
        errors=[
            TaskError(exception_class_path=_path(attempt.exception), traceback=attempt.traceback)
            for attempt in row.attempt_set.order_by("id")
        ],
        worker_ids=[str(row.worker_id)] * row.attempts,
    )
    if row.status == Status.SUCCESS:
        object.__setattr__(result, "_return_value", row.result)
    return result


def _path(exception: str) -> str:
    """Where to import an exception from; those of Python itself are stored by their bare name."""
    return exception if "." in exception else f"builtins.{exception or 'Exception'}"


def _status(status: Status) -> Any:
    if status == Status.SUCCESS:
        return TaskResultStatus.SUCCESSFUL
    if status in FAILED or status == Status.REVOKED:
        return TaskResultStatus.FAILED
    if status in (Status.RUNNING, Status.WAITING):
        return TaskResultStatus.RUNNING
    return TaskResultStatus.READY


@receiver([signals.task_finished, signals.task_failed])
def _announce_end(*, sender: str, task_id: UUID, **_kwargs: Any) -> None:
    """Pass the end of one of Django's tasks on, in Django's words."""
    if sender in _tasks:
        task, backend = _tasks[sender]
        task_finished.send(type(backend), task_result=_result(_row(task_id), task, backend))
