"""How are processes set up that are to be killed? As the demo, but quick to start again."""

import json
import os

from demo.settings import *  # noqa: F403

INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "cq", "faults"]
MIDDLEWARE = []
TEMPLATES = []
ROOT_URLCONF = ""

# A package of the test's own, whose code it changes.
INSTALLED_APPS += [name for name in os.environ.get("FAULTS_APPS", "").split(",") if name]

CQ_LEASE = float(os.environ.get("FAULTS_LEASE", "30"))
CQ_HEARTBEAT = float(os.environ.get("FAULTS_HEARTBEAT", "0.5"))
CQ_POLL_INTERVAL = float(os.environ.get("FAULTS_POLL", "0.5"))
CQ_MAX_LOST = int(os.environ.get("FAULTS_MAX_LOST", "3"))

if "FAULTS_BUSY_TIMEOUT" in os.environ:
    DATABASES["default"]["OPTIONS"]["timeout"] = float(os.environ["FAULTS_BUSY_TIMEOUT"])  # noqa: F405

# How the project keeps its connections, as JSON: {"CONN_MAX_AGE": 60}, {"OPTIONS": {"pool": …}}
_kept = json.loads(os.environ.get("FAULTS_CONNECTIONS", "{}"))
_options = DATABASES["default"].get("OPTIONS", {}) | _kept.pop("OPTIONS", {})  # noqa: F405
DATABASES["default"] |= {**_kept, "OPTIONS": _options}  # noqa: F405
