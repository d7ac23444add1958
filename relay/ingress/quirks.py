"""What a client's message tells of the client: its quirks, and the software that wrote it. No I/O.

A clean message costs a look at its head and no more.
"""

from __future__ import annotations

import re

from relay.ingress.data import ContentReader
from relay.mail.header import unfold
from relay.mail.once import ONCE
from relay.mail.quirk import Quirk
from relay.mail.reply import sanitise

NONE: frozenset[Quirk] = frozenset()
LONGEST_NAME = 255

_WANTED = {b"from": Quirk.NO_FROM, b"date": Quirk.NO_DATE, b"message-id": Quirk.NO_MESSAGE_ID}
_NAMES = re.compile(rb"\n(" + b"|".join(sorted(ONCE)) + rb")[ \t]*+:")
_SOFTWARE = re.compile(rb"\n(?:x-mailer|user-agent)[ \t]*:(.*(?:\n[ \t].*)*)")


def of_content(reader: ContentReader, *, announced: int, smtputf8: bool) -> frozenset[Quirk]:
    """The quirks of a message that `reader` read; size (0: not known) and SMTPUTF8 as MAIL announced them."""
    found = of_head(reader.head, size=reader.size, smtputf8=smtputf8)
    odd = reader.bare_lf or reader.bare_cr or reader.long_line or reader.lf_dot or reader.nul
    if odd or 0 < announced < reader.size:
        # SIZE counts line ends as they were sent (an LF is one octet), and no dots that were stuffed.
        octets = min(reader.size, reader.received - 3)
        seen = {
            Quirk.BARE_LF: reader.bare_lf,
            Quirk.BARE_CR: reader.bare_cr,
            Quirk.LF_DOT: reader.lf_dot,
            Quirk.LONG_LINE: reader.long_line,
            Quirk.NUL: reader.nul,
            Quirk.SIZE_TOO_SMALL: 0 < announced < octets,
        }
        found |= {quirk for quirk, is_so in seen.items() if is_so}
    return found


def of_head(head: bytes, *, size: int, smtputf8: bool = False) -> frozenset[Quirk]:
    """The quirks of a header block, in front of a message of `size` octets."""
    names = _NAMES.findall(b"\n" + head.lower())
    there = set(names)
    if len(there) == len(names) and there.issuperset(_WANTED) and (smtputf8 or head.isascii()):
        return NONE
    quirks = {quirk for name, quirk in _WANTED.items() if name not in there}
    if len(there) < len(names):
        quirks.add(Quirk.DUPLICATE_FIELD)
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
