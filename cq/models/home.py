"""In which database are the rows looked for?"""

from __future__ import annotations

from typing import Any, TypeVar

from django.db import models

from .. import conf

ModelT_co = TypeVar("ModelT_co", bound=models.Model, covariant=True)


class HomeManager(models.Manager[ModelT_co]):
    """Asks the database that holds the tasks, unless another one is named by ``using()``.

    So ``Task.objects`` means the same in a project that sets ``CQ_DATABASE`` and has no router.
    """

    def get_queryset(self) -> models.QuerySet[ModelT_co]:
        manager: Any = self
        found: models.QuerySet[ModelT_co] = manager._queryset_class(
            model=self.model, using=self._db or conf.get().database, hints=manager._hints
        )
        return found
