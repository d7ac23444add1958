"""The reader of DATA: from the wire to content, fed with whatever arrives.

Only CRLF.CRLF ends the data (RFC 5321, section 4.1.1.4). Dots are unstuffed after CRLF, and after a
bare LF only as long as no CRLF came since the 354. Line ends are made CRLF: a bare LF, and any number
of CR before LF, become one CRLF; a bare CR becomes CRLF in the body and a space in the header (as
`mail.header` delimits it). All of it is done once, here, so that nothing bare is stored or sent on
(SMTP smuggling, VU#302671). How the network cut the data makes no difference to any of it. A listener
may have content refused for bare line ends, or let LF.LF end it as long as no CRLF came since the 354.

Theory of operation: what arrives is searched for the end with `bytes.find`, resuming four bytes before
the last end. Up to `in_memory` octets stay in one buffer and are converted in one go; what comes beyond
is cut at a line end, converted, and handed out in pieces for a spool file. Where nothing is to be
changed, conversion costs three looks at the octets.
"""

from __future__ import annotations

from relay.ingress.limits import Memory
from relay.mail import header
from relay.mail.content import LONGEST_CR_RUN, normalise

END = b"\r\n.\r\n"
WHEN_SCARCE = 16 * 1024  # in-memory bound of a message while all together hold too much
HEADER_WHEN_SCARCE = 64 * 1024  # bound of a header then, which cannot go to a spool file
_COPIED_TWICE = 16 * 1024  # octets of which a second copy costs less than a view
LONGEST_LINE = 998  # octets without the line end (RFC 5322, section 2.1.1)


class ContentReader:
    """One message. `feed` until `ended`; then `rest`, `head`, `size` and `leftover` hold the result.

    `bare_lf`, `bare_cr`, `long_line`, `nul` and `lf_dot` tell what was seen in it. `bare_newline` is the listener's
    setting: with "reject", nothing is kept once a bare line end is seen.
    """

    __slots__ = (
        "_crlf_seen",
        "_dropping",
        "_early",
        "_held",
        "_in_memory",
        "_lf_ends",
        "_limit",
        "_line_start",
        "_memory",
        "_open_line",
        "_raw",
        "_rejects",
        "_searched",
        "bare_cr",
        "bare_lf",
        "ended",
        "head",
        "header_too_long",
        "leftover",
        "lf_dot",
        "long_line",
        "no_room",
        "nul",
        "pieces",
        "queued",
        "received",
        "rest",
        "size",
        "spilled",
        "too_large",
    )

    def __init__(self, *, limit: int, in_memory: int, memory: Memory, bare_newline: str) -> None:
        self._limit = limit
        self._in_memory = in_memory
        self._memory = memory
        self._raw = bytearray()
        self._searched = 0
        self._line_start = True
        self._crlf_seen = False
        self._dropping = False
        self._early = WHEN_SCARCE
        self._held = 0  # octets that stay in memory until the message is kept
        self._open_line = 0  # octets of the line that the pieces end in
        self._lf_ends = bare_newline == "accept-lf-dot"
        self._rejects = bare_newline == "reject"
        self.received = 0  # octets on the wire
        self.size = 0  # octets of content, once converted
        self.pieces: list[bytes] = []  # converted, in order, to be written to a spool file
        self.queued = 0  # octets in `pieces`
        self.head = b""
        self.rest = b""  # the last of the content; all of it when nothing was spilled
        self.spilled = False
        self.too_large = False
        self.header_too_long = False
        self.no_room = False  # memory is scarce, and this header too long for such times
        self.bare_lf = False
        self.bare_cr = False
        self.long_line = False
        self.nul = False
        self.lf_dot = False  # LF.LF ended it
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
        if self._lf_ends and self._ended_by_lf(raw):
            return
        if self._line_start and not self.spilled and raw.startswith(b".\r\n"):
            self._finish(0, 3)
            return
        end = raw.find(END, self._searched)
        if end >= 0:
            self._finish(end + 2, end + 5)
            return
        self._searched = max(0, len(raw) - 4)
        self._bound(self.received - 2)  # two octets may belong to the end of the data

    def _ended_by_lf(self, raw: bytearray) -> bool:
        crlf = raw.find(b"\r\n", self._searched)
        if self._line_start and not self.spilled and raw.startswith(b".\n"):
            self._finish(0, 2)
        elif (end := raw.find(b"\n.\n", self._searched, crlf if crlf >= 0 else len(raw))) >= 0:
            self._finish(end + 1, end + 3)
        else:
            self._lf_ends = crlf < 0
            return False
        self.lf_dot = True
        return True

    def _bound(self, octets: int) -> None:
        """Keep what is held within bounds; so many octets of content have come."""
        if not self._dropping:
            raw = self._raw
            if octets > self._limit:
                self.too_large = True
                self.drop()
            elif len(raw) > self._in_memory or (len(raw) > self._early and self._memory.scarce):
                self._spill()
        if self._dropping:
            self._trim()

    def drop(self) -> None:
        """Keep nothing, and read on to the end of the data only: the message will be refused."""
        self._dropping = True
        self._forget_pieces()

    def take(self) -> bytes:
        """All pieces that wait for the spool file, as one."""
        data = b"".join(self.pieces)
        self._forget_pieces()
        return data

    def _forget_pieces(self) -> None:
        queued, self.queued = self.queued, 0
        self.pieces.clear()
        self._memory.used -= queued
        self._memory.spooled(queued)

    def abandon(self) -> None:
        """Free what is held: the message is kept or refused, or the client went away. Idempotent."""
        self._dropping = True
        if self.queued:
            self._forget_pieces()
        self._memory.used -= len(self._raw) + self._held
        self._raw = bytearray()
        self._held = 0

    def _trim(self) -> None:
        """Forget all but what may begin the end of the data."""
        tail = self._raw[-4:]
        self._memory.used -= len(self._raw) - len(tail)
        self._raw = tail
        self._searched = 0
        self._line_start = False  # a dot may come to stand first, though no line begins there

    def _finish(self, content_end: int, data_end: int) -> None:
        raw = self._raw
        self.ended = True
        self.leftover = bytes(raw[data_end:])
        self.received -= len(self.leftover)
        if self.received - (data_end - content_end) > self._limit and not self._dropping:
            self.too_large = True
            self.drop()
        if not self._dropping:
            self.rest = rest = self._convert(_copy(raw, content_end))
            self.size += len(rest)
            self._held += len(rest)
            self._memory.used += len(rest)
            if not self.spilled:
                self.head = rest[: header.split(rest)]
            if not self.long_line:
                self._measure(rest)
        self._memory.used -= len(raw)
        self._raw = bytearray()

    def _spill(self) -> None:
        """Hand out what is surely content. The cut is before a CRLF, which may begin the end of the data."""
        raw = self._raw
        cut = raw.rfind(b"\r\n", 0, len(raw) - 3)
        if cut < len(raw) // 2:
            cut = len(raw) - 4  # one very long line
        # Never between the CRs of one line end; a run longer than any honest one is cut all the same,
        # but not before its LF.
        near = max(0, cut - LONGEST_CR_RUN)
        cut = near + len(raw[near:cut].rstrip(b"\r")) or cut - 1
        piece = self._convert(_copy(raw, cut))
        if self._rejects and (self.bare_lf or self.bare_cr):
            self.drop()
            return
        if not self.spilled:
            whole = self._take_head(piece)
            if len(raw) > self._in_memory and not whole:
                self.header_too_long = True
                self.drop()
                return
            if max(len(self.head), 0 if whole else len(raw)) > HEADER_WHEN_SCARCE and self._memory.scarce:
                self.no_room = True
                self.drop()
                return
            if not whole:
                self._early = HEADER_WHEN_SCARCE
                return
            self._held += len(self.head)
            self._memory.used += len(self.head)
        self._crlf_seen = self._crlf_seen or raw.find(b"\r\n", 0, cut) >= 0
        self._line_start = raw[cut - 1] == 0x0A and not self._crlf_seen
        self.spilled = True
        self.size += len(piece)
        self.pieces.append(piece)
        self.queued += len(piece)
        self._memory.used += len(piece) - cut
        self._memory.spooling += len(piece)
        if not self.long_line:
            self._measure(piece)
        del raw[:cut]
        self._searched = max(0, len(raw) - 4)

    def _take_head(self, piece: bytes) -> bool:
        """Keep the header block; False when `piece` may not hold all of it."""
        length = header.split(piece)
        self.head = piece[:length]
        ended = self.head == b"\r\n" or self.head.endswith(b"\r\n\r\n")
        return ended or piece.find(b"\r\n", length) >= 0

    def _convert(self, raw: bytes) -> bytes:
        """`raw`, all or the next part of the content, unstuffed and with CRLF line ends."""
        self.nul = self.nul or raw.find(b"\0") >= 0
        if raw.find(b"\n.") >= 0 or (self._line_start and raw[:1] == b"."):
            raw = self._unstuff(raw)
        between = raw.replace(b"\r\n", b"")  # faster than counting line ends
        lf, cr = between.find(b"\n") >= 0, between.find(b"\r") >= 0  # `in` costs five times as much
        if not lf and not cr:
            return raw
        self.bare_lf = self.bare_lf or lf
        self.bare_cr = self.bare_cr or cr
        return normalise(raw, header_first=not self.spilled)

    def _measure(self, piece: bytes) -> None:
        """Look for a line that is too long, in strides of the longest allowed one."""
        find, end, begin = piece.rfind, len(piece), 0
        if self._open_line:
            begin = find(b"\n", 0, LONGEST_LINE + 2 - self._open_line) + 1
            if not begin:
                self._open_line += end
                self.long_line = self._open_line > LONGEST_LINE
                return
        last = end - LONGEST_LINE
        while begin < last:
            begin = find(b"\n", begin, begin + LONGEST_LINE + 2) + 1
            if not begin:
                self.long_line = True
                return
        self._open_line = end - (find(b"\n", begin) + 1 or begin)

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


def _copy(raw: bytearray, end: int) -> bytes:
    """The first `end` octets."""
    if end < _COPIED_TWICE:
        return bytes(raw[:end])
    with memoryview(raw) as view:  # a slice of a bytearray would be copied twice
        return view[:end].tobytes()
