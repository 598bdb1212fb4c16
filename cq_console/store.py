"""From which database does the console read?"""

from __future__ import annotations

from typing import TypeVar

from django.db.models import Model, QuerySet

from cq import conf

ModelT = TypeVar("ModelT", bound=Model)


def rows(model: type[ModelT]) -> QuerySet[ModelT]:
    """The rows of *model* in the database that holds the tasks, whatever a router says."""
    return model._default_manager.using(conf.get().database)
