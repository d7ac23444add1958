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
from relay.cli.language import choose_of, said, say, sentence, told
from relay.cli.options import ConfigOption, JsonOption
from relay.cli.screen import complain, console, refuse, show, show_document, styled, width
from relay.cli.serve import DEFAULT_CONFIG
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
        _tell_of_none(error, config, loaded, bad or _refused(loaded), as_json)
        raise typer.Exit(3) from None
    except RelayError as error:
        refuse(sentence(error))
    if bad is not None:
        complain(f"{_badness(bad)}\n{say('status.earlier')}")
    if as_json:
        show_document(document)
    else:
        from relay.cli.overview import overview

        show(overview(document["status"], width()))
    raise typer.Exit(1 if bad is not None or document["status"]["troubles"] else 0)


def _load(file: Path) -> tuple[Config | None, BadConfig | None]:
    from relay.config.load import load

    choose_of(file)
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
    return say("status.bad-more" if more else "status.bad", problem=told(first), count=more)


# No relay runs


def _tell_of_none(error: RelayError, file: Path, config: Config | None, bad: BadConfig | None, as_json: bool) -> None:
    waiting, unknown = _waiting(config)
    if as_json:
        show_document(
            {
                "version": 1,
                "status": None,
                "error": str(error),
                "configuration": {"file": str(file), "problems": [str(each) for each in bad.problems] if bad else []},
                "queue": waiting,
                "queue_error": unknown,
            }
        )
        return
    from relay.cli.table import line
    from relay.observe.log_lines import harmless

    shown = [line(harmless(said(error)), "bold red")]
    if bad is not None:
        shown.append(line(harmless(_badness(bad)), "red"))
    else:
        shown.append(line(say("status.good", file=harmless(str(file)))))
    shown.append(line(harmless(_queue(waiting, unknown))))
    show(shown)


def _queue(waiting: dict[str, Any] | None, unknown: str | None) -> str:
    from relay.cli.human import age, of_json

    if waiting is None:
        return say("status.queue-unknown", why=unknown)
    if not waiting["waiting"] and not waiting["held"]:
        return say("status.queue-empty")
    words = say("status.queue-one" if waiting["waiting"] == 1 else "status.queue", count=waiting["waiting"])
    if waiting["oldest"]:
        oldest = age((datetime.now(UTC) - of_json(waiting["oldest"])).total_seconds())
        words = say("status.queue-oldest", queue=words, age=oldest)
    return say("status.queue-held", queue=words, held=waiting["held"])


def _waiting(config: Config | None) -> tuple[dict[str, Any] | None, str | None]:
    """How much mail waits, or why that cannot be known."""
    if config is None:
        return None, say("status.queue-no-configuration")
    import asyncio

    try:
        view = asyncio.run(look(config))
    except RelayError as error:
        return None, said(error)
    if view is None:
        return None, say("status.queue-none", store=config.queue.store)
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
        yield line(harmless(said(error)), "bold red")
