"""`relay schema`: the JSON schema of the configuration file."""

from __future__ import annotations

import typer


def schema() -> None:
    """Print the JSON schema of the configuration file, for editors."""
    from relay.config.schema import text

    typer.echo(text(), nl=False)
