"""An SMTP reply: code, enhanced status, text (RFC 5321, section 4.2; RFC 3463; RFC 2034).

Replies of ours are built once and sent as bytes. A reply from upstream is sanitised before it
becomes a `Reply`: printable text only, at most 1 KiB, so that it can go to log, store and report.
"""

from __future__ import annotations

from relay.values import frozen


@frozen
class Reply:
    """`status` is an enhanced status code "5.7.1", or "" where the reply has none."""

    code: int
    status: str
    text: str

    def __post_init__(self) -> None:
        if "\r" in self.text or "\n" in self.text:
            raise ValueError("a reply is one line here")

    def __str__(self) -> str:
        return f"{self.code} {self.status} {self.text}" if self.status else f"{self.code} {self.text}"

    def to_bytes(self) -> bytes:
        """The reply as one line, CRLF included."""
        return f"{self}\r\n".encode("utf-8", "replace")


def sanitise(text: str, limit: int = 1024) -> str:
    """`text` without control characters and surrogates, line ends as spaces, at most `limit` characters."""
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    if not text.isprintable():
        text = "".join([c if c.isprintable() else " " if c in "\r\n\t" else "?" for c in text])
    return text
