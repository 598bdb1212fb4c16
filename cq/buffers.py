"""How do outcomes and log lines of many threads reach the database in bulk?"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from time import monotonic
from uuid import UUID

from django.db import DatabaseError, InterfaceError, connections

from . import conf, problems, recorder
from .context import Line
from .database import is_conflict, write_transaction
from .enqueue import send_hints
from .models import Task, TaskLog
from .outcomes import Outcome
from .states import Status
from .statistics import Tally

logger = logging.getLogger("cq")

BATCH = 500
LOG_INTERVAL = 0.2
STATISTICS_INTERVAL = 5.0
# Rows that another transaction held are tried again after a pause, and at last waited for.
LEFT_PAUSE = 0.02
LEFT_ROUNDS = 50
OUTAGE_PAUSE = 0.5


class RecordBuffer:
    """Records outcomes and flushes log lines, on a thread and a connection of its own."""

    def __init__(self, tally: Tally, on_recorded: Callable[[Sequence[Outcome]], None]) -> None:
        self._tally = tally
        self._on_recorded = on_recorded
        self._outcomes: list[Outcome] = []
        self._lines: list[Line] = []
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._idle = threading.Event()
        self._idle.set()
        self._is_stopping = False
        self._left_rounds = 0
        self._lines_due = 0.0
        self._statistics_due = monotonic() + STATISTICS_INTERVAL
        self._thread = threading.Thread(target=self._work, name="cq-recorder", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def backlog(self) -> int:
        return len(self._outcomes)

    def add(self, outcome: Outcome) -> None:
        """Record *outcome* soon."""
        with self._lock:
            self._outcomes.append(outcome)
            self._idle.clear()
        if not self._wake.is_set():
            self._wake.set()

    def add_lines(self, lines: Sequence[Line]) -> None:
        with self._lock:
            if not self._lines:
                self._lines_due = monotonic() + LOG_INTERVAL
            self._lines.extend(lines)
        if not self._wake.is_set():
            self._wake.set()

    def count(self, outcomes: Iterable[Outcome]) -> None:
        """Add outcomes that were recorded elsewhere to the statistics."""
        self._tally.add(outcomes)

    def drain(self, timeout: float) -> bool:
        """Wait until everything added so far is recorded."""
        return self._idle.wait(timeout)

    def flush(self) -> None:
        """Record what is there, outcomes and lines, in the caller's thread."""
        while self._outcomes:
            self._record_batch()
        self._flush_lines()

    def stop(self, timeout: float) -> None:
        """Record what is there, then end the thread."""
        self._is_stopping = True
        self._wake.set()
        self._thread.join(timeout)

    def _work(self) -> None:
        while True:
            self._wake.wait(self._pause())
            self._wake.clear()
            try:
                self._round()
            except (DatabaseError, InterfaceError) as error:
                logger.warning("recorder waits for the database: %s", error)
                connections.close_all()
                if self._is_stopping:
                    break
                threading.Event().wait(OUTAGE_PAUSE)
                self._wake.set()
            except Exception:
                logger.exception("recorder fault")
                threading.Event().wait(OUTAGE_PAUSE)
            if self._is_stopping and not self._outcomes and not self._lines:
                break
        connections.close_all()

    def _pause(self) -> float:
        now = monotonic()
        if self._outcomes or self._is_stopping:
            return 0.0
        if self._lines:
            return max(0.0, self._lines_due - now)
        return max(0.0, self._statistics_due - now)

    def _round(self) -> None:
        while self._outcomes:
            self._record_batch()
            if monotonic() >= self._lines_due:
                self._flush_lines()
        self._idle.set()
        if self._lines and (self._is_stopping or monotonic() >= self._lines_due):
            self._flush_lines()
        if self._is_stopping or monotonic() >= self._statistics_due:
            self._statistics_due = monotonic() + STATISTICS_INTERVAL
            self._tally.flush()

    def _record_batch(self) -> None:
        with self._lock:
            batch, self._outcomes = self._outcomes[:BATCH], self._outcomes[BATCH:]
        # The lines of a task come before its end.
        if any(outcome.status != Status.SUCCESS for outcome in batch):
            self._flush_lines()
        try:
            self._record(batch)
        except BaseException:
            with self._lock:
                self._outcomes[:0] = batch
            raise

    def _record(self, batch: list[Outcome]) -> None:
        try:
            recorded = recorder.record(batch, skip_locked=self._left_rounds < LEFT_ROUNDS)
        except Exception as error:
            if is_conflict(error):
                return self._put_back(batch)
            if not _is_refusal(error):
                raise
            return self._record_halves(batch, error)
        self._tally.add(recorded.written)
        self._on_recorded(recorded.written + recorded.lost)
        if recorded.left:
            self._put_back(recorded.left)
        else:
            self._left_rounds = 0
        return None

    def _record_halves(self, batch: list[Outcome], error: Exception) -> None:
        """Let the outcome that cannot be written stand alone, and end as a failure."""
        if len(batch) > 1:
            middle = len(batch) // 2
            self._record(batch[:middle])
            self._record(batch[middle:])
            return
        outcome = batch[0]
        if outcome.status == Status.FAILURE and not outcome.followers:
            # Nothing simpler is left to write. It shall not hold up all others: its row stays
            # running, and is handed back as one that nobody here knows of.
            logger.error("gave up the record task=%s", outcome.claimed.id, exc_info=error)
            self._on_recorded([outcome])
            return
        logger.error("cannot record task=%s: %r", outcome.claimed.id, error)
        failed = outcome._replace(
            status=Status.FAILURE,
            result=None,
            followers=(),
            adopted=None,
            problem=problems.of(error),
        )
        self._record([failed])

    def _put_back(self, outcomes: list[Outcome]) -> None:
        self._left_rounds += 1
        with self._lock:
            self._outcomes[:0] = outcomes
        threading.Event().wait(LEFT_PAUSE)

    def _flush_lines(self) -> None:
        with self._lock:
            lines, self._lines = self._lines, []
        if not lines:
            return
        try:
            _store_or_halve(lines)
        except BaseException:
            with self._lock:
                self._lines[:0] = lines
            raise


def _store_or_halve(lines: Sequence[Line]) -> None:
    """Store *lines*; one that the database refuses is dropped, and holds up no other."""
    try:
        _store_lines(lines)
    except Exception as error:
        if not _is_refusal(error):
            raise
        if len(lines) > 1:
            middle = len(lines) // 2
            _store_or_halve(lines[:middle])
            _store_or_halve(lines[middle:])
        else:
            logger.error("dropped a log line task=%s: %r", lines[0].task_id, error)


def _store_lines(lines: Sequence[Line]) -> None:
    """Insert *lines*; one with a limit leaves only so many of its task, up to itself."""
    kept, older = _within_limits(lines)
    rows = [
        TaskLog(
            root_id=line.root_id,
            task_id=line.task_id,
            created=line.created,
            level=line.level,
            message=line.message,
            done=line.done,
            total=line.total,
        )
        for line in kept
    ]
    stored = TaskLog.objects.using(conf.get().database)
    with write_transaction():
        for task_id, number in older.items():
            own = stored.filter(task_id=task_id)
            if number:
                last = own.order_by("-id").values_list("id", flat=True)[number - 1 : number].first()
                own = own.none() if last is None else own.filter(id__lt=last)
            own.delete()
        stored.bulk_create(rows, batch_size=BATCH)
    send_hints((), _follow_adoptions(rows))


def _within_limits(lines: Sequence[Line]) -> tuple[list[Line], dict[UUID, int]]:
    """Those of *lines* that stay, and how many older ones may stay of the tasks with a limit."""
    if all(line.limit is None for line in lines):
        return list(lines), {}
    kept: dict[UUID, list[Line]] = {}
    older: dict[UUID, int] = {}
    for line in lines:
        own = kept.setdefault(line.task_id, [])
        own.append(line)
        if line.limit is not None:
            del own[: max(0, len(own) - line.limit)]
            left = line.limit - len(own)
            older[line.task_id] = min(left, older.get(line.task_id, left))
    staying = {id(line) for own in kept.values() for line in own}
    return [line for line in lines if id(line) in staying], older


def _follow_adoptions(rows: Iterable[TaskLog]) -> set[UUID]:
    """Put stored lines under the root that their task has now; returns these roots.

    It may have been adopted since it was claimed. After the commit, because who adopts it looks
    for its lines again after theirs: so one of the two sees the other.
    """
    stood = {row.task_id: row.root_id for row in rows}
    alias = conf.get().database
    ids = list(stood)
    for start in range(0, len(ids), BATCH):
        found = Task.objects.using(alias).filter(pk__in=ids[start : start + BATCH])
        for task_id, root_id in found.values_list("id", "root_id"):
            if root_id != stood[task_id]:
                moved = TaskLog.objects.using(alias).filter(task_id=task_id)
                moved.exclude(root_id=root_id).update(root_id=root_id)
                stood[task_id] = root_id
    return set(stood.values())


def _is_refusal(error: Exception) -> bool:
    """Is it a value that cannot be written, rather than the database that cannot be reached?"""
    from django.db import DataError, IntegrityError

    is_of_database = isinstance(error, (DatabaseError, InterfaceError))
    return not is_of_database or isinstance(error, (DataError, IntegrityError))
