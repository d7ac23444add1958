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
from relay.mail.dsn_text import Action, Fate, diagnosis, kind_of, moment
from relay.mail.notice import addr_spec, encoded, quoted_printable
from relay.mail.reply import sanitise
from relay.mail.summary_line import Line
from relay.texts.language import BOTH, Languages, Texts, in_both


def build(
    lines: Sequence[Line],
    *,
    queue_id: str,
    hostname: str,
    author: Address,
    reader: Address,
    now: datetime,
    languages: Languages,
) -> bytes:
    """The summary of `lines` (one at least) as complete content with CRLF line ends; `queue_id` is its own."""
    lines = sorted(lines, key=lambda line: (line.at, line.queue_id))
    actions = {fate.action for line in lines for fate in line.fates}
    state = "failed" if Action.DELAYED not in actions else "both" if Action.FAILED in actions else "delayed"
    openings = [_opening(languages(each), len(lines), state, actions, hostname) for each in BOTH]
    items = ["\n".join(_item(number, line, languages)) + "\n" for number, line in enumerate(lines, 1)]
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
        encoded("Subject", " / ".join([_title(languages(each), len(lines), state) for each in BOTH])),
        f"Date: {format_datetime(now)}",
        f"Message-ID: <{queue_id}.summary@{hostname}>",
        "Auto-Submitted: auto-replied",
        "MIME-Version: 1.0",
        f'Content-Type: multipart/report; report-type=delivery-status;\r\n boundary="{mark}"',
        "Content-Transfer-Encoding: 7bit",
    ]
    return "\r\n".join([*fields, "", ""]).encode() + joined(parts, mark)


def _title(texts: Texts, count: int, state: str) -> str:
    messages = texts("summary.message" if count == 1 else "summary.messages")
    return texts("summary.title", count=count, messages=messages, state=texts(f"summary.{state}"))


def _opening(texts: Texts, count: int, state: str, actions: set[Action], hostname: str) -> str:
    """What it is about and what to do, in one language."""
    told = [texts("summary.what", count=count, state=texts(f"summary.{state}"))]
    if Action.FAILED in actions:
        told.append(texts("summary.again"))
    if Action.DELAYED in actions:
        told.append(texts("summary.waits"))
    return "\n".join((*told, texts("summary.ask", hostname=sanitise(hostname)), ""))


def _item(number: int, line: Line, languages: Languages) -> Iterator[str]:
    """One message."""
    lead = f"{number}."
    if line.subject:
        yield f"{lead:4} {in_both(languages, 'bounce.subject')}: {sanitise(line.subject)}"
        lead = ""
    yield f"{lead:4} {in_both(languages, 'bounce.accepted')}: {moment(line.received_at)}"
    if line.sender:
        yield f"     {in_both(languages, 'bounce.sender')}: {sanitise(line.sender)}"
    for fate in line.fates:
        yield f"     {in_both(languages, f'bounce.title-{fate.action}')}: {sanitise(str(fate.recipient.address))}"
        yield from _said(fate, line.session_code, languages)
    yield f"     {in_both(languages, 'bounce.reference')}: {sanitise(line.queue_id)}"


def _said(fate: Fate, session_code: bool, languages: Languages) -> Iterator[str]:
    said, kind = diagnosis(fate, codes_only=session_code), kind_of(fate)
    if fate.action is Action.FAILED and kind != "sender":  # which one is not kept
        yield f"       {in_both(languages, f'bounce.what-{kind}')}"
    if fate.returned:
        return
    if fate.reply is not None:
        yield f"       {in_both(languages, 'bounce.answer')}: {said}"
    elif fate.action is not Action.RELAYED:
        said = said or in_both(languages, "bounce.none")
        yield f"       {in_both(languages, 'bounce.silence')}: {said}"
    if fate.retry_until is not None:
        yield f"       {in_both(languages, 'bounce.until')}: {moment(fate.retry_until)}"


def _status_fields(lines: Sequence[Line], queue_id: str, hostname: str) -> bytes:
    """The body of message/delivery-status: a block for each recipient of each message."""
    blocks = [[folded("Reporting-MTA", f"dns; {hostname}"), folded("X-Queue-ID", queue_id)]]
    for line in lines:
        mine = [folded("X-Queue-ID", line.queue_id), f"X-Arrival-Date: {format_datetime(line.received_at)}"]
        blocks += [[*recipient_block(fate, line.session_code, line.at), *mine] for fate in line.fates]
    return "\r\n".join(line for block in blocks for line in (*block, "")).encode("ascii")
