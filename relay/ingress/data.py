"""The reader of DATA: from the wire to content, fed with whatever arrives.

Only CRLF.CRLF ends the data (RFC 5321, section 4.1.1.4). Dots are unstuffed after CRLF, and after a
bare LF only as long as no CRLF came since the 354. Line ends are made CRLF: a bare LF, and any number
of CR before LF, become one CRLF; a bare CR becomes CRLF in the body and a space in the header. All of
it is done once, here, so that nothing bare is stored or sent on (SMTP smuggling, VU#302671).

Theory of operation: what arrives is searched for the end with `bytes.find`, resuming four bytes before
the last end. Up to `in_memory` octets stay in one buffer and are converted in one go; what comes beyond
is cut at a line end, converted, and handed out in pieces for a spool file. Conversion costs three
`count` calls where nothing is to be changed.
"""

from __future__ import annotations

from relay.ingress.limits import Memory
from relay.mail import header

END = b"\r\n.\r\n"
WHEN_SCARCE = 16 * 1024  # in-memory bound of a message while all together hold too much
LONGEST_CR_RUN = 64 * 1024


class ContentReader:
    """One message. `feed` until `ended`; then `rest`, `head`, `size` and `leftover` hold the result."""

    __slots__ = (
        "_crlf_seen",
        "_in_memory",
        "_limit",
        "_line_start",
        "_memory",
        "_raw",
        "_searched",
        "_spill_early",
        "ended",
        "head",
        "header_too_long",
        "leftover",
        "pieces",
        "queued",
        "received",
        "rest",
        "size",
        "spilled",
        "too_large",
    )

    def __init__(self, *, limit: int, in_memory: int, memory: Memory) -> None:
        self._limit = limit
        self._in_memory = in_memory
        self._memory = memory
        self._raw = bytearray()
        self._searched = 0
        self._line_start = True
        self._crlf_seen = False
        self._spill_early = True
        self.received = 0  # octets on the wire
        self.size = 0  # octets of content, once converted
        self.pieces: list[bytes] = []  # converted, in order, to be written to a spool file
        self.queued = 0  # octets in `pieces`
        self.head = b""
        self.rest = b""  # the last of the content; all of it when nothing was spilled
        self.spilled = False
        self.too_large = False
        self.header_too_long = False
        self.ended = False
        self.leftover = b""

    @property
    def hopeless(self) -> bool:
        """True when twice the limit has come: do not read on."""
        return self.received > 2 * self._limit

    def feed(self, data: bytes) -> None:
        """Take what arrived; after the end, the octets behind it are `leftover`."""
        self.received += len(data)
        raw = self._raw
        self._memory.used += len(data)
        raw += data
        if self._line_start and not self.spilled and raw.startswith(b".\r\n"):
            self._finish(0, 3)
            return
        end = raw.find(END, self._searched)
        if end >= 0:
            self._finish(end + 2, end + 5)
            return
        self._searched = max(0, len(raw) - 4)
        if self.received > self._limit:
            self._give_up()
        if self.too_large or self.header_too_long:
            self._keep_only(raw[-4:])
        elif len(raw) > self._in_memory or (self._spill_early and len(raw) > WHEN_SCARCE and self._memory.scarce):
            self._spill()

    def take(self) -> bytes:
        """All pieces that wait for the spool file, as one."""
        data = b"".join(self.pieces)
        self.pieces.clear()
        self._memory.used -= self.queued
        self.queued = 0
        return data

    def abandon(self) -> None:
        """Free what is held: the client went away, or the message is refused."""
        self._memory.used -= len(self._raw) + self.queued
        self._raw = bytearray()
        self.pieces.clear()
        self.queued = 0

    def _give_up(self) -> None:
        self.too_large = True
        self._memory.used -= self.queued
        self.pieces.clear()
        self.queued = 0

    def _keep_only(self, tail: bytearray) -> None:
        self._memory.used -= len(self._raw) - len(tail)
        self._raw = bytearray(tail)
        self._searched = 0

    def _finish(self, content_end: int, data_end: int) -> None:
        raw = self._raw
        self.ended = True
        self.leftover = bytes(raw[data_end:])
        self._memory.used -= len(raw)
        self.received -= len(self.leftover)
        if self.received > self._limit + len(END):
            self._give_up()
        if not (self.too_large or self.header_too_long):
            self.rest = self._convert(bytes(raw[:content_end]), first=not self.spilled)
            self.size += len(self.rest)
            if not self.spilled:
                self._take_head(self.rest)
        self._raw = bytearray()

    def _spill(self) -> None:
        """Hand out what is surely content. The cut is before a CRLF, which may begin the end of the data."""
        raw = self._raw
        cut = raw.rfind(b"\r\n", 0, len(raw) - 3)
        if cut < len(raw) // 2:
            cut = len(raw) - 4  # one very long line
        # Never between the CRs of one line end; a run longer than any honest one is cut all the same.
        near = max(0, cut - LONGEST_CR_RUN)
        cut = near + len(raw[near:cut].rstrip(b"\r")) or cut
        piece = self._convert(bytes(raw[:cut]), first=not self.spilled)
        if not self.spilled and not self._take_head(piece):
            self.header_too_long = len(raw) > self._in_memory
            self._spill_early = False
            return
        self._crlf_seen = self._crlf_seen or raw.find(b"\r\n", 0, cut) >= 0
        self._line_start = raw[cut - 1] == 0x0A and not self._crlf_seen
        self.spilled = True
        self.size += len(piece)
        self.pieces.append(piece)
        self.queued += len(piece)
        self._memory.used += len(piece) - cut
        del raw[:cut]
        self._searched = max(0, len(raw) - 4)

    def _take_head(self, piece: bytes) -> bool:
        """Keep the header block; False when `piece` may not hold all of it."""
        length = header.split(piece)
        self.head = piece[:length]
        ended = self.head == b"\r\n" or self.head.endswith(b"\r\n\r\n")
        return ended or piece.find(b"\r\n", length) >= 0

    def _convert(self, raw: bytes, *, first: bool) -> bytes:
        """`raw` unstuffed, with CRLF line ends."""
        line_feeds = raw.count(b"\n")
        if b"\n." in raw or (self._line_start and raw.startswith(b".")):
            raw = self._unstuff(raw)
        if line_feeds == raw.count(b"\r\n") and line_feeds == raw.count(b"\r"):
            return raw
        return normalise(raw, header_first=first)

    def _unstuff(self, raw: bytes) -> bytes:
        if self._line_start and raw.startswith(b"."):
            raw = raw[1:]
        bare = b""
        if not self._crlf_seen:
            first_crlf = raw.find(b"\r\n")
            if first_crlf < 0:
                return raw.replace(b"\n.", b"\n")
            bare, raw = raw[:first_crlf].replace(b"\n.", b"\n"), raw[first_crlf:]
        return bare + raw.replace(b"\r\n.", b"\r\n")


def normalise(raw: bytes, *, header_first: bool) -> bytes:
    """`raw` with CRLF line ends only; a bare CR is a space up to the first empty line, if `header_first`.

    Linear whatever comes: no regular expression, no repeated replacement.
    """
    lines = b"\n".join([line.rstrip(b"\r") for line in raw.split(b"\n")[:-1]])
    tail = raw[raw.rfind(b"\n") + 1 :]
    text = lines + b"\n" + tail if b"\n" in raw else tail
    if b"\r" in text:
        body = 0
        if header_first:
            body = 0 if text.startswith(b"\n") else text.find(b"\n\n") + 1 or len(text)
        text = text[:body].replace(b"\r", b" ") + text[body:].replace(b"\r", b"\n")
    return text.replace(b"\n", b"\r\n")
