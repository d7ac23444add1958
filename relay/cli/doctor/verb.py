"""`relay doctor`: the command."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from relay.cli.auth import KeyOption, key_of
from relay.cli.desk import load_as_service
from relay.cli.language import choose, say, sentence, texts
from relay.cli.options import ConfigOption, JsonOption
from relay.cli.screen import progress, refuse, show, show_document, width
from relay.cli.serve import DEFAULT_CONFIG
from relay.errors import RelayError

if TYPE_CHECKING:
    from relay.cli.doctor.findings import Chapter
    from relay.cli.table import Line
    from relay.config.model import Config
    from relay.observe.situation import Answer

_MARKS = {"good": ("✓", ""), "bad": ("✗", "bold red"), "warning": ("!", "yellow"), "untried": ("–", "dim")}
_PART = 9  # the width of a part


def doctor(
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
    auth: Annotated[
        bool, typer.Option("--auth", help="Log in also where the running relay was refused a moment ago.")
    ] = False,
    nameserver: Annotated[
        str | None, typer.Option("--nameserver", metavar="ADDRESS", help="Ask this DNS server about the domains.")
    ] = None,
    state_key: KeyOption = None,
) -> None:
    """Look at everything that mail needs.

    That is this machine, each upstream and the domains in DNS. Exit code 1: something is bad. No mail is sent, and
    each upstream is logged in to once at most.
    """
    from relay.cli.doctor.findings import is_good

    try:
        loaded = load_as_service(config)
        if as_json:
            choose("en")
        with progress(say("finding.looking")):
            chapters = asyncio.run(_examined(loaded, auth, nameserver, key_of(state_key)))
    except RelayError as error:
        refuse(sentence(error))
    if as_json:
        show_document(_document(chapters))
    else:
        show(_lines(chapters, width()))
    raise typer.Exit(0 if is_good(chapters) else 1)


async def _examined(config: Config, auth: bool, nameserver: str | None, state_key: str | None) -> list[Chapter]:
    from relay.admin.desk import at_socket
    from relay.cli.doctor import see_domain, see_machine, see_upstream
    from relay.cli.doctor.names import Names

    snapshot, silent = await asyncio.to_thread(_running, config)
    senders = see_domain.senders(config)
    running = {one["name"] for one in snapshot["upstreams"]} if snapshot is not None else set()

    def upstream(name: str) -> Coroutine[Any, Any, Chapter]:
        aside = None if auth else _aside(name, snapshot)
        lender = at_socket(config.admin.socket) if name in running else None
        return see_upstream.look(name, config, senders.get(name, ()), aside=aside, state_key=state_key, lender=lender)

    machine, domains, upstreams = await asyncio.gather(
        see_machine.look(config, snapshot, silent),
        see_domain.look(config, lambda: Names(nameserver)),
        asyncio.gather(*map(upstream, config.upstreams)),
    )
    return [machine, *upstreams, *domains]


def _running(config: Config) -> tuple[dict[str, Any] | None, str]:
    """The snapshot of the running relay; and why one that runs does not answer."""
    from relay.admin.client import NoRunningRelay
    from relay.admin.desk import at_socket

    try:
        return at_socket(config.admin.socket).get("/v1/status")["status"], ""
    except NoRunningRelay:
        return None, ""
    except RelayError as error:
        return None, str(error)


def _aside(name: str, snapshot: dict[str, Any] | None) -> Answer | None:
    """What the running relay was told at AUTH, where it has set the upstream aside for that."""
    from relay.cli.human import of_json
    from relay.observe.situation import Answer

    for one in snapshot["upstreams"] if snapshot is not None else ():
        answer = one["answer"]
        if one["name"] == name and not one["up"] and answer is not None and answer["stage"] == "auth":
            return Answer(**{**answer, "at": of_json(answer["at"])})
    return None


# What is shown


def _lines(chapters: Iterable[Chapter], width: int | None) -> Iterator[Line]:
    from relay.cli.layout import labelled
    from relay.cli.table import line
    from relay.observe.log_lines import harmless

    for number, chapter in enumerate(chapters):
        if number:
            yield line("")
        yield line(harmless(chapter.title), "bold")
        for finding in chapter.findings:
            mark, style = _MARKS[finding.mark]
            before = f"{mark} {finding.part:{_PART}}"
            yield from labelled(before, harmless(finding.text), width, label=style, style=style)
            if finding.remedy is not None:
                words = harmless(finding.remedy.told(texts()))
                yield from labelled(f"  {'':{_PART}}-> ", words, width, label="cyan", style="cyan")


def _document(chapters: Iterable[Chapter]) -> dict[str, Any]:
    from relay.cli.doctor.findings import is_good
    from relay.observe.log_lines import harmless

    told = [*chapters]
    return {
        "version": 1,
        "good": is_good(told),
        "chapters": [
            {
                "title": harmless(chapter.title),
                "findings": [
                    {
                        "mark": finding.mark.value,
                        "part": finding.part,
                        "text": harmless(finding.text),
                        "remedy": harmless(finding.remedy.told(texts())) if finding.remedy is not None else "",
                    }
                    for finding in chapter.findings
                ],
            }
            for chapter in told
        ],
    }
