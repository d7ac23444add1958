"""`relay reload`: the running relay reads its configuration anew."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from relay.cli.desk import at_relay, usual_socket
from relay.cli.language import say, sentence
from relay.cli.options import ConfigOption
from relay.cli.screen import refuse
from relay.cli.serve import DEFAULT_CONFIG
from relay.errors import BadConfig, RelayError

if TYPE_CHECKING:
    from relay.admin.documents import Document


def reload(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Reload the configuration of the running relay. Exit code 1: refused, nothing changed; 3: none is running."""
    from relay.config.load import load

    try:
        load(config)
    except BadConfig as bad:
        answer = _refused(config, bad)
    else:
        with at_relay(config) as desk:
            answer = desk.post("/v1/reload")
    if "problems" in answer:
        for problem in dict.fromkeys(answer["problems"]):
            typer.echo(problem, err=True)
        raise typer.Exit(1)
    typer.echo(say("reload.done"))
    for key in answer["needs_restart"]:
        typer.echo(say("reload.restart", key=key))


def _refused(file: Path, bad: BadConfig) -> Document:
    """The answer of the relay that runs with `file`, which is to report in `relay status` that it could not be read."""
    from relay.admin.client import ours
    from relay.admin.desk import at_socket

    desk, answer = at_socket(usual_socket()), None
    try:
        with ours():
            mine = Path(desk.get("/v1/status")["status"]["config"]).resolve() == file.resolve()
        answer = desk.post("/v1/reload") if mine else None
    except RelayError:
        pass  # none runs there, or it cannot be asked
    if answer is None:
        refuse(sentence(bad))
    return answer
