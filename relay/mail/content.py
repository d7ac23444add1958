"""Content: a message as bytes, in memory or in a file, as it crosses the floors of the house.

Content is kept with CRLF line ends and without dot-stuffing. `head` is always in memory:
the header block with the empty line that ends it. `head` may be empty (the first line is no
field) and may lack the empty line (a line that is no field follows); then the body begins
right behind it. See `mail.header.split`.
"""

from __future__ import annotations

from typing import Protocol

from relay.mail.header import split
from relay.values import frozen

LONGEST_CR_RUN = 64 * 1024  # octets of CR before LF that are surely one line end


class Content(Protocol):
    """The bytes of one message. Reading may block; who sends a file reads it on a thread."""

    @property
    def size(self) -> int:
        """Octets in all, head included."""
        ...

    @property
    def head(self) -> bytes:
        """The header block, with the empty line behind it if there is one."""
        ...

    @property
    def in_memory(self) -> bool:
        """True when `read` never blocks."""
        ...

    def read(self, offset: int, length: int) -> bytes:
        """At most `length` octets from `offset`, counted over the whole content; b"" at the end."""
        ...


@frozen
class MemoryContent:
    """A message held in memory."""

    data: bytes
    head_length: int

    @property
    def size(self) -> int:
        return len(self.data)

    @property
    def head(self) -> bytes:
        return self.data[: self.head_length]

    @property
    def in_memory(self) -> bool:
        return True

    def read(self, offset: int, length: int) -> bytes:
        return self.data[offset : offset + length]


def normalise(raw: bytes, *, header_first: bool) -> bytes:
    """`raw` with CRLF line ends only; a bare CR is a space in the header that stands first, if one does.

    Linear whatever comes: no regular expression, no repeated replacement.
    """
    lines = b"\n".join([line.rstrip(b"\r") for line in raw.split(b"\n")[:-1]])
    tail = raw[raw.rfind(b"\n") + 1 :]
    text = lines + b"\n" + tail if b"\n" in raw else tail
    if b"\r" in text:
        body = split(text) if header_first else 0
        text = text[:body].replace(b"\r", b" ") + text[body:].replace(b"\r", b"\n")
    return text.replace(b"\n", b"\r\n")
