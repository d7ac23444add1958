"""Values of the queue as rows, and back: the same rows in any database.

Times are microseconds since 1970, addresses "local@domain" always with the last "@" (so that a
local part alone comes back as it was). What cannot be read raises Unreadable, with a sentence.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from json.encoder import encode_basestring as _json
from json.encoder import encode_basestring_ascii as _ascii_json
from typing import Any, NamedTuple

from relay.mail.address import Address
from relay.mail.content import Content, MemoryContent
from relay.mail.encoding import decode
from relay.mail.envelope import NOTIFY, Envelope, Recipient
from relay.mail.header import Header, value
from relay.mail.submission import Peer, Submission
from relay.policy.rewriting import Rendered
from relay.queue.content import FileContent
from relay.queue.model import Entry, Kind, Pending, Recorded, Settlement, State, Told
from relay.queue.spool import Spool

LONGEST = 1000  # octets of a Message-ID, characters of an author and of a subject, that the history keeps

DUE, SLEEPING, LEASED, HELD, SET_ASIDE, TO_BOUNCE = range(6)  # the places of an entry

Row = tuple[Any, ...]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_STATES = frozenset(state.value for state in State)


class Unreadable(Exception):
    """A row that does not make a value; the text says why, without anything of the row."""


class EntryRow(NamedTuple):
    """A row of the table `entry`, of which `sqlite/schema.sql` says what each column means."""

    id: int
    queue_id: str
    place: int
    route: str
    priority: int
    next_attempt_at: int
    expires_at: int
    attempts: int
    session_code: int
    kind: str
    size: int
    received_at: int
    spool_file: str | None
    listener: str
    client: str
    helo: str
    protocol: str
    tls: str | None
    user: str | None
    reverse_path: str | None
    smtputf8: int
    ret: str | None
    envid: str | None
    because: str
    set_aside: str | None
    wish: str
    released: int
    warned: int
    rerouted: int
    left_as: str | None


class RecipientRow(NamedTuple):
    """What an attempt has to know of a recipient."""

    entry: int
    address: str
    notify: str | None
    orcpt: str | None
    state: str
    last_reply: str
    in_doubt: int
    in_doubt_at: str
    way: str


class HistoryRow(NamedTuple):
    """A row of the table `history`; `recipients` is JSON: [[address, state, reply, upstream, ended_at], …].

    `left_as` is JSON: [author, reverse-path or null, result of the sender rule or null].
    """

    key: int
    queue_id: str
    received_at: int
    ended_at: int
    listener: str
    client: str
    user: str | None
    route: str
    reverse_path: str | None
    size: int
    attempts: int
    session_code: int
    kind: str
    because: str
    recipients: str
    left_as: str | None
    message_id: str | None
    subject: str | None


def microseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // _MICROSECOND


def moment(microseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=microseconds)


def entry_row(key: int, entry: Entry, place: int, attempts: int, spool_file: str | None) -> Row:
    """An `EntryRow` as it begins: without `set_aside`, `wish`, `left_as`. A plain tuple: every message pays for it."""
    submission = entry.submission
    peer = submission.peer
    envelope = submission.envelope
    path = envelope.reverse_path
    received_at = microseconds(submission.received_at)
    return (
        key,
        submission.queue_id,
        place,
        entry.route,
        entry.priority,
        received_at,
        microseconds(entry.expires_at),
        attempts,
        entry.session_code,
        entry.kind,
        entry.content.size,
        received_at,
        spool_file,
        submission.listener,
        peer.address,
        peer.helo,
        peer.protocol,
        peer.tls,
        peer.user,
        None if path is None else f"{path.local}@{path.domain}",
        envelope.smtputf8,
        envelope.ret,
        envelope.envid,
        _because(entry.because),
        entry.released,
        entry.warned,
        entry.rerouted,
    )


def content_row(key: int, entry: Entry) -> Row:
    """Key, whether it is a session code, head length, body (with a spool file only the head)."""
    content = entry.content
    if isinstance(content, MemoryContent):
        return (key, entry.session_code, content.head_length, content.data)
    return (key, entry.session_code, len(content.head), content.head)


def recipient_rows(key: int, recipients: Iterable[Recipient], ways: Iterable[str]) -> list[Row]:
    return [
        (
            key,
            n,
            f"{recipient.address.local}@{recipient.address.domain}",
            None if recipient.notify is None else ",".join(sorted(recipient.notify)),
            recipient.orcpt,
            way,
        )
        for n, (recipient, way) in enumerate(zip(recipients, ways, strict=True))
    ]


def told_row(told: Told) -> Row:
    return reader_text(told.reader), told.queue_id, microseconds(told.at), told.line or None


def reader_text(reader: Address) -> str:
    return f"{reader.local}@{reader.domain}"


def history_row(key: int, settlement: Settlement, ended_at: int, recorded: Recorded) -> Row:
    """What is kept of a message whose recipients all end with this settlement, as a `HistoryRow`."""
    entry, left = settlement.lease.entry, settlement.left
    submission = entry.submission
    envelope = submission.envelope
    path = envelope.reverse_path
    recipients = envelope.recipients
    # As it is: who looks takes the identifier out of it, not every message.
    message_id = None if left is None else str(left.message_id[:LONGEST], "latin-1")
    subject: str | None = None
    if left is None or recorded is Recorded.SUBJECT:
        header = Header.parse(submission.head)
        named, subject = names_in(header, session_code=entry.session_code, recorded=recorded)
        message_id = message_id or named
    fates = [
        f'[{_json(str(recipients[result.index].address))},"{result.state}",'
        f"{_ascii_json(result.reply)},{_ascii_json(result.upstream)},{ended_at}]"
        for result in settlement.results
    ]
    return (
        key,
        submission.queue_id,
        microseconds(submission.received_at),
        ended_at,
        submission.listener,
        submission.peer.address,
        submission.peer.user,
        entry.route,
        None if path is None else f"{path.local}@{path.domain}",
        entry.content.size,
        entry.attempts,
        entry.session_code,
        entry.kind,
        _because(entry.because),
        f"[{','.join(fates)}]",
        None if left is None else left_as(left),
        message_id,
        subject,
    )


def left_as(left: Rendered) -> str:
    """The column `left_as` of a message that somebody took like this."""
    path = left.reverse_path
    return _left_as(left.author[:LONGEST], None if path is None else reader_text(path), left.result)


@lru_cache(maxsize=1024)
def _left_as(author: str, reverse_path: str | None, result: str | None) -> str:
    """As JSON; those of one office are few."""
    return json.dumps((author, reverse_path, result), ensure_ascii=False)


def names_in(header: Header, *, session_code: bool, recorded: Recorded) -> tuple[str | None, str | None]:
    """The columns `message_id` and `subject` of a message with this header: the field as it came, and what it says."""
    message_id, subject = header.first(b"message-id"), header.first(b"subject")
    return (
        None if message_id is None else str(message_id[1][:LONGEST], "latin-1"),
        None
        if subject is None or session_code or recorded is not Recorded.SUBJECT
        else decode(value(subject))[:LONGEST],
    )


def entry_of(
    row: EntryRow, recipients: Sequence[RecipientRow], content: tuple[int, bytes] | None, attempts: int, spool: Spool
) -> Entry:
    """The entry of `row`, with `attempts` counted; `content` is the length of its head, and its body."""
    if content is None:
        raise Unreadable("its content is missing")
    if not recipients:
        raise Unreadable("its recipients are missing")
    try:
        kept = _content(row, *content, spool)
        submission = Submission(
            queue_id=row.queue_id,
            envelope=Envelope(
                reverse_path=None if row.reverse_path is None else address_of(row.reverse_path),
                recipients=tuple([_recipient(one.address, one.notify, one.orcpt) for one in recipients]),
                smtputf8=bool(row.smtputf8),
                ret=row.ret,
                envid=row.envid,
            ),
            head=kept.head,
            size=kept.size,
            peer=Peer(row.client, row.helo, row.protocol, row.tls, row.user),
            listener=row.listener,
            received_at=moment(row.received_at),
        )
        return Entry(
            submission=submission,
            content=kept,
            route=row.route,
            priority=row.priority,
            session_code=bool(row.session_code),
            because=names(row.because),
            expires_at=moment(row.expires_at),
            kind=Kind(row.kind),
            attempts=attempts,
            released=bool(row.released),
            warned=bool(row.warned),
            rerouted=bool(row.rerouted),
        )
    except (ValueError, TypeError, OverflowError) as error:
        raise Unreadable(f"a column makes no sense ({type(error).__name__})") from None


def pending_of(entry: Entry, recipients: Sequence[RecipientRow]) -> tuple[Pending, ...]:
    """The recipients that still wait; there is at least one in an entry that can be leased."""
    addressees = entry.submission.envelope.recipients
    if not _STATES.issuperset([row.state for row in recipients]):
        raise Unreadable("the state of a recipient makes no sense")
    pending = [
        Pending(n, recipient, row.last_reply, row.in_doubt, row.in_doubt_at, row.way)
        for n, (recipient, row) in enumerate(zip(addressees, recipients, strict=True))
        if row.state == "pending"
    ]
    if not pending:
        raise Unreadable("no recipient waits")
    return tuple(pending)


def _content(row: EntryRow, head_length: int, body: bytes, spool: Spool) -> Content:
    size = row.size
    if not 0 <= head_length <= len(body):
        raise Unreadable("its head is damaged")
    if row.spool_file is None:
        if len(body) != size:
            raise Unreadable("its content is damaged")
        return MemoryContent(body, head_length)
    content = FileContent(spool.folder, row.spool_file, size, body)
    try:
        with open(spool.folder.open(row.spool_file), "rb") as file:
            there, head = os.fstat(file.fileno()).st_size, file.read(len(body))
    except FileNotFoundError:
        raise Unreadable("its spool file is missing") from None
    except OSError:
        return content  # the machine fails, and may not at the attempt
    if there != size or head != body:
        raise Unreadable("its spool file is damaged")
    return content


def address_of(text: str) -> Address:
    local, at, domain = text.rpartition("@")
    if not at:
        raise ValueError("no address")
    return Address(local, domain)


def address_text(kept: str) -> str:
    """What a row keeps, as people write it."""
    return kept.rstrip("@")


def _recipient(address: str, notify: str | None, orcpt: str | None) -> Recipient:
    if notify is None:
        return Recipient(address_of(address), None, orcpt)
    wishes = frozenset(notify.split(",")) if notify else frozenset()
    if not wishes.issubset(NOTIFY):
        raise ValueError("no NOTIFY")
    return Recipient(address_of(address), wishes, orcpt)


@lru_cache(maxsize=1024)
def _because(names: tuple[str, ...]) -> str:
    """As JSON; there are as many different ones as there are paths through the rules."""
    return json.dumps(names)


@lru_cache(maxsize=1024)
def names(text: str) -> tuple[str, ...]:
    """ValueError when `text` is no JSON list of names."""
    found = json.loads(text)
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        raise ValueError("no list of names")
    return tuple(found)
