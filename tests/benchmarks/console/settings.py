"""How is a project set up whose console is measured?"""

from benchmarks import places
from demo.settings import *  # noqa: F403
from demo.settings import INSTALLED_APPS as DEMO_APPS
from demo.settings import channel_layer, database

ROOT_URLCONF = "benchmarks.console.urls"
INSTALLED_APPS = [app for app in DEMO_APPS if app != "demo.census"] + ["benchmarks"]
DATABASES = {"default": database(places.database_url())}
CHANNEL_LAYERS = {"default": channel_layer(places.REDIS)}
