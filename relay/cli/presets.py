"""`relay presets`: the providers that are known, and what is known of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from relay.cli.layout import labelled
from relay.cli.options import JsonOption
from relay.cli.screen import refuse, show, show_document, width
from relay.cli.table import Column, Line, Part, table
from relay.config import preset
from relay.config.preset import Preset
from relay.config.values import BadValue

SENDERS = {
    "account": "the account, and addresses it may send as",
    "verified": "addresses or domains that are verified there",
    "domain": "addresses of the account's domains",
    "any": "anybody",
    "rewritten": "anybody, but From becomes the account without a word",
}

_COLUMNS = (
    Column("PRESET"),
    Column("SERVER", least=20),
    Column("TLS", rank=2),
    Column("SENDER", rank=1),
    Column("CHECKED", rank=3),
    Column("CONFIRMED", rank=4),
    Column("PROVIDER", least=12),
)


def presets(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="All about this one.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show the providers that `preset: NAME` knows.

    With a name: what it fills in, and where that comes from.
    """
    if name is not None:
        try:
            preset.preset(name)
        except BadValue as error:
            refuse(f"relay: {error.problem}" + (f" ({error.hint})" if error.hint else ""), 4)
    chosen = [name] if name is not None else list(preset.names())
    if as_json:
        show_document({"version": 1, "presets": [_document(each) for each in chosen]})
    elif name is not None:
        show(_all_about(name, width()))
    else:
        rows = [_row(each, preset.preset(each)) for each in chosen]
        show(table(_COLUMNS, rows, width=width()))


def _row(name: str, known: Preset) -> list[Part]:
    server = f"{known.upstream['host']}:{known.upstream['port']}"
    return [
        (name, "bold"),
        (server, ""),
        (known.upstream["tls"], ""),
        (known.sender, ""),
        (known.checked, ""),
        ("in-part" if known.unconfirmed else "yes", ""),
        (known.title, ""),
    ]


def _all_about(name: str, width: int | None) -> Iterator[Line]:
    known = preset.preset(name)
    yield ((f"{name}: {known.title}", "bold"),)
    yield from _fact("checked", known.checked, width)
    for number, source in enumerate(known.sources):
        yield (f"  {'source' if number == 0 else '':17} ", "dim"), (source, "")
    if known.unconfirmed:
        told = "not confirmed by the provider: " + ", ".join(known.unconfirmed)
        yield from _fact("caution", told, width)
    yield from _fact("may send", SENDERS[known.sender], width)
    if known.mechanisms:
        yield from _fact("AUTH", " ".join(known.mechanisms).upper(), width)
    if known.spf:
        yield from _fact("SPF", f"of your domain must have {known.spf}", width)
    if known.own_reverse_path:
        yield from _fact("SPF", "speaks of the provider's domain: it puts a reverse-path of its own into mail", width)
    for parameter, sentence in known.parameters.items():
        yield from _fact(parameter, f"needed: {sentence}", width)
    for note in known.notes:
        yield from _fact("note", note, width)
    yield ()
    yield (("It fills in", "bold"),)
    for key, value in known.upstream.items():
        written = "[" + ", ".join(map(str, value)) + "]" if isinstance(value, tuple) else str(value)
        yield ((f"  {key}: {written}", ""),)
    if known.refusals:
        yield ()
        yield (("How its refusals are read, before those that all have in common", "bold"),)
        for line in known.refusals:
            yield from _fact(str(line.class_), _said(line.model_dump(exclude_none=True)), width)


def _said(line: dict[str, Any]) -> str:
    codes = [f"{code:x<3}" for code in map(str, line.pop("codes", ()))]
    parts = [" or ".join(codes)] if codes else []
    parts += [" or ".join(line[key]) for key in ("statuses", "texts", "stages") if key in line]
    if line["confirm"]:
        parts.append("(comes and goes: believed the second time)")
    if line["waits"]:
        parts.append("(mail waits)")
    return ", ".join(parts)


def _fact(name: str, words: str, width: int | None) -> Iterator[Line]:
    return labelled(f"  {name:17} ", words, width, label="dim")


def _document(name: str) -> dict[str, Any]:
    return {"name": name, **preset.preset(name).model_dump(mode="json", by_alias=True, exclude_none=True)}
