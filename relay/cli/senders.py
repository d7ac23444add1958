"""`relay senders`: who is refused where, as the relay remembers it for rules with `when: refused`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from relay.cli.desk import at_desk
from relay.cli.human import of_json, stamp
from relay.cli.language import say
from relay.cli.options import ConfigOption, JsonOption
from relay.cli.screen import complain, show, show_document, width
from relay.cli.serve import DEFAULT_CONFIG
from relay.cli.table import Column, Line, Part, table
from relay.observe.log_lines import harmless

senders = typer.Typer(no_args_is_help=True, help="Who is refused by an upstream, and what to do about it.")

UpstreamOption = Annotated[str | None, typer.Option(metavar="NAME", help="Only at this upstream.")]


@senders.command("list")
def list_(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Show the senders that are known to be refused.

    Until the time that is shown their mail leaves as its rule says.
    """
    with at_desk(config) as desk:
        document = desk.get("/v1/senders")
    if as_json:
        show_document(document)
    elif document["senders"]:
        show(lines(document["senders"], datetime.now(UTC), width()))
    else:
        complain(say("senders.none"))


@senders.command()
def forget(
    addresses: Annotated[
        list[str] | None, typer.Argument(metavar="ADDRESS", help="Authors or reverse-paths, as the list shows them.")
    ] = None,
    upstream: UpstreamOption = None,
    everything: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Have a sender tried unchanged again, with its next message. Exit code 4: it was not known."""
    if everything == bool(addresses):
        raise typer.BadParameter("give either addresses or --all")
    with at_desk(config) as desk:
        document = desk.post("/v1/senders/forget", senders=addresses or [], upstream=upstream)
    if as_json:
        show_document(document)
        return
    for one in document["senders"]:
        typer.echo(say("senders.forgotten", who=_who(one), upstream=harmless(one["upstream"])))
    if not document["senders"]:
        complain(say("senders.none"))


@senders.command()
def pin(
    upstream: Annotated[str, typer.Argument(metavar="UPSTREAM", help="The upstream that refuses it.")],
    address: Annotated[str, typer.Argument(metavar="ADDRESS", help="The author.")],
    reverse_path: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help='Its reverse-path, where that is another; "<>" for the null one.'),
    ] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Take a sender as refused until it is forgotten.

    Its mail leaves as its rule says, without a try as it is.
    """
    with at_desk(config) as desk:
        document = desk.post("/v1/senders/pin", upstream=upstream, author=address, reverse_path=reverse_path)
    if as_json:
        show_document(document)
        return
    for one in document["senders"]:
        typer.echo(say("senders.pinned", who=_who(one), upstream=harmless(one["upstream"])))


_COLUMNS = (
    Column("AUTHOR", least=20),
    Column("UPSTREAM"),
    Column("UNTIL"),
    Column("REPLY", rank=1, glue="-"),
    Column("SINCE", rank=3),
    Column("REVERSE-PATH", rank=2, least=16),
)


def lines(told: Iterable[dict[str, Any]], now: datetime, width: int | None) -> Iterator[Line]:
    """A line for each sender."""
    return table(_COLUMNS, [_line(one, now, width) for one in told], width=width)


def _line(one: dict[str, Any], now: datetime, width: int | None) -> list[Part]:
    reply = f"{one['code']} {harmless(one['status'])}".rstrip() if one["code"] else ""
    return [
        (harmless(one["author"]) or say("senders.no-author"), "bold"),
        (harmless(one["upstream"]), ""),
        (stamp(of_json(one["until"]), width, now) if one["until"] else "pinned", ""),
        (reply, "yellow"),
        (stamp(of_json(one["since"]), width, now), ""),
        (harmless(one["reverse_path"]), ""),
    ]


def _who(one: dict[str, Any]) -> str:
    author, path = harmless(one["author"]), harmless(one["reverse_path"])
    if author == path:
        return author
    return say("senders.with-path", author=author or say("senders.no-author"), path=path)
