"""A message in one write with its envelope: MAIL, RCPT, `BDAT n LAST`, the content, EHLO (RFC 3030, RFC 2920).

One round trip instead of two. By DATA the 354 shows that replies and commands are in step. Here EHLO does, which does
what RSET would (RFC 5321, section 4.1.4), and has an answer like no other: where something else stands in its place, or
nothing, the answer before it is not believed.

What an upstream gets wrong about it, its other connections need not find out: they share a `Chunking`. Some offer
CHUNKING and do not know BDAT, wait for a dot behind it, or read a chunk that they refused as commands. So:

- As long as nothing was ever taken this way, any break there ends the use of it; later only an answer that shows it.
- Content that speaks SMTP goes by DATA: whoever is out of step would do what it says.
"""

from __future__ import annotations

from collections.abc import Callable

from relay.transport.port import DeliveryRequest

FRESH = 5.0  # seconds since the upstream spoke last; one that was silent for longer may have gone, with the message
_SPEAKS_SMTP = b"rcpt to"


class Chunking:
    """Whether messages go to an upstream this way. `tell` hears why they do no longer, once until `begin_anew`."""

    __slots__ = ("_tell", "_wanted", "in_use", "proven")

    def __init__(self, *, wanted: bool, tell: Callable[[str], None]) -> None:
        self._wanted = self.in_use = wanted
        self._tell = tell
        self.proven = False  # a message was taken this way

    def give_up(self, why: str) -> None:
        if self.in_use:
            self.in_use = False
            self._tell(why)

    def begin_anew(self) -> None:
        self.in_use, self.proven = self._wanted, False


def in_one_write(lines: list[bytes], request: DeliveryRequest, hello: bytes) -> bytes | None:
    """The envelope `lines`, the whole message, which is in memory, and `hello`; None where it is to go by DATA.

    The content is not stuffed. It ends with CRLF, as by DATA.
    """
    content = request.content
    body = content.read(request.body_offset, content.size)
    if _SPEAKS_SMTP in body.lower() or _SPEAKS_SMTP in request.head.lower():
        return None
    size = len(request.head) + len(body)
    end = b"" if not size or (request.head[-2:] + body[-2:]).endswith(b"\r\n") else b"\r\n"
    return b"".join((*lines, b"BDAT %d LAST\r\n" % (size + len(end)), request.head, body, end, hello))


def answers_hello(raw: bytes) -> bool:
    """Whether a reply is that to EHLO, of an upstream that offers CHUNKING."""
    return raw.startswith(b"2") and b"CHUNKING" in raw.upper().split(b"\n", 1)[-1] and b"\n" in raw
