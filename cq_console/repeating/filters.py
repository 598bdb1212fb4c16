"""By what can the list of repeating tasks be narrowed?"""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from cq.models import RepeatingTask

from .. import arguments
from . import queries

TEMPLATE = "cq_console/repeating/_filter.html"


class EnabledFilter(admin.BooleanFieldListFilter):
    template = TEMPLATE


class FunctionFilter(admin.SimpleListFilter):
    title = _("function")
    template = TEMPLATE
    parameter_name = "function"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        names = queries.functions(model_admin.get_queryset(request))
        return [(name, arguments.name_of(name).short) for name in names]

    def has_output(self) -> bool:
        return bool(self.lookup_choices)

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[RepeatingTask]
    ) -> QuerySet[RepeatingTask]:
        return queryset.filter(func_name=self.value()) if self.value() else queryset


class FailingFilter(admin.SimpleListFilter):
    title = _("state")
    template = TEMPLATE
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [("failing", _("failing"))]

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[RepeatingTask]
    ) -> QuerySet[RepeatingTask]:
        return queries.failing(queryset) if self.value() == "failing" else queryset
