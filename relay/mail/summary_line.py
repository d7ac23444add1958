"""A line of a summary: one message, and what became of it for whom; as text, it waits in the store.

Pure, and good for years: what an older relay wrote is read, and what makes no sense is a line without fates.
Of a session code it holds no subject, and codes of replies only.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from relay.mail.address import Address
from relay.mail.dsn_text import Action, Fate
from relay.mail.envelope import Recipient
from relay.mail.outcome import Refusal
from relay.mail.reply import Reply, sanitise
from relay.values import frozen


@frozen
class Line:
    """The message `queue_id`, accepted at `received_at`; `at` is when `fates` befell it.

    `subject` "" is not shown. `sender` is "" where the reader is the sender, else whose message it was.
    """

    queue_id: str
    received_at: datetime
    at: datetime
    fates: tuple[Fate, ...]
    subject: str = ""
    sender: str = ""
    session_code: bool = False


def to_text(line: Line) -> str:
    """All but the queue ID and `at`, which whoever keeps the text keeps as well."""
    kept = {
        "received_at": line.received_at.isoformat(),
        "subject": line.subject,
        "sender": line.sender,
        "session_code": line.session_code,
        "fates": [_kept(fate) for fate in line.fates],
    }
    return json.dumps(kept, separators=(",", ":"))


def of_text(queue_id: str, at: datetime, text: str) -> Line:
    """The line that `to_text` wrote; one with nothing but its queue ID where the text makes no sense."""
    try:
        kept = json.loads(text)
        return Line(
            queue_id,
            datetime.fromisoformat(kept["received_at"]),
            at,
            tuple([_fate(*fate) for fate in kept["fates"]]),
            sanitise(kept["subject"]),
            sanitise(kept["sender"]),
            bool(kept["session_code"]),
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        return Line(queue_id, at, at, ())


def _kept(fate: Fate) -> Sequence[object]:
    address, reply, until = fate.recipient.address, fate.reply, fate.retry_until
    return (
        address.local,
        address.domain,
        fate.recipient.orcpt,
        fate.action.value,
        fate.upstream,
        None if reply is None else (reply.code, reply.status, reply.text),
        fate.text,
        fate.expired,
        fate.returned,
        None if until is None else until.isoformat(),
        fate.refusal,
    )


def _fate(
    local: str,
    domain: str,
    orcpt: str | None,
    action: str,
    upstream: str,
    reply: Any,
    text: str,
    expired: bool,
    returned: bool,
    until: str | None,
    refusal: str | None = None,
) -> Fate:
    return Fate(
        Recipient(Address(local, domain), orcpt=orcpt),
        Action(action),
        upstream,
        None if reply is None else Reply(int(reply[0]), str(reply[1]), str(reply[2])),
        text,
        expired,
        returned,
        None if until is None else datetime.fromisoformat(until).astimezone(UTC),
        None if refusal is None else Refusal(refusal),
    )
