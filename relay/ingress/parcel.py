"""A message that lies in a file: its octets as content, and the envelope that they give.

Line ends become CRLF as they do in DATA (`data.normalise`); nothing is unstuffed, a byte order mark is dropped,
and the last line gets its end. Software that writes for the pickup folder of IIS or Exchange puts X-Sender and
X-Receiver first: these are the envelope then, and are not part of the message.

Everything here blocks, and is called on a thread.
"""

from __future__ import annotations

import os

from relay.ingress.data import LONGEST_CR_RUN, normalise
from relay.mail import addressees, author
from relay.mail.address import Address
from relay.mail.addressees import BadAddressees
from relay.mail.envelope import Envelope, Recipient
from relay.mail.header import Header, split, value
from relay.values import frozen

PIECE = 256 * 1024
_MARK = b"\xef\xbb\xbf"  # UTF-8, as Windows likes to say at the beginning
_IIS = (b"x-sender", b"x-receiver")


class BadParcel(ValueError):
    """It cannot be taken, now or ever. `code` and `status` are those that DATA would answer with."""

    def __init__(self, text: str, *, code: int = 554, status: str = "5.6.0") -> None:
        self.code, self.status = code, status
        super().__init__(text)


_TOO_LARGE = BadParcel("larger than max_message_size", code=552, status="5.3.4")


@frozen
class Bounds:
    """What is taken."""

    size: int
    header_size: int
    header_fields: int


class Parcel:
    """An opened file, from whose descriptor nobody else reads. `first` is content: all of it where `whole`."""

    def __init__(self, descriptor: int, bounds: Bounds) -> None:
        """Raises BadParcel and OSError; the descriptor stays the caller's."""
        self._descriptor = descriptor
        self._rest = b""
        self._begun = False
        self._line_ended = True
        self._left = bounds.size
        self.whole = False
        if os.fstat(descriptor).st_size > bounds.size:
            raise _TOO_LARGE
        enough, first = max(PIECE, bounds.header_size) + 1, b""
        while not self.whole and len(first) < enough:
            first += self._read(enough)
        if not first:
            raise BadParcel("the file is empty")
        head = first[: split(first)]
        ended = self.whole or len(head) < len(first) or head.endswith(b"\r\n\r\n")
        if not ended or len(head) > bounds.header_size:
            raise BadParcel(f"its header is larger than {bounds.header_size} octets", code=552, status="5.3.4")
        header = Header.parse(head)
        if len(header.fields) > bounds.header_fields:
            raise BadParcel(f"its header has more than {bounds.header_fields} fields", code=552, status="5.3.4")
        self.envelope, octets = _envelope(header)
        self.head, self.first = head[octets:], first[octets:]

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
            content = self._converted(raw)
            if content or not raw:
                return content

    def _converted(self, raw: bytes) -> bytes:
        data, self.whole = self._rest + raw, not raw
        if not self._begun and data.startswith(_MARK):
            data = data[len(_MARK) :]
        cut = len(data)
        if raw:  # not between the CRs of one line end, and where there are lines, behind one
            cut = data.rfind(b"\n") + 1 or len(data.rstrip(b"\r"))
            if not cut and len(data) > LONGEST_CR_RUN:
                cut = len(data)
        data, self._rest = data[:cut], data[cut:]
        content = normalise(data, header_first=not self._begun)
        self._begun = self._begun or bool(data)
        if self.whole and (content or not self._line_ended) and not content.endswith(b"\r\n"):
            content += b"\r\n"
        if content:
            self._line_ended = content.endswith(b"\r\n")
        return content


def _envelope(header: Header) -> tuple[Envelope, int]:
    """The envelope, and how many octets at the beginning are not part of the message."""
    octets, count = 0, 0
    while count < len(header.fields) and header.fields[count][0] in _IIS:
        octets += len(header.fields[count][1])
        count += 1
    senders, receivers = ([value(field) for field in header.fields[:count] if field[0] == name] for name in _IIS)
    try:
        found = tuple(dict.fromkeys(map(_one, receivers))) or addressees.recipients(header)
        if not found:
            raise BadParcel("nobody is named in To, Cc or Bcc (or X-Receiver)", status="5.1.3")
        if senders:
            reverse_path = None if senders[0] in (b"", b"<>") else _one(senders[0])
        else:
            reverse_path = addressees.reverse_path(header)
    except BadAddressees as error:
        raise BadParcel(str(error), status="5.1.3") from None
    everybody = found if reverse_path is None else (*found, reverse_path)
    smtputf8 = not all(address.is_ascii for address in everybody)
    return Envelope(reverse_path, tuple([Recipient(address) for address in found]), smtputf8), octets


def _one(written: bytes) -> Address:
    """The one address of X-Sender or X-Receiver."""
    mailboxes = author.parse(written)
    address = addressees.usable(mailboxes[0]) if len(mailboxes) == 1 else None
    if address is None:
        raise BadAddressees("X-Sender or X-Receiver: not one address")
    return address
