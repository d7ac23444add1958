"""The human part of a report: what happened, to whom, what the upstream said, what to do; Dutch, then English.

Plain words for somebody who sent an invoice and never heard of SMTP; for other readers the same, told of the
sender, and for those who answer for the relay without advice that is not theirs to follow. Every value is shown on
one line, without control characters; nothing here reads the body of a message.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import StrEnum

from relay.mail.envelope import Recipient
from relay.mail.outcome import Refusal
from relay.mail.reply import Reply, sanitise
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


@frozen
class Words:
    """One language of the report."""

    verdict: dict[Action, str]
    about: dict[Action, str]
    subject: str
    accepted: str
    answer: str
    silence: str
    none: str
    returned: str
    tries: str
    once: str
    until: str
    last: dict[Action, str]
    no_more: str
    reference: str
    look: str
    units: tuple[tuple[timedelta, str, str], ...]
    advice: dict[str, str]


_DAY, _HOUR, _MINUTE, _SECOND = timedelta(days=1), timedelta(hours=1), timedelta(minutes=1), timedelta(seconds=1)

DUTCH = Words(
    verdict={
        Action.FAILED: "Uw bericht is niet bezorgd bij:",
        Action.DELAYED: "Uw bericht is nog niet bezorgd bij:",
        Action.RELAYED: "Uw bericht is doorgegeven voor:",
    },
    about={
        Action.FAILED: "Een bericht van {sender} is niet bezorgd bij:",
        Action.DELAYED: "Een bericht van {sender} is nog niet bezorgd bij:",
        Action.RELAYED: "Een bericht van {sender} is doorgegeven voor:",
    },
    subject="Onderwerp",
    accepted="Aangenomen",
    answer="Antwoord van de mailserver",
    silence="Geen antwoord van de mailserver",
    none="geen poging gelukt",
    returned="Teruggestuurd door de beheerder van deze mailrelay",
    tries="Er is {tries} keer geprobeerd, over een tijd van {time}.",
    once="Er is één keer geprobeerd.",
    until="Het wordt geprobeerd tot",
    last={
        Action.FAILED: "Het wordt niet nog eens geprobeerd: verstuur het bericht opnieuw als de oorzaak weg is.",
        Action.DELAYED: "U hoeft niets te doen: het wordt vanzelf opnieuw geprobeerd.",
        Action.RELAYED: "De volgende mailserver meldt niet of het bericht daarna aankomt.",
    },
    no_more="Het wordt niet nog eens geprobeerd.",
    reference="Kenmerk voor uw beheerder",
    look="Opzoeken",
    units=(
        (_DAY, "dag", "dagen"),
        (_HOUR, "uur", "uur"),
        (_MINUTE, "minuut", "minuten"),
        (_SECOND, "seconde", "seconden"),
    ),
    advice={
        "sender": "de mailserver neemt geen mail aan van uw afzenderadres; vraag uw beheerder om dat adres toe te laten"
        " of om een afzenderregel met een adres dat wel mag.",
        "address": "controleer het e-mailadres van de ontvanger.",
        "full": "de mailbox van de ontvanger is vol; bereik de ontvanger langs een andere weg.",
        "size": "het bericht is te groot; verstuur een kleinere bijlage of een link.",
        "letters": "de mailserver kan geen adressen of kopregels met bijzondere letters (zoals é, ü of ø) bezorgen; "
        "gebruik een e-mailadres zonder zulke letters, of stuur deze melding door naar uw beheerder.",
        "conversion": "het bericht is ondertekend, versleuteld of beschadigd, en de mailserver neemt het zo niet aan; "
        "verstuur het zonder ondertekening, of stuur deze melding door naar uw beheerder.",
        "policy": "de mailserver staat dit bericht niet toe; stuur deze melding door naar uw beheerder.",
        "expired": "de mailserver nam het bericht niet op tijd aan; stuur deze melding door naar uw beheerder.",
        "returned": "vraag uw beheerder waarom, en stuur deze melding mee.",
        "other": "stuur deze melding door naar uw beheerder.",
    },
)

ENGLISH = Words(
    verdict={
        Action.FAILED: "Your message was not delivered to:",
        Action.DELAYED: "Your message has not yet been delivered to:",
        Action.RELAYED: "Your message was handed on for:",
    },
    about={
        Action.FAILED: "A message from {sender} was not delivered to:",
        Action.DELAYED: "A message from {sender} has not yet been delivered to:",
        Action.RELAYED: "A message from {sender} was handed on for:",
    },
    subject="Subject",
    accepted="Accepted",
    answer="Answer of the mail server",
    silence="No answer of the mail server",
    none="no attempt got through",
    returned="Returned by the administrator of this relay",
    tries="It was tried {tries} times over {time}.",
    once="It was tried once.",
    until="It is tried until",
    last={
        Action.FAILED: "It will not be tried again: send the message again when the cause is gone.",
        Action.DELAYED: "You need not do anything: it will be tried again.",
        Action.RELAYED: "The next mail server does not report whether the message arrives after that.",
    },
    no_more="It will not be tried again.",
    reference="Reference for your administrator",
    look="To look it up",
    units=(
        (_DAY, "day", "days"),
        (_HOUR, "hour", "hours"),
        (_MINUTE, "minute", "minutes"),
        (_SECOND, "second", "seconds"),
    ),
    advice={
        "sender": "the mail server takes no mail from your sender address; ask your administrator to have the address"
        " allowed, or for a sender rule with an address that is.",
        "address": "check the recipient's e-mail address.",
        "full": "the recipient's mailbox is full; reach the recipient in another way.",
        "size": "the message is too large; send a smaller attachment or a link.",
        "letters": "the mail server cannot deliver addresses or header lines with special letters (such as é, ü or ø); "
        "use an e-mail address without such letters, or forward this report to your administrator.",
        "conversion": "the message is signed, encrypted or damaged, and the mail server does not take it like that; "
        "send it without a signature, or forward this report to your administrator.",
        "policy": "the mail server does not allow this message; forward this report to your administrator.",
        "expired": "the mail server did not take the message in time; forward this report to your administrator.",
        "returned": "ask your administrator why, and send this report along.",
        "other": "forward this report to your administrator.",
    },
)

TITLES = {
    Action.FAILED: "Niet bezorgd / Not delivered",
    Action.DELAYED: "Nog niet bezorgd / Not yet delivered",
    Action.RELAYED: "Doorgegeven / Handed on",
}

_ADVICE = {
    Refusal.SENDER: "sender",
    Refusal.RECIPIENT: "address",
    Refusal.TOO_LARGE: "size",
    Refusal.MAILBOX_FULL: "full",
    Refusal.CONTENT: "policy",
}
_TRY_THIS = {DUTCH.subject: "Wat u kunt doen", ENGLISH.subject: "What you can do"}


@frozen
class Telling:
    """What a report tells besides the fates.

    `subject` "" leaves its line out; `codes_only`: for session codes. `sender` is "" where the reader is
    the sender; others are told whose message it was. `for_operator`: the reader answers for the relay.
    """

    queue_id: str
    hostname: str
    received_at: datetime
    now: datetime
    attempts: int
    subject: str = ""
    codes_only: bool = False
    sender: str = ""
    for_operator: bool = False


def explain(fates: Sequence[Fate], telling: Telling) -> str:
    """The report in words, lines ended by "\\n"."""
    parts = [_in_one_language(words, fates, telling) for words in (DUTCH, ENGLISH)]
    return "\n\n----\n\n".join(parts) + "\n"


def diagnosis(fate: Fate, *, codes_only: bool) -> str:
    """The upstream's answer verbatim, or what happened; for session codes nothing but codes."""
    if fate.reply is None:
        return "" if codes_only else sanitise(fate.text)
    if codes_only:
        return f"{fate.reply.code} {fate.reply.status}".rstrip()
    return sanitise(str(fate.reply))


def _in_one_language(words: Words, fates: Sequence[Fate], telling: Telling) -> str:
    sender = sanitise(telling.sender)
    lines: list[str] = []
    for action in Action:
        group = [fate for fate in fates if fate.action is action]
        if not group:
            continue
        lines += [words.about[action].format(sender=sender) if sender else words.verdict[action], ""]
        for fate in group:
            lines += _one_recipient(words, fate, telling)
        lines += ["", words.no_more if telling.for_operator else words.last[action]]
        until = group[0].retry_until  # the lifetime is the message's: the same for all
        if until is not None:
            lines.append(f"{words.until}: {moment(until)}")
        lines.append("")
    if telling.subject:
        lines.append(f"{words.subject}: {telling.subject}")
    lines.append(f"{words.accepted}: {moment(telling.received_at)}")
    if telling.attempts > 1:
        time = duration(telling.now - telling.received_at, words)
        lines.append(words.tries.format(tries=telling.attempts, time=time))
    elif telling.attempts == 1:
        lines.append(words.once)
    if telling.for_operator:
        lines.append(f"{words.look}: relay queue show {telling.queue_id} ({telling.hostname})")
    else:
        lines.append(f"{words.reference}: {telling.queue_id} ({telling.hostname})")
    return "\n".join(lines)


def _one_recipient(words: Words, fate: Fate, telling: Telling) -> list[str]:
    lines = [f"  {sanitise(str(fate.recipient.address))}"]
    said = diagnosis(fate, codes_only=telling.codes_only)
    if fate.returned:
        lines.append(f"    {words.returned}.")
    elif fate.reply is not None:
        lines.append(f"    {words.answer} ({fate.upstream}): {said}")
    elif fate.action is not Action.RELAYED:
        lines.append(f"    {words.silence} ({fate.upstream or '-'}): {said or words.none}")
    if fate.action is Action.FAILED and not telling.for_operator:
        lines.append(f"    {_TRY_THIS[words.subject]}: {words.advice[_kind(fate)]}")
    return lines


def moment(at: datetime) -> str:
    """A moment as people write it."""
    return f"{at:%d-%m-%Y %H:%M:%S %z}"


def _kind(fate: Fate) -> str:
    """Which advice fits, from what the reply speaks of, else from its enhanced status (RFC 3463, section 3)."""
    if fate.returned:
        return "returned"
    if fate.expired or fate.reply is None:
        return "expired"
    if fate.refusal in _ADVICE:
        return _ADVICE[fate.refusal]
    _, _, detail = fate.reply.status.partition(".")
    if detail in ("1.1", "1.2", "1.3", "1.6", "1.10"):
        return "address"
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


def duration(time: timedelta, words: Words) -> str:
    """A stretch of time in its largest whole unit, as one would say it: "5 dagen", "1 minute"."""
    for unit, one, many in words.units:
        count = time // unit
        if count >= 1:
            return f"{count} {one if count == 1 else many}"
    return f"0 {words.units[-1][2]}"
