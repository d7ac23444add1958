"""The reader of BDAT: content that comes in chunks of announced length (RFC 3030, section 2).

What arrives is counted, never searched for an end, and dots are nothing special in it. Line ends become
CRLF as with DATA, and a last line without an end gets one, since the next hop may know DATA only. Bounds
of size and memory are those of DATA.
"""

from __future__ import annotations

from relay.ingress.data import ContentReader
from relay.ingress.limits import Memory


class ChunkReader(ContentReader):
    """One message. `begin` a chunk, `feed` until `ended`; `whole` once the last one has ended."""

    __slots__ = ("_last", "_left")

    def __init__(self, *, limit: int, in_memory: int, memory: Memory, bare_newline: str) -> None:
        super().__init__(limit=limit, in_memory=in_memory, memory=memory, bare_newline=bare_newline)
        self._left = 0
        self._last = False

    @property
    def whole(self) -> bool:
        return self.ended and self._last

    def begin(self, octets: int, *, last: bool) -> None:
        """A chunk of so many octets follows. One that makes the message too large is not kept at all."""
        self._left = octets
        self._last = last
        self.ended = False
        self.leftover = b""
        if self.received + octets > self._limit:
            self.too_large = True
            self.drop()

    def feed(self, data: bytes) -> None:
        if len(data) > self._left:
            data, self.leftover = data[: self._left], data[self._left :]
        self._left -= len(data)
        self.received += len(data)
        self._memory.used += len(data)
        self._raw += data
        if self._left:
            self._bound(self.received)
        elif self._last:
            self._end()
        else:
            self._bound(self.received)
            self.ended = True

    def _end(self) -> None:
        raw, leftover = self._raw, self.leftover
        if raw and not raw.endswith(b"\n"):
            raw += b"\r\n"
            self._memory.used += 2
        self._finish(len(raw), len(raw))
        self.leftover = leftover

    def _unstuff(self, raw: bytes) -> bytes:
        return raw
