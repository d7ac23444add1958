"""What an upstream offers in EHLO (RFC 5321, section 4.1.1.1), as far as a transaction cares."""

from __future__ import annotations

from collections.abc import Mapping

from relay.values import frozen


@frozen
class Offers:
    """`size`: None when SIZE is not offered; 0 when it is, without a limit (RFC 1870, section 4)."""

    pipelining: bool = False
    eightbit: bool = False
    smtputf8: bool = False
    dsn: bool = False
    chunking: bool = False
    size: int | None = None

    @classmethod
    def of(cls, extensions: Mapping[str, str]) -> Offers:
        """From keywords in lower case with their parameters."""
        size = None
        if "size" in extensions:
            parameter = extensions["size"].strip()
            size = int(parameter) if parameter.isascii() and parameter.isdigit() and len(parameter) <= 20 else 0
        return cls(
            pipelining="pipelining" in extensions,
            eightbit="8bitmime" in extensions,
            smtputf8="smtputf8" in extensions,
            dsn="dsn" in extensions,
            chunking="chunking" in extensions,
            size=size,
        )
