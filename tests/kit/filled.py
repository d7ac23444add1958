"""A queue with any number of messages in it, and a history: made by the store's own hands, far faster than by SMTP.

    await fill(path, 1_000_000)                 # all of them due, taken one after the other by five clients
    await fill(path, 100, leased=True)          # as a relay leaves it that was killed
    remember(path, 3_000_000, days=365)         # what became of as many more, as rows

Message n is to `mn@example.org`; the first is the oldest.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path

import apsw

from relay.events import Event
from relay.mail.address import Address
from relay.mail.content import MemoryContent
from relay.mail.envelope import Envelope, Recipient
from relay.mail.queue_id import queue_id
from relay.mail.submission import Peer, Submission
from relay.queue.model import Entry
from relay.queue.sqlite.start import SqliteStore
from tests.kit.store import usual

AT_ONCE = 500
CLIENTS = 5
HEAD = b"From: Jan <jan@example.nl>\r\nTo: piet@example.org\r\nSubject: Factuur\r\n\r\n"
CONTENT = MemoryContent(HEAD + (b"x" * 74 + b"\r\n") * 26, len(HEAD))  # 2 KiB
DAY = 86_400_000_000

_HISTORY = """
    WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < :rows)
    INSERT INTO history
    SELECT n, printf('0%011X', n), :first + n * :step, :first + n * :step + 1000000, 'legacy', '192.0.2.' || n % 5,
           NULL, 'default', 'jan@example.nl', 2048, 1, 0, 'mail', '["default"]',
           json_array(json_array('h' || n || '@example.org', 'delivered', '250 2.0.0 Ok', 'own',
                                 :first + n * :step + 1000000)),
           '["administratie@example.nl", "administratie@example.nl", "rewritten"]', 'Message-ID: <' || n || '@x>', NULL
    FROM n
"""
_SLEEP = """
    UPDATE entry SET place = 1, attempts = 1, next_attempt_at = ?1 + (?2 - ?1) * (id % 1000) / 1000 WHERE place = 0
"""


class Nobody:
    """An observer that does not look."""

    def observe(self, event: Event) -> None: ...


def entries(count: int, *, route: str = "default", first: int = 0) -> Iterator[Entry]:
    """`count` messages, taken in the last hour."""
    begin = datetime.now(UTC) - timedelta(hours=1)
    apart = timedelta(microseconds=3_000_000_000 // max(1, first + count))
    for n in range(first, first + count):
        at = begin + n * apart
        envelope = Envelope(Address("jan", "example.nl"), (Recipient(Address(f"m{n}", "example.org")),))
        name = queue_id(int(at.timestamp() * 1e6), n % 1024)
        peer = Peer(f"192.0.2.{n % CLIENTS}", "imuis")
        submission = Submission(name, envelope, CONTENT.head, CONTENT.size, peer, "legacy", at)
        yield Entry(submission, CONTENT, route, 1, False, (), at + timedelta(days=5))


async def put(store: SqliteStore, count: int, *, leased: bool = False, first: int = 0) -> None:
    """`count` more messages, `first` the number of the first."""
    coming = entries(count, first=first)
    while some := list(islice(coming, AT_ONCE)):
        await asyncio.gather(*(store.put(entry, leased=leased) for entry in some))


async def fill(path: Path, count: int, *, leased: bool = False, first: int = 0) -> float:
    """Messages a second."""
    started = time.perf_counter()
    store = await SqliteStore.open(path, observer=Nobody(), **usual())
    await put(store, count, leased=leased, first=first)
    await store.close()
    return count / (time.perf_counter() - started)


def remember(path: Path, rows: int, *, days: int) -> None:
    """`rows` messages that were delivered in the last `days`, the first of them so long ago. Before any mail came."""
    with contextlib.closing(apsw.Connection(str(path))) as connection:
        first = int(time.time() * 1e6) - days * DAY
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute(_HISTORY, {"rows": rows, "first": first, "step": days * DAY // (rows + 1)})
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)


def sleep_until(path: Path, *, first: datetime, last: datetime) -> None:
    """All that waits was tried once and is to be tried again between these moments, whose relay is not running."""
    with contextlib.closing(apsw.Connection(str(path))) as connection:
        begin, end = int(first.timestamp() * 1e6), int(last.timestamp() * 1e6)
        connection.execute(_SLEEP, (begin, end))
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
