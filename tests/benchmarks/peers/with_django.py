"""How does the caller store the tasks of an engine behind Django's own interface?"""

import os

os.environ["DJANGO_SETTINGS_MODULE"] = "django_peers.settings"


def send(name, values):
    import django

    django.setup()
    from django_peers import tasks

    for value in values:
        getattr(tasks, name).enqueue(value)
