"""How does Django load the console?"""

from __future__ import annotations

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class CQConsoleConfig(AppConfig):
    name = "cq_console"
    verbose_name = _("CQ console")
    default_auto_field = "django.db.models.BigAutoField"
