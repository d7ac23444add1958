"""A submission: what a client handed us, and all that a decision may look at.

It is stored with the message, so that the decision can be made again with the current
configuration at each attempt.
"""

from __future__ import annotations

from datetime import datetime

from relay.mail.envelope import Envelope
from relay.values import frozen


@frozen
class Peer:
    """The client's side of a connection.

    `address` is an IP address as text (IPv4-mapped addresses are folded to IPv4).
    `helo` is what it called itself, sanitised to printable ASCII; `protocol` one of SMTP, ESMTP,
    ESMTPS, ESMTPA, ESMTPSA, UTF8SMTP… (RFC 3848, RFC 6531); `tls` "TLSv1.3 TLS_AES_256_GCM_SHA384"
    or None; `user` the AUTH name, told or proven as the listener has it, or None.
    """

    address: str
    helo: str = ""
    protocol: str = "SMTP"
    tls: str | None = None
    user: str | None = None


@frozen
class Submission:
    """`head` is the content's header block (`mail.content`); `size` counts the whole content."""

    queue_id: str
    envelope: Envelope
    head: bytes
    size: int
    peer: Peer
    listener: str
    received_at: datetime
