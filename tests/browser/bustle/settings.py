"""How is the demo set up with tasks that keep a page busy?"""

from demo.settings import *  # noqa: F403
from demo.settings import INSTALLED_APPS as DEMO_APPS

INSTALLED_APPS = [*DEMO_APPS, "browser.bustle"]
