"""What lies between a worker and its database, and cuts, holds or refuses connections?"""

from __future__ import annotations

import random
import selectors
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from time import sleep
from urllib.parse import urlsplit, urlunsplit

# Encryption would hide COMMIT from us: PostgreSQL's requests for it are answered with No.
_WANTS_ENCRYPTION = (b"\x00\x00\x00\x08\x04\xd2\x16\x2f", b"\x00\x00\x00\x08\x04\xd2\x16\x30")


@dataclass
class Proxy:
    """Forwards TCP connections to the server of *url*; `url` afterwards leads through it."""

    url: str
    chance: random.Random
    # The part of all COMMITs whose answer is lost, and how many at most.
    cut_rate: float = 0.0
    cuts_left: int = 0
    cuts: int = 0
    # Seconds from the cut to the COMMIT's own arrival at the server.
    lateness: float = 0.0
    is_refusing: bool = False
    # The address to listen on.
    host: str = "127.0.0.1"
    _pairs: list[tuple[socket.socket, socket.socket]] = field(default_factory=list)

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        self._target = parts.hostname or "127.0.0.1", parts.port or 0
        self._flowing = threading.Event()
        self._flowing.set()
        self._listener = socket.create_server((self.host, 0))
        port = self._listener.getsockname()[1]
        user = f"{parts.username}:{parts.password}" if parts.password else parts.username
        self.url = urlunsplit(parts._replace(netloc=f"{user}@{self.host}:{port}"))
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._flowing.set()
        self._listener.close()
        self.reset()

    def reset(self) -> None:
        """Close every connection."""
        pairs, self._pairs = self._pairs, []
        for pair in pairs:
            _close(*pair)

    def hold(self) -> None:
        """Let nothing through, and close nothing: the others wait."""
        self._flowing.clear()

    def flow(self) -> None:
        self._flowing.set()

    def _accept(self) -> None:
        while True:
            try:
                client, _address = self._listener.accept()
            except OSError:
                return
            if self.is_refusing:
                client.close()
                continue
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        server = socket.create_connection(self._target)
        self._pairs.append((client, server))
        with suppress(OSError, ValueError), selectors.DefaultSelector() as selector:
            selector.register(client, selectors.EVENT_READ)
            selector.register(server, selectors.EVENT_READ)
            while True:
                for key, _events in selector.select():
                    data = key.fileobj.recv(65536)  # type: ignore[union-attr]
                    self._flowing.wait()
                    if not data:
                        raise OSError
                    self._pass(client, server, data, is_asked=key.fileobj is client)
        _close(client, server)

    def _pass(
        self, client: socket.socket, server: socket.socket, data: bytes, *, is_asked: bool
    ) -> None:
        if not is_asked:
            client.sendall(data)
        elif data in _WANTS_ENCRYPTION:
            client.sendall(b"N")
        elif b"COMMIT" in data and self._shall_cut():
            if self.lateness:
                _close(client)
                sleep(self.lateness)
            server.sendall(data)
            # It has committed when it answers; who asked never hears of it.
            server.recv(65536)
            raise OSError
        else:
            server.sendall(data)

    def _shall_cut(self) -> bool:
        if self.cuts_left <= 0 or self.chance.random() >= self.cut_rate:
            return False
        self.cuts_left -= 1
        self.cuts += 1
        return True


def _close(*ends: socket.socket) -> None:
    for end in ends:
        with suppress(OSError):
            # A thread may be reading from it, which close() alone would not end.
            end.shutdown(socket.SHUT_RDWR)
        end.close()
