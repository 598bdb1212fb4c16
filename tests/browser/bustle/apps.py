"""Which app do the tasks of the browser tests belong to?"""

from django.apps import AppConfig


class BustleConfig(AppConfig):
    name = "browser.bustle"
    label = "bustle"
