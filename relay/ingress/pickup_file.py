"""A file of a pickup folder, read within bounds; `mail.parcel` says what message and what envelope it gives.

Everything here blocks, and is called on a thread.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Literal

from relay.ingress.dots import Undoubling, doubled
from relay.mail.addressees import BadAddressees
from relay.mail.aliases import Aliases
from relay.mail.header import split
from relay.mail.parcel import Conversion, Parcel
from relay.values import frozen

PIECE = 256 * 1024


class BadFile(ValueError):
    """It cannot be taken, now or ever. `code` and `status` are those that DATA would answer with."""

    def __init__(self, text: str, *, code: int = 554, status: str = "5.6.0") -> None:
        self.code, self.status = code, status
        super().__init__(text)


_UTF_16 = BadFile("the file is UTF-16; save it as UTF-8 or ASCII (Out-File -Encoding utf8)")
_TOO_LARGE = BadFile("larger than max_message_size", code=552, status="5.3.4")


@frozen
class Bounds:
    """What is taken, and whether `dots` at the beginning of a line are doubled in it (auto: that is seen)."""

    size: int
    header_size: int
    header_fields: int
    dots: Literal["auto", "doubled", "plain"] = "auto"


class PickupFile:
    """An opened file, from whose descriptor nobody else reads. `first` is content: all of it where `whole`. `nul`: NUL
    octets were seen in it."""

    def __init__(self, descriptor: int, bounds: Bounds, aliases: Aliases | None = None) -> None:
        """Raises BadFile and OSError; the descriptor stays the caller's."""
        self._descriptor = descriptor
        self._conversion = Conversion(late=True)
        self._left = bounds.size
        self.whole = self.nul = False
        if os.fstat(descriptor).st_size > bounds.size:
            raise _TOO_LARGE
        if _is_utf_16(os.pread(descriptor, 4, 0)):
            raise _UTF_16
        undoubles = doubled(_pieces(descriptor, bounds.size)) if bounds.dots == "auto" else bounds.dots == "doubled"
        self._undoubling = Undoubling() if undoubles else None
        enough, first = max(PIECE, bounds.header_size) + 1, b""
        while not self.whole and len(first) < enough:
            first += self._read(enough)
        if not first:
            raise BadFile("the file is empty")
        head = first[: split(first)]
        ended = self.whole or len(head) < len(first) or head.endswith(b"\r\n\r\n")
        if not ended or len(head) > bounds.header_size:
            raise BadFile(f"its header is larger than {bounds.header_size} octets", code=552, status="5.3.4")
        parcel = Parcel(first)
        if len(parcel.header.fields) > bounds.header_fields:
            raise BadFile(f"its header has more than {bounds.header_fields} fields", code=552, status="5.3.4")
        try:
            self.envelope = parcel.envelope(aliases)
        except BadAddressees as error:
            raise BadFile(str(error), status="5.1.3") from None
        self.head, self.first = parcel.head, parcel.content

    def more(self) -> bytes:
        """The next piece of content; b"" at the end."""
        return b"" if self.whole else self._read(PIECE)

    def _read(self, most: int) -> bytes:
        """Content from about `most` octets of the file."""
        while True:
            raw = os.read(self._descriptor, most)
            self._left -= len(raw)
            if self._left < 0:  # somebody writes to it still
                raise _TOO_LARGE
            self.whole = not raw
            content = self._conversion.convert(raw)
            if self._undoubling is not None:
                content = self._undoubling.undouble(content, last=self.whole)
            self.nul = self.nul or b"\0" in content
            if content or not raw:
                return content


def _is_utf_16(begin: bytes) -> bool:
    """Whether a file that begins so has a mark of UTF-16, or ASCII as that has it."""
    return begin[:2] in (b"\xff\xfe", b"\xfe\xff") or (len(begin) == 4 and b"\0\0" in (begin[::2], begin[1::2]))


def _pieces(descriptor: int, size: int) -> Iterator[bytes]:
    """The first `size` octets of a file, which are read again later."""
    offset = 0
    while offset < size and (piece := os.pread(descriptor, PIECE, offset)):
        yield piece
        offset += len(piece)
