"""The PROXY protocol: the header by which a load balancer tells whom it speaks for (haproxy, proxy-protocol.txt).

Versions 1 (a line) and 2 (binary), read without a single octet of what stands behind, so that a TLS
handshake may follow. What the header says besides the client's address (ports, TLVs) is not looked at. No I/O.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address

from relay.values import frozen

LONGEST_LINE = 107  # octets of a version 1 header, with CRLF
LONGEST_BLOCK = 4096  # octets of a version 2 header; the addresses take 232 at most, the rest are TLVs
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"  # of version 2
_FIXED = 16  # octets of a version 2 header before the addresses
_SHORTEST = b"PROXY UNKNOWN\r\n"
_LINE = re.compile(rb"PROXY TCP([46]) ([0-9A-Fa-f.:]+) ([0-9A-Fa-f.:]+) ([0-9]{1,5}) ([0-9]{1,5})\r\n")
_LOCAL, _PROXY = 0x20, 0x21  # version and command
_TCP4, _TCP6 = 0x11, 0x21
_WITHOUT_ADDRESS = frozenset({0x00, 0x31, 0x32})  # unspecified, Unix sockets


class BadHeader(ValueError):
    """No PROXY header; the text says why, and quotes nothing."""


@frozen
class ProxyHeader:
    """`client` is the address in plain form, None when the load balancer speaks for itself."""

    client: str | None


class HeaderReader:
    """A header as it arrives. Feed it `wanted` octets at most, until it gives the header; raises BadHeader."""

    def __init__(self) -> None:
        self._octets = b""

    @property
    def begun(self) -> bool:
        return bool(self._octets)

    @property
    def wanted(self) -> int:
        """How many octets more belong to the header for certain."""
        octets = self._octets
        if octets[:1] == SIGNATURE[:1]:
            return (_FIXED if len(octets) < _FIXED else _length(octets)) - len(octets)
        if len(octets) < len(_SHORTEST):
            return len(_SHORTEST) - len(octets)
        if octets.endswith(b"\r"):
            return 1
        # Each field that is missing takes a space and a character at least, the end CR and LF.
        missing = max(0, 5 - octets.count(b" ")) if octets.startswith(b"PROXY TCP") else 0
        return min(2 + 2 * missing, LONGEST_LINE - len(octets))

    def feed(self, data: bytes) -> ProxyHeader | None:
        self._octets = octets = self._octets + data
        if octets[:1] == SIGNATURE[:1]:
            return self._block(octets)
        if not octets.startswith(b"PROXY "[: len(octets)]):
            raise BadHeader("no PROXY header (does the load balancer send one?)")
        if octets.endswith(b"\r\n"):
            return _line(octets)
        if len(octets) >= LONGEST_LINE or b"\n" in octets:
            raise BadHeader("a malformed PROXY header of version 1")
        return None

    def _block(self, octets: bytes) -> ProxyHeader | None:
        if not SIGNATURE.startswith(octets[: len(SIGNATURE)]):
            raise BadHeader("no PROXY header (does the load balancer send one?)")
        if len(octets) < _FIXED:
            return None
        length = _length(octets)
        if octets[12] not in (_LOCAL, _PROXY):
            raise BadHeader("a PROXY header of an unknown version or with an unknown command")
        if length > LONGEST_BLOCK:
            raise BadHeader("a PROXY header that is too long")
        return _addresses(octets) if len(octets) == length else None


def _length(octets: bytes) -> int:
    """Of a version 2 header, all of it."""
    return _FIXED + int.from_bytes(octets[14:16], "big")


def _line(octets: bytes) -> ProxyHeader:
    """Version 1 (proxy-protocol.txt, section 2.1)."""
    if octets.startswith((b"PROXY UNKNOWN\r\n", b"PROXY UNKNOWN ")):
        return ProxyHeader(None)
    found = _LINE.fullmatch(octets)
    if found is None or max(int(found[4]), int(found[5])) > 65_535:
        raise BadHeader("a malformed PROXY header of version 1")
    kind: Callable[[str], IPv4Address | IPv6Address] = IPv4Address if found[1] == b"4" else IPv6Address
    try:
        client, _ = kind(found[2].decode()), kind(found[3].decode())
    except ValueError:
        raise BadHeader("a malformed address in a PROXY header of version 1") from None
    return ProxyHeader(_folded(client))


def _addresses(octets: bytes) -> ProxyHeader:
    """Version 2 (proxy-protocol.txt, section 2.2)."""
    family, addresses = octets[13], octets[_FIXED:]
    if octets[12] == _LOCAL or family in _WITHOUT_ADDRESS:
        return ProxyHeader(None)
    if family == _TCP4 and len(addresses) >= 12:
        return ProxyHeader(str(IPv4Address(addresses[:4])))
    if family == _TCP6 and len(addresses) >= 36:
        return ProxyHeader(_folded(IPv6Address(addresses[:16])))
    raise BadHeader("a PROXY header of version 2 with addresses that are not those of TCP")


def _folded(address: IPv4Address | IPv6Address) -> str:
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address)
