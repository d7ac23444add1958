"""`relay status`: one screen for a person, an exit code for who monitors."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from relay.admin.client import NoRunningRelay
from relay.admin.desk import at_socket
from relay.cli.desk import look
from relay.cli.options import ConfigOption, JsonOption
from relay.cli.screen import complain, console, refuse, show, show_document, styled, width
from relay.cli.serve import DEFAULT_CONFIG, sentence
from relay.errors import BadConfig, RelayError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from relay.cli.table import Line
    from relay.config.model import Config

PAUSE = 2.0  # seconds between two looks of --watch


def status(
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
    watch: Annotated[bool, typer.Option("--watch", help="Look again every two seconds, until Ctrl-C.")] = False,
) -> None:
    """Show how the relay is. Exit code 0: all is well; 1: something needs a person; 3: no relay is running."""
    if watch and (as_json or not sys.stdout.isatty()):
        raise typer.BadParameter("--watch needs a terminal, and goes without --json")
    loaded, bad = _load(config)
    socket = loaded.admin.socket if loaded is not None else _usual_socket()
    if watch:
        _watch(socket)
        raise typer.Exit
    try:
        document = at_socket(socket).get("/v1/status")
    except NoRunningRelay as error:
        _tell_of_none(str(error), config, loaded, bad or _refused(loaded), as_json)
        raise typer.Exit(3) from None
    except RelayError as error:
        refuse(sentence(error))
    if bad is not None:
        complain(f"{_badness(bad)}\nThe relay runs with the configuration that it read before.")
    if as_json:
        show_document(document)
    else:
        from relay.cli.overview import overview

        show(overview(document["status"], width()))
    troubles = document["status"]["troubles"]
    raise typer.Exit(1 if bad is not None or not all(trouble.get("passes") for trouble in troubles) else 0)


def _load(file: Path) -> tuple[Config | None, BadConfig | None]:
    from relay.config.load import load

    try:
        return load(file), None
    except BadConfig as error:
        return None, error


def _refused(config: Config | None) -> BadConfig | None:
    """What would keep a relay from starting with a configuration that is good in itself."""
    from relay.config import outside

    problems = outside.problems(config, serving=False) if config is not None else []
    return BadConfig(problems) if problems else None


def _usual_socket() -> Path:
    """Where the relay listens if its configuration, which cannot be read, does not say otherwise."""
    from relay.config.model import Admin

    return Path(Admin().socket)


def _badness(bad: BadConfig) -> str:
    first, more = bad.problems[0], len(bad.problems) - 1
    return f"the configuration is bad: {first}" + (f" (and {more} more: relay check)" if more else "")


# No relay runs


def _tell_of_none(error: str, file: Path, config: Config | None, bad: BadConfig | None, as_json: bool) -> None:
    waiting, unknown = _waiting(config)
    if as_json:
        show_document(
            {
                "version": 1,
                "status": None,
                "error": error,
                "configuration": {"file": str(file), "problems": [str(each) for each in bad.problems] if bad else []},
                "queue": waiting,
                "queue_error": unknown,
            }
        )
        return
    from relay.cli.table import line
    from relay.observe.log_lines import harmless

    told = [line(harmless(error), "bold red")]
    if bad is not None:
        told.append(line(harmless(_badness(bad)), "red"))
    else:
        told.append(line(f"the configuration {harmless(str(file))} is good"))
    told.append(line(harmless(_queue(waiting, unknown))))
    show(told)


def _queue(waiting: dict[str, Any] | None, unknown: str | None) -> str:
    from relay.cli.human import age, count, of_json

    if waiting is None:
        return f"the queue: {unknown}"
    if not waiting["waiting"] and not waiting["held"]:
        return "nothing waits in the queue"
    oldest = age((datetime.now(UTC) - of_json(waiting["oldest"])).total_seconds()) if waiting["oldest"] else ""
    return (
        f"{count(waiting['waiting'], 'message')} in the queue"
        + (f", the oldest for {oldest}" if oldest else "")
        + f"; {waiting['held']} held"
    )


def _waiting(config: Config | None) -> tuple[dict[str, Any] | None, str | None]:
    """How much mail waits, or why that cannot be known."""
    if config is None:
        return None, "cannot be known without the configuration"
    import asyncio

    try:
        view = asyncio.run(look(config))
    except RelayError as error:
        return None, str(error)
    if view is None:
        return None, f"there is none at {config.queue.store}"
    oldest = min(view.oldest.values()).isoformat() if view.oldest else None
    return {"waiting": sum(view.messages.values()), "held": sum(view.held.values()), "oldest": oldest}, None


# Watching


def _watch(socket: Path) -> None:
    """Draw the screen anew until Ctrl-C. A relay that is gone may come back, so its queue is left alone."""
    from rich.live import Live

    screen = console()
    try:
        with Live(console=screen, screen=True, auto_refresh=False, vertical_overflow="crop") as live:
            while True:
                live.update(styled(_now(socket)), refresh=True)
                time.sleep(PAUSE)
    except KeyboardInterrupt:
        return


def _now(socket: Path) -> Iterator[Line]:
    from relay.cli.overview import overview
    from relay.cli.table import line
    from relay.observe.log_lines import harmless

    try:
        yield from overview(at_socket(socket).get("/v1/status")["status"], width())
    except RelayError as error:
        yield line(harmless(str(error)), "bold red")
