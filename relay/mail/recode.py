"""A message re-encoded for an upstream that takes no 8-bit octets, or no long lines: only the parts that need it.

Two passes over the content, each in bounded memory: `Survey` finds what has to change, `Recoder` changes that. A
leaf becomes quoted-printable where it is text, base64 where it is not; what is encoded already is encoded properly.
What contains it and was declared 8bit or binary becomes 7bit. The decoded parts are what they were, and what
needs no change leaves byte for byte: so does all of a message that needs none.

What may not be changed (signed and encrypted parts, encodings that are none of ours) and would have to be makes the
whole message impossible (`Plan.refusal`): RFC 6152, section 3. DKIM-Signature fields that break are removed.
"""

from __future__ import annotations

from collections.abc import Iterator

from relay.mail.mime import Aside, Body, Delimiter, Event, Head, Kind, Part, Walker, fields, name_of
from relay.mail.narrow import in_ascii, in_short_lines
from relay.mail.signature import without_broken
from relay.mail.transfer import Base64, Encoding, LineLengths, QuotedPrintable, Requoted, Rewrapped
from relay.values import frozen

_ENCODE, _ENCLOSES, _OPENED, _ENDED, _WIDE, _LONG, _ODD = 1, 2, 4, 8, 16, 32, 64
_SAME_LENGTH = bytes(octet if octet < 0x80 else ord("?") for octet in range(256))


@frozen
class Terms:
    """What the upstream does not take: 8-bit octets in bodies, 8-bit octets in headers, long lines."""

    bodies: bool = False
    headers: bool = False
    long_lines: bool = False


@frozen
class Plan:
    """What a survey found. `parts`: how many are to be encoded; `wide`: 8-bit octets are among the reasons, `long`:
    long lines are. `refusal` says why it cannot be done, or is ""."""

    terms: Terms
    marks: bytes
    parts: int = 0
    asides: bool = False
    headers: bool = False
    wide: bool = False
    long: bool = False
    refusal: str = ""

    @property
    def changes(self) -> bool:
        """False where the message can go as it is."""
        return bool(self.parts or self.asides or self.headers)

    def marked(self, number: int, mark: int) -> bool:
        return number < len(self.marks) and bool(self.marks[number] & mark)

    def never_opens(self, number: int) -> bool:
        return number < len(self.marks) and not self.marks[number] & _OPENED


class Survey:
    """The first pass: feed it the message, then `end`."""

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._walker = Walker()
        self._marks = bytearray()
        self._parts: dict[int, Part] = {}  # the last one, and the multiparts in which no part has begun
        self._encoded = 0
        self._asides: set[int] = set()  # multiparts with 8-bit octets around their parts
        self._headers = self._wide = self._long = False
        self._refusal = ""
        self._lines = LineLengths()
        self._number = 0
        self._nothing = False  # no octet came since the last delimiter

    def feed(self, piece: bytes) -> None:
        self._take(self._walker.feed(piece))

    def end(self) -> Plan:
        self._take(self._walker.end())
        for number, part in self._parts.items():
            marks = self._marks[number]
            if part.kind is Kind.MULTIPART and not marks & _OPENED and marks & (_WIDE | _LONG):
                self._encode(number, part)
                if marks & _ENDED:  # readers differ about what that says
                    self._refuse("a multipart ends before it has parts")
        asides = any(self._marks[number] & _OPENED for number in self._asides)
        if any(self._marks[number] & _ODD for number in self._asides):
            self._refuse("a multipart ends before a part that it began")
        return Plan(
            self._terms,
            bytes(self._marks),
            self._encoded,
            asides,
            self._headers,
            self._wide or asides,
            self._long,
            self._refusal,
        )

    def _take(self, events: Iterator[Event]) -> None:
        for event in events:
            match event:
                case Head():
                    self._head(event)
                case Body(data):
                    self._body(self._number, data)
                case Aside(data, of):
                    self._aside(of, data)
                case Delimiter(_, of, closes):
                    self._marks[of] |= _ENDED if closes else _OPENED
                    if not closes:
                        self._parts.pop(of, None)
                    elif self._nothing:  # some readers take two delimiters in a row for one, and go on
                        self._marks[of] |= _ODD
                    self._nothing = False

    def _head(self, head: Head) -> None:
        before = self._parts.get(self._number)
        if before is not None and before.kind is not Kind.MULTIPART:
            del self._parts[self._number]
        self._number = head.number
        self._nothing = not head.raw
        # Only multiparts can turn out to have no parts.
        self._marks.append(0 if head.part.kind is Kind.MULTIPART else _OPENED)
        self._parts[head.number] = head.part
        self._lines = LineLengths()
        usual = head.raw.isascii() and len(head.raw) <= LineLengths.LONGEST
        found = [] if usual else fields(head.raw)[0]
        if not usual and _narrowed(head, found, self._terms) != found:
            self._headers = True
            self._wide = self._wide or not head.raw.isascii()
            self._long = self._long or len(head.raw) > LineLengths.LONGEST

    def _needs(self, data: bytes) -> int:
        """Marks for what is in the octets that the upstream does not take."""
        wide = self._terms.bodies and not data.isascii()
        if self._terms.long_lines and not self._lines.found:
            self._lines.feed(data)
            return _WIDE * wide | _LONG * self._lines.found
        return _WIDE * wide

    def _body(self, number: int, data: bytes) -> None:
        self._nothing = False
        needs = self._needs(data)
        if not needs:
            return
        self._marks[number] |= needs
        self._enclose()
        self._encode(number, self._parts[number])

    def _aside(self, of: int, data: bytes) -> None:
        if self._marks[of] & _OPENED:
            if self._terms.bodies and not data.isascii():
                self._asides.add(of)
                self._enclose()
            return
        needs = self._needs(data)
        self._marks[of] |= needs
        if needs & _WIDE:
            self._asides.add(of)
            self._enclose()

    def _enclose(self) -> None:
        for around in self._walker.enclosing:
            self._marks[around] |= _ENCLOSES

    def _encode(self, number: int, part: Part) -> None:
        marks = self._marks[number]
        self._wide = self._wide or bool(marks & _WIDE)
        self._long = self._long or bool(marks & _LONG)
        if part.kind is Kind.CLOSED:
            self._refuse(part.why)
        elif part.encoding == "foreign":
            self._refuse("a part has an encoding of its own")
        elif part.encoding == "base64" and marks & _WIDE:
            self._refuse("a part claims to be base64, and is not")
        if not marks & _ENCODE:
            self._marks[number] |= _ENCODE
            self._encoded += 1

    def _refuse(self, why: str) -> None:
        self._refusal = self._refusal or why


class Recoder:
    """The second pass, by the `Plan` of the first: feed it the same octets, then `end`.

    `signatures_removed` counts the DKIM-Signature fields that broke; it is known once the header has been fed.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._walker = Walker(plan.never_opens)
        self._encoding: Encoding | None = None
        self.signatures_removed = 0

    def feed(self, piece: bytes) -> bytes:
        return b"".join(self._pieces(self._walker.feed(piece)))

    def end(self) -> bytes:
        last = b"".join(self._pieces(self._walker.end()))
        encoding = self._encoding
        if encoding is None:
            return last
        last += self._flushed()
        return last + b"\r\n" if encoding.name == b"base64" else last  # its lines have no end of their own

    def _pieces(self, events: Iterator[Event]) -> Iterator[bytes]:
        for event in events:
            match event:
                case Body(data):
                    yield data if self._encoding is None else self._encoding.feed(data)
                case Aside(data, _):
                    # Nobody is shown this, so nothing is lost.
                    yield data.translate(_SAME_LENGTH) if self._plan.terms.bodies else data
                case Delimiter(data, _, _):
                    yield self._flushed()
                    yield data
                case Head(number, raw, part):
                    yield self._flushed()
                    if self._plan.marked(number, _ENCODE):
                        self._encoding = _encoding(part)
                    yield self._head(event) if self._plan.changes else raw

    def _flushed(self) -> bytes:
        encoding, self._encoding = self._encoding, None
        return encoding.end() if encoding is not None else b""

    def _head(self, head: Head) -> bytes:
        plan, number, part = self._plan, head.number, head.part
        before, end = fields(head.raw)
        found = _narrowed(head, before, plan.terms)
        if self._encoding is not None:
            found = _declared(found, self._encoding.name)
            if part.message and not any(name_of(field) == b"mime-version" for field in found):
                found.append(b"MIME-Version: 1.0\r\n")
            end = end or b"\r\n"
        elif plan.marked(number, _ENCLOSES):
            if plan.terms.bodies:
                found = [_seven_bit(field) for field in found]
            if part.kind is Kind.MESSAGE:
                end = end or b"\r\n"  # a field that is put below would become one of this header
        if number == 0:
            changed = {name_of(new) for old, new in zip(before, found, strict=False) if old != new}
            kept = without_broken(found, changed, body=bool(plan.parts or plan.asides))
            found, self.signatures_removed = kept, len(found) - len(kept)
        return b"".join(found) + end


def _narrowed(head: Head, found: list[bytes], terms: Terms) -> list[bytes]:
    """The fields that were found in `head`, each as it may go. Those of a CLOSED part, which may be cut off, stay."""
    if head.part.kind is Kind.CLOSED and head.number:
        return found
    if terms.headers and not head.raw.isascii():
        found = [in_ascii(field) for field in found]
    if terms.long_lines and len(head.raw) > LineLengths.LONGEST:
        found = [in_short_lines(field) for field in found]
    return found


def _encoding(part: Part) -> Encoding:
    if part.encoding == "base64":
        return Rewrapped()
    if part.encoding == "quoted-printable":
        return Requoted()
    return QuotedPrintable() if part.is_text else Base64()


def _declared(found: list[bytes], encoding: bytes) -> list[bytes]:
    """The fields with one Content-Transfer-Encoding, in the place of the first there was, or at the end."""
    field = b"Content-Transfer-Encoding: " + encoding + b"\r\n"
    places = [place for place, one in enumerate(found) if name_of(one) == b"content-transfer-encoding"]
    kept = [one for place, one in enumerate(found) if place not in places]
    kept.insert(places[0] if places else len(kept), field)
    return kept


def _seven_bit(field: bytes) -> bytes:
    if name_of(field) != b"content-transfer-encoding":
        return field
    word = field.partition(b":")[2].strip().lower()
    return b"Content-Transfer-Encoding: 7bit\r\n" if word in (b"8bit", b"binary") else field
