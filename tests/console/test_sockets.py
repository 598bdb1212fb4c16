"""Who is told that something has changed?"""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest
from channels.layers import get_channel_layer
from channels.routing import URLRouter
from channels.testing import WebsocketCommunicator
from django.contrib.auth.models import AnonymousUser, Permission, User

from cq.hints import OVERVIEW_GROUP, tree_group
from cq_console import consumers
from cq_console.routing import websocket_urlpatterns

# However busy the machine is; what comes, comes at once.
SECONDS = 20

pytestmark = pytest.mark.django_db(transaction=True)


def connect_as(user: object, path: str) -> WebsocketCommunicator:
    router = URLRouter(websocket_urlpatterns)

    async def application(scope: dict[str, object], receive: object, send: object) -> None:
        await router({**scope, "user": user}, receive, send)

    return WebsocketCommunicator(application, path)


# What other tests have left to be said about a crowd of trees is not for these pages.
TREES_GROUP = f"cq-trees-{uuid4().hex}"


@pytest.fixture(autouse=True)
def trees_group_of_our_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumers, "TREES_GROUP", TREES_GROUP)


@pytest.fixture
def viewer() -> User:
    user = User.objects.create_user("vera", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="view_task"))
    return user


async def test_a_nudge_of_its_tree_reaches_a_page(viewer: User) -> None:
    root = uuid4()
    page = connect_as(viewer, f"/ws/cq/tree/{root}/")
    await page.connect(SECONDS)

    await get_channel_layer().group_send(tree_group(root), {"type": "cq.nudge", "root": root.hex})

    assert await page.receive_from(SECONDS) == "nudge"
    await page.disconnect()


async def test_a_nudge_for_all_trees_reaches_a_page(viewer: User) -> None:
    page = connect_as(viewer, f"/ws/cq/tree/{uuid4()}/")
    await page.connect(SECONDS)

    await get_channel_layer().group_send(TREES_GROUP, {"type": "cq.nudge", "root": ""})

    assert await page.receive_from(SECONDS) == "nudge"
    await page.disconnect()


async def test_a_nudge_of_another_tree_does_not(viewer: User) -> None:
    page = connect_as(viewer, f"/ws/cq/tree/{uuid4()}/")
    await page.connect(SECONDS)
    other = uuid4()

    await get_channel_layer().group_send(tree_group(other), {"type": "cq.nudge", "root": other.hex})

    assert await page.receive_nothing(0.1)
    await page.disconnect()


async def test_the_overview_is_nudged(viewer: User) -> None:
    page = connect_as(viewer, "/ws/cq/overview/")
    await page.connect(SECONDS)

    await get_channel_layer().group_send(OVERVIEW_GROUP, {"type": "cq.nudge", "root": ""})

    assert await page.receive_from(SECONDS) == "nudge"
    await page.disconnect()


async def test_what_a_page_says_is_ignored(viewer: User) -> None:
    # Its own tree: the overview is nudged by whatever else has just changed.
    root = uuid4()
    page = connect_as(viewer, f"/ws/cq/tree/{root}/")
    await page.connect(SECONDS)

    await page.send_to(text_data='{"type": "cq.nudge"}')

    assert await page.receive_nothing(0.1)
    await get_channel_layer().group_send(tree_group(root), {"type": "cq.nudge", "root": root.hex})
    assert await page.receive_from(SECONDS) == "nudge"
    await page.disconnect()


@pytest.fixture(params=["anonymous", "no staff", "no permission", "inactive"])
def stranger(request: pytest.FixtureRequest) -> object:
    if request.param == "anonymous":
        return AnonymousUser()
    fields = {
        "no staff": {"is_superuser": True},
        "no permission": {"is_staff": True},
        "inactive": {"is_staff": True, "is_superuser": True, "is_active": False},
    }
    return User.objects.create(username="sam", **fields[request.param])


async def test_who_may_not_look_is_told_nothing(stranger: object) -> None:
    page = connect_as(stranger, "/ws/cq/overview/")
    await page.connect(SECONDS)

    closed = await page.receive_output(SECONDS)
    await get_channel_layer().group_send(OVERVIEW_GROUP, {"type": "cq.nudge", "root": ""})

    assert closed == {"type": "websocket.close", "code": 4403}


async def test_a_channel_layer_that_is_down_ends_the_socket_in_order(
    viewer: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_args: object) -> None:
        raise ConnectionRefusedError("the layer is down")

    monkeypatch.setattr(get_channel_layer(), "group_add", fail)
    page = connect_as(viewer, f"/ws/cq/tree/{uuid4()}/")

    is_connected, code = await page.connect(SECONDS)

    assert (is_connected, code) == (False, consumers.TRY_AGAIN_LATER)
    await page.wait(SECONDS)


async def test_a_channel_layer_that_goes_down_ends_the_socket_in_order(
    viewer: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = asyncio.Event()

    async def receive(_channel: str) -> None:
        await gone.wait()
        raise ConnectionResetError("the layer went down")

    monkeypatch.setattr(get_channel_layer(), "receive", receive)
    page = connect_as(viewer, f"/ws/cq/tree/{uuid4()}/")
    is_connected, _protocol = await page.connect(SECONDS)
    assert is_connected

    gone.set()

    assert await page.receive_output(SECONDS) == {
        "type": "websocket.close",
        "code": consumers.TRY_AGAIN_LATER,
    }
    await page.wait(SECONDS)
