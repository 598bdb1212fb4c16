"""How does Django load the engine?"""

from __future__ import annotations

from django.apps import AppConfig
from django.utils.module_loading import autodiscover_modules
from django.utils.translation import gettext_lazy as _


class CQConfig(AppConfig):
    name = "cq"
    verbose_name = _("CQ")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from . import checks, database  # noqa: F401

        # Every installed app's tasks are known by name before the first one is claimed.
        autodiscover_modules("tasks")
