"""`relay test`: a real mail through the running relay, as an application sends it, followed to its end."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from relay.admin.client import NoRunningRelay
from relay.admin.desk import at_socket
from relay.cli.desk import load_as_service
from relay.cli.language import say, sentence
from relay.cli.options import ConfigOption, Usage, address
from relay.cli.screen import complain, console, refuse
from relay.cli.serve import DEFAULT_CONFIG
from relay.errors import RelayError

if TYPE_CHECKING:
    from relay.cli.submit import Relay
    from relay.config.model import Config, SmtpListener
    from relay.mail.address import Address

_PAUSE = 0.2  # seconds between two looks
_QUEUED = re.compile(r"queued as ([0-9A-Z]+)\Z")
_ENDS = {"delivered": 0, "failed": 1, "expired": 1, "cancelled": 1}
_SUBJECT = "Test of the mail relay"
_TEXT = """\
This mail was sent by `relay test` on {hostname}, to see whether it arrives.
Deze mail is verstuurd door `relay test` op {hostname}, om te zien of hij aankomt.
"""


def follow(
    to: Annotated[str | None, typer.Option("--to", metavar="ADDRESS", help="Who gets it.", show_default=False)] = None,
    alarm: Annotated[bool, typer.Option("--alarm", help="Send an alarm by every way instead.")] = False,
    config: ConfigOption = DEFAULT_CONFIG,
    sender: Annotated[
        str | None,
        typer.Option("--from", metavar="ADDRESS", help="Who sends it; by default who the relay's bounces come from."),
    ] = None,
    timeout: Annotated[str, typer.Option("--timeout", metavar="TIME", help="How long it is followed.")] = "60s",
) -> None:
    """Send a mail through the running relay, and follow it to its end.

    Exit code 0: delivered; 1: refused, failed, or it still waits; 3: no relay is running.
    """
    if alarm == (to is not None):
        raise typer.BadParameter(say("test.which"))
    if to is None:
        raise typer.Exit(_alarmed(config))
    from relay.config import compile as compiled
    from relay.observe.log_lines import harmless

    try:
        patience = _duration(timeout)
        recipient = address("--to", to)
        loaded = load_as_service(config)
        author = address("--from", sender) if sender is not None else compiled.bounces_from(loaded)
        snapshot = at_socket(loaded.admin.socket).get("/v1/status")["status"]
        reply = _handed_in(_door(loaded, snapshot), author, recipient, loaded.hostname)
    except NoRunningRelay as error:
        refuse(sentence(error), 3)
    except Usage as error:
        refuse(sentence(error), 2)
    except RelayError as error:
        refuse(sentence(error))
    typer.echo(say("test.said", reply=harmless(reply)))
    queued = _QUEUED.search(reply)
    if queued is None:  # of a listener with reply: direct: it is delivered already
        raise typer.Exit(0)
    raise typer.Exit(_followed(loaded, queued[1], patience))


def _alarmed(config: Path) -> int:
    """Try every way of alarms, and report each; the exit code."""
    from relay.cli.desk import at_relay
    from relay.observe.log_lines import harmless

    with at_relay(config) as desk:
        [document] = desk.stream("/v1/alarms/test")
    ways = document["ways"]
    for way in ways:
        key = "test.alarm-sent" if way["sent"] else "test.alarm-not-sent"
        typer.echo(harmless(say(key, way=way["way"], text=way["text"])))
    if not ways:
        complain(say("test.alarm-nobody"))
    return 0 if ways and all(way["sent"] for way in ways) else 1


def _duration(text: str) -> float:
    from relay.config.values import BadValue, duration

    try:
        return duration(text).total_seconds()
    except BadValue as bad:
        raise typer.BadParameter(f"--timeout: {bad}") from None


# The way in


def _door(config: Config, snapshot: dict[str, Any]) -> Relay:
    """The first listener that takes mail from this machine without a password and TLS. Raises RelayError."""
    from relay.cli.submit import Relay
    from relay.config.values import listen_address

    usable = {one.name for one in config.smtp_listeners.values() if _takes_us(one)}
    places = []
    for listener in snapshot["listeners"]:
        for written in listener["addresses"] if listener["name"] in usable else ():
            address = listen_address(written)
            places.append((address.from_here, address.port))
    if not places:
        raise RelayError(say("test.no-listener"))
    return Relay(tuple(places), config.hostname)


def _takes_us(listener: SmtpListener) -> bool:
    from ipaddress import ip_address

    if listener.auth == "users" or listener.require_tls or listener.tls == "implicit":
        return False
    here = [ip_address("127.0.0.1"), ip_address("::1")]
    if any(one in network for one in here for network in listener.proxy_protocol):
        return False  # it waits for the header of a load balancer
    unix = any(address.kind == "unix" for address in listener.listen)
    return unix or any(one in network for one in here for network in listener.allow)


def _handed_in(door: Relay, author: Address, recipient: Address, hostname: str) -> str:
    """The relay's reply to the message. Raises RelayError with what was refused."""
    import secrets

    from relay.cli import submit
    from relay.mail import notice

    content = notice.build(
        _SUBJECT,
        _TEXT.format(hostname=hostname),
        queue_id=f"test-{secrets.token_hex(8)}",
        hostname=hostname,
        author=author,
        readers=[recipient],
        now=datetime.now(UTC),
    )
    try:
        return submit.submit(submit.connect(door), submit.Letter(author, (recipient,), content))
    except submit.Refused as error:
        raise RelayError(say("test.refused", what=error)) from None
    except submit.NotTaken as error:
        raise RelayError(str(error)) from None


# The way out


def _followed(config: Config, queue_id: str, patience: float) -> int:
    """Tell what happens to it; the exit code."""
    if not sys.stdout.isatty():
        return _watched(config, queue_id, patience, typer.echo, lambda _: None)
    screen = console()
    with screen.status(queue_id) as live:
        return _watched(config, queue_id, patience, screen.print, live.update)


def _watched(
    config: Config, queue_id: str, patience: float, tell: Callable[[str], None], live: Callable[[str], None]
) -> int:
    """`tell` prints a line that stays; `live` changes the one that does not."""
    from relay.admin.errors import NoSuchEntry
    from relay.observe.log_lines import harmless

    desk, told, begun = at_socket(config.admin.socket), 0, time.monotonic()
    while True:
        try:
            message = desk.get(f"/v1/queue/{queue_id}")["message"]
        except NoSuchEntry:
            tell(say("test.gone"))
            return 1
        except RelayError as error:
            tell(say("test.lost", why=harmless(str(error))))
            return 3 if isinstance(error, NoRunningRelay) else 1
        listed, tries = message["listed"], message["tries"]
        for tried in tries[told:]:
            upstream = tried["upstream"] or say("test.no-upstream")
            told_now = say("test.attempt", number=tried["attempt"], upstream=upstream, reply=tried["reply"])
            tell(harmless(told_now))
        if len(tries) > told and listed["place"] == "deferred":
            tell(f"deferred{_next(listed)}")
        told = len(tries)
        if (code := _end(listed, tell)) is not None:
            return code
        if time.monotonic() - begun >= patience:
            tell(say("test.waits", next=_next(listed), queue_id=queue_id))
            return 1
        seconds = f"{time.monotonic() - begun:.0f}"
        live(say("test.is", queue_id=queue_id, place=listed["place"], seconds=seconds, next=_next(listed)))
        time.sleep(_PAUSE)


def _end(listed: dict[str, Any], tell: Callable[[str], None]) -> int | None:
    """The exit code, where it goes no further by itself."""
    from relay.observe.log_lines import harmless

    addressee = listed["recipients"][0]
    if addressee["state"] in _ENDS:
        upstream = addressee["upstream"] or say("test.no-upstream")
        tell(harmless(f"{addressee['state']} ({upstream}): {addressee['reply']}"))
        return _ENDS[addressee["state"]]
    if listed["place"] in ("held", "damaged"):
        tell(say("test.place", place=listed["place"], queue_id=listed["queue_id"]))
        return 1
    return None


def _next(listed: dict[str, Any]) -> str:
    from relay.cli.human import moment, of_json

    at = listed["next_attempt_at"]
    return say("test.next", moment=moment(of_json(at), datetime.now(UTC))) if at else ""
