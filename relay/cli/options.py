"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from relay.errors import RelayError
from relay.mail import addressees
from relay.mail.address import Address
from relay.mail.reply import sanitise

ConfigOption = Annotated[
    Path,
    typer.Option(
        "-c",
        "--config",
        envvar="RELAY_CONFIG",
        metavar="FILE",
        help="The configuration file.",
        readable=False,  # who reads it says more than a usage text
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help='One JSON document, with "version": 1.')]


class Usage(RelayError):
    """What was asked makes no sense; the text says why."""


def address(option: str, written: str) -> Address:
    """The one address that an option gives, with a name or without. Raises Usage."""
    found = addressees.one(written.encode("utf-8", "replace"))
    if found is None:
        raise Usage(f"{option}: not one address: {sanitise(written, 200)}")
    return found
