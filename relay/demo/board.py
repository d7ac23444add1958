"""The demo on the terminal: what came in and what left, in blocks that fit 80 columns."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table
from rich.text import Text

from relay.demo.mails import MAILBOX, Mail
from relay.demo.upstream import Received
from relay.mail.encoding import decode
from relay.mail.header import value

SWAKS = ("--from", "jij@kantoor.example", "--to", "klant@klant.example", "--header", "Subject: Hallo")
PYTHON = """\
import smtplib
smtplib.SMTP("127.0.0.1", {port}).sendmail("jij@kantoor.example", "klant@klant.example",
    "From: Jij <jij@kantoor.example>\\nSubject: Hallo\\n\\nDag!\\n")"""


@dataclass(frozen=True, slots=True)
class Shown:
    """One mail on its way: times in seconds, `problems` in words."""

    mail: Mail
    received: Received | None
    route: str
    accepted: float
    delivered: float
    problems: list[str]


def opening(console: Console, *, port: int, folder: str) -> None:
    console.print(Text("The relay, with an upstream that is strict about senders", style="bold"))
    console.print(f"Legacy software sends to 127.0.0.1:{port}, in clear text, without AUTH.")
    console.print(f"The provider wants TLS and AUTH, and takes {MAILBOX} only.")
    console.print(f"Configuration and queue: {folder}", soft_wrap=True)
    console.print()


def block(console: Console, shown: Shown) -> None:
    """One mail: before and after."""
    mail, received = shown.mail, shown.received
    good = not shown.problems
    title = Text(("✓ " if good else "✗ ") + mail.title, style="bold green" if good else "bold red")
    title.append(f"  ({mail.quirk})", style="not bold default")
    console.print(title)
    table = _rows()
    table.add_row("came in", Text(f"From: {mail.author}"))
    if received is not None:
        _left(table, received, shown.route)
    if shown.delivered:
        accepted, delivered = shown.accepted * 1000, shown.delivered * 1000
        table.add_row("time", Text(f"kept after {accepted:.1f} ms, delivered after {delivered:.1f} ms"))
    for problem in shown.problems:
        table.add_row("wrong", Text(problem, style="red"))
    console.print(table)
    console.print()


def own_block(console: Console, received: Received) -> None:
    """A mail that somebody sent while the demo was running."""
    table = _rows()
    table.add_row("came in", Text(f"From: {readable(received, b'x-original-from') or readable(received, b'from')}"))
    _left(table, received, "")
    console.print(table)
    console.print()


def _rows() -> Table:
    table = Table.grid(padding=(0, 1), pad_edge=False)
    table.add_column(width=9, style="dim", justify="right")
    table.add_column(width=70, overflow="fold")
    return table


def _left(table: Table, received: Received, route: str) -> None:
    way = f"upstream {received.upstream}, {received.tls}"
    table.add_row("left", Text(f"From: {readable(received, b'from')}"))
    table.add_row("", Text(f"Reply-To: {readable(received, b'reply-to') or '(none: not needed)'}"))
    table.add_row("way", Text(f"route {route}, {way}" if route else way))


def verdict(console: Console, shown: list[Shown]) -> None:
    good = sum(not one.problems for one in shown)
    if good == len(shown):
        console.print(Text(f"All {good} mails arrived once, by the right way, their bodies unchanged.", style="green"))
    else:
        console.print(Text(f"{len(shown) - good} of {len(shown)} mails did not arrive as they should.", style="red"))
    console.print()


def invitation(console: Console, *, port: int, admin_port: int) -> None:
    """How to send a mail oneself, and where to look."""
    console.print(Text("Send one yourself", style="bold"))
    console.print(Text(f"swaks --server 127.0.0.1:{port} {shlex.join(SWAKS)}"), soft_wrap=True)
    console.print("or in Python:")
    console.print(Text(PYTHON.format(port=port)), soft_wrap=True)
    console.print()
    console.print(f"Metrics: http://127.0.0.1:{admin_port}/metrics", highlight=False)
    console.print("Ctrl-C ends the demo.")
    console.print()


def readable(received: Received, name: bytes) -> str:
    """A field as a person reads it."""
    field = received.header.first(name)
    return decode(value(field)) if field else ""
