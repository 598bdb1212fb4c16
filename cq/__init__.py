"""What does a Django project import to declare and steer its background tasks?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "1.0.0.dev0"

if TYPE_CHECKING:
    from .decorators import task
    from .exceptions import CQError, Discard, Retry, TaskCancelled, TaskTimeout
    from .signature import PREVIOUS

__all__ = [
    "PREVIOUS",
    "CQError",
    "Discard",
    "Retry",
    "TaskCancelled",
    "TaskTimeout",
    "__version__",
    "task",
]

_HOMES = {
    "task": "decorators",
    "PREVIOUS": "signature",
    "CQError": "exceptions",
    "Discard": "exceptions",
    "Retry": "exceptions",
    "TaskCancelled": "exceptions",
    "TaskTimeout": "exceptions",
}


def __getattr__(name: str) -> Any:
    # Late, so that `import cq` is allowed in settings, before Django is configured.
    try:
        home = _HOMES[name]
    except KeyError:
        raise AttributeError(f"module 'cq' has no attribute {name!r}") from None
    from importlib import import_module

    return getattr(import_module(f"cq.{home}"), name)
