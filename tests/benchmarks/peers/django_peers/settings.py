"""How is a project set up that does nothing but run the tasks of one engine, PEERS_ENGINE?"""

import os
from urllib.parse import urlsplit

BACKENDS = {
    "cq": "cq.backend.CQBackend",
    "django_ox": "django_ox.backend.OxBackend",
    "django_tasks_db": "django_tasks_db.DatabaseBackend",
}
_engine = os.environ["PEERS_ENGINE"]
_server = urlsplit(os.environ["PEERS_POSTGRES"])
SECRET_KEY = "peers"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", _engine, "django_peers"]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": _server.path[1:],
        "USER": _server.username,
        "PASSWORD": _server.password or "",
        "HOST": _server.hostname,
        "PORT": _server.port or 5432,
    }
}
TASKS = {"default": {"BACKEND": BACKENDS[_engine]}}
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "channels_redis.core.RedisChannelLayer",
        "CONFIG": {"hosts": [{"address": os.environ["PEERS_REDIS"], "socket_timeout": None}]},
    }
}
LOGGING = {"version": 1, "disable_existing_loggers": True}
