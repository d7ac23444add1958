"""The seam of the ways out: a transport opens connections, a connection delivers.

What happens to mail is an outcome: neither method raises for anything an upstream or a network
does. Cancelling either aborts the connection (nothing buffered may arrive later).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import field
from typing import TYPE_CHECKING, Protocol

from relay.mail.address import Address
from relay.mail.content import Content
from relay.mail.envelope import Recipient
from relay.mail.outcome import Deferred, Outcome, Stage, Trouble
from relay.values import frozen

if TYPE_CHECKING:
    from relay.transport.tokens import TokenSource

PIECE = 256 * 1024  # octets that are read at once

CALLED_OFF = Deferred(Stage.DATA, Trouble.TRANSIENT, "the message goes by another way")


class Gate(Protocol):
    """What a transaction has to pass, once, before its content may leave: the same message is under way elsewhere.

    It is awaited, for it may have to commit something first; nothing comes between its yes and the first octet. After a
    no the transaction is given up, and whoever has no outcome yet is `CALLED_OFF`.
    """

    @property
    def contested(self) -> bool:
        """True while the other way is under way: then DATA is not sent before the gate is passed either."""
        ...

    async def __call__(self) -> bool: ...


@frozen
class DeliveryRequest:
    """One transaction: `head` (complete, with its empty line) goes first, then the octets of
    `content` from `body_offset` on.

    `smtputf8`: the client asked for it, or an address is beyond ASCII. Recipients are at least one and at
    most the upstream's `max_recipients`. `patience`: seconds that everything before the body may
    take, or None (session codes: 5); past it the connection is aborted and the outcome deferred.
    `session_code`: it may use what is kept for session codes. `encode_long_lines`: lines over 998 octets are not to go
    as they are. `gate`: to be asked before the content goes.
    `places`: that of each recipient in the envelope of the entry, from 0; the same at each attempt. `at_once`: it may
    leave in one write with its envelope: who asks for that bears that a line which breaks leaves more in doubt.
    """

    queue_id: str
    reverse_path: Address | None
    recipients: tuple[Recipient, ...]
    head: bytes
    content: Content
    body_offset: int
    smtputf8: bool = False
    ret: str | None = None
    envid: str | None = None
    patience: float | None = None
    session_code: bool = False
    encode_long_lines: bool = False
    gate: Gate | None = None
    places: tuple[int, ...] = ()
    at_once: bool = False

    @property
    def size(self) -> int:
        return len(self.head) + self.content.size - self.body_offset

    def pieces(self) -> Iterator[bytes]:
        """The message as it leaves, the head first. Raises OSError where the content cannot be read to its end."""
        yield self.head
        offset = self.body_offset
        while offset < self.content.size:
            piece = self.content.read(offset, PIECE)
            if not piece:
                raise OSError(f"the content of {self.queue_id} ends before its size")
            offset += len(piece)
            yield piece


@frozen
class Reencoding:
    """A message had to be re-encoded: `why`, how many of its parts, and how many signatures that broke."""

    why: str
    parts: int
    signatures_removed: int


@frozen
class Delivery:
    """The end of one transaction: one outcome for each recipient, in order.

    `sick`: what went wrong at the upstream as a whole (421, connection lost, not SMTP), if anything; the recipients'
    outcomes tell the same story, and `taken` says how many RCPT were answered with yes before that. `reencoding`: what
    the message went through on its way. `room`: how many it would have taken, where somebody was one too many.
    """

    outcomes: tuple[Outcome, ...]
    sick: Deferred | None = None
    reencoding: Reencoding | None = None
    taken: int = field(default=0, compare=False)  # it follows from the replies
    room: int = 0


class Connection(Protocol):
    """A connection ready for a transaction. One transaction at a time."""

    @property
    def usable(self) -> bool:
        """False once closed, broken or told 421: the pool must drop it."""
        ...

    @property
    def past_dot(self) -> bool:
        """True while a message is out and its answer is not in: breaking off now leaves it in doubt."""
        ...

    async def deliver(self, request: DeliveryRequest) -> Delivery: ...

    async def refresh(self) -> bool:
        """Say something (NOOP), so that it is not closed for its silence. False when nobody answered: it is
        aborted then. Never raises."""
        ...

    def when_lost(self, tell: Callable[[], None]) -> None:
        """`tell` is called once the connection has gone; whoever was to be told before is not."""
        ...

    async def close(self) -> None:
        """Say goodbye (QUIT), wait a moment, close. Never raises."""
        ...

    def abort(self) -> None:
        """Drop the connection at once, with whatever is buffered. Never raises."""
        ...


class Transport(Protocol):
    """One configured upstream."""

    @property
    def name(self) -> str: ...

    @property
    def size_limit(self) -> int | None:
        """The upstream's own message size limit as last seen, or None."""
        ...

    @property
    def tokens(self) -> TokenSource | None:
        """Where the tokens that it logs in with come from; None: it needs none."""
        ...

    async def connect(self) -> Connection | Deferred:
        """A connection past TLS and AUTH, or how far it came (always `upstream_sick`)."""
        ...

    def reload(self) -> None:
        """Read certificates and secrets anew at the next connection."""
        ...
