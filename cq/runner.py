"""What is the outcome of one claimed task?"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from datetime import datetime
from time import monotonic
from typing import Any

from django.db import DatabaseError, InterfaceError, OperationalError
from django.db.backends.base.base import BaseDatabaseWrapper

from . import prepared, problems, recorder, registry, retry, signature, workflow
from .context import Context, Line, LogSink, Run
from .database import (
    IN_ERROR,
    TaskTransaction,
    Watch,
    connection,
    drop_broken,
    drop_ended,
    immediate,
    is_conflict,
    is_connection_lost,
    is_reachable,
    leave_transaction,
)
from .exceptions import (
    CQError,
    Discard,
    LeaseLost,
    Retry,
    TaskCancelled,
    TaskNotRegistered,
    TaskTimeout,
)
from .models import Task
from .outcomes import Claimed, Outcome
from .registry import Definition
from .states import Cause, Status

logger = logging.getLogger("cq")

# A conflict is run again in place; whoever loses this often waits for its next claim instead.
CONFLICT_RERUNS = 5
WRITE_LOCK_PATIENCE = 1.0


class TransactionBroken(CQError):
    """The function returned, but its transaction can no longer commit."""


class RanAgain(CQError):
    """The run left no trace in the database and must be made once more."""


class _SessionEnded(RanAgain):
    """The server, which did answer at the beginning of the run, ended the session that it used."""


class SessionEndsEachTime(CQError):
    def __init__(self, error: BaseException | None) -> None:
        super().__init__(
            f"The database session of this task ended in each of {2 * CONFLICT_RERUNS} runs, "
            "though it ran alone in the end and the server answers. The task ends it itself, or "
            "the server does: does a run last longer than idle_in_transaction_session_timeout or "
            f"the like? The last error: {error}"
        )


def run(claimed: Claimed, sink: LogSink, started: Callable[[Run], None]) -> Outcome | None:
    """Call the function of *claimed* once and say what came of it.

    The outcome of an atomic task that used the task database is recorded already, in the same
    commit. None when somebody else owns the task by now. *started* is given the `Run`
    before the function is called, so that a cancel can reach it.
    """
    try:
        definition = registry.get(claimed.func_name)
    except TaskNotRegistered as error:
        now = claimed.now()
        problem = problems.of(error)
        return Outcome(claimed, Status.FAILURE, now, now, problem=problem)
    ended: list[_SessionEnded] = []
    for rerun in range(CONFLICT_RERUNS):
        current = Run(claimed, is_atomic=definition.atomic, sink=sink)
        current.deadline = deadline(claimed, definition)
        started(current)
        token = workflow.current_run.set(current)
        began = claimed.now()
        try:
            if definition.atomic:
                return _run_atomic(definition, current, began, has_conflicted=rerun > 0)
            leave_transaction()
            database = connection()
            # It would fail its first query, and could not be run again as an atomic one is.
            drop_ended(database)
            return _run_plain(definition, current, began, database)
        except _SessionEnded as error:
            ended.append(error)
            logger.warning("run again task=%s: its session ended: %s", claimed.id, error.__cause__)
        except RanAgain:
            logger.info("run again task=%s after a database conflict", claimed.id)
        finally:
            workflow.current_run.reset(token)
            current.flush_lines()
            if current.interrupt.sent is not None:
                # What the driver was doing is unknown, and the break-off of its query may be on
                # its way still: nothing else shall use this connection.
                connection().close()
    if len(ended) == CONFLICT_RERUNS and is_reachable(connection()):
        if claimed.suspect:
            charged = SessionEndsEachTime(ended[-1].__cause__)
            return _failure(definition, current, charged, began)
        # A server that ends many sessions is met by others too: it shall be tried alone.
        claimed = claimed._replace(suspect=True)
    return _hand_back(claimed, began, is_atomic=definition.atomic)


async def run_async(
    claimed: Claimed, definition: Definition, sink: LogSink, started: Callable[[Run], None]
) -> Outcome:
    """The same for an async function, on the worker's event loop; never atomic."""
    from asgiref.sync import sync_to_async

    current = Run(claimed, is_atomic=False, sink=sink)
    current.deadline = deadline(claimed, definition)
    started(current)
    token = workflow.current_run.set(current)
    began = claimed.now()
    own = asyncio.current_task()
    try:
        args, kwargs = await sync_to_async(_begin_on_loop)(claimed)
        async with asyncio.timeout_at(_on_loop(current.deadline)):
            value = await definition.func(Context(current), *args, **kwargs)
        return _success(current, value, began)
    except BaseException as error:
        if isinstance(error, asyncio.CancelledError) and current.is_cancelled:
            return _failure(definition, current, TaskCancelled(), began)
        if isinstance(error, TimeoutError) and _is_past(current.deadline):
            return _failure(definition, current, TaskTimeout(), began)
        if not _belongs_to_task(error) or _is_closed_from_outside(error, own):
            raise
        return _failure(definition, current, error, began)
    finally:
        workflow.current_run.reset(token)
        current.flush_lines()


def _begin_on_loop(claimed: Claimed) -> tuple[list[Any], dict[str, Any]]:
    """The arguments; here, on the one thread that does the queries of all async tasks."""
    drop_broken()
    drop_ended(connection())
    return _arguments(claimed)


def deadline(claimed: Claimed, definition: Definition) -> float:
    """When a run that starts now must have ended, by the monotonic clock; 0 without timeout."""
    timeout = definition.options.timeout if claimed.timeout is None else claimed.timeout
    return monotonic() + timeout if timeout else 0.0


def timed_out(claimed: Claimed, definition: Definition) -> Outcome:
    """The outcome of an attempt that overran its timeout and did not stop when it was told to."""
    current = Run(claimed, is_atomic=definition.atomic, sink=_Silent())
    error = TaskTimeout(
        "it overran its timeout and did not stop, so its worker process was replaced"
    )
    return _failure(definition, current, error, claimed.leased_at)


class _Silent:
    def add_lines(self, lines: Sequence[Line]) -> None:
        """Nobody runs, so nothing is logged."""


def _on_loop(moment: float) -> float | None:
    """*moment* of the monotonic clock as the running loop's time."""
    return None if not moment else asyncio.get_running_loop().time() + moment - monotonic()


def _is_past(moment: float) -> bool:
    return bool(moment) and monotonic() >= moment


def _run_plain(
    definition: Definition, current: Run, began: datetime, database: BaseDatabaseWrapper
) -> Outcome:
    try:
        return _success(current, _call(definition, current, database), began)
    except BaseException as error:
        if not _belongs_to_task(error):
            raise
        return _failure(definition, current, error, began)


def _run_atomic(
    definition: Definition, current: Run, began: datetime, *, has_conflicted: bool
) -> Outcome | None:
    """Run it in a transaction that commits with the task's own completion."""
    database = connection()
    watch = Watch(database)
    fence = _Fence()
    try:
        # Whoever lost a conflict takes SQLite's write lock before it reads.
        mode = immediate(database) if has_conflicted else nullcontext()
        with mode, TaskTransaction(database) as block:
            outcome = _run_inside(definition, current, began, database, watch, fence)
            is_interrupted = current.interrupt.sent is not None
            block.is_unused = not (fence.is_recorded or watch.has_queried or is_interrupted)
    except LeaseLost as error:
        logger.warning("lost lease %s", error)
        return None
    except BaseException as error:
        if fence.is_committed:
            # Nothing changes the outcome any more.
            logger.exception("after commit task=%s", current.task_id)
            return None if fence.outcome is None else fence.outcome._replace(is_recorded=True)
        if not _belongs_to_task(error):
            raise
        if current.interrupt.sent is not None:
            # The break-off of its query may have met a statement of the engine's, after it.
            told = current.interrupt.sent() if isinstance(error, DatabaseError) else error
            return _failure(definition, current, told, began)
        if is_conflict(error) or watch.conflict is not None:
            raise RanAgain from error
        if fence.is_session_lost(error, database):
            database.close()
            if fence.outcome is not None:
                return _after_lost_answer(fence, fence.outcome, error)
            # Without a session there was none when the run began: the server is away.
            raise (RanAgain if fence.session is None else _SessionEnded) from error
        return _failure(definition, current, error, began)
    if watch.wrote_at is not None:
        _warn_of_write_lock(definition.name, monotonic() - watch.wrote_at)
    return outcome._replace(is_recorded=True) if fence.is_recorded else outcome


def _warn_of_write_lock(name: str, seconds: float) -> None:
    if seconds > WRITE_LOCK_PATIENCE and name not in _warned_of:
        _warned_of.add(name)
        logger.warning(
            "task %s held SQLite's only write lock for %.1f s, from its first write to its commit; "
            "everybody else who writes waits meanwhile. Write last, or declare it atomic=False",
            name,
            seconds,
        )


_warned_of: set[str] = set()


class _Fence:
    """How far the end of an atomic task has come."""

    def __init__(self) -> None:
        self.outcome: Outcome | None = None
        self.is_recorded = False
        self.is_committed = False
        self.session: Any = None

    def commit(self) -> None:
        self.is_committed = True

    def is_session_lost(self, error: BaseException, database: BaseDatabaseWrapper) -> bool:
        """Did *error* end the session that this run began in?"""
        if not isinstance(error, (OperationalError, InterfaceError)):
            return False
        # When an atomic block ends without its connection, Django opens another one.
        return database.connection is not self.session or is_connection_lost(error, database)


def _run_inside(
    definition: Definition,
    current: Run,
    began: datetime,
    database: BaseDatabaseWrapper,
    watch: Watch,
    fence: _Fence,
) -> Outcome:
    fence.session = database.connection
    # The first callback of this transaction: when it runs, COMMIT has happened.
    database.on_commit(fence.commit)
    with watch:
        value = _call(definition, current, database)
        current.flush_children()
        outcome = _success(current, value, began)
        _check_transaction(database, watch)
    if watch.was_used() or not outcome.is_plain_success:
        # Known before: the answer to a COMMIT in there may be lost as well.
        fence.outcome = outcome
        fence.is_committed = recorder.record_within(outcome)
        fence.is_recorded = True
    registered: list[Any] = database.run_on_commit
    if len(registered) > 1:
        # What the task registered must not undo, by raising, what has been committed.
        registered[:] = [(sids, callback, True) for sids, callback, _robust in registered]
    return outcome


def _check_transaction(database: BaseDatabaseWrapper, watch: Watch) -> None:
    """Refuse a success whose transaction cannot commit, or lost its first half."""
    if watch.conflict is not None:
        raise watch.conflict
    if database.closed_in_transaction or database.connection is None:
        raise TransactionBroken(
            "The task closed its database connection inside its transaction, so its changes were "
            "rolled back. Leave the connection open, or declare it atomic=False."
        )
    is_aborted = (
        database.vendor == "postgresql"
        and database.connection.pgconn.transaction_status == IN_ERROR
    )
    if database.needs_rollback or is_aborted:
        raise TransactionBroken(
            "The task returned, but its transaction is marked for rollback: it swallowed a "
            "database error, or called set_rollback(). Wrap what may fail in transaction.atomic()."
        )


def _after_lost_answer(fence: _Fence, outcome: Outcome, error: BaseException) -> Outcome | None:
    """COMMIT was sent, and its answer lost: ask the row.

    Its session is ended first where that is known, and a fresh one waits for the lock of what is
    left of it. If the commit did not go through, the task runs again. While nobody answers, that is
    left to the recorder, which hands it back if it is still to be done.
    """
    try:
        prepared.end_session(fence.session)
        is_recorded = recorder.is_recorded(outcome)
    except (DatabaseError, InterfaceError) as silence:
        logger.warning("unknown outcome task=%s: %s", outcome.claimed.id, silence)
        connection().close()
        return _hand_back(outcome.claimed, outcome.started, is_atomic=outcome.is_atomic)
    if is_recorded is None:
        logger.warning("lost lease task=%s claim=%s", outcome.claimed.id, outcome.claimed.claim)
        return None
    if is_recorded:
        return outcome._replace(is_recorded=True)
    raise _SessionEnded from error


def _call(definition: Definition, current: Run, database: BaseDatabaseWrapper) -> Any:
    args, kwargs = _arguments(current.claimed)
    context = Context(current)
    return current.interrupt.call(lambda: definition.func(context, *args, **kwargs), database)


def _arguments(claimed: Claimed) -> tuple[list[Any], dict[str, Any]]:
    if claimed.previous_id is None or not signature.mentions_previous(claimed.args, claimed.kwargs):
        return claimed.args, claimed.kwargs
    result = (
        workflow.tasks().filter(pk=claimed.previous_id).values_list("result", flat=True).first()
    )
    args = signature.resolve_previous(claimed.args, result)
    kwargs = signature.resolve_previous(claimed.kwargs, result)
    return args, kwargs


def _success(current: Run, value: Any, began: datetime) -> Outcome:
    adopted = value.pk if isinstance(value, Task) else None
    result = None if value is None or adopted else signature.plain(value, "result")
    return Outcome(
        current.claimed,
        Status.SUCCESS,
        began,
        current.claimed.now(),
        is_atomic=current.is_atomic,
        result=result,
        adopted=adopted,
        followers=tuple(current.followers),
        uncounted=current.uncounted,
        has_children=current.has_children,
    )


def _failure(
    definition: Definition, current: Run, error: BaseException, began: datetime
) -> Outcome:
    """The outcome of an attempt that raised; what an atomic one had made is rolled back."""
    claimed = current.claimed
    outcome = Outcome(
        claimed,
        Status.FAILURE,
        began,
        claimed.now(),
        is_atomic=current.is_atomic,
        followers=tuple(current.followers),
        has_children=current.has_children and not current.is_atomic,
        problem=problems.of(error),
    )
    if isinstance(error, TaskCancelled):
        return outcome._replace(
            status=Status.REVOKED, cause=Cause.CANCELLED, reason="cancelled", followers=()
        )
    if isinstance(error, Discard):
        said = problems.reason(error)
        return outcome._replace(
            status=Status.REVOKED,
            cause=Cause.DISCARDED,
            reason=f"discarded: {said}" if said else "discarded",
            problem=None,
            followers=(),
        )
    options = definition.options
    budget = options.retries if claimed.retries is None else claimed.retries
    used = claimed.attempt - claimed.attempts_before
    if used > budget:
        return outcome
    after = _retry_after(definition, error, used)
    return outcome if after is None else outcome._replace(status=Status.RETRY, retry_after=after)


def _retry_after(definition: Definition, error: BaseException, used: int) -> float | None:
    """Seconds until the next attempt; None when *error* is not one to retry.

    What the declaration's own callables raise is logged, and the attempt recorded all the same.
    """
    options = definition.options
    if not isinstance(error, Retry):
        try:
            if not retry.is_retryable(error, options.retry_exceptions):
                return None
        except Exception:
            logger.exception("retry_exceptions raised task=%s", definition.name)
            return None
    elif error.after is not None:
        return retry.bounded(error.after)
    try:
        return retry.delay(options.backoff, used)
    except Exception:
        logger.exception("backoff raised task=%s", definition.name)
        return retry.delay(None, used)


def fault(claimed: Claimed, error: BaseException) -> Outcome:
    """The outcome of a run in which the engine itself, not the task, went wrong."""
    now = claimed.now()
    return Outcome(claimed, Status.FAILURE, now, now, problem=problems.of(error))


def _hand_back(claimed: Claimed, began: datetime, *, is_atomic: bool) -> Outcome:
    return Outcome(claimed, Status.QUEUED, began, claimed.now(), is_atomic=is_atomic)


def _belongs_to_task(error: BaseException) -> bool:
    """Is this the task's own end? Ctrl-C, and a cancel of its asyncio task, are not."""
    if isinstance(error, asyncio.CancelledError):
        try:
            current = asyncio.current_task()
        except RuntimeError:
            return True
        # When nobody cancelled it, something that it awaited was cancelled.
        return current is not None and not current.cancelling()
    if isinstance(error, KeyboardInterrupt):
        return threading.current_thread() is not threading.main_thread()
    return True


def _is_closed_from_outside(error: BaseException, own: asyncio.Task[Any] | None) -> bool:
    """Was the coroutine of the asyncio task *own* thrown away, rather than that it raised?"""
    if not isinstance(error, GeneratorExit):
        return False
    try:
        return asyncio.current_task() is not own
    except RuntimeError:
        return True
