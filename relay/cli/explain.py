"""`relay explain`: which rules a message would meet, as whom it would leave, and by which way. Nothing is sent."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from difflib import SequenceMatcher
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from relay.cli.language import sentence
from relay.cli.layout import labelled
from relay.cli.options import ConfigOption, JsonOption, Usage, address
from relay.cli.screen import console, styled
from relay.cli.serve import DEFAULT_CONFIG
from relay.cli.table import Line, line
from relay.durable import read_regular
from relay.errors import RelayError
from relay.mail import author, encoding, header, queue_id
from relay.mail.address import Address
from relay.mail.addressees import BadAddressees
from relay.mail.envelope import Envelope
from relay.mail.parcel import Parcel, converted
from relay.mail.reply import sanitise
from relay.mail.submission import Peer, Submission
from relay.policy.explain import Explanation
from relay.policy.explain import explain as explanation_of
from relay.policy.match import Condition
from relay.policy.rewriting import Rendered

if TYPE_CHECKING:
    from relay.config.model import Config

_WIDTH = 80


def explain(
    from_: Annotated[str | None, typer.Option("--from", help='The author: "jan@x.nl" or "Jan <jan@x.nl>".')] = None,
    to: Annotated[list[str] | None, typer.Option("--to", help="A recipient; may be given more than once.")] = None,
    subject: Annotated[str | None, typer.Option(help="The subject.")] = None,
    envelope_from: Annotated[str | None, typer.Option(help='MAIL FROM, "<>" for null. Default: the author.')] = None,
    client: Annotated[str, typer.Option(help="The address that the message comes from.")] = "127.0.0.1",
    listener: Annotated[str | None, typer.Option(help="The listener's name. Default: the first.")] = None,
    user: Annotated[str | None, typer.Option(help="The AUTH name.")] = None,
    eml: Annotated[Path | None, typer.Option(help="A message as a file, instead of --from and --subject.")] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Show which rules a message meets, and how it leaves.

    It also shows as whom, and by which way. Nothing is sent. Exit code 0: it would be accepted; 1: refused, or the
    configuration is bad; 2: usage.
    """
    from relay.config import compile as compiled
    from relay.config.load import load

    try:
        loaded = load(config)
        policy = compiled.policy(loaded)
        message = _message(from_, subject, eml)
        now = datetime.now(UTC).astimezone()
        submission = Submission(
            queue_id=queue_id.queue_id(int(now.timestamp() * 1_000_000), 0),
            envelope=_envelope(loaded, message, to or (), envelope_from),
            head=message.head,
            size=len(message.content),
            peer=Peer(client, helo="explain", protocol="ESMTPA" if user else "ESMTP", user=user),
            listener=_listener(loaded, listener),
            received_at=now,
        )
        patience = _patience(loaded, submission.listener)
    except RelayError as error:
        typer.echo(sentence(error), err=True)
        raise typer.Exit(2 if isinstance(error, Usage) else 1) from None
    told = explanation_of(submission, policy)
    if as_json:
        typer.echo(json.dumps(_document(submission, told, patience), indent=2))
    else:
        console().print(styled(_lines(submission, told, patience)))
    raise typer.Exit(1 if told.rejected else 0)


# What was asked


def _message(from_: str | None, subject: str | None, eml: Path | None) -> Parcel:
    if eml is not None:
        if from_ is not None or subject is not None:
            raise Usage("--eml brings its own From and Subject: leave out --from and --subject")
        try:
            return Parcel(converted(read_regular(eml)))
        except OSError as error:
            raise Usage(f"--eml {eml}: {error.strerror}") from None
    if from_ is None:
        raise Usage("who is the author? Give --from ADDRESS, or --eml FILE")
    written = str(address("--from", from_)).encode()
    phrase = encoding.encode_phrase(author.parse(from_.encode("utf-8", "replace"))[0].name)
    head = header.folded(b"From", [phrase, b"<%b>" % written] if phrase else [written])
    if subject is not None:
        # An unstructured value is encoded as a phrase is, but needs no quotes.
        plain = subject.isascii() and subject.isprintable() and "=?" not in subject
        head += b"Subject: " + (subject.encode() if plain else encoding.encode_phrase(subject)) + b"\r\n"
    return Parcel(head + b"\r\n")


def _envelope(config: Config, message: Parcel, to: Sequence[str], envelope_from: str | None) -> Envelope:
    from relay.config.compile import aliases

    known = aliases(config)
    try:
        recipients = [address("--to", text) for text in to] or message.recipients(known)
        reverse_path = message.reverse_path() if envelope_from is None else _reverse_path(envelope_from)
    except BadAddressees as error:
        raise Usage(f"the envelope cannot be taken from the header: {error} (give --to and --envelope-from)") from None
    if not recipients:
        raise Usage("who is the recipient? Give --to ADDRESS")
    envelope = Envelope.of(reverse_path, recipients)
    return envelope if known is None else known.applied(envelope)


def _reverse_path(text: str) -> Address | None:
    return None if text.strip() in ("", "<>") else address("--envelope-from", text)


def _listener(config: Config, name: str | None) -> str:
    names = [listener.name for listener in config.listeners]
    if name is None:
        return names[0]
    if name not in names:
        raise Usage(f"--listener: no listener named {sanitise(name, 100)!r} (there are: {', '.join(names)})")
    return name


def _patience(config: Config, listener: str) -> float | None:
    """The seconds that an application waits there for the upstream's own answer; None: it does not."""
    for one in config.smtp_listeners.values():
        if one.name == listener and one.reply == "direct":
            return one.patience.total_seconds()
    return None


# What is answered


def _lines(submission: Submission, told: Explanation, patience: float | None) -> Iterator[Line]:
    """The answer, line by line, each with its style."""
    yield line("Message", "bold")
    yield from _row("reverse-path", _path(submission.envelope.reverse_path))
    yield from _row("recipients", ", ".join([str(r.address) for r in submission.envelope.recipients]))
    peer = submission.peer
    yield from _row("client", peer.address + (f", user {peer.user}" if peer.user else ""))
    yield from _row("listener", submission.listener)
    if told.rejected is not None:
        yield ()
        yield line("Refused", "bold red")
        yield from _row("reply", str(told.rejected))
        yield from _row("because", ", ".join(told.because))
        return
    yield ()
    yield line("Session code", "bold")
    if not told.session_codes:
        yield line("  no: session codes are not enabled")
    for entry in told.session_codes:
        spoke = entry.name == told.session_code
        yield line(f"  {entry.name}: {said(entry.held, spoke)}", "green" if spoke else "")
        yield from conditions(entry.conditions)
    yield ()
    yield line("Sender rules", "bold")
    if not told.rules:
        yield line("  none: the sender stays as it is")
    for tried in told.rules:
        yield line(f"  {tried.rule.name}: {said(tried.held, tried.spoke)}", "green" if tried.spoke else "")
        yield from conditions(tried.conditions)
    if told.rules and not any(tried.spoke for tried in told.rules):
        yield line("  No rule matches: the sender stays as it is.")
    yield ()
    yield line("Way out", "bold")
    yield from _row("route", told.route or "")
    yield from _row("upstreams", ", then ".join(told.upstreams))
    yield from _row("reply", _reply(told, patience))
    if told.held_by:
        yield from _row("hold", f"held for a person by rule {told.held_by}, until it is released")
        yield from _row("", "then it goes as it says here")
    yield from _row("because", ", ".join(told.because) or "nothing else is said: the default")
    if told.rendered is not None:
        yield from _sender(submission, told)


def _sender(submission: Submission, told: Explanation) -> Iterator[Line]:
    rendered = told.rendered
    assert rendered is not None
    yield ()
    yield line(f"Sender: {rendered.result or 'unchanged'}", "bold")
    yield from _change("reverse-path", _path(submission.envelope.reverse_path), _path(rendered.reverse_path))
    yield from _change("From", _value(rendered.from_before), _value(rendered.from_after))
    yield from _row("Reply-To", _value(rendered.reply_to or b""))
    if rendered.signatures_removed:
        yield from _row("signatures", f"{rendered.signatures_removed} DKIM-Signature removed (broken by the rewriting)")
    envelope = (rendered.reverse_path, *[recipient.address for recipient in submission.envelope.recipients])
    beyond = [str(address) for address in envelope if address is not None and address.in_ascii is None]
    if beyond:
        yield from _row("SMTPUTF8", f"the upstream must offer it, for {', '.join(beyond)}")
    if told.repaired is not None:
        yield ()
        yield line("Sender, where the upstream refuses this one (`relay senders list` shows who is)", "bold")
        repaired = told.repaired
        yield from _change("reverse-path", _path(rendered.reverse_path), _path(repaired.reverse_path))
        yield from _change("From", _value(rendered.from_after), _value(repaired.from_after))
        yield from _row("Reply-To", _value(repaired.reply_to or b""))
    yield ()
    yield line("Header as it leaves (+ new, - removed)", "bold")
    before = [raw for _, raw in told.before.fields]
    after = [raw for _, raw in told.after.fields]
    for kind, a_from, a_to, b_from, b_to in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if kind == "equal":
            yield from _fields(" ", before[a_from:a_to], "")
        else:
            yield from _fields("-", before[a_from:a_to], "red")
            yield from _fields("+", after[b_from:b_to], "green")


def _fields(mark: str, raws: list[bytes], style: str) -> Iterator[Line]:
    for raw in raws:
        for number, octets in enumerate(raw.splitlines()):
            words = sanitise(encoding.text(octets))
            for part in textwrap.wrap(words, _WIDTH - 6, drop_whitespace=False, replace_whitespace=False) or [""]:
                yield line(f"  {mark if number == 0 else ' '} {part}", style)


def said(held: bool, spoke: bool) -> str:
    """Whether an entry or a rule matches, and has an effect."""
    if spoke:
        return "matches, and speaks"
    return "would match, but an earlier one spoke" if held else "does not match"


def conditions(tried: tuple[Condition, ...]) -> Iterator[Line]:
    """The conditions of an entry or a rule, each with what was there."""
    if not tried:
        yield line("      (no conditions: always)")
    for condition in tried:
        found = ", ".join(condition.found) or "(nothing)"
        text = f"{condition.name}: {' or '.join(condition.expected)}; there is: {found}"
        style = "" if condition.held else "dim"
        before = f"    {'yes' if condition.held else 'no ':3} "
        yield from labelled(before, sanitise(text), _WIDTH, label=style, style=style)


def _reply(told: Explanation, patience: float | None) -> str:
    """What the application hears, and when."""
    if patience is None or told.held_by:
        return "queued: 250 as soon as it is kept"
    return (
        f"direct: the application hears the upstream's verdict, at most {patience:g} s; "
        "later, or while older mail waits: 250 as soon as it is kept"
    )


def _row(name: str, value: str) -> Iterator[Line]:
    return labelled(f"  {name:13} ", sanitise(value) or "(none)", _WIDTH)


def _change(name: str, before: str, after: str) -> Iterator[Line]:
    yield from _row(name, before)
    if after != before:
        yield from _row("  becomes", after)


def _path(address: Address | None) -> str:
    return "<>" if address is None else str(address)


def _value(value: bytes) -> str:
    return sanitise(encoding.decode(value))


def _document(submission: Submission, told: Explanation, patience: float | None) -> dict[str, Any]:
    """The answer as one JSON document. Text, so octets that are no UTF-8 are shown as Windows-1252."""
    direct = patience is not None and told.rejected is None and not told.held_by
    return {
        "version": 1,
        "accepted": told.rejected is None,
        "reply": str(told.rejected) if told.rejected else None,
        "because": told.because,
        "reverse_path": _path(submission.envelope.reverse_path),
        "recipients": [str(recipient.address) for recipient in submission.envelope.recipients],
        "session_code": told.session_code,
        "session_codes": [
            {"name": entry.name, "held": entry.held, "conditions": [c._asdict() for c in entry.conditions]}
            for entry in told.session_codes
        ],
        "rules": [
            {
                "name": tried.rule.name,
                "held": tried.held,
                "spoke": tried.spoke,
                "hold": tried.rule.hold,
                "conditions": [c._asdict() for c in tried.conditions],
            }
            for tried in told.rules
        ],
        "route": told.route,
        "upstreams": told.upstreams,
        "reply_mode": "direct" if direct else "queued",
        "patience": patience if direct else None,
        "rewriting": _rewriting(told.rendered),
        "if_refused": _rewriting(told.repaired),
        "header_before": encoding.text(told.before.to_bytes()),
        "header_after": encoding.text(told.after.to_bytes()),
    }


def _rewriting(rendered: Rendered | None) -> dict[str, Any] | None:
    if rendered is None:
        return None
    return {
        "result": rendered.result,
        "reverse_path": _path(rendered.reverse_path),
        "from_before": encoding.text(rendered.from_before),
        "from_after": encoding.text(rendered.from_after),
        "reply_to": None if rendered.reply_to is None else encoding.text(rendered.reply_to),
        "signatures_removed": rendered.signatures_removed,
        "smtputf8": rendered.smtputf8,
    }
