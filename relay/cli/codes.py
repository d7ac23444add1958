"""`relay codes`: how session codes are told from other mail. `learn` proposes it from samples, `try` says it of a file.

Nothing that is printed holds a code: subjects are not shown, and digits of other fields neither.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from typer.core import TyperCommand

from relay.cli.explain import conditions, said
from relay.cli.human import count
from relay.cli.options import ConfigOption, JsonOption, address
from relay.cli.screen import complain, refuse, show, show_document
from relay.cli.serve import DEFAULT_CONFIG, sentence
from relay.cli.table import Line
from relay.durable import read_regular
from relay.errors import RelayError
from relay.mail.address import Address
from relay.mail.addressees import BadAddressees
from relay.mail.envelope import Envelope
from relay.mail.parcel import Parcel, converted
from relay.mail.submission import Peer, Submission
from relay.observe.log_lines import harmless
from relay.policy.match import Condition, View
from relay.values import frozen

if TYPE_CHECKING:
    from relay.config.model import Config
    from relay.policy.explain import EntryTried
    from relay.policy.learn import Kind, Proposed
    from relay.policy.session_code import SessionCodes

T = TypeVar("T")

codes = typer.Typer(no_args_is_help=True, help="How session codes are told from other mail.")

_LARGEST = 64 * 1024 * 1024
_WIDTH = 80
_DIGITS = re.compile(r"[0-9](?:[-. ]?[0-9]){3,}")

_HERE = Peer("127.0.0.1")

FilesArgument = Annotated[list[Path], typer.Argument(metavar="FILE.eml…", help="Messages, each a file.")]
NotOption = Annotated[
    list[Path] | None,
    typer.Option("--not", metavar="FILE.eml…", help="Ordinary mail, that must not match: all files that follow."),
]


class _Learn(TyperCommand):
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """`--not` holds for all files up to the next option, so that a shell may spell out a pattern behind it."""
        spread: list[str] = []
        behind = False
        for word in args:
            if word.startswith("-"):
                behind = word == "--not"
                spread += [] if behind else [word]
            else:
                spread += ["--not", word] if behind else [word]
        return super().parse_args(ctx, spread)


# From samples to a proposal


@codes.command("learn", cls=_Learn)
def learn(files: FilesArgument, others: NotOption = None, as_json: JsonOption = False) -> None:
    """Propose entries for session_codes.match from samples of session-code mail.

    Exit code 0: the proposal matches all samples and no ordinary mail; 1: there is none that does; 2: usage.
    """
    from relay.policy.learn import propose

    samples, ordinary = _letters(files), _letters(others or ())
    kinds = propose([letter.view for letter in samples])
    try:
        learned = Learned(kinds, samples, ordinary)
    except RelayError:  # addresses or subjects that no configuration can hold
        refuse("relay: the samples hold nothing that could stand in a configuration")
    if as_json:
        show_document(learned.document())
    elif learned.good:
        show([((line, ""),) for line in learned.lines()])
    if not learned.good:
        for complaint in learned.complaints():
            complain(complaint)
    raise typer.Exit(0 if learned.good else 1)


@frozen
class Letter:
    """A message from a file, as conditions see it."""

    path: Path
    view: View

    @property
    def name(self) -> str:
        """The file's, without what the subject says in digits: programs name a file by its subject."""
        name = str(self.path)
        for word in re.findall(r"[0-9](?:[-. ]?[0-9])+|\w*[0-9]\w*", self.view.subject):
            if len(word) > 2:
                name = name.replace(word, "####")
        return harmless(name)


class Learned:
    """A proposal as YAML, and what those who decide say about it, once they have read that."""

    def __init__(self, kinds: Sequence[Kind], samples: Sequence[Letter], ordinary: Sequence[Letter]) -> None:
        self._kinds = kinds
        self._samples = samples
        self._ordinary = ordinary
        self._rules = _as_configured([_entry(kind.conditions) for kind in kinds])
        self._missed = [letter for letter in samples if not self._is_code(letter)]
        self._caught = [letter for letter in ordinary if self._is_code(letter)]

    def _is_code(self, letter: Letter) -> bool:
        return self._rules.entry(letter.view) is not None

    @property
    def good(self) -> bool:
        return not self._missed and not self._caught

    def complaints(self) -> Iterator[str]:
        for letter in self._missed:
            yield f"relay: {letter.name}: nothing it has in common with the others would match it"
        for letter in self._caught:
            yield f"relay: {letter.name}: cannot be told from the samples: it has all that they have in common"

    def lines(self) -> Iterator[str]:
        """What belongs into the configuration."""
        yield f"# From {count(len(self._samples), 'sample')}. Read it, put it into the configuration; then"
        yield "# `relay check`, `relay codes try FILE.eml`, `relay reload`."
        yield "session_codes:"
        yield "  match:"
        for number, kind in enumerate(self._kinds):
            names = ", ".join([self._samples[place].name for place in kind.samples])
            yield from _comment("    ", names)
            for warning in kind.broad:
                yield from _comment("    ", f"Broad: {warning}.")
            for place, condition in enumerate(kind.conditions):
                why = condition.why[0].upper() + condition.why[1:]
                yield from _comment("    " if place == 0 else "      ", f"{why}{self._use(number, condition)}.")
                yield f"    {'- ' if place == 0 else '  '}{_yaml(condition)}"
        yield from _comment("", self._verified())

    def _use(self, number: int, condition: Proposed) -> str:
        """How much of the ordinary mail a condition keeps out."""
        if not self._ordinary:
            return ""
        name = f"header.{condition.field.lower()}" if condition.field else condition.key
        tried = [condition for letter in self._ordinary for condition in self._rules.matches.tried(letter.view)[number]]
        out = [condition for condition in tried if condition.name == name and not condition.held]
        return f"; keeps out {len(out)} of {count(len(self._ordinary), 'ordinary mail')}"

    def _verified(self) -> str:
        text = (
            f"Verified as the relay decides: it matches {len(self._samples)} of {count(len(self._samples), 'sample')}"
        )
        if self._ordinary:
            return f"{text} and none of {count(len(self._ordinary), 'ordinary mail')}."
        return f"{text}. Ordinary mail was not looked at: give some with --not."

    def document(self) -> dict[str, Any]:
        return {
            "version": 1,
            "good": self.good,
            "match": [_entry(kind.conditions) for kind in self._kinds],
            "kinds": [
                {
                    "samples": [self._samples[place].name for place in kind.samples],
                    "broad": list(kind.broad),
                    "why": {_key(condition): condition.why for condition in kind.conditions},
                }
                for kind in self._kinds
            ],
            "samples": len(self._samples),
            "samples_missed": [letter.name for letter in self._missed],
            "ordinary": len(self._ordinary),
            "ordinary_matched": [letter.name for letter in self._caught],
        }


def _entry(proposed: Iterable[Proposed]) -> dict[str, Any]:
    """The entry as the configuration has it."""
    entry: dict[str, Any] = {}
    for condition in proposed:
        if condition.field:
            entry.setdefault(condition.key, {})[condition.field] = condition.value
        else:
            entry[condition.key] = list(condition.value) if isinstance(condition.value, tuple) else condition.value
    return entry


def _as_configured(entries: Sequence[dict[str, Any]]) -> SessionCodes:
    """The entries as the relay would have them, read as a configuration is."""
    from relay.config import compile as compiled
    from relay.config.load import parse

    upstreams = {name: {"host": "localhost"} for name in ("own", "vendor")}
    codes = {"enabled": True, "match": entries}
    # JSON is YAML as well.
    text = json.dumps({"hostname": "relay.invalid", "upstreams": upstreams, "session_codes": codes})
    return compiled.session_codes(parse(text))


def _key(condition: Proposed) -> str:
    return f"{condition.key}.{condition.field}" if condition.field else condition.key


def _yaml(condition: Proposed) -> str:
    value = condition.value
    match value:
        case int():
            written = str(value)
        case tuple():
            written = f"[{', '.join(map(_quoted, value))}]"
        case _:
            written = value if condition.key == "max_size" else _quoted(value)
    if condition.field:
        written = f"{{{condition.field}: {written}}}"
    return f"{condition.key}: {written}"


def _quoted(text: str) -> str:
    doubled = text.replace("'", "''")
    return f"'{doubled}'"


def _comment(indent: str, text: str) -> list[str]:
    return [f"{indent}# {line}" for line in textwrap.wrap(text, _WIDTH - len(indent) - 2)]


# What the configuration says of a message


@codes.command("try")
def try_(
    files: FilesArgument,
    to: Annotated[list[str] | None, typer.Option("--to", help="A recipient instead of those in the header.")] = None,
    client: Annotated[str, typer.Option(help="The address that the message comes from.")] = "127.0.0.1",
    listener: Annotated[str | None, typer.Option(help="The listener's name. Default: the first.")] = None,
    user: Annotated[str | None, typer.Option(help="The AUTH name.")] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Say whether a message is a session code, why, and which way it would go. Nothing is sent.

    Exit code 0: all of them are; 1: one is not, or the configuration is bad; 2: usage.
    """
    from relay.config import compile as compiled
    from relay.config.load import load

    try:
        loaded = load(config)
    except RelayError as error:
        refuse(sentence(error))
    names = [each.name for each in loaded.listeners]
    if listener not in (None, *names):
        refuse(f"relay: --listener: no listener of that name (there are: {harmless(', '.join(names))})", 2)
    letters = _letters(files, to or (), Peer(client, user=user), listener or names[0])
    judged = [Judged.of(letter, loaded) for letter in letters]
    if as_json:
        show_document(
            {
                "version": 1,
                "enabled": loaded.session_codes.enabled,
                "ways": list(compiled.session_code_ways(loaded)),
                "files": [each.document() for each in judged],
            }
        )
    else:
        show([line for each in judged for line in each.lines()])
        if any(each.entry for each in judged):
            show([((line, ""),) for line in _way(loaded)])
    if not loaded.session_codes.enabled:
        complain("relay: session codes are not enabled (session_codes.enabled): such mail goes as ordinary mail")
    raise typer.Exit(0 if all(each.entry for each in judged) else 1)


@frozen
class Judged:
    """`entry` is the one that matches first, or None."""

    letter: Letter
    entry: str | None
    tried: tuple[EntryTried, ...]

    @classmethod
    def of(cls, letter: Letter, config: Config) -> Judged:
        from relay.config import compile as compiled
        from relay.policy.explain import entries_tried

        rules = compiled.session_codes(config)
        entry = rules.entry(letter.view)
        tried = [
            replace(each, conditions=tuple(map(_discreet, each.conditions)))
            for each in entries_tried(rules, letter.view, secret=True)
        ]
        return cls(letter, entry, tuple(tried))

    def lines(self) -> Iterator[Line]:
        verdict = f"a session code, by {self.entry}" if self.entry else "no session code"
        yield ((f"{self.letter.name}: {verdict}", "bold green" if self.entry else "bold"),)
        for entry in self.tried:
            spoke = entry.name == self.entry
            yield ((f"  {entry.name}: {said(entry.held, spoke)}", "green" if spoke else ""),)
            yield from conditions(entry.conditions)

    def document(self) -> dict[str, Any]:
        return {
            "file": self.letter.name,
            "session_code": self.entry,
            "entries": [
                {
                    "name": entry.name,
                    "held": entry.held,
                    "conditions": [condition._asdict() for condition in entry.conditions],
                }
                for entry in self.tried
            ],
        }


def _way(config: Config) -> Iterator[str]:
    from relay.config import compile as compiled

    first, *other = compiled.session_code_ways(config)
    if not config.session_codes.enabled:
        return
    if other:
        text = f"way out: {first}; {other[0]} as well where that is down or slow"
    else:
        text = f"way out: {first}, and no other (session_codes.fallback: false)"
    yield from textwrap.wrap(harmless(text), _WIDTH)


def _discreet(condition: Condition) -> Condition:
    """Whatever a header field says, without digits that may be a code."""
    if not condition.name.startswith("header."):
        return condition
    return condition._replace(found=tuple([_DIGITS.sub("####", text) for text in condition.found]))


# Files


def _letters(
    files: Iterable[Path],
    to: Sequence[str] = (),
    peer: Peer = _HERE,
    listener: str = "",
) -> list[Letter]:
    try:
        recipients = list(dict.fromkeys([address("--to", text) for text in to]))
        return [Letter(file, View(_read(file, recipients, peer, listener))) for file in files]
    except RelayError as error:
        refuse(f"relay: {error}", 2)


def _read(file: Path, to: Sequence[Address], peer: Peer, listener: str) -> Submission:
    """The message in `file` as if it came in now; its recipients are those of the header, unless `to` names them."""
    try:
        octets = read_regular(file, _LARGEST + 1)
    except OSError as error:
        raise RelayError(f"{harmless(str(file))}: {error.strerror or 'cannot be read'}") from None
    if len(octets) > _LARGEST:
        raise RelayError(f"{harmless(str(file))}: larger than {_LARGEST // 1024**2} MiB: that is no session code")
    parcel = Parcel(converted(octets))
    if not parcel.header.fields:
        raise RelayError(f"{harmless(str(file))}: no message: it does not begin with a header")
    return Submission(
        queue_id="",
        envelope=Envelope.of(_found(parcel.reverse_path), to or _found(parcel.recipients) or ()),
        head=parcel.head,
        size=len(parcel.content),
        peer=peer,
        listener=listener,
        received_at=datetime.now(UTC),
    )


def _found(part: Callable[[], T]) -> T | None:
    """That part of the envelope, as far as the header says it: a sample need not be one that can be sent."""
    try:
        return part()
    except BadAddressees:
        return None
