"""DKIM-Signature fields, as far as one has to know which changes break them (RFC 6376)."""

from __future__ import annotations

import re

from relay.mail.header import Field, value

_SIGNED = re.compile(rb"(?:^|;)\s*h\s*=([^;]*)")


def signed(signature: Field) -> frozenset[bytes]:
    """The names of the fields that a DKIM-Signature covers (RFC 6376, section 3.5, h=). From always is among them."""
    match = _SIGNED.search(value(signature))
    return frozenset([name.strip().lower() for name in match[1].split(b":")]) if match else frozenset()
