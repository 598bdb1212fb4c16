"""How does one say what shall run after a task?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypeVar

from .states import Condition

FollowerT = TypeVar("FollowerT")


class Chainable(Generic[FollowerT]):
    """What followers can be put behind; each is chainable itself, so chains read left to right."""

    def chain(
        self,
        func: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        force_chain: bool = False,
    ) -> FollowerT:
        """A follower that runs when this one has succeeded (*force_chain*: has ended)."""
        condition = Condition.ALWAYS if force_chain else Condition.SUCCESS
        return self.follow(func, args, kwargs or {}, condition)

    def errorback(
        self, func: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> FollowerT:
        """A follower that runs only when this one has failed for good."""
        return self.follow(func, args, kwargs or {}, Condition.FAILURE)

    def follow(
        self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], condition: Condition
    ) -> FollowerT:
        """A follower on *condition*."""
        raise NotImplementedError
