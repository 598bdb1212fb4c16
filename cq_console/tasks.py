"""Which work of its own does the console leave to the workers?"""

from __future__ import annotations

from typing import Any
from uuid import UUID

import cq
from cq.context import Context

from . import bulk, search

WEEK = 7 * 86_400


@cq.task(
    "cq_console.on_all_that_match",
    atomic=False,
    queue=bulk.QUEUE,
    priority=100,
    result_ttl=WEEK,
)
def on_all_that_match(
    cqt: Context,
    verb: str,
    query: str,
    at: str,
    last: str,
    count: int,
    user_id: Any,
    reason: str = "",
) -> dict[str, int]:
    """Carry out *verb* on what *query* showed at the moment *at*, up to the id *last*.

    In chunks, each a transaction with its own act, the oldest first. It stops when it is cancelled,
    and when its user has lost the permission; what was done stays done. Run again after a worker
    was lost, it finds only what has not moved yet.
    """
    chosen = bulk.VERBS[verb]
    wanted = search.parse(query, bulk.at(at))
    predicate = query or "is:root"
    work = bulk.Work(chosen, wanted, UUID(last))
    cqt.log(f"{verb} {count:,} tasks that match “{predicate}”")
    while True:
        user = bulk.user_who_may(user_id, chosen)
        if user is None:
            raise cq.Discard(f"its user may no longer {verb} tasks; {work.said}")
        if not work.do_some(user, reason, predicate):
            return {"done": work.done, "skipped": work.skipped}
        cqt.progress(work.looked_at, max(count, work.looked_at), work.said)
