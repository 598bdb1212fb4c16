"""What does a task process show its supervisor, even while it hangs or when it is dead?"""

from __future__ import annotations

import mmap
import os
import struct
import tempfile
from dataclasses import dataclass
from time import monotonic
from uuid import UUID

# worker id, time of the last heartbeat written for it, what an operator asked of it then; times are
# of the monotonic clock, which processes of one host share.
_HEADER = struct.Struct("=qd16s")
# in use, task id, claim, deadline (0: none)
_SLOT = struct.Struct("=B16sId")


@dataclass(frozen=True, slots=True)
class Running:
    """A task that is being run right now."""

    task_id: UUID
    claim: int
    deadline: float

    def is_overdue(self, grace: float) -> bool:
        return bool(self.deadline) and monotonic() > self.deadline + grace


class Board:
    """Shared memory with a slot for every task that a process runs at a time."""

    def __init__(self, fd: int, slots: int) -> None:
        self.fd = fd
        self.slots = slots
        self._memory = mmap.mmap(fd, _HEADER.size + slots * _SLOT.size)
        self._free = list(range(slots))

    @classmethod
    def create(cls, slots: int) -> Board:
        size = _HEADER.size + slots * _SLOT.size
        with tempfile.TemporaryFile() as file:
            file.truncate(size)
            fd = os.dup(file.fileno())
        os.set_inheritable(fd, True)
        return cls(fd, slots)

    def close(self) -> None:
        self._memory.close()
        os.close(self.fd)

    @property
    def worker_id(self) -> int:
        """The id of the process's worker row; 0 before it has one."""
        return int(_HEADER.unpack_from(self._memory)[0])

    @worker_id.setter
    def worker_id(self, value: int) -> None:
        _HEADER.pack_into(self._memory, 0, value, monotonic(), b"")

    @property
    def beaten_at(self) -> float:
        return float(_HEADER.unpack_from(self._memory)[1])

    @property
    def asked(self) -> str:
        """What an operator has asked of the worker, as of the last heartbeat."""
        asked: bytes = _HEADER.unpack_from(self._memory)[2]
        return asked.rstrip(b"\0").decode()

    def beat(self, at: float, asked: str = "") -> None:
        """Say that the heartbeat sent at *at* has been stored, and what it was answered."""
        _HEADER.pack_into(self._memory, 0, self.worker_id, at, asked.encode())

    def take(self, task_id: UUID, claim: int, deadline: float) -> int:
        """Show a task that starts; returns its slot, for `release`."""
        slot = self._free.pop()
        offset = self._offset(slot)
        _SLOT.pack_into(self._memory, offset, 0, task_id.bytes, claim, deadline)
        # In use last: a reader never sees half of a slot.
        self._memory[offset] = 1
        return slot

    def release(self, slot: int) -> None:
        self._memory[self._offset(slot)] = 0
        self._free.append(slot)

    def running(self) -> list[Running]:
        shown = []
        for slot in range(self.slots):
            in_use, task_id, claim, deadline = _SLOT.unpack_from(self._memory, self._offset(slot))
            if in_use:
                shown.append(Running(UUID(bytes=task_id), claim, deadline))
        return shown

    def _offset(self, slot: int) -> int:
        return _HEADER.size + slot * _SLOT.size
