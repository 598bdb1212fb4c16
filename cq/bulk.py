"""How do new task rows, one or very many, reach each database in one statement?

Every task pays for this write. The ORM would prepare each of some forty columns for every row; here
only those that differ from the column's default are sent, prepared once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from math import inf
from operator import itemgetter
from typing import Any, NamedTuple
from uuid import UUID

from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models.base import ModelState

from . import prepared
from .database import connection
from .ids import uuid7
from .models import Task

BATCH = 500


class _Column(NamedTuple):
    name: str
    type: str  # as PostgreSQL calls it


_ALWAYS = (
    _Column("id", "uuid"),
    _Column("status", "text"),
    _Column("func_name", "text"),
    _Column("args", "jsonb"),
    _Column("kwargs", "jsonb"),
    _Column("named", "jsonb"),
    _Column("queue", "text"),
    _Column("priority", "int2"),
    _Column("ready", "bool"),
    _Column("root_id", "uuid"),
)
_WHEN_SET = (
    _Column("cause", "text"),
    _Column("reason", "text"),
    _Column("parent_id", "uuid"),
    _Column("parent_claim", "int4"),
    _Column("previous_id", "uuid"),
    _Column("depth", "int2"),
    _Column("condition", "text"),
    _Column("has_followers", "bool"),
    _Column("replaces_id", "uuid"),
    _Column("retries", "int4"),
    _Column("timeout", "float8"),
    _Column("result_ttl", "int4"),
    _Column("expires", "int4"),
    _Column("coalesce_key", "text"),
)
_values_when_set = itemgetter(*(column.name for column in _WHEN_SET))
_RUN_AT = _Column("run_at", "timestamptz")
_TIMES = ("run_at", "submitted")
_JSON = {"args", "kwargs", "named"}


class Draft(NamedTuple):
    """The JSON texts of a task that is not stored yet; they were made when it was checked."""

    args: str
    kwargs: str
    named: str


def new_task(draft: Draft, **values: Any) -> Task:
    """A `Task` as its constructor would make it, without its cost for every field.

    ``id`` and ``root_id`` may be left out: it heads a family of its own then.
    """
    task = Task.__new__(Task)
    task_id = uuid7()
    task.__dict__ = {
        **_template(),
        "_state": ModelState(),
        "_draft": draft,
        "id": task_id,
        "root_id": task_id,
        **values,
    }
    return task


def twin(task: Task) -> Task:
    """The same new task once more: one whose insert was rolled back is not inserted again."""
    other = Task.__new__(Task)
    other.__dict__ = {**task.__dict__, "_state": ModelState()}
    return other


def insert(tasks: Sequence[Task]) -> None:
    """Insert rows made by `new_task`, in the caller's transaction.

    Of a single row the times that the database chose are read back; of many they are read when
    somebody asks. A row whose time is an expression goes through the ORM.
    """
    current = connection()
    computed, timed, plain = [], [], []
    for task in tasks:
        if _is_computed(task):
            computed.append(task)
        elif _has_run_at(task):
            timed.append(task)
        else:
            plain.append(task)
    for group in (timed, plain):
        for start in range(0, len(group), BATCH):
            part = group[start : start + BATCH]
            if len(part) == 1:
                _send_one(part[0], current)
            else:
                _send_many(part, current)
    if computed:
        Task.objects.using(current.alias).bulk_create([_ordinary(task) for task in computed])
        for task in computed:
            _mark_stored(task, current.alias)


def _send_one(task: Task, current: BaseDatabaseWrapper) -> None:
    """Insert one row, as every `delay()` does; the statement is put together once."""
    values, usual = task.__dict__, _template()
    is_usual = _values_when_set(values) == _usual_values() and not _has_run_at(task)
    # Within a transaction what was prepared could not be missed without harm.
    if is_usual and prepared.may_go_alone(current) and _send_prepared(task, current):
        return
    names = [name for name, _type in _ALWAYS]
    names += [name for name, _type in _WHEN_SET if values[name] != usual[name]]
    if _has_run_at(task):
        names.append(_RUN_AT.name)
    returns = current.features.can_return_columns_from_insert
    with current.cursor() as cursor:
        cursor.execute(
            _insert_one(tuple(names), current.vendor, returns),
            [_preparer(name, current.vendor)(task, current) for name in names],
        )
        times = cursor.fetchone() if returns else None
    _mark_stored(task, current.alias)
    if times is not None:
        for name, value in zip(_TIMES, times, strict=True):
            values[name] = _as_datetime(name, value, current)


# From this INSERT in a session on: to prepare one costs two round trips.
_PREPARED_AFTER = 3


def _send_prepared(task: Task, current: BaseDatabaseWrapper) -> bool:
    """Insert one without columns of its own by a prepared statement; False: nothing was done."""
    driver: Any = current.connection
    statement = _insert_prepared()
    if not prepared.is_ready(statement, driver, after=_PREPARED_AFTER):
        return False
    if "\0" in task.func_name:
        # It would end there; what else is text has been checked.
        return False
    try:
        given = _as_bytes(task.__dict__)
    except UnicodeEncodeError:
        return False
    answer = prepared.run(statement, driver, given)
    if answer is None:
        return False
    _mark_stored(task, current.alias)
    for place, name in enumerate(_TIMES):
        since = int.from_bytes(answer.get_value(0, place), "big", signed=True)
        task.__dict__[name] = _EPOCH + timedelta(microseconds=since)
    return True


def _as_bytes(values: dict[str, Any]) -> list[bytes | None]:
    """What stands in the columns `_ALWAYS`, in their order, as PostgreSQL reads it."""
    own_id, root_id = str(values["id"]), values["root_id"]
    given = (
        own_id,
        values["status"],
        values["func_name"],
        *values["_draft"],
        values["queue"],
        values["priority"],
        values["ready"],
        own_id if root_id is values["id"] else root_id,
    )
    return [None if value is None else str(value).encode() for value in given]


# From here on PostgreSQL counts the microseconds of its times.
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


@cache
def _insert_prepared() -> prepared.Statement:
    names = tuple(name for name, _type in _ALWAYS)
    sql = _insert_one(names, "postgresql", True)
    types = tuple(type_ for _name, type_ in _ALWAYS)
    return prepared.Statement("cq_insert", types, sql, seconds=inf)


@cache
def _insert_one(names: tuple[str, ...], vendor: str, returns: bool) -> str:
    marks = ", ".join(["%s"] * len(names))
    returning = f" RETURNING {', '.join(_TIMES)}" if returns else ""
    return f"{_into(names, vendor)} VALUES ({marks}){returning}"


def _send_many(tasks: Sequence[Task], current: BaseDatabaseWrapper) -> None:
    columns = [*_ALWAYS, *_set_columns(tasks)]
    if _has_run_at(tasks[0]):
        columns.append(_RUN_AT)
    names = tuple(column.name for column in columns)
    values = []
    for name in names:
        prepare = _preparer(name, current.vendor)
        values.append([prepare(task, current) for task in tasks])
    with current.cursor() as cursor:
        if current.vendor == "postgresql":
            cursor.execute(*_from_arrays(_into(names, current.vendor), columns, values))
        else:
            cursor.executemany(
                _insert_one(names, current.vendor, False), list(zip(*values, strict=True))
            )
    for task in tasks:
        _mark_stored(task, current.alias)


@cache
def _into(names: tuple[str, ...], vendor: str) -> str:
    """Quoted as *vendor*, that of the task database, does it; the words are made once."""
    quote = connection().ops.quote_name
    columns = ", ".join(quote(name) for name in names)
    return f"INSERT INTO {quote(Task._meta.db_table)} ({columns})"


def _from_arrays(
    into: str, columns: Sequence[_Column], values: Sequence[list[Any]]
) -> tuple[str, list[Any]]:
    """An INSERT of all rows at once; a column in which they agree is sent once, not as an array."""
    selected, unnested, same = [], [], []
    arrays: list[Any] = []
    ids = values[0]
    for (name, type_), given in zip(columns, values, strict=True):
        if name == "root_id" and given == ids:
            selected.append("given.id")
        elif given.count(given[0]) == len(given):
            selected.append(f"%s::{type_}")
            same.append(given[0])
        elif name in _JSON:
            # One text: an array is dumped element by element. JSON holds no such character.
            selected.append(f"given.{name}::jsonb")
            unnested.append((name, "string_to_array(%s, E'\\x1f')"))
            arrays.append("\x1f".join(given))
        else:
            selected.append(f"given.{name}")
            unnested.append((name, f"%s::{type_}[]"))
            arrays.append(_id_array(given) if type_ == "uuid" else given)
    names = ", ".join(name for name, _array in unnested)
    sources = ", ".join(array for _name, array in unnested)
    sql = f"{into} SELECT {', '.join(selected)} FROM unnest({sources}) AS given({names})"
    return sql, [*same, *arrays]


def _id_array(ids: Sequence[UUID | None]) -> str:
    """An array as PostgreSQL reads it; the driver would make each id's text anew, in Python."""
    return f"{{{','.join(['NULL' if one is None else one.hex for one in ids])}}}"


@cache
def _preparer(name: str, vendor: str) -> Callable[[Task, BaseDatabaseWrapper], Any]:
    """How does this database's driver take the column *name* of a task?"""
    if name in _JSON:
        return lambda task, _current: getattr(task.__dict__["_draft"], name)
    field: Any = Task._meta.get_field(name)
    is_id = name == "id" or name.endswith("_id")
    if (is_id and vendor != "postgresql") or name == _RUN_AT.name:
        return lambda task, current: field.get_db_prep_save(task.__dict__[name], current)
    if isinstance(field, (models.CharField, models.TextField)):
        return lambda task, _current: _exact_text(task.__dict__[name])
    return lambda task, _current: task.__dict__[name]


def _exact_text(value: str | None) -> str | None:
    """Not a member of an enumeration: drivers adapt by the exact type."""
    return None if value is None else str(value)


def _set_columns(tasks: Sequence[Task]) -> list[_Column]:
    """Those of `_WHEN_SET` in which any of *tasks* differs from the column's default."""
    usual = _usual_values()
    given = {_values_when_set(task.__dict__) for task in tasks}
    return [
        column
        for place, column in enumerate(_WHEN_SET)
        if any(values[place] != usual[place] for values in given)
    ]


def _has_run_at(task: Task) -> bool:
    return task.__dict__.get("run_at") is not None


def _is_computed(task: Task) -> bool:
    """Does one of its times depend on the database's clock?"""
    return task.__dict__["expires_at"] is not None or hasattr(
        task.__dict__["run_at"], "resolve_expression"
    )


def _ordinary(task: Task) -> Task:
    """The same row as the ORM's constructor makes it, with the defaults of the database."""
    given = {
        field.attname: task.__dict__[field.attname]
        for field in Task._meta.concrete_fields
        if field.attname not in _TIMES or task.__dict__[field.attname] is not None
    }
    return Task(**given)


def _mark_stored(task: Task, alias: str) -> None:
    """It is in the database now; the next look at a time that was chosen there reads it there."""
    del task.__dict__["_draft"]
    task._state.adding = False
    task._state.db = alias
    for name in (*_TIMES, "expires_at"):
        value = task.__dict__[name]
        if (name in _TIMES and value is None) or hasattr(value, "resolve_expression"):
            del task.__dict__[name]


def _as_datetime(name: str, value: Any, current: BaseDatabaseWrapper) -> Any:
    if current.vendor == "postgresql":
        return value  # the driver has converted it
    field: Any = Task._meta.get_field(name)
    column = field.get_col(Task._meta.db_table)
    for convert in current.ops.get_db_converters(column) + column.get_db_converters(current):
        value = convert(value, column, current)
    return value


@cache
def _usual_values() -> tuple[Any, ...]:
    return tuple(_values_when_set(_template()))


@cache
def _template() -> dict[str, Any]:
    """What every new task has in common; the times are the database's."""
    fresh = Task()
    common = {
        field.attname: getattr(fresh, field.attname)
        for field in Task._meta.concrete_fields
        if not isinstance(field, models.DateTimeField)
    }
    moments = {
        field.attname: None
        for field in Task._meta.concrete_fields
        if isinstance(field, models.DateTimeField)
    }
    return common | moments
