"""Content transfer encodings, piece by piece (RFC 2045, section 6): quoted-printable and base64.

Octets in, lines of at most 76 out. What comes out depends on the octets alone, not on how they were cut.
`end` gives what is left; the last line gets no end that was not in the octets.
"""

from __future__ import annotations

from binascii import a2b_qp, b2a_base64, b2a_qp
from typing import Protocol

_STRETCH = 64 * 1024  # octets of a line that are looked at in one go
_LINE = 76


class Encoding(Protocol):
    """`name` as Content-Transfer-Encoding has it."""

    name: bytes

    def feed(self, data: bytes) -> bytes: ...

    def end(self) -> bytes: ...


class QuotedPrintable:
    """A CRLF stays a line end; a bare CR or LF is an octet like others."""

    name = b"quoted-printable"

    def __init__(self) -> None:
        self._line = b""

    def feed(self, data: bytes) -> bytes:
        *lines, self._line = (self._line + data).split(b"\r\n")
        whole = [_quoted_line(line) + b"\r\n" for line in lines]
        # The CR at its end may be half of a line end.
        while len(self._line) - self._line.endswith(b"\r") > _STRETCH:
            whole.append(_quoted(self._line[:_STRETCH]) + b"=\r\n")
            self._line = self._line[_STRETCH:]
        return b"".join(whole)

    def end(self) -> bytes:
        line, self._line = self._line, b""
        return _quoted_line(line)


def _quoted_line(line: bytes) -> bytes:
    if len(line) <= _STRETCH:
        return _quoted(line)
    return b"=\r\n".join([_quoted(line[at : at + _STRETCH]) for at in range(0, len(line), _STRETCH)])


def _quoted(line: bytes) -> bytes:
    return b2a_qp(line, istext=False).replace(b"\n", b"\r\n")


class Requoted:
    """For what is quoted-printable already, but has lines or octets that it may not have."""

    name = b"quoted-printable"

    def __init__(self) -> None:
        self._encoding = QuotedPrintable()
        self._rest = b""

    def feed(self, data: bytes) -> bytes:
        data = self._rest + data
        cut = data.rfind(b"\n") + 1
        if len(data) - cut > _STRETCH:
            cut = _between_escapes(data)
        self._rest = data[cut:]
        return self._encoding.feed(a2b_qp(data[:cut]))

    def end(self) -> bytes:
        rest, self._rest = self._rest, b""
        return self._encoding.feed(a2b_qp(rest)) + self._encoding.end()


def _between_escapes(data: bytes) -> int:
    for cut in range(len(data) - 3, len(data) - 100, -1):
        if b"=" not in data[cut - 2 : cut]:
            return cut
    return len(data) - 3


class _Lines:
    """Lines of 76, the line end before each but the first."""

    name = b"base64"

    def __init__(self, octets: int) -> None:
        self._octets = octets
        self._rest = b""
        self._before = b""

    def feed(self, data: bytes) -> bytes:
        data = self._rest + self._taken(data)
        whole = len(data) // self._octets * self._octets
        self._rest = data[whole:]
        return b"".join([self._line(data[at : at + self._octets]) for at in range(0, whole, self._octets)])

    def end(self) -> bytes:
        rest, self._rest = self._rest, b""
        return self._line(rest) if rest else b""

    def _line(self, octets: bytes) -> bytes:
        before, self._before = self._before, b"\r\n"
        return before + self._written(octets)

    def _taken(self, data: bytes) -> bytes:
        return data

    def _written(self, octets: bytes) -> bytes:
        return octets


class Base64(_Lines):
    def __init__(self) -> None:
        super().__init__(_LINE // 4 * 3)

    def _written(self, octets: bytes) -> bytes:
        return b2a_base64(octets, newline=False)


class Rewrapped(_Lines):
    """For what is base64 already, in lines that are too long."""

    def __init__(self) -> None:
        super().__init__(_LINE)

    def _taken(self, data: bytes) -> bytes:
        return data.translate(None, b"\r\n")


class LineLengths:
    """Whether a line of more than 998 octets, its end not counted, streams by (RFC 5322, section 2.1.1)."""

    LONGEST = 998

    def __init__(self) -> None:
        self._open = 0  # octets of the line that is not complete
        self._cr = False  # the last of them is a CR
        self.found = False

    def feed(self, data: bytes) -> None:
        at = -self._open  # where the line begins; before the data, mostly
        size, most = len(data), self.LONGEST
        while not self.found:
            # The last line end within bounds of where a line begins: not every one is looked at.
            end = data.rfind(b"\n", max(at, 0), max(at + most + 2, 0))
            if end < 0:
                self.found = self._too_long(data, at, min(size, at + most + 2))
                break
            if end == at + most + 1 and data.find(b"\n", max(at, 0), end) < 0:
                self.found = not self._cr_before(data, end)
            at = end + 1
        self._open = size - at
        self._cr = data.endswith(b"\r") if data else self._cr

    def _cr_before(self, data: bytes, end: int) -> bool:
        return data[end - 1 : end] == b"\r" if end else self._cr

    def _too_long(self, data: bytes, at: int, end: int) -> bool:
        """No line end in sight: `end - at` octets, of which the last may be a CR."""
        octets = end - at
        if octets <= self.LONGEST:
            return False
        return octets > self.LONGEST + 1 or not (data.endswith(b"\r") if data else self._cr)
