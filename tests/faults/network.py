"""How do packets between a worker and its database vanish without anybody being told?"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress

NAMESPACE = f"cq{os.getpid()}"
OUTER, INNER = f"{NAMESPACE}o", f"{NAMESPACE}i"
# Private addresses that nothing here uses.
OUTSIDE, INSIDE = "10.231.47.1", "10.231.47.2"
NOBODY = "02:00:00:00:00:99"


class Network:
    """A network namespace whose one link can swallow packets, in both directions."""

    # What runs a command inside it.
    prefix = ("ip", "netns", "exec", NAMESPACE)

    def swallow(self) -> None:
        """Address every packet to a card that is not there: no reset, no error, no answer."""
        self._address(NOBODY, NOBODY)

    def deliver(self) -> None:
        self._address(*self._cards)

    def __init__(self) -> None:
        _ip("netns", "add", NAMESPACE)
        _ip("link", "add", OUTER, "type", "veth", "peer", "name", INNER, "netns", NAMESPACE)
        _ip("address", "add", f"{OUTSIDE}/30", "dev", OUTER)
        _ip("link", "set", OUTER, "up")
        _ip("-n", NAMESPACE, "address", "add", f"{INSIDE}/30", "dev", INNER)
        _ip("-n", NAMESPACE, "link", "set", INNER, "up")
        _ip("-n", NAMESPACE, "link", "set", "lo", "up")
        self._cards = (_card("-n", NAMESPACE, INNER), _card(OUTER))
        self.deliver()

    def close(self) -> None:
        with suppress(subprocess.CalledProcessError):
            _ip("link", "delete", OUTER)
        _ip("netns", "delete", NAMESPACE)

    @staticmethod
    def _address(inner: str, outer: str) -> None:
        _ip("neighbour", "replace", INSIDE, "lladdr", inner, "dev", OUTER, "nud", "permanent")
        there = ("lladdr", outer, "dev", INNER, "nud", "permanent")
        _ip("-n", NAMESPACE, "neighbour", "replace", OUTSIDE, *there)


def is_possible() -> bool:
    return os.geteuid() == 0 and shutil.which("ip") is not None


@contextmanager
def network() -> Iterator[Network]:
    made = Network()
    try:
        yield made
    finally:
        made.close()


def _ip(*words: str) -> str:
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


def _card(*where: str) -> str:
    """The hardware address of a link, the last of *where*."""
    *options, link = where
    words = _ip(*options, "link", "show", "dev", link).split()
    return words[words.index("link/ether") + 1]
