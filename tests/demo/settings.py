"""How is the demo project set up, on its own and under test?

Everything that differs from run to run comes from the environment:

DEMO_DATABASE_URL     sqlite:///path, postgresql://user@host:port/name, mysql://user@host:port/name
DEMO_REDIS_URL        unset: the in-memory channel layer, which serves one process
DEMO_EMBEDDED_WORKER  "0" when workers run as processes of their own (manage.py cq_runworker)
DEMO_SCHEDULER        "0" when nothing repeats: neither the hourly census nor the heartbeat
DEMO_CENSUS_ROOTS     folders to count instead of the standard library and site-packages
DEMO_INBOX            folder that is counted as well, a task for each file
DEMO_REPORTS          folder that the reports are written to
"""

import os
import sysconfig
import tempfile
import warnings
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

BASE_DIR = Path(__file__).resolve().parent


def database(url: str) -> dict[str, Any]:
    """Return the DATABASES entry for a database URL."""
    parts = urlsplit(url)
    if parts.scheme == "sqlite":
        return {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": unquote(parts.path).removeprefix("/"),
            # No transaction_mode: who writes takes the lock when it writes, so that a long
            # reader does not block everybody else.
            "OPTIONS": {
                "timeout": 10,
                "init_command": "PRAGMA journal_mode=WAL;PRAGMA synchronous=NORMAL",
            },
            # A file: threads cannot share an in-memory database. With the process id: two test
            # runs at a time do not meet in it.
            "TEST": {"NAME": str(Path(tempfile.gettempdir(), f"cq-test-{os.getpid()}.sqlite3"))},
        }
    engines = {"postgresql": "postgresql", "postgres": "postgresql", "mysql": "mysql"}
    entry: dict[str, Any] = {
        "ENGINE": f"django.db.backends.{engines[parts.scheme]}",
        "NAME": unquote(parts.path).removeprefix("/"),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": parts.hostname or "",
        "PORT": parts.port or "",
    }
    if parts.scheme == "mysql":
        entry["OPTIONS"] = {"charset": "utf8mb4"}
        entry["TEST"] = {"CHARSET": "utf8mb4", "COLLATION": "utf8mb4_unicode_ci"}
    return entry


def channel_layer(redis_url: str | None) -> dict[str, Any]:
    """Return the CHANNEL_LAYERS entry: Redis between processes, memory within one."""
    if not redis_url:
        return {"BACKEND": "channels.layers.InMemoryChannelLayer"}
    return {
        "BACKEND": "channels_redis.core.RedisChannelLayer",
        # redis-py 8 gives up on a silent socket after five seconds, which would close every
        # console that waits for news.
        "CONFIG": {"hosts": [{"address": redis_url, "socket_timeout": None}]},
    }


SECRET_KEY = "the demo listens on the loopback interface only"
DEBUG = False
ALLOWED_HOSTS = ["127.0.0.1", "localhost", "[::1]", "testserver"]

INSTALLED_APPS = [
    "daphne",
    "admin_interface",
    "colorfield",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "channels",
    "django_htmx",
    "cq",
    "cq_console",
    "demo.census",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "demo.urls"
ASGI_APPLICATION = "demo.asgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

DATABASES = {
    "default": database(
        os.environ.get("DEMO_DATABASE_URL") or f"sqlite:///{BASE_DIR / 'db.sqlite3'}"
    )
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
CHANNEL_LAYERS = {"default": channel_layer(os.environ.get("DEMO_REDIS_URL"))}

USE_TZ = True
TIME_ZONE = "UTC"
LANGUAGE_CODE = "en"
LANGUAGES = [("en", "English")]

STATIC_URL = "/static/"
WHITENOISE_USE_FINDERS = True

# The admin's theme shows its related-object dialogs in frames.
X_FRAME_OPTIONS = "SAMEORIGIN"
SILENCED_SYSTEM_CHECKS = ["security.W019"]

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "{asctime} {levelname:<7} {name} {message}", "style": "{"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["console"], "level": "WARNING"},
    "loggers": {"django.channels.server": {"level": "WARNING"}},
}

DEMO_EMBEDDED_WORKER = os.environ.get("DEMO_EMBEDDED_WORKER", "1") != "0"
CQ_SCHEDULER = os.environ.get("DEMO_SCHEDULER", "1") != "0"
DEMO_INBOX = os.environ.get("DEMO_INBOX") or str(BASE_DIR / "inbox")
DEMO_REPORTS = os.environ.get("DEMO_REPORTS") or str(BASE_DIR / "reports")
DEMO_CENSUS_ROOTS = [
    folder for folder in os.environ.get("DEMO_CENSUS_ROOTS", "").split(os.pathsep) if folder
] or [sysconfig.get_path("stdlib"), sysconfig.get_path("purelib")]

# The census parses other people's code; what Python thinks of their escapes is not our news.
warnings.filterwarnings("ignore", category=SyntaxWarning)
