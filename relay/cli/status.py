"""`relay status`: one screen for a person, an exit code for who monitors."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from relay.admin.client import NoRunningRelay, NotAllowed, ours
from relay.admin.desk import at_socket
from relay.cli.desk import look, usual_socket
from relay.cli.language import choose_of, said, say, told
from relay.cli.options import ConfigOption, JsonOption
from relay.cli.screen import complain, console, show, show_document, styled, width
from relay.cli.serve import DEFAULT_CONFIG
from relay.errors import BadConfig, RelayError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from relay.cli.table import Line
    from relay.config.model import Config

PAUSE = 2.0  # seconds between two looks of --watch
_PATIENCE, _HURRY = 15.0, 8.0  # seconds until the relay has answered: to a person, to a monitor
_STATES = ("OK", "WARNING", "CRITICAL", "UNKNOWN")  # of Nagios, by exit code


def status(
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
    watch: Annotated[bool, typer.Option("--watch", help="Look again every two seconds, until Ctrl-C.")] = False,
    nagios: Annotated[
        bool, typer.Option("--nagios", help="One line, and the exit codes of Nagios: 0 OK, 1, 2 CRITICAL, 3 unknown.")
    ] = False,
    health: Annotated[
        bool,
        typer.Option("--health", help="One word for containers. Exit code 0: the relay takes mail; 1: it does not."),
    ] = False,
) -> None:
    """Show how the relay is. Exit code 0: all is well; 1: something needs a person; 3: no relay is running."""
    if sum((as_json, watch, nagios, health)) > 1:
        raise typer.BadParameter("--json, --watch, --nagios and --health do not go together")
    if watch and not sys.stdout.isatty():
        raise typer.BadParameter("--watch needs a terminal")
    loaded, bad = _load(config)
    socket = loaded.admin.socket if loaded is not None else usual_socket()
    if watch:
        _watch(socket)
    elif nagios:
        _say_to_nagios(socket, bad)
    elif health:
        word = _health(socket)
        typer.echo(word)
        raise typer.Exit(0 if word == "healthy" else 1)
    else:
        _show(config, socket, loaded, bad, as_json)


def _show(file: Path, socket: Path, loaded: Config | None, bad: BadConfig | None, as_json: bool) -> None:
    try:
        document = at_socket(socket, patience=_PATIENCE).get("/v1/status")
        with ours():
            troubled = any(trouble.get("needs_a_person", True) for trouble in document["status"]["troubles"])
            lines = [] if as_json else _overview(document["status"])
    except RelayError as error:
        _tell_of_none(error, file, loaded, bad or _refused(loaded), as_json)
        raise typer.Exit(3 if isinstance(error, NoRunningRelay) else 1) from None
    if bad is not None:
        complain(f"{_badness(bad)}\n{say('status.earlier')}")
    if as_json:
        show_document(document)
    else:
        show(lines)
    raise typer.Exit(1 if bad is not None or troubled else 0)


def _overview(now: dict[str, Any]) -> list[Line]:
    from relay.cli.overview import overview

    return [*overview(now, width())]


def _health(socket: Path) -> str:
    """Whether a restart could help: a provider that is down makes no relay ill."""
    try:
        document = at_socket(socket, patience=_HURRY).get("/v1/status")
        with ours():
            now = document["status"]
            if not now["ready"]:
                return "starting"
            return "store-failed" if any(one["cause"] == "store-failed" for one in now["troubles"]) else "healthy"
    except NoRunningRelay:
        return "stopped"
    except RelayError:
        return "silent"


def _say_to_nagios(socket: Path, bad: BadConfig | None) -> NoReturn:
    from relay.observe.log_lines import harmless

    figures = ""
    try:
        document = at_socket(socket, patience=_HURRY).get("/v1/status")
        with ours():
            code, told, figures = _for_nagios(document["status"])
    except NotAllowed as error:
        code, told = 3, [said(error)]
    except RelayError as error:
        code, told = 2, [said(error)]
    if bad is not None and code < 2:
        code, told = 1, [_badness(bad), *told]
    more = f" {say('status.more', count=len(told) - 1)}" if len(told) > 1 else ""
    sentence = harmless(told[0] if told else say("status.well")).replace("|", "/")  # what follows "|" are figures
    typer.echo(f"{_STATES[code]}: {sentence}{more}{figures}")
    raise typer.Exit(code)


def _for_nagios(now: dict[str, Any]) -> tuple[int, list[str], str]:
    """The exit code, what is wrong, worst first, and figures as Nagios has them."""
    severities = [trouble["severity"] for trouble in now["troubles"]]
    places = {name: sum([route[name] for route in now["routes"]]) for name in ("pending", "deferred", "active", "held")}
    figures = " | " + " ".join([f"{name}={number}" for name, number in places.items()])
    code = 2 if "error" in severities else 1 if severities or not now["ready"] else 0
    return code, [trouble["text"] for trouble in now["troubles"]], figures


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
    from relay.cli.table import line
    from relay.observe.log_lines import harmless

    try:
        document = at_socket(socket, patience=_PATIENCE).get("/v1/status")
        with ours():
            yield from _overview(document["status"])
    except RelayError as error:
        yield line(harmless(said(error)), "bold red")
