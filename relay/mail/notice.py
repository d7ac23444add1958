"""A message that the relay writes by itself, in plain text; and the pieces that it shares with reports (`dsn`).

Pure: the same values give the same bytes. Nothing that is put in can begin a line or a field: values are one
printable line each, the text is quoted-printable.
"""

from __future__ import annotations

import quopri
import re
from collections.abc import Sequence
from datetime import datetime
from email.header import Header as UnstructuredText
from email.utils import format_datetime

from relay.mail.address import Address
from relay.mail.reply import sanitise

_PLAIN_LOCAL = re.compile(r"[^\s()<>\[\]:;@\\,\"]+\Z")
_QUOTED_LOCAL = re.compile(r'"(?:[^"\\]|\\.)*"\Z')


def build(
    subject: str,
    text: str,
    *,
    queue_id: str,
    hostname: str,
    author: Address,
    readers: Sequence[Address],
    now: datetime,
) -> bytes:
    """The message as complete content with CRLF line ends; the lines of `text` end with "\\n".

    `queue_id` is its own. 8-bit octets occur only where an address needs SMTPUTF8.
    """
    fields = [
        f"From: Mail relay <{addr_spec(author)}>",
        "To: " + ",\r\n ".join(f"<{addr_spec(reader)}>" for reader in readers),
        encoded("Subject", sanitise(subject)),
        f"Date: {format_datetime(now)}",
        f"Message-ID: <{queue_id}@{hostname}>",
        "Auto-Submitted: auto-generated",
        "MIME-Version: 1.0",
        "Content-Type: text/plain; charset=utf-8",
        "Content-Transfer-Encoding: quoted-printable",
    ]
    return "\r\n".join([*fields, "", ""]).encode() + quoted_printable(text)


def quoted_printable(text: str) -> bytes:
    """`text` as UTF-8, quoted-printable, with CRLF line ends (RFC 2045, section 6.7)."""
    return quopri.encodestring(text.encode()).replace(b"\n", b"\r\n")


def encoded(name: str, text: str) -> str:
    """A field with `text`, folded; encoded words where ASCII does not do (RFC 2047)."""
    plain = text.isascii() and "=?" not in text and max(map(len, text.split())) < 60
    words = UnstructuredText(text, "us-ascii" if plain else "utf-8", maxlinelen=76, header_name=name)
    return f"{name}: {words.encode(linesep=chr(13) + chr(10))}"


def addr_spec(address: Address) -> str:
    """The address as it may stand in a header field (RFC 5322, section 3.4.1), in ASCII where it has such a form."""
    address = address.in_ascii or address
    local = sanitise(address.local)
    if not (_PLAIN_LOCAL.match(local) or _QUOTED_LOCAL.match(local)):
        local = '"' + local.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return f"{local}@{sanitise(address.domain)}" if address.domain else local
