"""How does Django know the census?"""

from django.apps import AppConfig


class CensusConfig(AppConfig):
    """The census of installed source code."""

    name = "demo.census"
    label = "census"
    default_auto_field = "django.db.models.BigAutoField"
