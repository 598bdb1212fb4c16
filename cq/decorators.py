"""How does a function become a task?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import update_wrapper
from typing import Any, overload

from asgiref.sync import sync_to_async

from . import conf, enqueue, registry, serial, workflow
from .exceptions import InvalidOption
from .models import Task
from .options import Options, override
from .registry import Call, Definition


class TaskFunction:
    """A function that can be called here and now, or stored to run in the background."""

    def __init__(
        self, definition: Definition, options: Options, overridden: frozenset[str] = frozenset()
    ) -> None:
        self.definition = definition
        self.options = options
        self.overridden = overridden
        update_wrapper(self, definition.func)

    def __repr__(self) -> str:
        return f"<task {self.name}>"

    @property
    def name(self) -> str:
        return self.definition.name

    @property
    def func(self) -> Callable[..., Any]:
        """The plain function, context first."""
        return self.definition.func

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run it here and now, without a row; return its result, raise its exception."""
        return serial.call_now(self._call(args, kwargs))

    def delay(self, *args: Any, **kwargs: Any) -> Task:
        """Store a call in the caller's transaction; it is queued when that commits.

        Raises `InvalidArguments` when the arguments do not fit or cannot be stored as JSON.
        """
        return self.delay_args(args, kwargs)

    def delay_args(
        self,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        submit: bool = True,
    ) -> Task:
        """`delay` with explicit arguments; with ``submit=False`` it waits for `Task.submit`."""
        call = self._call(args, kwargs)
        if conf.get().serial:
            return _run_serially(call) if submit else serial.SerialTask(call)  # type: ignore[return-value]
        return enqueue.enqueue(call, submit=submit)

    def delay_many(self, argument_tuples: Iterable[Sequence[Any]]) -> list[Task]:
        """Store a call for each tuple of arguments, in bulk and in one transaction."""
        calls = [self._call(args, None) for args in argument_tuples]
        if conf.get().serial:
            return [_run_serially(call) for call in calls]
        # A task's statements are watched, and broken off when it is cancelled: one at a time.
        return enqueue.enqueue_many(calls, may_run_ahead=workflow.current_run.get() is None)

    async def adelay(self, *args: Any, **kwargs: Any) -> Task:
        """The async twin of `delay`."""
        return await sync_to_async(self.delay)(*args, **kwargs)

    def using(self, **options: Any) -> TaskFunction:
        """The same task with other options, accepted wherever a task is."""
        changed = override(self.name, self.options, options)
        return TaskFunction(self.definition, changed, self.overridden | options.keys())

    def _call(self, args: Sequence[Any], kwargs: Mapping[str, Any] | None) -> Call:
        given = registry.positional(self.name, args)
        return Call(self.definition, self.options, self.overridden, given, kwargs or {})


def _run_serially(call: Call) -> Task:
    """Run *call* now, refusing what storing it would refuse."""
    registry.check_call(call.definition.name, call.args, call.kwargs)
    return serial.execute(call, serial.SerialTask(call))  # type: ignore[return-value]


@overload
def task(name: Callable[..., Any]) -> TaskFunction: ...
@overload
def task(
    name: str | None = None, **options: Any
) -> Callable[[Callable[..., Any]], TaskFunction]: ...
def task(name: Any = None, **options: Any) -> Any:
    """Declare a function as a task: ``@task``, ``@task("its.name")`` or ``@task(queue="mail")``.

    The function takes the run's context first. Raises `InvalidOption` at import when an option is
    unknown or out of range.
    """
    if callable(name):
        definition = registry.register(name, None, options)
        return TaskFunction(definition, definition.options)
    if name is not None and not isinstance(name, str):
        raise InvalidOption(f"@task takes a name, not {name!r}. Options go by keyword.")

    def declare(func: Callable[..., Any]) -> TaskFunction:
        definition = registry.register(func, name, options)
        return TaskFunction(definition, definition.options)

    return declare
