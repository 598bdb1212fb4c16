"""What if two workers find the same dead one at the same moment?"""

from __future__ import annotations

import threading
from collections import Counter
from contextlib import ExitStack
from time import sleep
from typing import Any
from unittest.mock import patch
from uuid import UUID

import pytest
from django.db import connection, connections

from cq import leases
from cq.models import Task, Worker
from cq.states import Status

from .tasks import rest

NUMBER = 40

pytestmark = pytest.mark.skipif(connection.vendor == "sqlite", reason="it has one writer at a time")


def dead_worker() -> Worker:
    worker = leases.register(queues=[], threads=4, is_embedded=False, is_scheduler=False)
    Worker.objects.filter(pk=worker.pk).update(pid_started="another process")
    rest.delay_many([(0.0,)] * NUMBER)
    Task.objects.update(status=Status.RUNNING, ready=None, worker=worker, attempts=2, claim=1)
    return worker


@pytest.mark.parametrize(("is_locking", "times"), [(True, {1}), (False, {1, 2})])
def test_each_task_of_a_dead_worker_comes_back_once_unless_rows_are_not_locked(
    transactional_db: None, is_locking: bool, times: set[int]
) -> None:
    worker = dead_worker()
    seen: Counter[UUID] = Counter()
    come_back = leases._come_back

    def slowly(task: Task, *others: Any, **how: Any) -> Any:
        seen[task.pk] += 1
        sleep(0.01)
        return come_back(task, *others, **how)

    def rescue() -> None:
        try:
            leases.bury(worker.pk, running=())
        finally:
            connections.close_all()

    with ExitStack() as stack:
        stack.enter_context(patch.object(leases, "_come_back", slowly))
        if not is_locking:
            stack.enter_context(patch.object(leases, "locked", lambda rows, **_how: rows))
        threads = [threading.Thread(target=rescue) for _number in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert len(seen) == NUMBER
    assert set(seen.values()) <= times
    assert max(seen.values()) == max(times)
    assert not Task.objects.filter(status=Status.RUNNING).exists()
