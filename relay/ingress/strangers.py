"""Other protocols on our port, known by their first line or their first octet. No I/O."""

from __future__ import annotations

_REQUESTS = frozenset(
    b"GET POST HEAD PUT OPTIONS CONNECT DELETE PATCH TRACE PRI HOST: "  # HTTP
    b"INVITE REGISTER SUBSCRIBE DESCRIBE".split()  # SIP, RTSP
)
_BINARY = frozenset(range(32)) - set(b"\t\r\n")  # a TLS handshake begins with 0x16, RDP with 0x03, SMB with 0x00


def is_stranger(verb: bytes) -> bool:
    """True when the first line of a session begins with `verb`, in capitals, and is no SMTP of any kind."""
    return verb in _REQUESTS or verb.startswith(b"SSH-") or (bool(verb) and verb[0] in _BINARY)


def begins_binary(octets: bytes | bytearray) -> bool:
    """True when no line need be waited for: a session begins with `octets`, which are no text."""
    return octets[0] in _BINARY
