"""What does a worker process of the fault suite do when Django is ready?"""

from django.apps import AppConfig


class FaultsConfig(AppConfig):
    """Brings the faults that the environment orders, and the tasks that meet them."""

    name = "faults"

    def ready(self) -> None:
        from . import injection, tasks

        assert tasks
        injection.install()
