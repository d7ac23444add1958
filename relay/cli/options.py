"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from relay.cli.serve import DEFAULT_CONFIG as DEFAULT_CONFIG

ConfigOption = Annotated[
    Path, typer.Option("-c", "--config", envvar="RELAY_CONFIG", metavar="FILE", help="The configuration file.")
]
JsonOption = Annotated[bool, typer.Option("--json", help='One JSON document, with "version": 1.')]
