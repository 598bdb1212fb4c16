"""How is a partial index laid out on a database that knows none?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.core.checks import CheckMessage
from django.db import models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor


class HasPartialIndexes(models.Model):
    """A model whose indexes serve databases without partial indexes as well, and are meant to."""

    class Meta:
        abstract = True

    @classmethod
    def check(cls, **kwargs: Any) -> list[CheckMessage]:
        # Django warns that conditions are ignored there; `PartialIndex` takes care of that.
        return [found for found in super().check(**kwargs) if found.id != "models.W037"]


class PartialIndex(models.Index):
    """An index of the rows that meet *condition*; of all rows on MariaDB and MySQL.

    Django leaves a conditional index out where the database knows none. There *leading*, columns
    that tell the rows apart, come first instead, so that the same query stays as cheap.
    """

    def __init__(self, *, leading: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.leading = list(leading)

    def create_sql(
        self,
        model: type[models.Model],
        schema_editor: BaseDatabaseSchemaEditor,
        using: str = "",
        **kwargs: Any,
    ) -> Any:
        if schema_editor.connection.features.supports_partial_indexes:
            return super().create_sql(model, schema_editor, using=using, **kwargs)
        full = models.Index(fields=[*self.leading, *self.fields], name=self.name)
        return full.create_sql(model, schema_editor, using=using, **kwargs)

    def deconstruct(self) -> tuple[str, Sequence[Any], dict[str, Any]]:
        path, args, kwargs = super().deconstruct()
        if self.leading:
            kwargs["leading"] = self.leading
        return path, args, kwargs
