r"""Dialogues with the door as text: how a `.smtp` file is written, and how it is read. No I/O.

    # What it is, who does it, what must happen.
    listener: bare_newline=reject limits.errors=3     (optional: settings that differ from the usual ones)
    S: 220
    C: EHLO pc.example.nl
    S: 250
    ...
    ---                                               (the end: what arrived, and what was told)
    message: <jan@example.nl> to <piet@example.com>
    content: Subject: x\r\n\r\nHallo\r\n
    quirks: bare-lf no-date

`C:` is a line of the client, CRLF is added; `C-raw:` are octets, nothing is added. Lines up to the next `S:` travel in
one write. Escapes are those of Python; `{x*2000}` is 2000 times x; `{header}` is a From, a Date and a Message-ID.
`C: <tls>`, `C: <eof>` and `C: <reset>` are acts: the handshake, the end of what the client sends, and RST.
`S:` is how the last line of one reply begins; `S-has:` and `S-lacks:` are about other lines of the same reply.
`S: <closed>`: the server says nothing more, and closes. The end of a file is a client that hangs up; nothing may
still come then that was not read.

At the end, `message:` (and `content:` below it, the octets that are kept; `has:` and `lacks:` for a part of them) for
every message that arrived, in order; `dsn:` what it said of delivery reports; `quirks:` and `refused:` all that was
told of the session, none where the line is not there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

HEADER = b"From: Jan <jan@example.nl>\r\nDate: Tue, 24 Nov 2026 09:00:00 +0100\r\nMessage-ID: <1@pc.example.nl>"
FOLDER = Path(__file__).parent

_TIMES = re.compile(rb"\{([^{}]+)\*(\d+)\}")
_MESSAGE = re.compile(r"<(\S*)> to (.*)")


@dataclass
class Step:
    """`kind` is send, tls, eof, reset, reply, has, lacks or closed; `line` is where it stands in the file."""

    kind: str
    octets: bytes
    line: int


@dataclass
class Message:
    """A message as it has to arrive; `content` None: only `has` and `lacks` are looked for."""

    reverse_path: str
    recipients: tuple[str, ...]
    content: bytes | None = None
    has: list[bytes] = field(default_factory=list)
    lacks: list[bytes] = field(default_factory=list)
    dsn: str | None = None


@dataclass
class Dialog:
    """A file, read."""

    name: str
    comment: str = ""
    settings: dict[str, str] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    quirks: set[str] = field(default_factory=set)
    refused: list[str] = field(default_factory=list)


def octets(text: str) -> bytes:
    """What an escaped text stands for; characters beyond ASCII are UTF-8."""
    raw = text.encode().decode("unicode_escape").encode("latin-1").replace(b"{header}", HEADER)
    return _TIMES.sub(lambda found: found[1] * int(found[2]), raw)


def read(path: Path) -> Dialog:
    """The dialogue in a file; ValueError names the line that is none."""
    dialog = Dialog(path.stem)
    at_the_end = False
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        key, _, rest = line.partition(":")
        rest = rest.removeprefix(" ")
        try:
            if line.startswith("#"):
                dialog.comment += line[1:].strip() + "\n"
            elif line == "---":
                at_the_end = True
            elif at_the_end and line:
                _outcome(dialog, key, rest)
            elif key == "listener":
                dialog.settings |= dict(word.split("=", 1) for word in rest.split())
            elif line:
                dialog.steps.append(_step(key, rest, number))
        except (ValueError, LookupError, AttributeError, TypeError) as error:
            raise ValueError(f"{path.name}, line {number}: {line!r}: {error}") from None
    if not dialog.comment or not at_the_end:
        raise ValueError(f"{path.name}: a dialogue has a comment above, and an end after ---")
    return dialog


def _step(key: str, rest: str, number: int) -> Step:
    match key:
        case "C" if rest in ("<tls>", "<eof>", "<reset>"):
            return Step(rest[1:-1], b"", number)
        case "C":
            return Step("send", octets(rest) + b"\r\n", number)
        case "C-raw":
            return Step("send", octets(rest), number)
        case "S" if rest == "<closed>":
            return Step("closed", b"", number)
        case "S":
            return Step("reply", octets(rest), number)
        case "S-has" | "S-lacks":
            return Step(key[2:], octets(rest), number)
    raise ValueError("C:, C-raw:, S:, S-has: or S-lacks: is expected")


def _outcome(dialog: Dialog, key: str, rest: str) -> None:
    match key:
        case "message":
            found = _MESSAGE.fullmatch(octets(rest).decode())
            if found is None:
                raise ValueError("message: <reverse-path> to <recipient> <recipient>")
            recipients = tuple(word[1:-1] for word in found[2].split(" "))
            dialog.messages.append(Message(found[1], recipients))
        case "content":
            dialog.messages[-1].content = octets(rest)
        case "has":
            dialog.messages[-1].has.append(octets(rest))
        case "lacks":
            dialog.messages[-1].lacks.append(octets(rest))
        case "dsn":
            dialog.messages[-1].dsn = rest
        case "quirks":
            dialog.quirks |= set(rest.split())
        case "refused":
            dialog.refused.append(rest)
        case _:
            raise ValueError("message, content, has, lacks, dsn, quirks or refused is expected")


def all_of_them() -> list[Dialog]:
    return [read(path) for path in sorted(FOLDER.glob("*.smtp"))]
