"""What does the admin show in its section CQ?"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern, URLResolver, path

from cq import conf
from cq.models import Queue, Task, Worker

from . import guard
from .repeating import RepeatingTaskAdmin
from .views import bulk as bulk_views
from .views import export as export_views
from .views import failures as failure_views
from .views import overview as overview_views
from .views import queues as queue_views
from .views import task as task_views
from .views import task_edit, task_log, task_tree
from .views import tasks as tasks_views
from .views import verbs as verb_views
from .views import workers as worker_views

__all__ = ["QueueAdmin", "RepeatingTaskAdmin", "TaskAdmin", "WorkerAdmin"]

if TYPE_CHECKING:
    ReadOnlyBase = admin.ModelAdmin[Any]
else:
    ReadOnlyBase = admin.ModelAdmin


class ReadOnlyAdmin(ReadOnlyBase):
    """Pages of the console instead of the stock list and forms; nothing is added or deleted here.

    Every query of the console starts at ``get_queryset``, where a project may narrow rows.
    """

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).using(conf.get().database)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def at(self, route: str, view: Any, name: str) -> URLPattern:
        """An address of this admin: *view* gets the admin, then the request."""
        bound = partial(view, self)
        guarded = guard.guarded(self.admin_site, bound, f"cq.view_{self.opts.model_name}")
        return path(route, guarded, name=f"cq_{self.opts.model_name}_{name}")


@admin.register(Task)
class TaskAdmin(ReadOnlyAdmin):
    """The stock list counts twice for a search, and redirects parameters that it does not know."""

    def get_urls(self) -> list[URLPattern | URLResolver]:  # type: ignore[override]
        return [
            self.at("", tasks_views.show, "changelist"),
            self.at("_live/", tasks_views.refresh, "list_live"),
            self.at("_count/", tasks_views.count, "count"),
            self.at("_complete/", tasks_views.complete, "complete"),
            self.at("export.<slug:kind>", export_views.download, "export"),
            self.at("all/<slug:verb>/", bulk_views.on_all, "on_all"),
            self.at("_overview/", overview_views.refresh, "overview_live"),
            self.at("failures/", failure_views.show, "failures"),
            self.at("failures/_live/", failure_views.refresh, "failures_live"),
            self.at("failures/<slug:fingerprint>/retry/", verb_views.cause, "cause_retry"),
            self.at("do/", verb_views.selection, "selection"),
            self.at("<uuid:task_id>/", task_views.show, "change"),
            self.at("<uuid:task_id>/_live/", task_views.refresh, "live"),
            self.at("<uuid:task_id>/_level/", task_tree.level, "level"),
            self.at("<uuid:task_id>/_inspector/", task_tree.inspector, "inspector"),
            self.at("<uuid:task_id>/log/", task_log.download, "log"),
            self.at("<uuid:task_id>/do/edit/", task_edit.show, "edit"),
            self.at("<uuid:task_id>/do/<slug:verb>/", verb_views.one, "verb"),
        ]

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        return tasks_views.show(self, request)


@admin.register(Worker)
class WorkerAdmin(ReadOnlyAdmin):
    def get_urls(self) -> list[URLPattern | URLResolver]:  # type: ignore[override]
        return [
            self.at("", worker_views.show, "changelist"),
            self.at("_live/", worker_views.refresh, "live"),
            self.at("<int:worker_id>/<slug:verb>/", worker_views.ask, "ask"),
        ]


@admin.register(Queue)
class QueueAdmin(ReadOnlyAdmin):
    def get_urls(self) -> list[URLPattern | URLResolver]:  # type: ignore[override]
        return [
            self.at("", queue_views.show, "changelist"),
            self.at("_live/", queue_views.refresh, "live"),
            self.at("do/<slug:verb>/", queue_views.control, "control"),
        ]
