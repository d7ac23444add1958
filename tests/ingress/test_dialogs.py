"""The dialogues of `tests/dialogs`, one file per habit and per attack, with the door and through the whole relay."""

from __future__ import annotations

import asyncio
import re
import ssl
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from relay.events import (
    CommandRefused,
    ConnectionDenied,
    Event,
    ExceptionCaught,
    MessageRefused,
    QuirksTolerated,
    RecipientDelivered,
)
from relay.ingress import secure
from relay.ingress.settings import ListenerLimits
from relay.mail.quirk import HARMFUL, Quirk
from relay.policy.rate import Rate
from relay.queue.model import Entry
from tests.dialogs.script import Dialog, all_of_them
from tests.ingress.house import LOOPBACK, PATIENCE, Client, House, HouseOf, hard_reset, on_both_loops
from tests.kit import configured
from tests.kit.certificates import Certificates
from tests.kit.house import Site
from tests.kit.sentences import EN

DIALOGS = {dialog.name: dialog for dialog in all_of_them()}
# What the configuration calls as the door does, so that the whole relay can be asked too.
PLAIN_SETTINGS = {"bare_newline", "complete_addresses"}
THROUGH = [name for name, one in DIALOGS.items() if set(one.settings) <= PLAIN_SETTINGS]
# Short ones that end in peace: into a connection that the door has closed, no more can be written.
IN_CRUMBS = [
    name
    for name, one in DIALOGS.items()
    if sum(len(step.octets) for step in one.steps) < 3_000
    and not {"tls", "closed", "reset"} & {step.kind for step in one.steps}
    and one.settings.get("tls") != "implicit"
    and Quirk.EARLY_PIPELINING not in one.quirks
]
UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202e]")
LIMITS = get_type_hints(ListenerLimits)
NEEDS_A_BROKEN_DISK = {"452 4.3.1", "451 4.3.0"}  # shown in test_session


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secure, "AUTH_PAUSE", 0.0)


def verify(user: str, password: str) -> bool:
    return (user, password) == ("jan", "geheim")


def settings_of(dialog: Dialog, certificates: Certificates) -> dict[str, Any]:
    """The settings of a listener, from the words of the file."""
    settings: dict[str, Any] = {}
    limits: dict[str, Any] = {}
    for key, value in dialog.settings.items():
        if key == "limits.client_rate":
            count, _, seconds = value.partition("/")
            limits["client_rate"] = Rate(int(count), float(seconds))
        elif key.startswith("limits."):
            limits[key[7:]] = float(value) if LIMITS[key[7:]] is float else int(value)
        elif key == "max_message_size":
            settings[key] = int(value)
        elif key == "allow":
            settings[key] = ()
        elif key == "proxy_protocol":
            settings[key] = LOOPBACK
        else:
            settings[key] = value == "true" if value in ("true", "false") else value
    if settings.get("tls", "none") != "none":
        settings["tls_context"] = certificates.good.server()
    if settings.get("auth") == "users":
        settings["verify"] = verify
    if limits:
        settings["limits"] = replace(configured.limits(), **limits)
    return settings


async def send(client: Client, octets: bytes, *, crumbs: bool) -> None:
    """In one write, or each octet in one of its own."""
    if not crumbs:
        client.send(octets)
        return
    for octet in octets:
        client.send(bytes([octet]))
        await asyncio.sleep(0)


async def speak(client: Client, dialog: Dialog, trusting: ssl.SSLContext, *, crumbs: bool = False) -> None:
    """Say what the client says, and hold the server to what it has to say; then hang up, and nothing may be left."""
    reply = waiting = b""
    closed = False
    for step in dialog.steps:
        where = f"{dialog.name}.smtp, line {step.line}"
        if step.kind == "send":
            waiting += step.octets
            continue
        if waiting:
            await send(client, waiting, crumbs=crumbs)
            waiting = b""
        match step.kind:
            case "tls":
                await client.start_tls(trusting)
            case "eof":
                client.writer.write_eof()
            case "reset":
                hard_reset(client)
                return
            case "reply":
                reply = await client.reply()
                last = reply.splitlines()[-1] if reply else b"(closed)"
                assert last.startswith(step.octets), f"{where}: {last[:200]!r}"
                assert reply.isascii(), where
                assert reply.endswith(b"\r\n"), where
                assert not UNPRINTABLE.search(reply.replace(b"\r\n", b"").decode()), where
            case "has":
                assert step.octets in [line[4:] for line in reply.splitlines()], f"{where}: {reply!r}"
            case "lacks":
                assert step.octets not in reply, f"{where}: {reply!r}"
            case "closed":
                assert await client.end() == b"", where
                closed = True
    if waiting:
        await send(client, waiting, crumbs=crumbs)
    if not closed and client.writer.can_write_eof() and not client.writer.is_closing():
        client.writer.write_eof()
        assert await client.end() == b"", f"{dialog.name}: said after the end"


def refusals(events: list[Event]) -> list[str]:
    """What was refused, in the words of the files."""
    told: list[str] = []
    for event in events:
        match event:
            case CommandRefused():
                told.append(f"{event.verb} {event.code} {event.status}")
            case MessageRefused():
                told.append(f"message {event.code} {event.status} {event.result}")
            case ConnectionDenied():
                told.append(f"connection {event.reason}")
    return told


def nothing_bare(content: bytes) -> bool:
    between = content.replace(b"\r\n", b"")
    return b"\r" not in between and b"\n" not in between


def dsn_of(entry: Entry) -> str:
    """What stands in the envelope about delivery reports, as words."""
    envelope = entry.submission.envelope
    words = [f"ret={envelope.ret}"] if envelope.ret else []
    words += [f"envid={envelope.envid}"] if envelope.envid else []
    for one in envelope.recipients:
        words += ["notify=" + ",".join(sorted(one.notify))] if one.notify else []
        words += [f"orcpt={one.orcpt}"] if one.orcpt else []
    return " ".join(words)


async def judge(house: House, dialog: Dialog) -> None:
    """Hold what was told and what is kept against the end of the file."""
    events = house.observed.events
    assert refusals(events) == dialog.refused
    told = {quirk for event in house.observed.of(QuirksTolerated) for quirk in event.quirks}
    assert told == {Quirk(word) for word in dialog.quirks}
    assert not house.observed.of(ExceptionCaught)
    for event in events:
        for field in fields(event):  # type: ignore[arg-type]  # every event is a dataclass
            assert not UNPRINTABLE.search(str(getattr(event, field.name))), event
    entries, contents = await house.entries(), await house.contents()
    envelopes = [entry.submission.envelope for entry in entries]
    assert [
        (str(one.reverse_path or ""), tuple(str(recipient.address) for recipient in one.recipients))
        for one in envelopes
    ] == [(message.reverse_path, message.recipients) for message in dialog.messages]
    for message, entry, content in zip(dialog.messages, entries, contents, strict=True):
        assert nothing_bare(content)
        assert message.content in (None, content)
        assert message.dsn in (None, dsn_of(entry))
        for part in message.has:
            assert part in content
        for part in message.lacks:
            assert part not in content


@pytest.mark.parametrize("name", DIALOGS)
@on_both_loops
async def test_a_dialogue_goes_as_it_is_written(house_of: HouseOf, certificates: Certificates, name: str) -> None:
    dialog = DIALOGS[name]
    trusting = ssl.create_default_context(cafile=certificates.ca_path)
    async with house_of(**settings_of(dialog, certificates)) as house:
        client = await house.connect(trusting if dialog.settings.get("tls") == "implicit" else None)
        await speak(client, dialog, trusting)
        await client.close()
        async with asyncio.timeout(PATIENCE):
            await house.nobody_is_left()
        await judge(house, dialog)


@pytest.mark.parametrize("name", IN_CRUMBS)
@pytest.mark.asyncio
async def test_how_the_network_cuts_a_dialogue_makes_no_difference(
    house_of: HouseOf, certificates: Certificates, name: str
) -> None:
    dialog = DIALOGS[name]
    trusting = ssl.create_default_context(cafile=certificates.ca_path)
    async with house_of(**settings_of(dialog, certificates)) as house:
        client = await house.connect()
        await speak(client, dialog, trusting, crumbs=True)
        await client.close()
        async with asyncio.timeout(PATIENCE):
            await house.nobody_is_left()
        await judge(house, dialog)


@pytest.mark.parametrize("name", THROUGH)
@pytest.mark.asyncio
async def test_what_a_dialogue_hands_in_reaches_the_upstream_and_nothing_else_does(tmp_path: Path, name: str) -> None:
    dialog = DIALOGS[name]
    certificates = Certificates(tmp_path)
    site = Site(tmp_path, certificates)
    settings = {key: {"true": True, "false": False}.get(value, value) for key, value in dialog.settings.items()}
    async with site.upstream(tls="none", users=None) as own:
        site.configure(
            upstreams={"own": site.way_to(own)},
            listeners=[{"name": "legacy", "listen": "127.0.0.1:0", **settings}],
        )
        async with site.house() as house:
            client = Client(*await asyncio.open_connection("127.0.0.1", house.port()))
            await speak(client, dialog, ssl.create_default_context())
            await client.close()
            recipients = sum(len(message.recipients) for message in dialog.messages)
            if recipients:
                await house.event(RecipientDelivered, recipients)
            await house.empty()
        assert [(one.reverse_path, one.recipients) for one in own.messages] == [
            (message.reverse_path, message.recipients) for message in dialog.messages
        ]
        for message, received in zip(dialog.messages, own.messages, strict=True):
            assert nothing_bare(received.content)
            if message.content is not None:
                body = message.content.partition(b"\r\n\r\n")[2]
                assert received.content.endswith(body)
        assert not [line for line in own.commands if "\r" in line or "\n" in line or "evil" in line]


def test_every_quirk_has_a_dialogue_that_shows_it() -> None:
    shown = {word for dialog in DIALOGS.values() for word in dialog.quirks}
    assert shown == {str(quirk) for quirk in Quirk}


# The page for network people

PAGE = (Path(__file__).parents[2] / "docs" / "door.md").read_text(encoding="utf-8")


def test_the_page_about_the_door_has_every_quirk_with_its_meaning() -> None:
    rows = re.findall(r"^\| `([\w-]+)` \| (.+) \| (yes|no) \|$", PAGE, re.MULTILINE)
    assert rows == [(str(quirk), EN["quirk"][quirk], "yes" if quirk in HARMFUL else "no") for quirk in Quirk]


def test_the_page_about_the_door_names_replies_that_a_dialogue_shows() -> None:
    named = set(re.findall(r"`(\d{3} \d\.\d\.\d+)`", PAGE)) - NEEDS_A_BROKEN_DISK
    said = {step.octets.decode() for dialog in DIALOGS.values() for step in dialog.steps if step.kind == "reply"}
    assert len(named) > 15
    assert {reply for reply in named if not any(text.startswith(reply) for text in said)} == set()
