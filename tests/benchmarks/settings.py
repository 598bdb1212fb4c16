"""How is a project set up that does nothing but run benchmark tasks?"""

import os

from benchmarks import places
from demo.settings import channel_layer, database

SECRET_KEY = "benchmarks"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "cq", "benchmarks"]
DATABASES = {"default": database(places.database_url())}
CHANNEL_LAYERS = {
    "default": channel_layer(places.REDIS if os.environ.get("BENCH_CHANNELS") != "0" else None)
}
