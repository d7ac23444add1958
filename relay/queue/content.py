"""Content that lies in a spool file of the queue."""

from __future__ import annotations

import os

from relay.durable import Directory
from relay.values import frozen


@frozen
class FileContent:
    """A message that lies in the file `name` (a spool file of the queue); the head is kept beside it."""

    folder: Directory
    name: str
    size: int
    head: bytes

    @property
    def in_memory(self) -> bool:
        return False

    def read(self, offset: int, length: int) -> bytes:
        # Opened for every piece: a waiting message must not hold a file descriptor.
        descriptor = self.folder.open(self.name)
        try:
            return os.pread(descriptor, length, offset)
        finally:
            os.close(descriptor)
