"""Do hints reach who should look, and cost nobody anything when they cannot?"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from channels.layers import get_channel_layer
from pytest_django import Settings

from cq import hints
from cq.hints import outbox

IN_MEMORY = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}


def until(condition: Callable[[], object], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.005)


@pytest.fixture
def in_memory(settings: Settings) -> Iterator[None]:
    settings.CHANNEL_LAYERS = IN_MEMORY
    yield
    hints.use_loop(None)


class Console:
    """A consumer that has joined *groups*, on the running loop."""

    def __init__(self, *groups: str) -> None:
        self.groups = groups
        self.layer: Any = get_channel_layer()
        self.channel = ""

    async def join(self) -> Console:
        hints.use_loop(asyncio.get_running_loop())
        self.channel = await self.layer.new_channel()
        for group in self.groups:
            await self.layer.group_add(group, self.channel)
        return self

    async def receive_until_silent(self, seconds: float) -> list[dict[str, Any]]:
        received = []
        while True:
            try:
                async with asyncio.timeout(seconds):
                    received.append(await self.layer.receive(self.channel))
            except TimeoutError:
                return received


async def test_a_nudge_from_a_thread_reaches_the_consoles_of_its_tree_only(in_memory: None) -> None:
    root, other = uuid.uuid4(), uuid.uuid4()
    console = await Console(hints.tree_group(root)).join()

    await asyncio.to_thread(hints.nudge, other)
    await asyncio.to_thread(hints.nudge, root)

    received = await console.receive_until_silent(0.3)
    assert received == [{"type": "cq.nudge", "root": root.hex}]


async def test_many_nudges_of_one_tree_become_the_first_and_the_last(in_memory: None) -> None:
    root = uuid.uuid4()
    console = await Console(hints.tree_group(root)).join()
    hints.nudge(root)
    first = await console.receive_until_silent(0.1)

    def nudge_often() -> None:
        for _ in range(500):
            hints.nudge(root)

    await asyncio.to_thread(nudge_often)

    assert len(first) == 1
    assert len(await console.receive_until_silent(0.7)) == 1


async def test_the_overview_is_nudged_without_naming_a_tree(in_memory: None) -> None:
    console = await Console(hints.OVERVIEW_GROUP).join()

    await asyncio.to_thread(hints.nudge_overview)

    received = await console.receive_until_silent(0.1)
    assert received == [{"type": "cq.nudge", "root": ""}]


async def test_a_crowd_of_trees_is_nudged_as_one(in_memory: None) -> None:
    console = await Console(hints.TREES_GROUP).join()
    roots = [uuid.uuid4() for _ in range(2_000)]
    last = await Console(hints.tree_group(roots[-1])).join()

    for root in roots:
        hints.nudge(root)

    assert 1 <= len(await console.receive_until_silent(0.7)) <= 2
    assert len(await last.receive_until_silent(0.05)) <= 1
    assert len(outbox.outbox().nudges) == 0


def test_a_wake_goes_to_a_receiver_of_its_queue(in_memory: None) -> None:
    woken: list[str] = []
    receiver = hints.Receiver(["mail", "default"], woken.append, lambda message: None)
    receiver.start()

    hints.wake("elsewhere")
    hints.wake("mail")
    until(lambda: woken)
    hints.wake("default")
    until(lambda: len(woken) == 2)

    receiver.stop()
    assert woken == ["mail", "default"]


def test_a_control_message_goes_to_every_receiver(in_memory: None) -> None:
    heard: list[list[Any]] = [[], []]
    receivers = [hints.Receiver([], lambda queue: None, into.append) for into in heard]
    for receiver in receivers:
        receiver.start()
    layer: Any = get_channel_layer()
    until(lambda: len(layer.groups.get(hints.CONTROL_GROUP, ())) == 2)

    hints.control({"verb": "cancel", "task": "ab"})

    until(lambda: all(heard))
    for receiver in receivers:
        receiver.stop()
    assert heard == [[{"type": "cq.control", "verb": "cancel", "task": "ab"}]] * 2
    assert layer.groups.get(hints.CONTROL_GROUP, {}) == {}


def test_a_receiver_takes_no_wake_while_it_does_not_listen(in_memory: None) -> None:
    woken: list[str] = []
    receiver = hints.Receiver(["mail"], woken.append, lambda message: None)
    receiver.start()
    hints.wake("mail")
    until(lambda: woken)

    receiver.listening = False
    hints.wake("mail")
    layer: Any = get_channel_layer()
    until(lambda: receiver._parked and "cq-tasks.mail" in layer.channels)
    taken_while_busy = len(woken)
    receiver.listening = True
    until(lambda: len(woken) == 2)

    receiver.stop()
    assert taken_while_busy == 1


def test_listening_may_be_switched_from_any_thread_without_losing_a_wake(in_memory: None) -> None:
    woken = threading.Semaphore(0)
    receiver = hints.Receiver(["mail"], lambda queue: woken.release(), lambda message: None)
    receiver.start()

    for _ in range(300):
        receiver.listening = False
        hints.wake("mail")
        receiver.listening = True
        assert woken.acquire(timeout=5)

    receiver.stop()


def test_a_receiver_can_be_given_other_queues(in_memory: None) -> None:
    woken: list[str] = []
    receiver = hints.Receiver(["old"], woken.append, lambda message: None)
    receiver.start()

    receiver.serve(["new"])
    hints.wake("new")
    until(lambda: woken == ["new"])
    hints.wake("old")
    hints.wake("new")
    until(lambda: len(woken) == 2)

    receiver.stop()
    assert woken == ["new", "new"]


def test_a_stopped_receiver_can_be_started_again(in_memory: None) -> None:
    woken: list[str] = []
    receiver = hints.Receiver(["mail"], woken.append, lambda message: None)
    receiver.start()
    receiver.stop()

    receiver.start()
    hints.wake("mail")

    until(lambda: woken)
    receiver.stop()


def test_an_error_in_a_callback_is_logged_and_does_not_end_the_receiving(
    in_memory: None, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[str] = []

    def fail_first(queue: str) -> None:
        calls.append(queue)
        if len(calls) == 1:
            raise RuntimeError("not today")

    receiver = hints.Receiver(["mail"], fail_first, lambda message: None)
    receiver.start()
    hints.wake("mail")
    until(lambda: len(calls) == 1)
    hints.wake("mail")
    until(lambda: len(calls) == 2)

    receiver.stop()
    assert "not today" in caplog.text


async def test_the_worker_beside_a_server_receives_on_the_servers_loop(in_memory: None) -> None:
    hints.use_loop(asyncio.get_running_loop())
    threads: list[int] = []
    receiver = hints.Receiver(
        ["mail"], lambda queue: threads.append(threading.get_ident()), lambda message: None
    )
    receiver.start()

    await asyncio.to_thread(hints.wake, "mail")
    await asyncio.to_thread(until, lambda: threads)

    receiver.stop()
    assert threads == [threading.get_ident()]


def test_a_subscription_brings_the_nudges_of_a_tree(in_memory: None) -> None:
    root = uuid.uuid4()
    heard: list[Any] = []
    subscription = hints.Subscription(hints.tree_group(root), heard.append)
    subscription.start()
    layer: Any = get_channel_layer()
    until(lambda: layer.groups)

    hints.nudge(root)

    until(lambda: heard)
    subscription.stop()
    assert heard == [{"type": "cq.nudge", "root": root.hex}]


async def test_stopping_on_an_event_loop_does_not_hold_it_up(
    in_memory: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer: Any = get_channel_layer()
    subscription = hints.Subscription("group", lambda message: None)
    subscription.start()
    await asyncio.to_thread(until, lambda: layer.groups)
    leaving = threading.Event()

    async def never(group: str, channel: str) -> None:
        leaving.set()
        await asyncio.sleep(60)

    monkeypatch.setattr(layer, "group_discard", never)
    began = time.monotonic()

    subscription.stop()

    assert time.monotonic() - began < 0.3
    assert await asyncio.to_thread(leaving.wait, 5)


def test_without_a_channel_layer_nothing_is_kept_and_no_thread_runs(
    settings: Settings,
) -> None:
    settings.CHANNEL_LAYERS = {}
    receiver = hints.Receiver(["mail"], lambda queue: None, lambda message: None)

    receiver.start()
    hints.wake("mail")
    hints.control({"verb": "quiet"})
    hints.nudge(uuid.uuid4())
    hints.nudge_overview()
    receiver.listening = True
    receiver.stop()

    box = outbox.outbox()
    assert (box.wakes, box.nudges) == ({}, {})
    assert not [thread for thread in threading.enumerate() if thread.name == "cq-hints"]


def test_another_layer_can_be_named(settings: Settings) -> None:
    settings.CHANNEL_LAYERS = {"hints": IN_MEMORY["default"]}
    settings.CQ_CHANNEL_LAYER = "hints"

    hints.wake("mail")

    layer: Any = get_channel_layer("hints")
    until(lambda: "cq-tasks.mail" in layer.channels)


def test_a_layer_that_cannot_be_made_is_reported_once_and_raises_nothing(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": "nowhere.Layer"}}

    hints.wake("mail")
    hints.wake("mail")

    assert caplog.text.count("no hints: channel layer 'default' cannot be made") == 1


def test_wakes_of_one_queue_that_are_still_pending_are_one(in_memory: None) -> None:
    box = outbox.Outbox()

    for number in range(1_000):
        box._draining = True  # nobody empties it
        box.add_wake(f"queue{number % 3}")

    assert list(box.wakes) == ["queue0", "queue1", "queue2"]


def test_the_oldest_pending_hint_is_dropped_when_the_box_is_full(in_memory: None) -> None:
    box = outbox.Outbox()
    box._draining = True

    for number in range(outbox.KEPT + 5):
        box.add_wake(f"queue{number}")
        box.add_control({"verb": "cancel", "task": str(number)})

    assert next(iter(box.wakes)) == "queue5"
    assert next(hint.message["task"] for hint in box._controls) == "5"
    assert len(box.wakes) == len(box._controls) == outbox.KEPT


async def test_hints_for_a_loop_that_has_ended_are_dropped(in_memory: None) -> None:
    ended = asyncio.new_event_loop()
    ended.close()
    hints.use_loop(ended)

    hints.wake("mail")
    hints.control({"verb": "quiet"})

    assert outbox.outbox().wakes == {}
    hints.use_loop(asyncio.get_running_loop())
    hints.wake("mail")
    layer: Any = get_channel_layer()
    async with asyncio.timeout(1):
        assert await layer.receive("cq-tasks.mail") == {"type": "cq.wake", "queue": "mail"}


@pytest.mark.parametrize("end", ["closed by the collector", "cancelled"])
def test_a_loop_that_ends_while_it_sends_leaves_the_next_hint_free(
    in_memory: None, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    layer: Any = get_channel_layer()

    async def send(_group: str, _message: object) -> None:
        try:
            await asyncio.Future()
        finally:
            # As redis-py does when it gives up its connection.
            asyncio.get_running_loop()

    ended = asyncio.new_event_loop()
    hints.use_loop(ended)
    with monkeypatch.context() as patched:
        patched.setattr(layer, "group_send", send)
        hints.control({"verb": "quiet"})
        ended.run_until_complete(asyncio.sleep(0.01))
        (drain,) = asyncio.all_tasks(ended)
        if end == "closed by the collector":
            drain.get_coro().close()
        drain.cancel()
        ended.run_until_complete(asyncio.wait([drain]))
    ended.close()

    hints.use_loop(None)
    hints.wake("mail")

    until(lambda: "cq-tasks.mail" in layer.channels)


def test_a_message_that_the_layer_refuses_is_logged_and_not_tried_again(
    in_memory: None, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer: Any = get_channel_layer()
    tries: list[str] = []

    async def refuse(group: str, message: object) -> None:
        tries.append(group)
        raise TypeError("datetime is not serializable")

    monkeypatch.setattr(layer, "group_send", refuse)

    hints.control({"verb": "quiet"})
    until(lambda: "is not serializable" in caplog.text)
    hints.wake("mail")
    until(lambda: "cq-tasks.mail" in layer.channels)

    assert tries == [hints.CONTROL_GROUP]


def test_a_full_channel_is_no_outage(in_memory: None, caplog: pytest.LogCaptureFixture) -> None:
    layer: Any = get_channel_layer()

    for number in range(150):
        hints.wake("mail")
        until(lambda: not outbox.outbox().wakes)
        if number > 110 and layer.channels["cq-tasks.mail"].full():
            break

    assert layer.channels["cq-tasks.mail"].full()
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.parametrize(
    ("queue", "channel"),
    [("default", "cq-tasks"), ("mail", "cq-tasks.mail"), ("cq.console", "cq-tasks.cq.console")],
)
def test_a_queue_has_a_channel_of_its_own(queue: str, channel: str) -> None:
    assert hints.channel_name(queue) == channel


def test_any_queue_name_makes_a_valid_and_distinct_channel(in_memory: None) -> None:
    layer: Any = get_channel_layer()
    queues = ["a b", "a:b", "a/b", "ü", "", "x" * 300, "x" * 301, "\ud800", "mail"]

    names = [hints.channel_name(queue) for queue in queues]

    assert all(layer.require_valid_channel_name(name) for name in names)
    assert len(set(names)) == len(queues)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_speaks_on_a_loop_of_its_own(in_memory: None) -> None:
    hints.wake("parent")
    until(lambda: not outbox.outbox().wakes)
    box = outbox.outbox()
    box._draining = True
    box.add_wake("left to the parent")
    reader, writer = os.pipe()

    child = os.fork()
    if child == 0:
        woken = threading.Event()
        hints.Receiver(["child"], lambda queue: woken.set(), lambda message: None).start()
        kept = list(outbox.outbox().wakes)
        hints.wake("child")
        os.write(writer, b"woken" if woken.wait(5) and not kept else b"not woken")
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)

    assert answer == b"woken"
