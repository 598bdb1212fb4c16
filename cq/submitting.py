"""How is a task queued that has waited for its first arguments?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from . import conf, enqueue, registry, signature, workflow
from .database import locked, write_transaction
from .exceptions import DuplicateSubmitError
from .models import Task
from .states import Cause, Status


def submit(task: Task, first_args: Sequence[Any]) -> None:
    """Queue a pending task, with *first_args* put before its own arguments.

    Raises `DuplicateSubmitError` unless it is pending; does nothing when it was revoked.
    """
    rows = Task.objects.using(conf.get().database)
    with write_transaction():
        stored = locked(rows.filter(pk=task.pk)).get()
        is_waiting = stored.status == Status.PENDING and stored.previous_id is None
        if is_waiting:
            _submit(stored, [*first_args, *stored.args])
        task.refresh_from_db()
        if not is_waiting and task.status != Status.REVOKED:
            raise DuplicateSubmitError(task.pk, Status(task.status).label)


def _submit(task: Task, args: list[Any]) -> None:
    """Queue a locked task, or end it where another instance waits under the key of its call.

    One that others wait behind is queued there too, without a key.
    """
    definition = registry.get(task.func_name)
    bound = definition.parameters.bind(args, task.kwargs)
    signature.encode(args, "args")
    values: dict[str, Any] = {
        "status": Status.QUEUED,
        "args": args,
        "named": signature.named(bound, conf.get().redact),
        **enqueue.due_now_or_later(task.expires),
    }
    if task.coalesce_key == enqueue.key_until_submit(task.pk):
        values["coalesce_key"] = registry.call(definition.name, args, task.kwargs).coalesce_key()
    rows = Task.objects.using(conf.get().database)

    def store_queued() -> None:
        rows.filter(pk=task.pk).update(**values)
        task.refresh_from_db(fields=["queue", "ready", "root"])
        enqueue.announce([task])

    there = enqueue.unless_one_waits(task.func_name, values.get("coalesce_key"), store_queued)
    if there is not None and task.has_followers:
        # They wait for this one, and a coalesced one never lets them run.
        values["coalesce_key"] = None
        store_queued()
    elif there is not None:
        workflow.revoke([task.pk], Cause.COALESCED, f"coalesced into {there.pk}")
