"""Are ids unique, ordered and laid out as RFC 9562 says?"""

from __future__ import annotations

import copy
import os
import pickle
import threading
import time
import uuid

import pytest

from cq import ids


@pytest.fixture(autouse=True)
def clock_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no test that moves the clock forward leave it there for the others."""
    monkeypatch.setattr(ids, "_millisecond", 0)
    monkeypatch.setattr(ids, "_counter", 0)


def test_an_id_carries_version_variant_and_the_current_millisecond() -> None:
    before = time.time_ns() // 1_000_000

    made = ids.uuid7()

    after = time.time_ns() // 1_000_000
    assert made.version == 7
    assert made.variant == uuid.RFC_4122
    assert before <= made.int >> 80 <= after + 1


def test_an_id_is_an_ordinary_uuid() -> None:
    made = ids.uuid7()

    assert made == uuid.UUID(str(made))
    assert hash(made) == hash(uuid.UUID(str(made)))
    assert pickle.loads(pickle.dumps(made)) == made
    assert copy.deepcopy(made) == made
    assert made.is_safe is uuid.SafeUUID.unknown


def test_ids_ascend_in_the_order_of_their_making() -> None:
    made = [ids.uuid7() for _ in range(5_000)]
    made += ids.uuid7_many(5_000)
    made += [ids.uuid7() for _ in range(5_000)]

    assert made == sorted(made)
    assert len(set(made)) == 15_000
    assert [str(one) for one in made] == sorted(str(one) for one in made)


def test_ids_ascend_when_the_clock_steps_back(monkeypatch: pytest.MonkeyPatch) -> None:
    first = ids.uuid7()
    monkeypatch.setattr(ids, "time_ns", lambda: time.time_ns() - 3_600 * 10**9)

    second, third = ids.uuid7(), ids.uuid7()

    assert first < second < third
    assert second.int >> 80 == first.int >> 80


def test_a_full_counter_borrows_the_next_millisecond(monkeypatch: pytest.MonkeyPatch) -> None:
    frozen = time.time_ns() + 10**12
    monkeypatch.setattr(ids, "time_ns", lambda: frozen)
    monkeypatch.setattr(ids, "_millisecond", frozen // 1_000_000)
    monkeypatch.setattr(ids, "_counter", (1 << 42) - 2)

    last, borrowed = ids.uuid7(), ids.uuid7()

    assert last < borrowed
    assert borrowed.int >> 80 == (last.int >> 80) + 1
    assert borrowed.version == 7


def test_threads_never_make_the_same_id() -> None:
    made: list[list[uuid.UUID]] = [[] for _ in range(8)]

    def make(into: list[uuid.UUID]) -> None:
        into.extend(ids.uuid7() for _ in range(2_000))

    threads = [threading.Thread(target=make, args=(into,)) for into in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len({one for into in made for one in into}) == 16_000
    assert all(into == sorted(into) for into in made)


def test_the_last_32_bits_are_random() -> None:
    tails = {one.int & 0xFFFFFFFF for one in ids.uuid7_many(1_000)}

    assert len(tails) > 990


@pytest.mark.parametrize("number", [0, 1])
def test_many_makes_exactly_as_many_as_asked_for(number: int) -> None:
    assert len(ids.uuid7_many(number)) == number


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_does_not_continue_its_parents_counter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    frozen = time.time_ns() + 10**12
    monkeypatch.setattr(ids, "time_ns", lambda: frozen)
    before = ids.uuid7()
    reader, writer = os.pipe()

    child = os.fork()
    if child == 0:
        os.write(writer, ids.uuid7().bytes)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        theirs = uuid.UUID(bytes=pipe.read())
    os.waitpid(child, 0)
    ours = ids.uuid7()

    assert theirs > before
    assert ours > before
    assert ours.int >> 32 != theirs.int >> 32
