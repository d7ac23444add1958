"""The MIME structure of a message, walked as bytes while it streams by (RFC 2045, RFC 2046).

Headers of parts, their bodies, delimiter lines, and what stands before the first and behind the last of
these: put together again, the events are the message, octet for octet, whatever it is. Only the
header of a part and the beginning of a line are ever held back. Where the standards leave a reading open, the
tolerant one of Python's `email` is taken, which mail programs share.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from enum import Enum
from typing import NamedTuple

from relay.mail.header import unfold
from relay.values import frozen

DEPTH = 100  # parts inside of parts
PARTS = 10_000
LONGEST_HEADER = 256 * 1024  # octets; of a part, the header of the message is as long as the door took it
MOST_LINES = 2000  # of such a header
_LONGEST_DELIMITER = 1024
# As the `email` package reads the lines of a header; a fold at its very beginning is part of it.
_HEADER_LINE = re.compile(rb"[!-9;-~]*+[ \t]*+:|[ \t]")
_TYPE = re.compile(rb"[ \t]*+([^ \t/;]++)[ \t]*+/[ \t]*+([^ \t;]++)")
_PARAMETER = re.compile(rb';\s*+([^=;\s]++)\s*+=\s*+("[^"\\]*+(?:\\.[^"\\]*+)*"|[^;]*+)', re.DOTALL)
_IDENTITY = "identity"
# Encodings that are none of ours; any other word, such as "8-bit", is read as none at all, as mail programs do.
_FOREIGN = re.compile(r"uu|x-")
_WALKED = frozenset({"rfc822", "news"})
_ENCODED = frozenset({"global", "global-headers", "global-delivery-status", "global-disposition-notification"})


class Kind(Enum):
    """What the body of a part is. CLOSED: something that nobody may change."""

    LEAF = "leaf"
    MULTIPART = "multipart"
    MESSAGE = "message"
    CLOSED = "closed"


@frozen
class Part:
    """What a header says of its part.

    `encoding` is "identity", "quoted-printable", "base64", or "foreign"; `why` a CLOSED part is closed. `message`: the
    header is that of a message, ours or an attached one.
    """

    kind: Kind
    encoding: str = _IDENTITY
    is_text: bool = True
    boundary: bytes = b""
    message: bool = False
    digest: bool = False
    why: str = ""


class Head(NamedTuple):
    """The header of part `number` (0 is the message), with the empty line behind it if there is one."""

    number: int
    raw: bytes
    part: Part


class Body(NamedTuple):
    """Octets of the body of the last header's part."""

    data: bytes


class Aside(NamedTuple):
    """Octets before the first, or behind the last delimiter of the multipart `of`: no reader shows them."""

    data: bytes
    of: int


class Delimiter(NamedTuple):
    """A delimiter line of the multipart `of`, with the line end before it, which belongs to it."""

    data: bytes
    of: int
    closes: bool


Event = Head | Body | Aside | Delimiter


@frozen
class _Open:
    """A multipart or an attached message whose end has not come."""

    number: int
    boundary: bytes | None = None
    digest: bool = False


class Walker:
    """Feed it pieces, then `end`; exhaust what is given back each time.

    `never_opens` names multiparts in which no part begins, where an earlier walk found out: they are leaves.
    """

    def __init__(self, never_opens: Callable[[int], bool] = lambda _: False) -> None:
        self._never_opens = never_opens
        self._buffer = b""
        self._count = 0
        self._open: list[_Open] = []
        self._marks: dict[bytes, tuple[int, bool]] = {}  # delimiter: place in `_open`, and whether it closes
        self._in_header = True
        self._line = 0  # of the header: where its next line begins in the buffer
        self._lines = 0  # of the header, before that
        self._aside: int | None = None  # the multipart whose parts have not begun, or are over
        self._fresh = True  # the buffer begins at the beginning of a line

    @property
    def enclosing(self) -> list[int]:
        """The numbers of the parts that are open around what was just given."""
        return [one.number for one in self._open]

    def feed(self, piece: bytes) -> Iterator[Event]:
        self._buffer += piece
        return self._walk(last=False)

    def end(self) -> Iterator[Event]:
        return self._walk(last=True)

    def _walk(self, *, last: bool) -> Iterator[Event]:
        while True:
            if self._in_header:
                head = self._header(last=last)
                if head is None:
                    return
                yield head
                continue
            at, line, end = self._find(last=last)
            if at:
                yield self._text(self._buffer[:at])
                self._fresh = False
            delimiter, self._buffer = self._buffer[at:end], self._buffer[max(at, end) :]
            if not end:
                return
            yield self._arrive(delimiter, delimiter[line - at :])

    def _text(self, data: bytes) -> Event:
        return Body(data) if self._aside is None else Aside(data, self._aside)

    # Headers

    def _header(self, *, last: bool) -> Head | None:
        """The header that begins the buffer; None until all of it is there."""
        buffer = self._buffer
        while True:
            end = buffer.find(b"\n", self._line) + 1
            if not end:
                if not last:
                    if self._count and len(buffer) > LONGEST_HEADER:
                        return self._begin(len(buffer), too_long=True)
                    return None
                end = len(buffer)
            line = buffer[self._line : end]
            if line in (b"\r\n", b"\n"):
                return self._begin(end)
            # The first line of a message in mbox form is no field, and belongs to its header all the same.
            is_field = _HEADER_LINE.match(line) or (self._line == 0 and line.startswith(b"From "))
            if not is_field or self._is_delimiter(line):
                return self._begin(self._line)
            self._line, self._lines = end, self._lines + 1
            if self._count and (end > LONGEST_HEADER or self._lines > MOST_LINES):
                return self._begin(end, too_long=True)

    def _begin(self, length: int, *, too_long: bool = False) -> Head:
        """The header is complete; what follows belongs to its body."""
        raw, self._buffer = self._buffer[:length], self._buffer[length:]
        self._line, self._lines, self._fresh, self._aside = 0, 0, not too_long or raw.endswith(b"\n"), None
        number, self._count = self._count, self._count + 1
        around = self._open[-1] if self._open else None
        message = around is None or around.boundary is None
        part = _describe(raw, message=message, digest=around is not None and around.digest)
        if too_long:
            part = Part(Kind.CLOSED, why="a part has too long a header")
        elif number >= PARTS:
            part = Part(Kind.CLOSED, why=f"it has more than {PARTS} parts")
            self._marks = {}
        elif len(self._open) >= DEPTH and part.kind in (Kind.MULTIPART, Kind.MESSAGE):
            part = Part(Kind.CLOSED, why=f"its parts are nested more than {DEPTH} deep")
        self._in_header = part.kind is Kind.MESSAGE
        if part.kind is Kind.MESSAGE:
            self._open.append(_Open(number))
        elif part.kind is Kind.MULTIPART and not self._never_opens(number):
            self._aside = number
            self._open.append(_Open(number, part.boundary, part.digest))
            self._mark()
        return Head(number, raw, part)

    # Bodies

    def _find(self, *, last: bool) -> tuple[int, int, int]:
        """Where the text that begins the buffer ends, and the delimiter's line and its end; or how much of the buffer
        is text for certain, and 0."""
        buffer = self._buffer
        if not self._marks:
            return len(buffer), 0, 0
        line = 0 if self._fresh and buffer.startswith(b"--") else buffer.find(b"\n--") + 1
        while line or (self._fresh and buffer.startswith(b"--")):
            end = buffer.find(b"\n", line) + 1
            if not end and last:
                end = len(buffer)
            if not end and len(buffer) - line <= _LONGEST_DELIMITER:
                return _line_end_before(buffer, line), 0, 0
            if end and self._is_delimiter(buffer[line:end]):
                return _line_end_before(buffer, line), line, end
            line = buffer.find(b"\n--", line) + 1
            if not line:
                break
        if last:
            return len(buffer), 0, 0
        if self._fresh and buffer == b"-":
            return 0, 0, 0
        held = len(buffer) - (buffer[-1:] == b"-" and buffer[-2:-1] == b"\n")
        return _line_end_before(buffer, held) if buffer[held - 1 : held] in (b"\n", b"\r") else len(buffer), 0, 0

    def _is_delimiter(self, line: bytes) -> bool:
        return line.startswith(b"--") and line.rstrip(b" \t\r\n") in self._marks

    def _arrive(self, delimiter: bytes, line: bytes) -> Delimiter:
        """A delimiter came: all that is open within its multipart has ended."""
        place, closes = self._marks[line.rstrip(b" \t\r\n")]
        of = self._open[place].number
        del self._open[place + (not closes) :]
        self._mark()
        self._in_header, self._fresh = not closes, True
        self._aside = of if closes else None
        return Delimiter(delimiter, of, closes)

    def _mark(self) -> None:
        self._marks = {}
        for place, one in enumerate(self._open):
            if one.boundary is not None:  # the outermost goes first where two are alike
                self._marks.setdefault(b"--" + one.boundary + b"--", (place, True))
                self._marks.setdefault(b"--" + one.boundary, (place, False))


def _line_end_before(buffer: bytes, line: int) -> int:
    """Where the line end begins that stands before `line`."""
    if buffer[line - 2 : line] == b"\r\n":
        return line - 2
    return line - 1 if line else 0


def fields(raw: bytes) -> tuple[list[bytes], bytes]:
    """The fields of a header with their folds, and the empty line behind them, or b""."""
    found: list[list[bytes]] = []  # joined once: a field may have very many folds
    end = b""
    for line in _lines(raw):
        if line in (b"\r\n", b"\n"):
            end = line
            break
        if found and line[:1] in (b" ", b"\t"):
            found[-1].append(line)
        else:
            found.append([line])
    return [b"".join(lines) for lines in found], end


def _lines(raw: bytes) -> list[bytes]:
    """Lines as LF ends them: a bare CR is none."""
    lines = raw.split(b"\n")
    rest = lines.pop()
    return [line + b"\n" for line in lines] + ([rest] if rest else [])


def name_of(field: bytes) -> bytes:
    """The name of a field in lower case; b"" where the line is none."""
    name, colon, _ = field.partition(b":")
    return name.rstrip().lower() if colon and field[:1] not in b" \t" else b""


def _value(found: list[bytes], name: bytes) -> bytes | None:
    for field in found:
        if name_of(field) == name:
            return unfold(field.partition(b":")[2])
    return None


def encoding_of(value: bytes | None) -> str:
    """The transfer encoding that the value of Content-Transfer-Encoding names, as `Part` has it."""
    word = (value or b"").split(b";")[0].split(b"(")[0].strip().lower().decode("ascii", "replace")
    if word in ("quoted-printable", "base64"):
        return word
    return "foreign" if _FOREIGN.match(word) else _IDENTITY


def _describe(raw: bytes, *, message: bool, digest: bool) -> Part:
    found, _ = fields(raw)
    encoding = encoding_of(_value(found, b"content-transfer-encoding"))
    value = _value(found, b"content-type") or b""
    match = _TYPE.match(value)
    if match is None:
        main, sub = ("message", "rfc822") if digest and not value else ("text", "plain")
    else:
        main, sub = (word.decode("ascii", "replace").lower() for word in match.groups())
    if main == "multipart":
        return _multipart(value[match.end() :] if match else b"", sub, encoding, message=message)
    if main == "message" and sub not in _ENCODED:
        if sub not in _WALKED:
            return Part(Kind.CLOSED, message=message, why=f"no other encoding is allowed for message/{sub}")
        if encoding != _IDENTITY:
            return Part(Kind.CLOSED, message=message, why="an attached message claims to be encoded")
        return Part(Kind.MESSAGE, encoding, message=message)
    return Part(Kind.LEAF, encoding, main == "text", message=message)


def _multipart(parameters: bytes, sub: str, encoding: str, *, message: bool) -> Part:
    if sub in ("signed", "encrypted"):
        return Part(Kind.CLOSED, message=message, why=f"it is {sub}")
    boundary = b""
    for written, value in _PARAMETER.findall(parameters):
        name = written.lower()
        if name.startswith(b"boundary*"):
            return Part(Kind.CLOSED, message=message, why="its boundary is written in pieces")
        if name == b"boundary" and not boundary:
            quoted = value[:1] == b'"' and value[-1:] == b'"' and len(value) > 1
            boundary = re.sub(rb"\\(.)", rb"\1", value[1:-1]) if quoted else value
            boundary = boundary.rstrip()
    # Without a boundary that is one, nothing tells where parts begin: it is read as text.
    if not boundary or len(boundary) > _LONGEST_DELIMITER // 2:
        return Part(Kind.LEAF, encoding, message=message)
    return Part(Kind.MULTIPART, encoding, boundary=boundary, message=message, digest=sub == "digest")
