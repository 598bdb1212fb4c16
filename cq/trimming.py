"""How is the log of a tree kept below its limit?"""

from __future__ import annotations

import random
from math import ceil
from time import monotonic
from uuid import UUID

from django.db.models import Count, Max, QuerySet

from . import conf
from .models import TaskLog

BATCH = 1_000
# Trees looked at in one round, and how long one of them may take, in seconds.
SAMPLES = 20
PATIENCE = 1.0


class Trimmer:
    """Looks now and then at the trees that have logged since it looked last.

    Which ones is drawn from the new lines, so that a tree comes up the sooner the more it logs:
    once in a quarter of the limit on average, whoever looks, and however few lines a quiet one has.
    """

    def __init__(self) -> None:
        self._seen: int | None = None

    def trim(self) -> int:
        """Remove the oldest lines of trees that are above the limit; returns how many."""
        newest = _lines().aggregate(newest=Max("id"))["newest"]
        if newest is None:
            return 0
        limit = _limit()
        seen = max(0, newest - limit) if self._seen is None else self._seen
        self._seen = newest
        if newest <= seen:
            return 0
        number = min(SAMPLES, newest - seen, ceil((newest - seen) * 4 / limit))
        drawn = random.sample(range(seen + 1, newest + 1), number)
        roots = _lines().filter(id__in=drawn).values_list("root_id", flat=True)
        return sum(trim(root_id) for root_id in set(roots))


def trim(root_id: UUID) -> int:
    """Keep the newest lines of a tree; returns how many older ones went.

    In bounded batches, for a second at most: the next round goes on.
    """
    alias = conf.get().database
    own = _lines().filter(root_id=root_id)
    limit = _limit()
    above = list(own.order_by("-id").values_list("id", flat=True)[limit : limit + 1])
    if not above:
        return 0
    removed = 0
    deadline = monotonic() + PATIENCE
    old = own.filter(id__lte=above[0]).order_by("id").values_list("id", flat=True)
    while monotonic() < deadline and (ids := list(old[:BATCH])):
        own.filter(id__lte=ids[-1])._raw_delete(alias)
        removed += len(ids)
    return removed


def trim_all() -> int:
    """Keep the newest lines of every tree; returns how many older ones went."""
    counted = _lines().values("root_id").annotate(number=Count("id"))
    above = counted.filter(number__gt=_limit()).values_list("root_id", flat=True)
    removed = 0
    for root_id in list(above):
        while number := trim(root_id):
            removed += number
    return removed


def _lines() -> QuerySet[TaskLog]:
    return TaskLog.objects.using(conf.get().database)


def _limit() -> int:
    return conf.get().log_limit
