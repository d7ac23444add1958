"""DKIM-Signature fields, as far as one has to know which changes break them (RFC 6376)."""

from __future__ import annotations

import re
from collections.abc import Sequence, Set

from relay.mail.header import Field, value
from relay.mail.mime import name_of

_NAME = b"dkim-signature"
_SIGNED = re.compile(rb"(?:^|;)\s*h\s*=([^;]*)")


def signed(signature: Field) -> frozenset[bytes]:
    """The names of the fields that a DKIM-Signature covers (RFC 6376, section 3.5, h=). From always is among them."""
    match = _SIGNED.search(value(signature))
    return frozenset([name.strip().lower() for name in match[1].split(b":")]) if match else frozenset()


def without_broken(fields: Sequence[bytes], changed: Set[bytes], *, body: bool = False) -> list[bytes]:
    """Complete `fields` without the DKIM-Signatures that cover one of those `changed`, or the `body`, if that did."""
    return [one for one in fields if name_of(one) != _NAME or not (body or changed & signed((_NAME, one)))]
