"""`reply: direct` over the whole relay: what the upstream does, what the application hears, and what is kept of it."""

from __future__ import annotations

import asyncio
import random
import signal
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from relay.events import (
    MessageQueued,
    MessageRefused,
    NotificationQueued,
    RecipientDeferred,
    RecipientDelivered,
    RecipientFailed,
    SenderDecided,
)
from relay.queue.listing import Place, Wanted
from relay.queue.model import Ledger
from tests.kit.house import JAN, PIET, Client, RunningHouse, Site, free_port, mail
from tests.kit.process import Process
from tests.kit.upstream import DROP, SILENCE, ScriptedUpstream, Session

ELS = "els@example.org"
CODES = {
    "session_codes": {
        "enabled": True,
        "via_own_smtp": True,
        "fallback": False,
        "match": [{"subject": "*sessiecode*"}],
    }
}


def configure(site: Site, own: ScriptedUpstream, *, patience: str = "60s", port: int = 0, **parts: object) -> None:
    listener = {"name": "legacy", "listen": f"127.0.0.1:{port}", "reply": "direct", "patience": patience}
    site.configure(
        **{
            "upstreams": {"own": site.way_to(own)},
            "listeners": [listener],
            "routes": {"default": {"retry": "1h"}},
            **parts,
        }
    )


@asynccontextmanager
async def a_house(site: Site) -> AsyncIterator[RunningHouse]:
    """A running relay that has seen that nothing waits in its store."""
    async with site.house() as house:
        for route in house.relay.policy.routes:
            await there_is_room(house, route)
        yield house


async def there_is_room(house: RunningHouse, route: str = "default") -> None:
    async with asyncio.timeout(60):
        while not house.relay.workers.room(route, 0):
            await asyncio.sleep(0)


async def hand_in(house: RunningHouse | int, *recipients: str, content: bytes | None = None) -> str:
    """The reply to the final dot."""
    async with Client.to(house if isinstance(house, int) else house.port()) as client:
        await client.begin(JAN, recipients or [PIET])
        client.write((mail() if content is None else content) + b".\r\n")
        return await client.reply()


def samples(house: RunningHouse, name: str) -> dict[str, int]:
    """The counters of `name` that have moved, by their labels."""
    lines = house.relay.metrics.exposition()[0].decode().splitlines()
    found = [line.removeprefix(name).rpartition(" ") for line in lines if line.startswith(name + "{")]
    return {labels: int(float(value)) for labels, _, value in found if float(value)}


@dataclass
class Silence:
    """A fault: the upstream is silent from here on, and tells when it was reached."""

    def __post_init__(self) -> None:
        self.reached: asyncio.Future[Session] = asyncio.get_running_loop().create_future()

    def __call__(self, session: Session) -> object:
        self.reached.set_result(session)
        return SILENCE


# The verdict


@pytest.mark.asyncio
async def test_the_application_hears_that_the_upstream_took_it_and_the_history_has_it_as_any_other(site: Site) -> None:
    async with site.upstream() as own:
        configure(site, own)
        async with a_house(site) as house:
            reply = await hand_in(house, PIET, ELS)
            assert reply.startswith("250 2.0.0 queued as 1: relayed as ")
            queue_id = reply.rpartition(" ")[2]
            assert own.messages[0].recipients == (PIET, ELS)
            assert house.ledger == Ledger(accepted=2, delivered=2)
            shown = await house.relay.store.show(queue_id)
            assert shown is not None
            assert shown.listed.place is Place.FINISHED
            assert [(fate.address, fate.state, fate.reply, fate.upstream) for fate in shown.listed.recipients] == [
                (PIET, "delivered", "250 2.0.0 queued as 1", "own"),
                (ELS, "delivered", "250 2.0.0 queued as 1", "own"),
            ]
            assert (await house.event(MessageQueued)).queue_id == queue_id
            assert samples(house, "relay_smtpd_messages_total") == {'{listener="legacy",result="accepted"}': 1}
            assert samples(house, "relay_outcomes_total") == {'{outcome="delivered",upstream="own"}': 2}


@pytest.mark.asyncio
@pytest.mark.parametrize("stage", ["mail", "rcpt", "data", "dot"])
async def test_the_application_hears_the_upstreams_refusal_with_its_text(site: Site, stage: str) -> None:
    async with site.upstream() as own:
        configure(site, own)
        own.script(stage, "550 5.7.60 SMTP; Client does not have permissions to send as this sender")
        async with a_house(site) as house:
            refused = "550 5.7.60 SMTP; Client does not have permissions to send as this sender"
            assert await hand_in(house) == refused
            event = await house.event(MessageRefused)
            assert (event.result, event.code, event.status) == ("rejected_policy", 550, "5.7.60")
            (failed,) = house.seen.all(RecipientFailed)
            assert failed.stage == stage
            assert house.ledger == Ledger()
            assert await house.relay.store.find(Wanted()) == []
            assert house.seen.all(NotificationQueued) == []
            assert samples(house, "relay_smtpd_messages_total") == {'{listener="legacy",result="rejected_policy"}': 1}
            assert samples(house, "relay_outcomes_total") == {'{outcome="failed",upstream="own"}': 1}
            assert (await hand_in(house)).startswith("250 2.0.0 queued as 1: relayed as ")


@pytest.mark.asyncio
async def test_a_reply_of_several_lines_with_anything_in_it_becomes_one_line(site: Site) -> None:
    async with site.upstream() as own:
        configure(site, own)
        own.script("dot", b"554-5.6.0 Geweigerd: \xe9\x1b[31m\r\n554 5.6.0 " + b"w" * 900 + b"\r\n")
        async with a_house(site) as house, Client.to(house.port()) as client:
            await client.begin(JAN, [PIET])
            client.write(mail() + b".\r\n")
            reply = await client.reply()
            assert reply.startswith("554 5.6.0 Geweigerd: ??[31m www")
            assert reply.isascii()
            assert len(reply) <= 510
            assert (await client.say("NOOP")).startswith("250")


@pytest.mark.asyncio
async def test_who_was_refused_among_others_is_bounced_and_the_application_hears_250(site: Site) -> None:
    async with site.upstream() as own:
        configure(site, own)
        own.script("rcpt", "550 5.1.1 no such user")
        async with a_house(site) as house:
            assert (await hand_in(house, PIET, ELS)).startswith("250 2.0.0 queued as 1: relayed as ")
            bounce = await own.message(2)
            assert (bounce.reverse_path, bounce.recipients) == ("", (JAN,))
            await house.empty()
            assert house.ledger == Ledger(accepted=3, failed=1, delivered=2)


@pytest.mark.asyncio
@pytest.mark.parametrize("fault", ["450 4.7.1 greylisted", DROP], ids=["4xx", "drop"])
@pytest.mark.parametrize("stage", ["banner", "ehlo", "auth", "mail", "rcpt", "data", "dot"])
async def test_what_was_deferred_is_kept_before_the_application_hears_250(
    site: Site, stage: str, fault: object
) -> None:
    async with site.upstream() as own:
        configure(site, own)
        own.script(stage, fault)
        async with a_house(site) as house:
            reply = await hand_in(house)
            assert reply.startswith("250 2.0.0 OK: queued as ")
            event = await house.event(RecipientDeferred)
            assert event.in_doubt == (stage == "dot" and fault is DROP)
            assert event.attempt == 1
            house.relay.try_now()
            await house.relay.store.make_due(now=house.relay.started_at)
            house.relay.wake()
            await house.event(RecipientDelivered, queue_id=reply.rpartition(" ")[2])
            assert house.ledger == Ledger(accepted=1, delivered=1)


@pytest.mark.asyncio
async def test_a_rule_speaks_and_a_large_message_leaves_no_file_behind(site: Site) -> None:
    async with site.upstream() as own:
        rule = {"name": "admin", "address": "administratie@example.nl"}
        configure(site, own, senders=[rule])
        content = mail(body=b"z" * 98 + b"\r\n") + (b"z" * 98 + b"\r\n") * 30_000
        own.script("rcpt", "550 5.1.1 no such user")
        async with a_house(site) as house:
            assert await hand_in(house, content=content) == "550 5.1.1 no such user"
            assert "relayed as" in await hand_in(house, content=content)
            assert b"<administratie@example.nl>" in own.messages[0].content
            assert own.messages[0].content.endswith(content[-3000:])
            assert len(house.seen.all(SenderDecided)) == 2
            async with asyncio.timeout(60):
                while house.relay.store.spool.names():
                    await house.relay.store.check()
            assert house.ledger == Ledger(accepted=1, delivered=1)


@pytest.mark.asyncio
async def test_a_session_code_is_answered_with_codes_and_never_touches_the_disk(site: Site) -> None:
    async with site.upstream() as own:
        configure(site, own, **CODES)
        code = mail("Uw sessiecode", body=b"GEHEIM913\r\n")
        own.script("dot", "550 5.7.1 GEHEIM913 looks like spam")
        async with a_house(site) as house:
            assert await hand_in(house, content=code) == "550 5.7.1 Refused by the next hop"
            await there_is_room(house, "session-codes")
            assert "OK: relayed as " in await hand_in(house, content=code)
            assert "GEHEIM" not in str(house.seen.events)
            for path in site.folder.rglob("*"):
                assert not path.is_file() or b"GEHEIM" not in path.read_bytes()


@pytest.mark.asyncio
async def test_an_upstream_that_is_down_costs_the_application_no_more_than_a_queue_would(site: Site) -> None:
    async with site.upstream() as own:
        configure(site, own)
        await own.go_down()
        async with a_house(site) as house:
            for number in range(3):
                assert (await hand_in(house)).startswith("250 2.0.0 OK: queued as ")
                assert house.ledger.accepted == number + 1
            assert own.connections == 0


# Patience


@pytest.mark.asyncio
@pytest.mark.parametrize("stage", ["mail", "dot"])
async def test_an_upstream_that_is_silent_costs_the_patience_and_the_same_attempt_goes_on(
    site: Site, stage: str
) -> None:
    async with site.upstream() as own:
        configure(site, own, patience="1s")
        silence = Silence()
        own.script(stage, silence)
        async with a_house(site) as house:
            reply = await hand_in(house)
            assert reply.startswith("250 2.0.0 OK: queued as ")
            assert house.ledger == Ledger(accepted=1, active=1)
            session = await silence.reached
            assert house.seen.all(RecipientDelivered) == []
            session.writer.write(b"550 5.7.1 no\r\n")
            session.writer.close()
            failed = await house.event(RecipientFailed, queue_id=reply.rpartition(" ")[2])
            assert (failed.stage, failed.attempt) == (stage, 1)
            assert (await own.message(1 if stage == "mail" else 2)).reverse_path == ""  # the bounce


@pytest.mark.asyncio
async def test_an_answer_to_the_dot_that_comes_as_patience_ends_is_told_or_kept_and_delivered_once(site: Site) -> None:
    async with site.upstream() as own:
        way = site.way_to(own, max_connections=9)
        configure(site, own, patience="1s", upstreams={"own": way})
        async with a_house(site) as house:
            loop = asyncio.get_running_loop()

            def late(session: Session) -> object:
                # About when the patience ends, which began some milliseconds ago.
                delay = 1.0 - random.uniform(0.0, 0.012)
                loop.call_later(delay, session.writer.write, b"250 2.0.0 taken\r\n")
                return SILENCE

            own.script("dot", late, times=None)
            replies = await asyncio.gather(*[hand_in(house) for _ in range(9)])
            for reply in replies:
                assert reply.startswith(("250 2.0.0 taken: relayed as ", "250 2.0.0 OK: queued as "))
            await house.event(RecipientDelivered, 9)
            await house.empty()
            assert house.ledger == Ledger(accepted=9, delivered=9)
            assert len(own.messages) == 9
            assert len(await house.relay.store.find(Wanted(place=Place.FINISHED))) == 9


@pytest.mark.asyncio
async def test_a_client_that_hangs_up_changes_nothing_for_what_was_deferred_or_taken(site: Site) -> None:
    async with site.upstream() as own:
        configure(site, own)
        answers = ["250 2.0.0 taken", "450 4.7.1 later", "550 5.7.1 no"]
        async with a_house(site) as house:
            for answer in answers:
                await there_is_room(house)
                silence = Silence()
                own.script("dot", silence)
                ended = len(house.seen.events)
                async with Client.to(house.port()) as client:
                    await client.begin(JAN, [PIET])
                    client.write(mail() + b".\r\n")
                    session = await silence.reached
                    linger = struct.pack("ii", 1, 0)  # the end of the block is a reset
                    client._writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                (listener,) = house.relay.doors.listeners
                async with asyncio.timeout(60):
                    while any(one.transport is not None for one in listener.door.live):
                        await asyncio.sleep(0)
                session.writer.write(answer.encode() + b"\r\n")
                session.writer.close()
                await house.seen.until(
                    lambda ended=ended: any(  # type: ignore[misc]
                        isinstance(event, RecipientDelivered | RecipientDeferred | RecipientFailed)
                        for event in house.seen.events[ended:]
                    )
                )
            # Nobody heard that the third was refused, so that its sender gets a bounce.
            (notice,) = house.seen.all(NotificationQueued)
            assert notice.kind == "failure"
            await house.event(RecipientDelivered, 2)
            await house.seen.until(lambda: house.ledger == Ledger(accepted=4, delivered=2, deferred=1, failed=1))


# The end of the relay


@pytest.mark.asyncio
@pytest.mark.parametrize("stage", ["mail", "dot"])
async def test_sigterm_ends_the_patience_and_loses_nothing(site: Site, stage: str) -> None:
    port = free_port()
    async with site.upstream() as own:
        configure(site, own, port=port, log={"format": "json", "level": "debug"})
        async with Process.serving(site) as relay, Client.to(port) as client:
            while "relayed as" not in await hand_in(port):
                pass  # it has not looked into its store yet
            before = len(own.messages)
            silence = Silence()
            own.script(stage, silence)
            await client.begin(JAN, [PIET])
            client.write(mail() + b".\r\n")
            session = await silence.reached
            relay.signal(signal.SIGTERM)
            assert (await client.reply()).startswith("250 2.0.0 OK: queued as ")
            if stage == "dot":
                session.writer.write(b"250 2.0.0 taken\r\n")
            assert await relay.ended() == 0
            assert relay.all("exception") == []
        async with site.house() as house:
            found = 1 if stage == "mail" else 0
            await house.seen.until(lambda: len(house.seen.all(RecipientDelivered)) == found)
            await house.empty()
            assert house.ledger == Ledger(found=found, delivered=found)
        assert len(own.messages) == before + 1
