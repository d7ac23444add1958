"""Trace and identification fields of ours: Received, Date, Message-ID (RFC 5321, section 4.4; RFC 5322, section 3.6).

What is the same for all messages of a second or of a peer is made once and remembered.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from functools import lru_cache

from relay.mail.address import Address
from relay.mail.submission import Peer, Submission

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_IP = re.compile(r"[0-9A-Fa-f.:]{2,45}\Z")
# What may stand in the field: a client chooses its HELO, and parentheses would change the meaning of the rest.
_NOT_A_NAME = re.compile(r"[^A-Za-z0-9.:_\[\]-]")
_NOT_A_COMMENT = re.compile(r"[^A-Za-z0-9._ -]")
_MAILBOX = re.compile(
    r'(?:[^\s\x00-\x20\x7f-\U0010ffff"()<>\\]{1,64}|"[^\x00-\x1f\x7f-\U0010ffff"\\]{1,64}")@[A-Za-z0-9.:\[\]-]{1,255}\Z'
)


def received(submission: Submission, hostname: str, *, short: bool = False) -> bytes:
    """The Received field for `submission`, complete and folded, always ASCII.

    The recipient is named only where there is one (RFC 5321, section 7.6: several would tell each
    other of blind copies). A submission of our own, whose peer has no address and no HELO, has no `from`; nor has a
    `short` field, which tells nothing of the client.
    """
    begin, end = _frame(submission.peer, hostname, short)
    recipients = submission.envelope.recipients
    reader = _reader(recipients[0].address) if len(recipients) == 1 else b""
    return b"%b%b%b%b; %b\r\n" % (begin, submission.queue_id.encode(), end, reader, date(submission.received_at))


@lru_cache(maxsize=1024)
def _reader(address: Address) -> bytes:
    """For whom it is, where that can be said in a header."""
    written = str(address)
    return b"\r\n for <%b>" % written.encode() if _MAILBOX.match(written) else b""


@lru_cache(maxsize=256)
def _frame(peer: Peer, hostname: str, short: bool) -> tuple[bytes, bytes]:
    """What stands before and behind the queue ID."""
    literal = ""
    if _IP.match(peer.address):
        literal = f"[IPv6:{peer.address}]" if ":" in peer.address else f"[{peer.address}]"
    helo = _NOT_A_NAME.sub("?", peer.helo[:255])
    if not literal and not helo:
        return f"Received: by {hostname} id ".encode(), b""
    source = "" if short else f"from {helo or literal} ({literal})\r\n " if literal else f"from {helo}\r\n "
    security = f"\r\n (using {_NOT_A_COMMENT.sub('?', peer.tls[:200])})" if peer.tls else ""
    protocol = _NOT_A_NAME.sub("?", peer.protocol)
    return f"Received: {source}by {hostname} with {protocol} id ".encode(), security.encode()


def date(moment: datetime) -> bytes:
    """The value of a Date field, in the time zone of `moment`. Raises ValueError if it has none."""
    offset = moment.utcoffset()
    if offset is None:
        raise ValueError("a date without a time zone")
    return _date(moment.replace(microsecond=0), offset)


@lru_cache(maxsize=64)
def _date(moment: datetime, offset: timedelta) -> bytes:
    # Not strftime: names of days and months must not follow the locale. The offset is an argument
    # because equal moments of two zones are equal keys.
    minutes = round(offset.total_seconds()) // 60
    sign, minutes = ("-", -minutes) if minutes < 0 else ("+", minutes)
    return (
        f"{_DAYS[moment.weekday()]}, {moment.day} {MONTHS[moment.month - 1]} {moment.year:04d} "
        f"{moment:%H:%M:%S} {sign}{minutes // 60:02d}{minutes % 60:02d}"
    ).encode()


def message_id(queue_id: str, hostname: str) -> bytes:
    """The value of a Message-ID field, angle brackets included."""
    return f"<{queue_id}@{hostname}>".encode()
