"""A summary: one message instead of a hundred reports to one reader, in Dutch and English.

For a person it lists message after message; for a program it is a report as of one (RFC 3464), whose blocks of
recipients say by X-Queue-ID which message each belongs to. Nothing of a message comes along but its subject.
Pure, and safe against what it shows, as `dsn` is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from email.utils import format_datetime

from relay.mail.address import Address
from relay.mail.dsn import boundary, folded, joined, recipient_block
from relay.mail.dsn_text import DUTCH, ENGLISH, TITLES, Action, Fate, diagnosis, moment
from relay.mail.notice import addr_spec, encoded, quoted_printable
from relay.mail.reply import sanitise
from relay.mail.summary_line import Line

_FAILED = ("niet bezorgd", "not delivered")
_DELAYED = ("nog niet bezorgd", "not yet delivered")
_BOTH = ("niet of nog niet bezorgd", "not or not yet delivered")

_WHAT = (
    "Berichten die {state} zijn: {count}. Omdat het er veel zijn, staan ze samen in dit overzicht.\n",
    "Messages that were {state}: {count}. As they are many, they stand together in this summary.\n",
)
_AGAIN = (
    "Wat niet bezorgd is, wordt niet nog eens geprobeerd: verstuur het opnieuw als de oorzaak weg is.\n",
    "What was not delivered will not be tried again: send it again when the cause is gone.\n",
)
_WAITS = (
    "Wat nog niet bezorgd is, wordt vanzelf opnieuw geprobeerd.\n",
    "What has not yet been delivered will be tried again.\n",
)
_ASK = (
    "Vragen? Stuur dit overzicht door naar de beheerder van {hostname}; de kenmerken zeggen alles.\n",
    "Questions? Forward this summary to the administrator of {hostname}; the references tell everything.\n",
)


def build(
    lines: Sequence[Line], *, queue_id: str, hostname: str, author: Address, reader: Address, now: datetime
) -> bytes:
    """The summary of `lines` (one at least) as complete content with CRLF line ends; `queue_id` is its own."""
    lines = sorted(lines, key=lambda line: (line.at, line.queue_id))
    actions = {fate.action for line in lines for fate in line.fates}
    states = _FAILED if Action.DELAYED not in actions else _BOTH if Action.FAILED in actions else _DELAYED
    count = len(lines)
    titles = (
        f"Overzicht: {count} {'bericht' if count == 1 else 'berichten'} {states[0]}",
        f"Summary: {count} {'message' if count == 1 else 'messages'} {states[1]}",
    )
    openings = [
        _WHAT[language].format(state=states[language], count=count) + _advice(language, actions, hostname)
        for language in (0, 1)
    ]
    items = ["\n".join(_item(number, line)) + "\n" for number, line in enumerate(lines, 1)]
    words = "\n----\n\n".join((*openings, "\n".join(items)))
    parts = [
        b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
        + quoted_printable(words),
        b"Content-Type: message/delivery-status\r\n\r\n" + _status_fields(lines, queue_id, hostname),
    ]
    mark = boundary(queue_id, parts)
    fields = [
        f"From: Mail Delivery System <{addr_spec(author)}>",
        f"To: <{addr_spec(reader)}>",
        encoded("Subject", " / ".join(titles)),
        f"Date: {format_datetime(now)}",
        f"Message-ID: <{queue_id}.summary@{hostname}>",
        "Auto-Submitted: auto-replied",
        "MIME-Version: 1.0",
        f'Content-Type: multipart/report; report-type=delivery-status;\r\n boundary="{mark}"',
        "Content-Transfer-Encoding: 7bit",
    ]
    return "\r\n".join([*fields, "", ""]).encode() + joined(parts, mark)


def _advice(language: int, actions: set[Action], hostname: str) -> str:
    """What to do, in one language."""
    told = []
    if Action.FAILED in actions:
        told.append(_AGAIN[language])
    if Action.DELAYED in actions:
        told.append(_WAITS[language])
    return "".join((*told, _ASK[language].format(hostname=sanitise(hostname))))


def _item(number: int, line: Line) -> Iterator[str]:
    """One message."""
    lead = f"{number}."
    if line.subject:
        yield f"{lead:4} {DUTCH.subject} / {ENGLISH.subject}: {sanitise(line.subject)}"
        lead = ""
    yield f"{lead:4} {DUTCH.accepted} / {ENGLISH.accepted}: {moment(line.received_at)}"
    if line.sender:
        yield f"     Afzender / Sender: {sanitise(line.sender)}"
    for fate in line.fates:
        yield f"     {TITLES[fate.action]}: {sanitise(str(fate.recipient.address))}"
        yield from _said(fate, line.session_code)
    yield f"     Kenmerk / Reference: {sanitise(line.queue_id)}"


def _said(fate: Fate, session_code: bool) -> Iterator[str]:
    said = diagnosis(fate, codes_only=session_code)
    if fate.returned:
        yield f"       {DUTCH.returned} / {ENGLISH.returned}"
    elif fate.reply is not None:
        yield f"       {DUTCH.answer} / {ENGLISH.answer} ({fate.upstream or '-'}): {said}"
    elif fate.action is not Action.RELAYED:
        none = f"{DUTCH.none} / {ENGLISH.none}"
        yield f"       {DUTCH.silence} / {ENGLISH.silence} ({fate.upstream or '-'}): {said or none}"
    if fate.retry_until is not None:
        yield f"       {DUTCH.until} / {ENGLISH.until}: {moment(fate.retry_until)}"


def _status_fields(lines: Sequence[Line], queue_id: str, hostname: str) -> bytes:
    """The body of message/delivery-status: a block for each recipient of each message."""
    blocks = [[folded("Reporting-MTA", f"dns; {hostname}"), folded("X-Queue-ID", queue_id)]]
    for line in lines:
        mine = [folded("X-Queue-ID", line.queue_id), f"X-Arrival-Date: {format_datetime(line.received_at)}"]
        blocks += [[*recipient_block(fate, line.session_code, line.at), *mine] for fate in line.fates]
    return "\r\n".join(line for block in blocks for line in (*block, "")).encode("ascii")
