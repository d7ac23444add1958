"""Values of the queue as rows, and back.

Times are microseconds since 1970, addresses "local@domain" always with the last "@" (so that a
local part alone comes back as it was). What cannot be read raises Unreadable, with a sentence.

The content of a session code has to be gone when its row is deleted. SQLite overwrites what it
frees (`secure_delete`), but rows are also copied from page to page when their tree is balanced, and
those traces stay. So `padding` fills what lies on a leaf page: the content comes after it, on
overflow pages, which belong to this row alone and are overwritten when it is deleted.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from json.encoder import encode_basestring as _json
from json.encoder import encode_basestring_ascii as _ascii_json
from typing import Any

from relay.mail.address import Address
from relay.mail.content import Content, MemoryContent
from relay.mail.envelope import Envelope, Recipient
from relay.mail.submission import Peer, Submission
from relay.queue.content import FileContent
from relay.queue.model import Entry, Kind, Pending, Settlement, State, Told
from relay.queue.spool import Spool

PAGE_SIZE = 16384
DUE, SLEEPING, LEASED, HELD, SET_ASIDE, TO_BOUNCE = range(6)  # the places of an entry, see 0001.sql and 0002.sql
CLIENT = 14  # the column of an entry's client

Row = tuple[Any, ...]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_STATES = frozenset(state.value for state in State)
_NOTIFY = frozenset({"never", "success", "failure", "delay"})


class Unreadable(Exception):
    """A row that does not make a value; the text says why, without anything of the row."""


def microseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1e6)


def moment(microseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=microseconds)


def entry_row(key: int, entry: Entry, place: int, attempts: int, spool: Spool) -> Row:
    submission = entry.submission
    peer = submission.peer
    envelope = submission.envelope
    content = entry.content
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
        content.size,
        received_at,
        spool.name(content) if isinstance(content, FileContent) else None,
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
    content = entry.content
    padding = PAGE_SIZE if entry.session_code else 0
    if isinstance(content, MemoryContent):
        return (key, padding, content.head_length, content.data)
    return (key, padding, len(content.head), content.head)


def recipient_rows(key: int, recipients: Iterable[Recipient]) -> list[Row]:
    return [
        (
            key,
            n,
            f"{recipient.address.local}@{recipient.address.domain}",
            None if recipient.notify is None else ",".join(sorted(recipient.notify)),
            recipient.orcpt,
        )
        for n, recipient in enumerate(recipients)
    ]


def told_row(told: Told) -> Row:
    return reader_text(told.reader), told.queue_id, microseconds(told.at), told.line or None


def reader_text(reader: Address) -> str:
    return f"{reader.local}@{reader.domain}"


def history_row(key: int, settlement: Settlement, ended_at: int) -> Row:
    """What is kept of a message whose recipients all end with this settlement."""
    entry = settlement.lease.entry
    submission = entry.submission
    envelope = submission.envelope
    path = envelope.reverse_path
    recipients = envelope.recipients
    fates = [
        f'[{_json(str(recipients[result.index].address))},"{result.state.value}",'
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
        entry.kind.value,
        _because(entry.because),
        f"[{','.join(fates)}]",
    )


def entry_of(row: Row, recipients: Sequence[Row], content: Row | None, attempts: int, spool: Spool) -> Entry:
    """The entry of `row` as `SELECT *` gives it, with `attempts` counted."""
    if content is None:
        raise Unreadable("its content is missing")
    if not recipients:
        raise Unreadable("its recipients are missing")
    try:
        head_length, body = content
        kept = _content(row, head_length, body, spool)
        submission = Submission(
            queue_id=row[1],
            envelope=Envelope(
                reverse_path=None if row[19] is None else address_of(row[19]),
                recipients=tuple([_recipient(*columns[:3]) for columns in recipients]),
                smtputf8=bool(row[20]),
                ret=row[21],
                envid=row[22],
            ),
            head=kept.head,
            size=kept.size,
            peer=Peer(row[14], row[15], row[16], row[17], row[18]),
            listener=row[13],
            received_at=moment(row[11]),
        )
        return Entry(
            submission=submission,
            content=kept,
            route=row[3],
            priority=row[4],
            session_code=bool(row[8]),
            because=names(row[23]),
            expires_at=moment(row[6]),
            kind=Kind(row[9]),
            attempts=attempts,
            released=bool(row[26]),
            warned=bool(row[27]),
            rerouted=bool(row[28]),
        )
    except (ValueError, TypeError, OverflowError) as error:
        raise Unreadable(f"a column makes no sense ({type(error).__name__})") from None


def pending_of(entry: Entry, recipients: Sequence[Row]) -> tuple[Pending, ...]:
    """The recipients that still wait; there is at least one in an entry that can be leased."""
    addressees = entry.submission.envelope.recipients
    if not _STATES.issuperset([columns[3] for columns in recipients]):
        raise Unreadable("the state of a recipient makes no sense")
    pending = [
        Pending(n, recipient, *columns[4:7])
        for n, (recipient, columns) in enumerate(zip(addressees, recipients, strict=True))
        if columns[3] == "pending"
    ]
    if not pending:
        raise Unreadable("no recipient waits")
    return tuple(pending)


def _content(row: Row, head_length: int, body: bytes, spool: Spool) -> Content:
    size, name = row[10], row[12]
    if not 0 <= head_length <= len(body):
        raise Unreadable("its head is damaged")
    if name is None:
        if len(body) != size:
            raise Unreadable("its content is damaged")
        return MemoryContent(body, head_length)
    path = spool.path(name)
    try:
        with open(path, "rb") as file:
            there, head = os.fstat(file.fileno()).st_size, file.read(len(body))
    except FileNotFoundError:
        raise Unreadable("its spool file is missing") from None
    except OSError:
        return FileContent(path, size, body)  # the machine fails, and may not at the attempt
    if there != size or head != body:
        raise Unreadable("its spool file is damaged")
    return FileContent(path, size, body)


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
    if not wishes <= _NOTIFY:
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
