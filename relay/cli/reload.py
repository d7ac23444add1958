"""`relay reload`: the running relay reads its configuration anew."""

from __future__ import annotations

import typer

from relay.cli.desk import at_relay
from relay.cli.language import say
from relay.cli.options import ConfigOption
from relay.cli.serve import DEFAULT_CONFIG


def reload(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Reload the configuration of the running relay. Exit code 1: refused, nothing changed; 3: none is running."""
    with at_relay(config) as desk:
        answer = desk.post("/v1/reload")
    if "problems" in answer:
        for problem in answer["problems"]:
            typer.echo(problem, err=True)
        raise typer.Exit(1)
    typer.echo(say("reload.done"))
    for key in answer["needs_restart"]:
        typer.echo(say("reload.restart", key=key))
