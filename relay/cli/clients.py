"""`relay clients`: who sends mail through the relay, and what is odd about how they do it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

import typer

from relay.cli.desk import at_relay
from relay.cli.human import age, of_json
from relay.cli.language import say
from relay.cli.options import ConfigOption, JsonOption
from relay.cli.screen import complain, show, show_document, width
from relay.cli.serve import DEFAULT_CONFIG
from relay.cli.table import Column, Line, Part, table
from relay.mail.quirk import HARMFUL, Quirk
from relay.observe.log_lines import harmless


def clients(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Show who sent mail since the relay started, and their quirks. Exit code 3: no relay is running."""
    with at_relay(config) as desk:
        document = desk.get("/v1/clients")
    if as_json:
        show_document(document)
    elif document["clients"]:
        show(lines(document["clients"], datetime.now(UTC), width()))
    else:
        complain(say("clients.none"))
    raise typer.Exit


_CLIENTS = (
    Column("CLIENT"),
    Column("LAST", right=True),
    Column("MESSAGES", right=True),
    Column("REFUSED", right=True, rank=1),
    Column("LISTENERS", rank=4, least=12),
    Column("HELO", rank=3, least=14, glue="\\x20"),
    Column("SOFTWARE", rank=2, least=16, glue="\\x20"),
    Column("QUIRKS", folds=4),
)
_QUIRKS = (Column("QUIRK"), Column("CARE"), Column("MEANING"))


def lines(seen: Iterable[dict[str, Any]], now: datetime, width: int | None) -> Iterator[Line]:
    """A line for each client; then what their quirks mean, and which of them to care about."""
    told = list(seen)
    yield from table(_CLIENTS, [_client(each, now) for each in told], width=width)
    quirks = sorted({word for each in told for word in each["quirks"]}, key=lambda word: (not _means(word)[1], word))
    if quirks:
        yield ()
        yield from _meanings(quirks, width)


def _client(seen: dict[str, Any], now: datetime) -> list[Part]:
    quirks = sorted(seen["quirks"].items(), key=lambda quirk: (not _means(quirk[0])[1], quirk[0]))
    return [
        (harmless(seen["address"]), "bold"),
        (age((now - of_json(seen["last_seen"])).total_seconds()), ""),
        (str(seen["messages"]), ""),
        (str(seen["refused"]), "yellow" if seen["refused"] else ""),
        (harmless(",".join(seen["listeners"])), ""),
        (harmless(seen["helo"]), ""),
        (harmless(seen["software"]), ""),
        (", ".join([f"{harmless(word)} {number}" for word, number in quirks]), ""),
    ]


def _meanings(quirks: Iterable[str], width: int | None) -> Iterator[Line]:
    rows: list[list[Part]] = []
    for word in quirks:
        text, care = _means(word)
        # What is wrapped comes in rows of its own, under the first.
        beside = 80 if width is None else max(width - 33, 30)
        for number, part in enumerate([text] if width is None else textwrap.wrap(text, beside)):
            first = number == 0
            rows.append(
                [
                    (harmless(word) if first else "", "yellow" if care else ""),
                    (say("clients.yes" if care else "clients.no") if first else "", "yellow" if care else ""),
                    (part, ""),
                ]
            )
    return table(_QUIRKS, rows, width=width)


def _means(word: str) -> tuple[str, bool]:
    try:
        quirk = Quirk(word)
    except ValueError:
        return say("quirk.newer"), False
    return say(f"quirk.{quirk}"), quirk in HARMFUL
