"""Reading an upstream's replies: bytes as they come in, complete replies out, and no more than are owed.

Strict about what makes a reply (RFC 5321, section 4.2): three digits of 200 to 599, a space, a
hyphen or the end of the line, one code in all lines, no NUL, at most 32 KiB in all. Whatever else comes is
not SMTP, and nothing can be concluded from it. Lenient about the text, which may be anything,
and about a bare LF as line end.
"""

from __future__ import annotations

import re

from relay.mail.reply import Reply, sanitise

LONGEST = 32 * 1024
MOST_LINES = 100
MOST_OF_A_LINE = 8 * 1024
_CODES = frozenset(b"%d" % code for code in range(200, 600))
_MARKS = frozenset((b" ", b"-", b""))
# Complete replies of one line each, with CRLF: what comes nearly always.
_PLAIN = re.compile(rb"(?:[2-5][0-9][0-9](?: [^\r\n\0]*+)?\r\n)+")
_STATUS = re.compile(r"([245]\.\d{1,3}\.\d{1,3})(?: +|$)", re.ASCII)


class ReplyReader:
    """Cuts a stream into replies, and counts them. A reply is its lines without line ends, joined by LF.

    `owed` is how many replies are still to come: whoever writes a command adds one. `surplus` are those beyond: nobody
    knows what they answer. `broken` says why what came is no reply, and quotes nothing; from there on nothing more is
    read.
    """

    __slots__ = ("_lines", "_rest", "_size", "broken", "owed", "surplus")

    def __init__(self) -> None:
        self._lines: list[bytes] = []
        self._rest = b""
        self._size = 0
        self.broken: str | None = None
        self.owed = 0
        self.surplus: list[bytes] = []

    @property
    def in_step(self) -> bool:
        """False once anything came that is not owed, be it part of a reply."""
        return not self.surplus and (self.owed > 0 or not (self._rest or self._lines or self.broken))

    @property
    def clean(self) -> bool:
        """True between replies; False when part of one has come, or something that is none."""
        return not (self._rest or self._lines or self.broken)

    def answers(self, received: bytes) -> list[bytes]:
        """The replies that `received` completes and that are owed; others are `surplus`."""
        replies = self.feed(received)
        surplus = len(replies) - self.owed
        if surplus > 0:
            self.surplus += replies[self.owed :]
            del replies[self.owed :]
            self.owed = 0
        else:
            self.owed = -surplus
        return replies

    def feed(self, received: bytes) -> list[bytes]:
        """The replies that `received` completes, up to where the stream breaks."""
        replies: list[bytes] = []
        if self.broken is not None:
            return replies
        if not (self._rest or self._lines) and len(received) <= LONGEST and _PLAIN.fullmatch(received):
            return received[:-2].split(b"\r\n")
        lines = (self._rest + received if self._rest else received).split(b"\n")
        self._rest = lines.pop()
        for ended in lines:
            line = ended[:-1] if ended[-1:] == b"\r" else ended
            self._size += len(line)
            self.broken = self._fault(line)
            if self.broken is not None:
                return replies
            if line[3:4] == b"-":
                self._lines.append(line)
            else:
                replies.append(b"\n".join((*self._lines, line)) if self._lines else line)
                self._lines.clear()
                self._size = 0
        if self._size + len(self._rest) > LONGEST:
            self.broken = "the reply is too long"
        return replies

    def _fault(self, line: bytes) -> str | None:
        if line[:3] not in _CODES:
            return "the reply has no code"
        if line[3:4] not in _MARKS:
            return "the reply has no space behind its code"
        if b"\0" in line:
            return "the reply has a NUL"
        if self._lines and self._lines[0][:3] != line[:3]:
            return "the lines of the reply have different codes"
        return "the reply is too long" if self._size > LONGEST else None


def code_of(raw: bytes) -> int:
    """The code of a reply that a `ReplyReader` cut."""
    return int(raw[:3])


def reply_of(raw: bytes) -> Reply:
    """The `Reply` in what a `ReplyReader` cut: one line of printable text, the enhanced status apart.

    A status counts where its class is that of the code (RFC 2034, section 4); it is taken off every line. No more
    than the first `MOST_LINES` are looked at, and `MOST_OF_A_LINE` octets of each.
    """
    status = ""
    parts: list[str] = []
    for line in raw.split(b"\n", MOST_LINES)[:MOST_LINES]:
        text = line[4:MOST_OF_A_LINE].decode("utf-8", "replace").strip()
        found = _STATUS.match(text)
        if found and text[0] == chr(raw[0]):
            status = status or found[1]
            text = text[found.end() :]
        if text:
            parts.append(text)
    return Reply(code_of(raw), status, sanitise(" ".join(parts)))
