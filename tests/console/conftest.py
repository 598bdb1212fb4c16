"""Who looks at the console, and what is there to see?"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.models import Permission, User
from django.core.cache import cache
from django.test import Client
from django.utils import timezone

from cq.ids import uuid7
from cq.models import Task
from cq.states import DONE, Status
from cq_console.queries import speed
from cq_console.views import overview

Make = Callable[..., Task]
Staff = Callable[..., Client]


@pytest.fixture(scope="session", autouse=True)
def static_files_are_looked_for_when_asked_for() -> None:
    # Each client makes the middleware anew, which would list all of them.
    settings.WHITENOISE_AUTOREFRESH = True


@pytest.fixture(autouse=True)
def forget_what_is_shared() -> None:
    # The theme's row is cached, and rolled back with each test; so is what viewers share.
    cache.clear()
    overview.forget()
    speed.forget()


@pytest.fixture
def operator(db: None) -> Client:
    """A client who may do everything."""
    client = Client()
    client.force_login(User.objects.create_superuser("olga"))
    return client


@pytest.fixture
def staff(db: None) -> Staff:
    """A client of staff with just these permissions of cq."""

    def log_in(*codenames: str) -> Client:
        user = User.objects.create_user(f"staff{User.objects.count()}", is_staff=True)
        wanted = Permission.objects.filter(content_type__app_label="cq", codename__in=codenames)
        assert wanted.count() == len(codenames)
        user.user_permissions.set(wanted)
        client = Client()
        client.force_login(user)
        return client

    return log_in


@pytest.fixture
def make(db: None) -> Make:
    """A task as it is stored, without running anything."""

    def store(status: Status = Status.SUCCESS, **fields: Any) -> Task:
        parent = fields.get("parent")
        id = fields.pop("id", None) or uuid7()
        now: datetime = fields.pop("now", None) or timezone.now()
        if "root" not in fields:
            fields["root_id"] = parent.root_id if parent else id
        started = status not in (Status.PENDING, Status.QUEUED)
        values: dict[str, Any] = {
            "func_name": "shop.tasks.ship",
            "submitted": now - timedelta(seconds=9),
            "run_at": now - timedelta(seconds=9),
            "started": now - timedelta(seconds=7) if started else None,
            "finished": now - timedelta(seconds=2) if status in DONE else None,
            "ready": True if status == Status.QUEUED else None,
            "attempts": 1 if started else 0,
            "depth": parent.depth + 1 if parent else 0,
        }
        return Task.objects.create(id=id, status=status, **{**values, **fields})

    return store
