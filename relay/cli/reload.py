"""`relay reload`: the running relay reads its configuration anew."""

from __future__ import annotations

import typer

from relay.admin.client import NoRunningRelay, post
from relay.cli.options import ConfigOption
from relay.cli.serve import DEFAULT_CONFIG, sentence
from relay.config.load import load
from relay.errors import RelayError


def reload(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Reload the configuration of the running relay. Exit code 1: refused, nothing changed; 3: none is running."""
    try:
        status, answer = post(load(config).admin.socket, "/v1/reload")
    except RelayError as error:
        typer.echo(sentence(error), err=True)
        raise typer.Exit(3 if isinstance(error, NoRunningRelay) else 1) from None
    if status != 200:
        for problem in answer.get("problems", ["the relay refused"]):
            typer.echo(problem, err=True)
        raise typer.Exit(1)
    typer.echo("reloaded")
    for key in answer["needs_restart"]:
        typer.echo(f"{key}: changed, but needs a restart")
