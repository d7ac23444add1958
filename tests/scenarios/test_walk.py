"""Mail walks through the whole house to a strict upstream."""

from __future__ import annotations

import asyncio
import urllib.error
import urllib.request

import pytest

from relay.events import (
    AttemptEnded,
    ConnectionAccepted,
    Event,
    MessageQueued,
    RecipientDelivered,
    RelayStarted,
    SenderDecided,
    SessionEnded,
    UpstreamConnected,
)
from tests.kit.house import ACCOUNT, JAN, PIET, Site, free_port, mail

RULE = {"name": "mailbox", "address": ACCOUNT, "display_name": "{name} via Administratie"}


@pytest.mark.asyncio
async def test_a_bookkeepers_mail_leaves_by_starttls_and_auth_with_the_sender_the_provider_accepts(site: Site) -> None:
    def own_sender_only(sender: str) -> str | None:
        return None if sender == ACCOUNT else "550 5.7.60 not allowed to send as this sender"

    body = bytes(range(1, 10)) + b"\xe9\xff tekst\r\n.regel met punt\r\n\r\n" + b"x" * 1500 + b"\r\n"
    async with site.upstream(sender_allowed=own_sender_only) as own:
        site.configure(upstreams={"own": site.way_to(own)}, senders=[RULE])
        async with site.house() as house:
            queue_id = await house.send(JAN, [PIET], mail(body=body))
            delivered = await house.event(RecipientDelivered, queue_id=queue_id)
            received = await own.message()
            assert (house.ledger.accepted, house.ledger.delivered) == (1, 1)

    assert received.tls
    assert received.user == ACCOUNT
    assert received.reverse_path == ACCOUNT
    assert received.recipients == (PIET,)
    head, _, arrived = received.content.partition(b"\r\n\r\n")
    assert arrived == body
    assert b"\r\nFrom: Jan via Administratie <relay@example.nl>" in b"\r\n" + head
    assert b"\r\nReply-To: Jan <jan@example.nl>" in head
    assert b"\r\nSubject: Factuur 2024-117" in head
    assert b"Received: from werkplek-7" in head
    assert delivered.rule == "mailbox"
    assert (delivered.route, delivered.upstream, delivered.attempt) == ("default", "own", 1)


@pytest.mark.asyncio
async def test_the_events_of_a_message_tell_its_walk_in_order(site: Site) -> None:
    async with site.upstream() as own:
        site.configure(upstreams={"own": site.way_to(own)}, senders=[RULE])
        async with site.house() as house:
            queue_id = await house.send(JAN, [PIET])
            await house.event(RecipientDelivered, queue_id=queue_id)
            await house.event(SessionEnded)
            walk: tuple[type[Event], ...] = (
                RelayStarted,
                ConnectionAccepted,
                MessageQueued,
                UpstreamConnected,
                AttemptEnded,
                RecipientDelivered,
            )
            decided = await house.event(SenderDecided, queue_id=queue_id)
            assert (decided.rule, decided.result) == ("mailbox", "rewritten")
            told = [type(event) for event in house.seen.events if isinstance(event, walk)]
    assert told == list(walk)


@pytest.mark.asyncio
async def test_a_message_that_no_rule_touches_leaves_byte_for_byte_behind_the_trace(site: Site) -> None:
    content = (
        b"from:\tJan   <jan@example.nl>\r\nX-Odd:caf\xe9\r\n\tfolded \r\n"
        b"Message-ID: <1@imuis>\r\nDate: Mon, 1 Jan 2024 09:00:00 +0100\r\n\r\n\x00\xff\r\n"
    )
    async with site.upstream() as own:
        site.configure(upstreams={"own": site.way_to(own)})
        async with site.house() as house:
            await house.send(JAN, [PIET], content)
            received = await own.message()
    assert received.content.endswith(content)
    assert received.content.removesuffix(content).startswith(b"Received: ")


@pytest.mark.asyncio
async def test_metrics_and_health_answer_while_the_relay_runs(site: Site) -> None:
    port = free_port()

    async def page(name: str) -> tuple[int, str]:
        """The page, as soon as it is served: that is a moment after the doors are open."""

        def get() -> tuple[int, str] | None:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/{name}", timeout=10) as answer:
                    return answer.status, answer.read().decode()
            except urllib.error.HTTPError as error:
                with error:
                    return error.code, error.read().decode()
            except urllib.error.URLError:
                return None

        async with asyncio.timeout(60):
            while (answer := await asyncio.to_thread(get)) is None:
                await asyncio.sleep(0.02)
            return answer

    async with site.upstream() as own:
        admin = {"listen": f"127.0.0.1:{port}", "socket": str(site.control_path)}
        site.configure(upstreams={"own": site.way_to(own)}, admin=admin)
        async with site.house() as house:
            await house.send(JAN, [PIET])
            await house.event(RecipientDelivered)
            status, metrics = await page("metrics")
            assert status == 200
            assert 'relay_upstream_up{upstream="own"} 1' in metrics
            assert PIET not in metrics
            assert await page("healthz") == (200, "ok\n")
            assert await page("readyz") == (200, "ok\n")
