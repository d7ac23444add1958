"""A delivery status notification: the report we write about a message (RFC 3464, RFC 6522).

Three parts: words for a person, fields for a program, and the header of the message (or all of
it, where RET=FULL asked, somebody did not get it, and it is small and in memory). Pure: every
input is a value, and the same values give the same bytes.

Nothing that comes from the message or from an upstream can begin a line, a field or a MIME part:
values are one printable line each, the words are quoted-printable, and the boundary is chosen so
that it occurs in no part. Reports about session codes hold reply codes only, and no Subject.
"""

from __future__ import annotations

import quopri
import re
import textwrap
from collections.abc import Sequence
from datetime import datetime
from email.utils import format_datetime

from relay.mail.address import Address
from relay.mail.author import authors_of
from relay.mail.content import Content
from relay.mail.dsn_text import Action, Fate, Telling, diagnosis, explain
from relay.mail.encoding import decode
from relay.mail.envelope import Envelope
from relay.mail.header import Header, value
from relay.mail.notice import addr_spec, encoded, quoted_printable
from relay.mail.reply import sanitise
from relay.texts.language import Languages, in_both
from relay.values import frozen

RETURNED = "5.7.0"
"""The status of what an operator has returned (RFC 3463, section 3.8): a decision of policy, and nearer to none of
its details. 5.7.1, for one, would say that the sender may not send to the recipient."""
FULL_LIMIT = 256 * 1024  # octets; a larger message comes back as its header, whatever RET says
_SUBJECT_SHOWN = 120
_LINE = 998  # RFC 5322, section 2.1.1, without CRLF
_MESSAGE_ID = re.compile(rb"<[!-;=?-~]{3,250}>")
_STATUS = re.compile(r"[245]\.[0-9]{1,3}\.[0-9]{1,3}\Z")
_XTEXT = re.compile(r"\+([0-9A-F]{2})")
# Fields that repeat the subject of a message, which for a session code may be the code.
_TELLS = (b"subject", b"topic", b"comments", b"keywords", b"summary", b"description", b"preview")


@frozen
class Original:
    """The message that a report is about. `attempts` is how often it was tried, `content` the whole of it."""

    queue_id: str
    envelope: Envelope
    received_at: datetime
    attempts: int
    content: Content
    session_code: bool = False


def build(
    original: Original,
    fates: Sequence[Fate],
    *,
    queue_id: str,
    hostname: str,
    author: Address,
    readers: Sequence[Address],
    now: datetime,
    languages: Languages,
    refused: Address | None = None,
    to_sender: bool = True,
    stands_in: bool = False,
) -> bytes:
    """The report about `fates` (one at least), for `readers`, as complete content with CRLF line ends.

    `queue_id` is the report's own: Message-ID and boundary come from it. `hostname` is the reporting
    MTA. Not `to_sender`: it is for those who answer for the relay (of failures only); `stands_in`: for somebody in the
    sender's place. Both are told whose message it was, and never get more of it than its header. `refused` is the
    sender whom an upstream refuses, by default the author. 8-bit octets occur only where a whole 8-bit message is
    returned, or an address needs SMTPUTF8.
    """
    action = next(action for action in Action if any(fate.action is action for fate in fates))
    head = original.content.head
    subject = "" if original.session_code else subject_of(head)
    telling = Telling(
        queue_id=original.queue_id,
        hostname=hostname,
        received_at=original.received_at,
        now=now,
        attempts=original.attempts,
        subject=subject,
        codes_only=original.session_code,
        sender="" if to_sender and not stands_in else str(original.envelope.reverse_path or "<>"),
        refused=_author(original) if refused is None else str(refused),
        for_operator=not to_sender,
    )
    words = explain(fates, telling, languages)
    text = quoted_printable(words)
    parts = [
        b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n" + text,
        b"Content-Type: message/delivery-status\r\n\r\n" + _status_fields(original, fates, hostname, now),
        # RET=FULL is about failures (RFC 3461, section 4.3).
        _returned(original, whole=to_sender and not stands_in and action is Action.FAILED),
    ]
    mark = boundary(queue_id, parts)
    title = in_both(languages, f"bounce.title-{action}")
    eight_bit = parts[2].startswith(_EIGHT_BIT)
    fields = [
        f"From: Mail Delivery System <{addr_spec(author)}>",
        "To: " + ",\r\n ".join(f"<{addr_spec(reader)}>" for reader in readers),
        encoded("Subject", f"{title}: {subject}" if subject else title),
        f"Date: {format_datetime(now)}",
        f"Message-ID: <{queue_id}.report@{hostname}>",
        *_thread(head),
        "Auto-Submitted: auto-replied",
        "MIME-Version: 1.0",
        f'Content-Type: multipart/report; report-type=delivery-status;\r\n boundary="{mark}"',
        f"Content-Transfer-Encoding: {'8bit' if eight_bit else '7bit'}",
    ]
    return "\r\n".join([*fields, "", ""]).encode() + joined(parts, mark)


def joined(parts: Sequence[bytes], mark: str) -> bytes:
    """A body of these MIME parts, with `mark` as their boundary."""
    line = f"--{mark}".encode()
    return b"".join(line + b"\r\n" + part + b"\r\n" for part in parts) + line + b"--\r\n"


# The fields for programs


def _status_fields(original: Original, fates: Sequence[Fate], hostname: str, now: datetime) -> bytes:
    """The body of message/delivery-status (RFC 3464, section 2): one block for the message, one for each recipient."""
    block = [folded("Reporting-MTA", f"dns; {hostname}"), folded("X-Queue-ID", original.queue_id)]
    if original.envelope.envid:
        block.append(folded("Original-Envelope-Id", _unxtext(original.envelope.envid)))
    block.append(f"Arrival-Date: {format_datetime(original.received_at)}")
    blocks = [block, *(recipient_block(fate, original.session_code, now) for fate in fates)]
    return "\r\n".join(line for block in blocks for line in (*block, "")).encode("ascii")


def recipient_block(fate: Fate, codes_only: bool, now: datetime) -> list[str]:
    """What became of one recipient (RFC 3464, section 2.3), a field each; `now` is when."""
    block = []
    if fate.recipient.orcpt:
        block.append(folded("Original-Recipient", _unxtext(fate.recipient.orcpt)))
    block.append(folded("Final-Recipient", _typed(fate.recipient.address)))
    block += [f"Action: {fate.action}", f"Status: {_status(fate)}"]
    if fate.upstream:
        block.append(folded("Remote-MTA", f"x-upstream; {fate.upstream}"))
    said = diagnosis(fate, codes_only=codes_only)
    if said:
        block.append(folded("Diagnostic-Code", f"{'x-relay' if fate.reply is None else 'smtp'}; {said}"))
    if fate.upstream:  # else nothing was tried now, and when it was is not known
        block.append(f"Last-Attempt-Date: {format_datetime(now)}")
    if fate.retry_until is not None:
        block.append(f"Will-Retry-Until: {format_datetime(fate.retry_until)}")
    return block


def _status(fate: Fate) -> str:
    """The enhanced status (RFC 3463), made from the reply code where the reply has none."""
    if fate.returned:
        return RETURNED
    if fate.expired:
        return "4.4.7"
    if fate.reply is None:
        return {Action.FAILED: "5.0.0", Action.DELAYED: "4.0.0", Action.RELAYED: "2.0.0"}[fate.action]
    if _STATUS.match(fate.reply.status):
        return fate.reply.status
    return f"{fate.reply.code // 100 if fate.reply.code // 100 in (2, 4, 5) else 5}.0.0"


def _typed(address: Address) -> str:
    """The address with its type, its domain as A-labels; 7-bit even where it is not (RFC 6533, section 3)."""
    text = sanitise(str(address.in_ascii or address))
    if text.isascii():
        return f"rfc822; {text}"
    return "utf-8; " + "".join(c if c.isascii() and c not in "\\+=" else f"\\x{{{ord(c):X}}}" for c in text)


def _unxtext(xtext: str) -> str:
    """Decoded xtext (RFC 3461, section 4)."""
    return _XTEXT.sub(lambda match: chr(int(match[1], 16)), xtext)


def folded(name: str, text: str) -> str:
    """A field of printable ASCII, folded at spaces; a word longer than a line may be is cut."""
    text = "".join(c if c.isascii() and c.isprintable() else "?" for c in text)
    words = [word[at : at + 900] for word in text.split() for at in range(0, len(word), 900)]
    return "\r\n ".join(textwrap.wrap(f"{name}: {' '.join(words)}", 76, break_long_words=False, break_on_hyphens=False))


# The message that comes back

_EIGHT_BIT = b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: 8bit\r\n"


def _returned(original: Original, *, whole: bool) -> bytes:
    """The third part: the header of the message, or, where that is allowed and was asked for, all of it."""
    content = original.content
    if (
        whole
        and original.envelope.ret == "full"
        and not original.session_code
        and content.in_memory
        and content.size <= FULL_LIMIT
    ):
        data = content.read(0, content.size)
        if b"\0" not in data and _short_lines(data):
            opening = b"Content-Type: message/rfc822\r\n\r\n" if data.isascii() else _EIGHT_BIT + b"\r\n"
            return opening + data
    head = quiet(content.head) if original.session_code else content.head.removesuffix(b"\r\n")
    if head.isascii() and b"\0" not in head and _short_lines(head):
        return b"Content-Type: text/rfc822-headers\r\n\r\n" + head
    lines = (quopri.encodestring(line) for line in head.split(b"\r\n"))
    return b"Content-Type: text/rfc822-headers\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n" + b"\r\n".join(
        line.replace(b"\n", b"\r\n") for line in lines
    )


def _short_lines(data: bytes) -> bool:
    return max(map(len, data.split(b"\r\n"))) <= _LINE


def quiet(head: bytes) -> bytes:
    """The fields of `head` but for those that tell what the message says."""
    fields = Header.parse(head).fields
    return b"".join(raw for name, raw in fields if not any(word in name for word in _TELLS))


def boundary(queue_id: str, parts: Sequence[bytes]) -> str:
    """A boundary that occurs in no part: "=_" never stands in quoted-printable, the rest is looked at."""
    number = 0
    while any(f"=_{queue_id}_{number}_".encode() in part for part in parts):
        number += 1
    return f"=_{queue_id}_{number}_"


# Our own header


def _author(original: Original) -> str:
    """The address in From, else the reverse-path."""
    found = authors_of([value(field) for field in Header.parse(original.content.head).all(b"from")])
    named = next((author.address for author in found if author.address), None)
    return named or str(original.envelope.reverse_path or "<>")


def subject_of(head: bytes) -> str:
    """The Subject as a person reads it, shortened; "" if there is none."""
    field = Header.parse(head).first(b"subject")
    if field is None:
        return ""
    shown = " ".join(sanitise(decode(value(field))).split())
    return shown if len(shown) <= _SUBJECT_SHOWN else shown[: _SUBJECT_SHOWN - 1] + "…"


def _thread(head: bytes) -> list[str]:
    """In-Reply-To and References, where the message has a usable Message-ID (RFC 5322, section 3.6.4)."""
    field = Header.parse(head).first(b"message-id")
    found = _MESSAGE_ID.search(value(field)) if field else None
    return [f"{name}: {found[0].decode()}" for name in ("In-Reply-To", "References")] if found else []
