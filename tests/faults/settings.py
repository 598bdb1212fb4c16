"""How are processes set up that are to be killed? As the demo, but quick to start again."""

import os

from demo.settings import *  # noqa: F403

INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "cq", "faults"]
MIDDLEWARE = []
TEMPLATES = []
ROOT_URLCONF = ""

CQ_LEASE = float(os.environ.get("FAULTS_LEASE", "30"))
CQ_HEARTBEAT = float(os.environ.get("FAULTS_HEARTBEAT", "0.5"))
CQ_POLL_INTERVAL = float(os.environ.get("FAULTS_POLL", "0.5"))
CQ_MAX_LOST = int(os.environ.get("FAULTS_MAX_LOST", "3"))

if "FAULTS_BUSY_TIMEOUT" in os.environ:
    DATABASES["default"]["OPTIONS"]["timeout"] = float(os.environ["FAULTS_BUSY_TIMEOUT"])  # noqa: F405
