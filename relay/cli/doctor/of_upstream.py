"""One upstream: how far a connection came, and what was heard on the way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

from relay.cli.doctor.findings import Finding, Mark, good, untried, warning
from relay.cli.human import days_until, octets
from relay.cli.language import say
from relay.config.preset import preset
from relay.mail.outcome import Deferred, Stage, Trouble
from relay.mail.reply import Reply
from relay.observe.needs_a_person import CERTIFICATE_ENDS, CREDENTIAL_STEPS, DAY
from relay.observe.provider_texts import connection_remedy, sender_remedy
from relay.observe.situation import Answer
from relay.texts.language import Sentence
from relay.transport.offers import Offers
from relay.transport.smtp import Heard, SmtpSettings
from relay.transport.tls import end_of, names_of

_BEFORE = "the TLS files of "  # what keeps a connection from being tried, in the words of `transport.smtp`


def of_way(
    settings: SmtpSettings, heard: Heard | None, outcome: Deferred | None, known: str | None
) -> Iterator[Finding]:
    """What went well, as far as AUTH; then where the connection stopped, if it did. `known` is the preset."""
    name = settings.name
    stage = outcome.stage if outcome is not None else None
    if outcome is not None and outcome.text.startswith(_BEFORE):
        pass
    elif stage is not Stage.DNS:
        yield good("dns", settings.host)
        if stage is not Stage.CONNECT:
            yield good("connect", say("finding.port", port=settings.port))
    if heard is not None:
        if settings.tls != "none":
            yield of_certificate(settings, heard, datetime.now(UTC))
        yield from of_ehlo(settings, heard, known)
    if outcome is not None:
        yield of_stop(name, outcome)


def of_stop(name: str, outcome: Deferred, part: str = "") -> Finding:
    """Where the connection, or the way to a token, came to its end."""
    reply = outcome.reply
    code, status = (reply.code, reply.status) if reply is not None else (0, "")
    remedy = connection_remedy(outcome.stage, outcome.trouble, code, status, outcome.text)
    told = str(reply) if reply is not None else outcome.text
    return Finding(Mark.BAD, part or str(outcome.stage), told, Sentence(f"remedy.{remedy}", {"name": name}))


def of_addresses(name: str, seen: Sequence[tuple[str, Heard | Deferred]]) -> Iterator[Finding]:
    """Each address of a host that has several; one that is sick gives way to the others, and costs time."""
    for address, came in seen:
        if isinstance(came, Heard):
            yield good("address", address)
            continue
        stop = of_stop(name, came)
        told = f"{address}: {stop.part}: {stop.text}"
        no_way = came.stage is Stage.CONNECT and "unreachable" in came.text  # IPv6 on a machine without it
        yield untried("address", told) if no_way else Finding(Mark.WARNING, "address", told, stop.remedy)


def of_certificate(settings: SmtpSettings, heard: Heard, now: datetime) -> Finding:
    how = heard.version if settings.tls != "starttls" else say("finding.by-starttls", version=heard.version)
    ends = end_of(heard.certificate)
    if not settings.tls_verify or ends is None:
        return warning("tls", say("finding.certificate-unchecked", how=how), "unverified", name=settings.name)
    first, *more = names_of(heard.certificate).split(", ")
    others = say("finding.certificate-more", count=len(more)) if more else ""
    told = f"{how}; {_certificate(first or settings.host, ends - now, others)}"
    return warning("tls", told, "renewal") if ends - now <= CERTIFICATE_ENDS["upstream"] else good("tls", told)


def _certificate(name: str, left: timedelta, more: str = "") -> str:
    return say("finding.certificate", name=name, more=more, days=left.days)


def of_endpoint(
    name: str, host: str, port: int, ends: datetime | None, outcome: Deferred | None, now: datetime
) -> Iterator[Finding]:
    """As far as TLS: whether the credentials are right, only a message could show."""
    stage = outcome.stage if outcome is not None else None
    if stage not in (Stage.AUTH, Stage.DNS) and not (outcome is not None and outcome.text.startswith(_BEFORE)):
        yield good("dns", host)
        if stage is not Stage.CONNECT:
            yield good("connect", say("finding.port", port=port))
    if outcome is not None:
        yield of_stop(name, outcome)
        return
    if ends is not None:
        told = _certificate(host, ends - now)
        yield warning("tls", told, "renewal") if ends - now <= CERTIFICATE_ENDS["upstream"] else good("tls", told)
    yield untried("auth", say("finding.auth-endpoint"))


def of_ehlo(settings: SmtpSettings, heard: Heard, known: str | None) -> Iterator[Finding]:
    """What EHLO offers, and where that is not what the preset or the configuration says."""
    name, size = settings.name, Offers.of(heard.extensions).size
    words = ["AUTH " + " ".join(heard.mechanisms).upper() if heard.mechanisms else say("finding.ehlo-no-auth")]
    no_limit = say("finding.ehlo-no-size" if size is None else "finding.ehlo-any-size")
    words.append(f"SIZE {octets(size)}" if size else no_limit)
    told = ", ".join(words)
    wanted = preset(known).mechanisms if known is not None else ()
    missing = [one for one in wanted if one not in heard.mechanisms]
    if missing:
        told = say("finding.ehlo-preset", offers=told, preset=known, missing=" ".join(missing).upper())
        yield warning("ehlo", told, "not-the-preset", name=name, preset=known or "")
    elif size and settings.max_message_size is not None and size < settings.max_message_size:
        told = say("finding.ehlo-size", offers=told, size=octets(settings.max_message_size))
        yield warning("ehlo", told, "size", name=name)
    else:
        yield good("ehlo", told)
    if settings.tls == "none" and "starttls" in heard.extensions:
        yield warning("starttls", say("finding.starttls-unused"), "starttls-unused", name=name)


def of_login(settings: SmtpSettings) -> Finding:
    """A connection that came through."""
    if settings.auth == "none":
        return untried("auth", say("finding.auth-none"))
    return good("auth", say("finding.auth", username=settings.username))


def of_login_aside(name: str, said: Answer) -> Finding:
    """A login that is not tried, as a running relay was refused a moment ago."""
    reply = Reply(said.code, said.status, said.text) if said.code else None
    refused = of_stop(name, Deferred(Stage.AUTH, Trouble.PERMANENT, said.text, reply))
    told = say("finding.auth-aside", said=refused.text)
    return Finding(Mark.BAD, "auth", told, refused.remedy)


def of_sender(name: str, address: str, said: Reply) -> Finding:
    if 200 <= said.code < 300:
        return good("sender", say("finding.sender", address=address))
    told = f"{address}: {said}"
    if said.code < 500:
        return warning("sender", told, "sender-later")
    remedy = sender_remedy(said.code, said.status, said.text)
    return Finding(Mark.BAD, "sender", told, Sentence(f"remedy.{remedy}", {"name": name}))


def of_end(name: str, what: str, end: datetime, now: datetime) -> Finding:
    """The end of a client secret or of a client certificate."""
    part, remedy = ("secret", "secret-end") if what == "secret" else ("cert", "login-certificate-end")
    words = Sentence(f"remedy.{remedy}", {"name": name})
    day = f"{end:%Y-%m-%d}"
    if end <= now:
        return Finding(Mark.BAD, part, say(f"finding.{part}-ended", day=day), words)
    told = say(f"finding.{part}-ends", day=day, days=days_until(end, now))
    if end - now <= max(CREDENTIAL_STEPS) * DAY:
        return Finding(Mark.WARNING, part, told, words)
    return good(part, told)


def of_token(username: str, expires_at: datetime) -> Finding:
    return good("token", say("finding.token", username=username, time=f"{expires_at.astimezone():%H:%M:%S}"))
