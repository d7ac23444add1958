"""A message that comes without an envelope, as software writes it into a file: its content, and the envelope it gives.

Line ends become CRLF as they do in DATA; nothing is unstuffed, a byte order mark is dropped, and the last line gets
its end. Software that writes for the pickup folder of IIS or Exchange has X-Sender and X-Receiver in the header: these
are the envelope then, wherever they stand, and are not part of the message.
"""

from __future__ import annotations

from relay.mail import addressees
from relay.mail.address import Address
from relay.mail.addressees import BadAddressees, LocalNames
from relay.mail.aliases import Aliases
from relay.mail.content import LONGEST_CR_RUN, normalise
from relay.mail.envelope import Envelope
from relay.mail.header import Header, split, value

_MARK = b"\xef\xbb\xbf"  # UTF-8, as Windows likes to say at the beginning
_IIS = frozenset({b"x-sender", b"x-receiver"})


class Conversion:
    """Turns the octets of a file into content, however they are cut into pieces. `late`: blanks and empty lines at the
    beginning are skipped, so that the header may come late."""

    def __init__(self, *, late: bool = False) -> None:
        self._late = late
        self._rest = b""
        self._begun = False
        self._line_ended = True

    def convert(self, raw: bytes) -> bytes:
        """Take the next octets of the file, b"" at its end; what is returned is the content that is sure by now."""
        data = self._rest + raw
        if not self._begun and data.startswith(_MARK):
            data = data[len(_MARK) :]
        if self._late and not self._begun:
            data = data.lstrip(b" \t\r\n")
        cut = len(data)
        if raw:  # not between the CRs of one line end, and where there are lines, behind one
            cut = data.rfind(b"\n") + 1 or len(data.rstrip(b"\r"))
            if not cut and len(data) > LONGEST_CR_RUN:
                cut = len(data)
        data, self._rest = data[:cut], data[cut:]
        content = normalise(data, header_first=not self._begun)
        self._begun = self._begun or bool(data)
        if not raw and (content or not self._line_ended) and not content.endswith(b"\r\n"):
            content += b"\r\n"
        if content:
            self._line_ended = content.endswith(b"\r\n")
        return content


def converted(octets: bytes) -> bytes:
    """The content that a whole file gives."""
    conversion = Conversion()
    return conversion.convert(octets) + conversion.convert(b"")


class Parcel:
    """A message by the beginning of its content, all of its header at least.

    `header` has the fields that were for the folder as well; `content`, and its header block `head`, have not.
    """

    def __init__(self, content: bytes) -> None:
        head = content[: split(content)]
        self.header = Header.parse(head)
        self.head, self.content = head, content
        if not _IIS.isdisjoint([name for name, _ in self.header.fields]):
            self.head = self.header.delete(_IIS).to_bytes()
            self.content = self.head + content[len(head) :]

    def recipients(self, aliases: Aliases | None = None) -> tuple[Address, ...]:
        """Those of X-Receiver, else those that the header names: there may be none. Raises BadAddressees.

        A name without a domain that is one of `aliases` is at the hostname.
        """
        names = LocalNames(aliases.hostname, aliases.targets) if aliases is not None else None
        return tuple(dict.fromkeys([_one(written, names) for written in self._values(b"x-receiver")])) or (
            addressees.recipients(self.header, names)
        )

    def reverse_path(self) -> Address | None:
        """That of X-Sender, else that of the header. Raises BadAddressees."""
        senders = self._values(b"x-sender")
        if not senders:
            return addressees.reverse_path(self.header)
        return None if senders[0] in (b"", b"<>") else _one(senders[0])

    def envelope(self, aliases: Aliases | None = None) -> Envelope:
        """The envelope, with one recipient at least, by `aliases`. Raises BadAddressees."""
        recipients = self.recipients(aliases)
        if not recipients:
            raise BadAddressees("nobody is named in To, Cc or Bcc (or X-Receiver)")
        envelope = Envelope.of(self.reverse_path(), recipients)
        return envelope if aliases is None else aliases.applied(envelope)

    def _values(self, name: bytes) -> list[bytes]:
        return [value(field) for field in self.header.all(name)]


def _one(written: bytes, names: LocalNames | None = None) -> Address:
    address = addressees.one(written, names)
    if address is None:
        raise BadAddressees("X-Sender or X-Receiver: not one address")
    return address
