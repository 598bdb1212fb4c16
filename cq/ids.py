"""What is the next id, such that ids sort in the order in which they were made?"""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Iterator
from time import time_ns
from uuid import UUID, SafeUUID

# Layout of the 128 bits (RFC 9562 section 5.7), with rand_a and the upper part of rand_b used as
# one counter of 42 bits (section 6.2, method 1) and 32 random bits at the end:
#   48 milliseconds | 4 version | 12 counter, high | 2 variant | 30 counter, low | 32 random
_VERSION_AND_VARIANT = (7 << 76) | (0b10 << 62)
_COUNTER_LIMIT = 1 << 42
_LOW = (1 << 30) - 1
# A new millisecond starts in the lower half, so that 2**41 ids fit before the counter overflows.
_SEED_MASK = (1 << 41) - 1

_new = object.__new__
# UUID.__init__ checks its arguments for longer than the rest of the work takes; UUID forbids
# setattr, so its two slots are filled directly.
_set_int = UUID.__dict__["int"].__set__
_set_safety = UUID.__dict__["is_safe"].__set__
_UNKNOWN = SafeUUID.unknown

_lock = threading.Lock()
_millisecond = 0
_counter = 0
_random: Iterator[int] = iter(())


def uuid7() -> UUID:
    """Return a new UUID of version 7 that is greater than every one this process made before.

    The order holds between threads, within one millisecond, and when the clock steps back
    (RFC 9562 section 6.2, *Monotonicity and Counters*): then the last timestamp is kept and only
    the counter grows. Ids of different processes are ordered by their millisecond only.
    """
    with _lock:
        value = _next_value()
    return _made(value)


def uuid7_many(number: int) -> list[UUID]:
    """Return *number* new ids in ascending order; see :func:`uuid7`."""
    with _lock:
        values = [_next_value() for _ in range(number)]
    return [_made(value) for value in values]


def from_hex(digits: str) -> UUID:
    """Return the id whose 32 hexadecimal digits are *digits*, which nobody checks any more."""
    return _made(int(digits, 16))


def _made(value: int) -> UUID:
    made = _new(UUID)
    _set_int(made, value)
    _set_safety(made, _UNKNOWN)
    return made


def _next_value() -> int:
    """Return the bits of the next id; the caller holds the lock."""
    global _millisecond, _counter
    now = time_ns() // 1_000_000
    if now > _millisecond:
        _millisecond = now
        _counter = _seed()
    else:
        _counter += 1
        if _counter == _COUNTER_LIMIT:
            _millisecond += 1
            _counter = _seed()
    return (
        _millisecond << 80
        | _VERSION_AND_VARIANT
        | (_counter >> 30) << 64
        | (_counter & _LOW) << 32
        | _random_bits()
    )


def _seed() -> int:
    return (_random_bits() << 32 | _random_bits()) & _SEED_MASK


def _random_bits() -> int:
    """32 of them; one system call for many ids: it takes as long as everything else together."""
    global _random
    bits = next(_random, None)
    if bits is None:
        _random = iter(struct.unpack(">256I", os.urandom(1024)))
        bits = next(_random)
    return bits


def _forget_after_fork() -> None:
    # The child would go on from its parent's counter, and another thread of the parent may have
    # held the lock at the fork.
    global _lock, _counter, _random
    _lock = threading.Lock()
    _random = iter(())
    # A full counter is seeded anew by the next id, whatever the clock says, and that id still
    # sorts behind those that the child inherited.
    _counter = _COUNTER_LIMIT - 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)
