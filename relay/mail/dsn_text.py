"""The human part of a report: what happened, to whom, what the upstream said, what to do; Dutch, then English.

Plain words for somebody who sent an invoice and never heard of SMTP; for other readers the same, told of the
sender, and for those who answer for the relay without advice that is not theirs to follow. Every value is shown on
one line, without control characters; nothing here reads the body of a message.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import StrEnum

from relay.mail.envelope import Recipient
from relay.mail.outcome import Refusal
from relay.mail.reply import Reply, sanitise
from relay.texts.language import BOTH, Languages, Texts
from relay.values import frozen


class Action(StrEnum):
    """What was done for a recipient (RFC 3464, section 2.3.3); expired mail has failed."""

    FAILED = "failed"
    DELAYED = "delayed"
    RELAYED = "relayed"


@frozen
class Fate:
    """What became of one recipient.

    `upstream` is the one that was just asked, "" where none was. `reply` is its answer; where none was
    given, `text` says what happened. `expired`: the lifetime ended before anybody said yes or no.
    `returned`: an operator had it returned, whatever an upstream would have said. `retry_until`: of
    delayed mail, how long it is tried. `refusal`: what the reply speaks of, where that is known.
    """

    recipient: Recipient
    action: Action
    upstream: str
    reply: Reply | None = None
    text: str = ""
    expired: bool = False
    returned: bool = False
    retry_until: datetime | None = None
    refusal: Refusal | None = None


_UNITS = (
    (timedelta(days=1), "day"),
    (timedelta(hours=1), "hour"),
    (timedelta(minutes=1), "minute"),
    (timedelta(seconds=1), "second"),
)
_OF_REFUSALS = {
    Refusal.SENDER: "sender",
    Refusal.TOO_LARGE: "size",
    Refusal.MAILBOX_FULL: "full",
    Refusal.CONTENT: "content",
}
_NO_SUCH_ADDRESS = re.compile(
    r"unknown|no such|not exist|n't exist|not found|no mailbox|bestaat niet|onbekend|unbekannt", re.IGNORECASE
)


@frozen
class Telling:
    """What a report tells besides the fates.

    `subject` "" leaves its line out; `codes_only`: for session codes. `sender` is "" where the reader is
    the sender; others are told whose message it was. `refused`: the sender whom an upstream
    refuses. `for_operator`: the reader answers for the relay.
    """

    queue_id: str
    hostname: str
    received_at: datetime
    now: datetime
    attempts: int
    subject: str = ""
    codes_only: bool = False
    sender: str = ""
    refused: str = ""
    for_operator: bool = False


def explain(fates: Sequence[Fate], telling: Telling, languages: Languages) -> str:
    """The report in words, lines ended by "\\n"."""
    parts = [_in_one_language(languages(each), fates, telling) for each in BOTH]
    return "\n\n----\n\n".join(parts) + "\n"


def diagnosis(fate: Fate, *, codes_only: bool) -> str:
    """The upstream's answer verbatim, or what happened; for session codes nothing but codes."""
    if fate.reply is None:
        return "" if codes_only else sanitise(fate.text)
    if codes_only:
        return f"{fate.reply.code} {fate.reply.status}".rstrip()
    return sanitise(str(fate.reply))


def _in_one_language(texts: Texts, fates: Sequence[Fate], telling: Telling) -> str:
    sender = sanitise(telling.sender)
    lines: list[str] = []
    for action in Action:
        group = [fate for fate in fates if fate.action is action]
        if not group:
            continue
        about = texts(f"bounce.about-{action}", sender=sender) if sender else texts(f"bounce.verdict-{action}")
        lines += [about, ""]
        for fate in group:
            lines += _one_recipient(texts, fate, telling)
        lines += ["", texts("bounce.no-more") if telling.for_operator else texts(f"bounce.last-{action}")]
        until = group[0].retry_until  # the lifetime is the message's: the same for all
        if until is not None:
            lines.append(f"{texts('bounce.until')}: {moment(until)}")
        lines.append("")
    if telling.subject:
        lines.append(f"{texts('bounce.subject')}: {telling.subject}")
    lines.append(f"{texts('bounce.accepted')}: {moment(telling.received_at)}")
    if telling.attempts > 1:
        time = duration(telling.now - telling.received_at, texts)
        lines.append(texts("bounce.tries", tries=telling.attempts, time=time))
    elif telling.attempts == 1:
        lines.append(texts("bounce.once"))
    if telling.for_operator:
        lines.append(f"{texts('bounce.look')}: relay queue show {telling.queue_id} ({telling.hostname})")
    else:
        lines.append(f"{texts('bounce.your-reference')}: {telling.queue_id} ({telling.hostname})")
    return "\n".join(lines)


def _one_recipient(texts: Texts, fate: Fate, telling: Telling) -> list[str]:
    lines = [f"  {sanitise(str(fate.recipient.address))}"]
    kind = kind_of(fate)
    if fate.action is Action.FAILED:
        lines.append(f"    {texts(f'bounce.what-{kind}', sender=sanitise(telling.refused))}")
    by = f" ({fate.upstream or '-'})" if telling.for_operator else ""  # our name for it tells nobody else anything
    said = diagnosis(fate, codes_only=telling.codes_only)
    if fate.reply is not None:
        lines.append(f"    {texts('bounce.answer')}{by}: {said}")
    elif fate.action is not Action.RELAYED and not fate.returned:
        lines.append(f"    {texts('bounce.silence')}{by}: {said or texts('bounce.none')}")
    if fate.action is Action.FAILED and not telling.for_operator:
        lines.append(f"    {texts('bounce.try')}: {texts(f'bounce.advice-{kind}')}")
    return lines


def moment(at: datetime) -> str:
    """A moment as people write it."""
    return f"{at:%d-%m-%Y %H:%M:%S %z}"


def kind_of(fate: Fate) -> str:
    """What happened, from what the reply speaks of, else from its enhanced status (RFC 3463, section 3)."""
    if fate.returned:
        return "returned"
    if fate.expired or fate.reply is None:
        return "expired"
    if fate.refusal in _OF_REFUSALS:
        return _OF_REFUSALS[fate.refusal]
    _, _, detail = fate.reply.status.partition(".")
    if detail in ("1.1", "1.3", "1.6", "1.10"):
        return "address"
    if detail == "1.2":
        return "domain"
    if fate.refusal is Refusal.RECIPIENT:
        return "address" if _NO_SUCH_ADDRESS.search(fate.reply.text) else "recipient"
    if detail == "2.2":
        return "full"
    if detail in ("2.3", "3.4") or fate.reply.code == 552:
        return "size"
    if detail in ("6.7", "6.9"):
        return "letters"
    if detail in ("6.2", "6.3", "6.5"):
        return "conversion"
    if detail.startswith("7."):
        return "policy"
    return "other"


def duration(time: timedelta, texts: Texts) -> str:
    """A stretch of time in its largest whole unit, as one would say it: "5 dagen", "1 minute"."""
    for unit, name in _UNITS:
        count = time // unit
        if count >= 1:
            return f"{count} {texts(f'unit.{name}' if count == 1 else f'unit.{name}s')}"
    return f"0 {texts('unit.seconds')}"
