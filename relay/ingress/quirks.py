"""What a client's message tells of the client: its quirks, and the software that wrote it. No I/O.

A clean message costs a look at its head and no more.
"""

from __future__ import annotations

import re

from relay.ingress.data import ContentReader
from relay.mail.header import unfold
from relay.mail.quirk import Quirk
from relay.mail.reply import sanitise

NONE: frozenset[Quirk] = frozenset()
LONGEST_NAME = 255

_FIELDS = (
    (Quirk.NO_FROM, b"\nfrom:", re.compile(rb"\nfrom[ \t]*:")),
    (Quirk.NO_DATE, b"\ndate:", re.compile(rb"\ndate[ \t]*:")),
    (Quirk.NO_MESSAGE_ID, b"\nmessage-id:", re.compile(rb"\nmessage-id[ \t]*:")),
)
_SOFTWARE = re.compile(rb"\n(?:x-mailer|user-agent)[ \t]*:(.*(?:\n[ \t].*)*)")


def of_content(reader: ContentReader, *, announced: int, smtputf8: bool) -> frozenset[Quirk]:
    """The quirks of a message that `reader` read; size (0: not known) and SMTPUTF8 as MAIL announced them."""
    found = of_head(reader.head, size=reader.size, smtputf8=smtputf8)
    if reader.bare_lf or reader.bare_cr or reader.long_line or reader.lf_dot or 0 < announced < reader.size:
        # SIZE counts line ends as they were sent (an LF is one octet), and no dots that were stuffed.
        octets = min(reader.size, reader.received - 3)
        seen = {
            Quirk.BARE_LF: reader.bare_lf,
            Quirk.BARE_CR: reader.bare_cr,
            Quirk.LF_DOT: reader.lf_dot,
            Quirk.LONG_LINE: reader.long_line,
            Quirk.SIZE_TOO_SMALL: 0 < announced < octets,
        }
        found |= {quirk for quirk, is_so in seen.items() if is_so}
    return found


def of_head(head: bytes, *, size: int, smtputf8: bool = False) -> frozenset[Quirk]:
    """The quirks of a header block, in front of a message of `size` octets."""
    lower = b"\n" + head.lower()
    find = lower.find  # `in` costs five times as much
    if find(b"\nfrom:") >= 0 and find(b"\ndate:") >= 0 and find(b"\nmessage-id:") >= 0 and (smtputf8 or head.isascii()):
        return NONE
    quirks = {quirk for quirk, usual, field in _FIELDS if usual not in lower and not field.search(lower)}
    if not head and size:
        quirks.add(Quirk.NO_HEADER)
    if not smtputf8 and not head.isascii():
        quirks.add(Quirk.EIGHT_BIT_HEADER)
    return frozenset(quirks)


def software(head: bytes) -> str:
    """What X-Mailer or User-Agent says, on one printable line; "" when there is neither."""
    lower = b"\n" + head.lower()
    if b"x-mailer" not in lower and b"user-agent" not in lower:
        return ""
    found = _SOFTWARE.search(lower)
    if found is None:
        return ""
    # `lower` has one octet more in front
    value = unfold(head[found.start(1) - 1 : found.end(1) - 1])
    return sanitise(value[: 4 * LONGEST_NAME].decode("utf-8", "replace"), LONGEST_NAME)
