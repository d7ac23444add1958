"""`relay queue`: what waits, what became of it, and what a person does about it.

With a relay running the commands ask it; where none runs they open the queue themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from relay.cli.desk import at_desk
from relay.cli.language import say
from relay.cli.options import ConfigOption, JsonOption
from relay.cli.screen import complain, progress, refuse, show, show_document, width
from relay.cli.serve import DEFAULT_CONFIG
from relay.errors import RelayError
from relay.queue.listing import MOST_LISTED, PAGE, Did, Place, Verb

if TYPE_CHECKING:
    from relay.admin.desk import Desk

queue = typer.Typer(no_args_is_help=True, help="What waits, what became of it, and what to do about it.")

Conditions = dict[str, str]

_COUNTED = 10_000  # more need not be counted before a person says yes
_WAITING = [place.value for place in Place if place is not Place.FINISHED]

LimitOption = Annotated[int, typer.Option(min=1, max=MOST_LISTED, help="At most so many.")]
StateOption = Annotated[str, typer.Option(metavar="|".join(_WAITING), help="Only what is in this state.")]
RouteOption = Annotated[str, typer.Option(metavar="NAME", help="Only what waits under this route.")]
ToOption = Annotated[str, typer.Option(metavar="PATTERN", help="Only with such a recipient: *@example.org")]
FromOption = Annotated[
    str, typer.Option("--from", metavar="PATTERN", help='Only with such a reverse-path: jan@*, "<>" for the null one.')
]
SubjectOption = Annotated[
    str, typer.Option(metavar="WORDS", help="Only with these words in the subject, in any case: 'Invoice 123'.")
]
SinceOption = Annotated[
    str, typer.Option(metavar="TIME", help='Only what was accepted since: 90m, 2d, 2026-11-01, "2026-11-01 08:00".')
]
IdsArgument = Annotated[list[str] | None, typer.Argument(metavar="ID", help="Queue IDs, or how they begin.")]
AllOption = Annotated[bool, typer.Option("--all", help="All that waits, or what --state, --route … leave of it.")]
YesOption = Annotated[bool, typer.Option("--yes", help="With --all: do it; without, only say how many it would be.")]


@queue.command("list")
def list_(
    limit: LimitOption = 100,
    state: StateOption = "",
    route: RouteOption = "",
    to: ToOption = "",
    from_: FromOption = "",
    since: SinceOption = "",
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Show what waits, oldest first, a line each."""
    wanted = _wanted(state, route, to, from_, since)
    with at_desk(config) as desk:
        document = _listed(desk, wanted, limit)
    if as_json:
        show_document(document)
        return
    from relay.cli import entries

    if not document["entries"]:
        complain(say("queue.none-fits" if wanted else "queue.none"))
        return
    show(entries.listed(document["entries"], datetime.now(UTC), width()))
    if document["next"] is not None:
        complain(say("queue.more", limit=limit))


def _listed(desk: Desk, wanted: Conditions, limit: int) -> dict[str, Any]:
    """The document "queue list" with at most `limit` entries, put together from pages."""
    document = desk.get("/v1/queue", **wanted, limit=min(limit, PAGE))
    entries = document["entries"]
    while document["next"] is not None and len(entries) < limit:
        document = desk.get("/v1/queue", **wanted, after=document["next"], limit=min(limit - len(entries), PAGE))
        entries += document["entries"]
    return {**document, "entries": entries}


@queue.command()
def find(
    subject: SubjectOption = "",
    to: ToOption = "",
    from_: FromOption = "",
    since: SinceOption = "",
    limit: LimitOption = 100,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Did it go out? Queue and history, newest first."""
    wanted = _wanted("", "", to, from_, since) | ({"subject": subject} if subject else {})
    with at_desk(config) as desk:
        document = desk.get("/v1/queue/find", **wanted, limit=limit)
    if as_json:
        show_document(document)
        return
    from relay.cli import entries
    from relay.config.load import load

    if document["entries"]:
        show(entries.found(document["entries"], datetime.now(UTC), width()))
    else:
        complain(say("queue.not-found"))
    if document["more"]:
        complain(say("queue.more-found", count=len(document["entries"])))
    if not document["whole"]:
        complain(say("queue.not-whole"))
    if subject and not load(config).queue.keeps_subject:
        complain(say("queue.no-subjects"))


@queue.command("show")
def show_(
    queue_id: Annotated[str, typer.Argument(metavar="ID", help="The queue ID, or how it begins.")],
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Show all about one message, but its body."""
    from relay.admin.queue import prefix_of

    with at_desk(config) as desk:
        document = desk.get(f"/v1/queue/{prefix_of(queue_id)}")
    if as_json:
        show_document(document)
        return
    from relay.cli import entries
    from relay.cli.advice import remedies
    from relay.config.load import load

    message = document["message"]
    advice = remedies(message["listed"]["recipients"], load(config))
    show(entries.shown(message, datetime.now(UTC), width(), advice))


def _verb(verb: Verb, told: str) -> None:
    """Add the command of a verb that needs no more than to know which entries."""

    def command(
        ids: IdsArgument = None,
        everything: AllOption = False,
        yes: YesOption = False,
        state: StateOption = "",
        route: RouteOption = "",
        to: ToOption = "",
        from_: FromOption = "",
        since: SinceOption = "",
        config: ConfigOption = DEFAULT_CONFIG,
        as_json: JsonOption = False,
    ) -> None:
        _act(verb, ids, everything, yes, _wanted(state, route, to, from_, since), config, as_json)

    queue.command(verb.value, help=told)(command)


_verb(Verb.RETRY, "Try again now what is deferred.")
_verb(Verb.HOLD, "Keep it in the queue until a person releases it.")
_verb(Verb.RELEASE, "Let go what is held: it is tried at once.")
_verb(Verb.CANCEL, "End it for good, and tell nobody.")
_verb(Verb.BOUNCE, "Give it up, and return it to its sender.")


@queue.command()
def reroute(
    route: Annotated[str, typer.Option(metavar="NAME", help="The route to move it to.")],
    ids: IdsArgument = None,
    everything: AllOption = False,
    yes: YesOption = False,
    from_route: Annotated[str, typer.Option(metavar="NAME", help="Only what waits under this route.")] = "",
    state: StateOption = "",
    to: ToOption = "",
    from_: FromOption = "",
    since: SinceOption = "",
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Move it to another route."""
    _act(Verb.REROUTE, ids, everything, yes, _wanted(state, from_route, to, from_, since), config, as_json, route)


@queue.command()
def backup(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A file that does not exist yet.")],
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Copy the queue into a file, while mail flows.

    Session codes are left out. A running relay writes the file, as its own user.
    """
    with at_desk(config) as desk, progress(say("queue.backup")):
        [document] = desk.stream("/v1/queue/backup", file=str(file.absolute()))
    if as_json:
        show_document(document)
        return
    from relay.cli.human import counted, octets
    from relay.observe.log_lines import harmless

    saved = document["backup"]
    told = say(
        "queue.saved-but" if saved["left_out"] else "queue.saved",
        file=harmless(str(saved["file"])),
        entries=counted(saved["entries"], "queue.entry"),
        size=octets(saved["octets"]),
        left=counted(saved["left_out"], "queue.code"),
    )
    typer.echo(told)


# What was asked


def _wanted(state: str, route: str, to: str, from_: str, since: str) -> Conditions:
    from relay.cli.human import since as moment

    if state and state not in _WAITING:
        raise typer.BadParameter(f"--state: there is no such state (there are: {', '.join(_WAITING)})")
    try:
        start = moment(since, datetime.now(UTC)).isoformat() if since else ""
    except RelayError as error:
        raise typer.BadParameter(str(error)) from None
    asked = {"state": state, "route": route, "to": to, "from": from_, "since": start}
    return {name: text for name, text in asked.items() if text}


# What is done


def _act(
    verb: Verb,
    ids: list[str] | None,
    everything: bool,
    yes: bool,
    wanted: Conditions,
    config: Path,
    as_json: bool,
    route: str | None = None,
) -> None:
    if everything == bool(ids):
        raise typer.BadParameter("give either IDs or --all")
    if not everything and (yes or wanted):
        raise typer.BadParameter("--yes and what narrows the choice (--state, --to, …) go with --all, not with IDs")
    with at_desk(config) as desk:
        if everything:
            _act_on_all(desk, verb, wanted, yes, as_json, route)
        else:
            _act_on_these(desk, verb, ids or [], as_json, route)


def _act_on_these(desk: Desk, verb: Verb, prefixes: Sequence[str], as_json: bool, route: str | None) -> None:
    from relay.admin.errors import AmbiguousId, NoSuchEntry
    from relay.cli import entries

    done: list[dict[str, Any]] = []
    wrong: list[RelayError] = []
    for start in range(0, len(prefixes), PAGE):
        some = prefixes[start : start + PAGE]
        try:
            done.append(desk.post("/v1/queue/act", verb=verb, ids=some, route=route))
        except (AmbiguousId, NoSuchEntry):
            # Nothing was done. One that does not exist is no reason to leave the others undone.
            for prefix in some:
                try:
                    done.append(desk.post("/v1/queue/act", verb=verb, ids=[prefix], route=route))
                except (AmbiguousId, NoSuchEntry) as error:
                    wrong.append(error)
    document = _together(verb, route, done)
    if as_json:
        show_document({**document, "errors": [str(each) for each in wrong]})
    for result in document["results"]:
        if result["did"] in ("impossible", "unknown"):
            complain(entries.acted(verb, result))
        elif not as_json:
            typer.echo(entries.acted(verb, result))
    for each in wrong:
        complain(f"relay: {each}")
    if document["counts"]["unknown"] or any(isinstance(each, NoSuchEntry) for each in wrong):
        raise typer.Exit(4)
    raise typer.Exit(1 if wrong or document["counts"]["impossible"] else 0)


def _together(verb: Verb, route: str | None, done: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One document of a verb, from several."""
    from relay.admin.documents import document

    results = [result for one in done for result in one["results"]]
    counts = {did.value: sum(result["did"] == did for result in results) for did in Did}
    return document(verb=verb.value, route=route, of=len(results), counts=counts, results=results)


def _act_on_all(desk: Desk, verb: Verb, wanted: Conditions, yes: bool, as_json: bool, route: str | None) -> None:
    from relay.cli import entries
    from relay.cli.human import counted

    if not yes:
        number, more = _count(desk, wanted)
        told = counted(number, "queue.entry")
        told = say("queue.more-than", entries=told) if more else told
        refuse(say("queue.would-to" if route else "queue.would", verb=verb, route=route, entries=told))
    document: dict[str, Any] = {}
    with progress(verb.value) as tell:
        for document in desk.stream("/v1/queue/act", verb=verb, all=wanted, route=route):
            if "progress" in document:
                tell(document["progress"]["of"])
    if as_json:
        show_document(document)
    else:
        typer.echo(entries.summary(document))
    if verb is Verb.BOUNCE and not desk.running:
        complain(say("queue.bounced-later"))
    for result in document["results"]:
        if result["did"] == "impossible":
            complain(entries.acted(verb, result))
    raise typer.Exit(1 if document["counts"]["impossible"] else 0)


def _count(desk: Desk, wanted: Conditions) -> tuple[int, bool]:
    """How many fit, and whether there are more than that."""
    number = 0
    after: int | None = 0
    with progress(say("queue.counting")) as tell:
        while after is not None and number < _COUNTED:
            document = desk.get("/v1/queue", **wanted, after=after, limit=PAGE)
            number += len(document["entries"])
            after = document["next"]
            tell(number)
    return number, after is not None
