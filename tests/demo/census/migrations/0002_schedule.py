"""Which tasks does the demo repeat?"""

from typing import Any

from django.db import migrations

from cq.models import schedule_task


def schedule(apps: Any, schema_editor: Any) -> None:
    """Add the demo's two repeating tasks."""
    from demo.census.tasks import census, heartbeat

    RepeatingTask = apps.get_model("cq", "RepeatingTask")
    schedule_task(
        RepeatingTask,
        "@hourly",
        census,
        name="Census",
        coalesce=True,
        overlap=False,
        missed="skip",
    )
    schedule_task(
        RepeatingTask,
        "* * * * *",
        heartbeat,
        name="Heartbeat",
        result_ttl=600,
        missed="skip",
    )


def unschedule(apps: Any, schema_editor: Any) -> None:
    """Remove them again."""
    apps.get_model("cq", "RepeatingTask").objects.filter(name__in=["Census", "Heartbeat"]).delete()


class Migration(migrations.Migration):
    dependencies = [("census", "0001_initial"), ("cq", "0001_initial")]

    operations = [migrations.RunPython(schedule, unschedule)]
