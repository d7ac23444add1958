"""A provider with limits: applications hear of its size, and what it cannot take as it is leaves re-encoded."""

from __future__ import annotations

import email
import signal

import pytest

from relay.events import (
    MessageQueued,
    MessageReencoded,
    MessageRefused,
    NotificationQueued,
    RecipientDelivered,
    RecipientFailed,
    UpstreamConnected,
)
from tests.kit.house import JAN, PIET, Client, RunningHouse, Site, free_port, mail
from tests.kit.process import Process
from tests.kit.upstream import KEYWORDS

SIZE = 100_000
SMALL = (*KEYWORDS[:-1], f"SIZE {SIZE}")
NARROW = ("PIPELINING", "ENHANCEDSTATUSCODES", "SIZE 52428800")
MIB = 1024 * 1024


async def offered(house: RunningHouse) -> str:
    async with Client.to(house.port()) as client:
        client.write(b"EHLO werkplek-7\r\n")
        while not (line := await client.reply()).startswith(("250-SIZE", "250 ")):
            pass
        return line.removeprefix("250-SIZE ")


def of_size(octets: int) -> bytes:
    return mail(body=b"").ljust(octets - 2, b"x") + b"\r\n"


@pytest.mark.asyncio
async def test_the_providers_size_is_known_to_applications_once_it_was_seen(site: Site) -> None:
    async with site.upstream(keywords=SMALL) as own:
        site.configure(upstreams={"own": site.way_to(own)})
        async with site.house() as house:
            assert await offered(house) == "52428800"
            await house.send(JAN, [PIET])
            await house.event(RecipientDelivered)
            assert await offered(house) == str(SIZE)
            async with Client.to(house.port()) as client:
                assert (await client.say(f"MAIL FROM:<{JAN}> SIZE={SIZE + 1}")).startswith("552 5.3.4")
                assert (await client.say(f"MAIL FROM:<{JAN}> SIZE={SIZE}")).startswith("250")
            # The listener's own limit, where it is the smaller one; and a reload forgets what was heard.
            site.configuration["listeners"][0]["max_message_size"] = "10KiB"
            site.write()
            await house.relay.reload()
            assert await offered(house) == "10240"
            del site.configuration["listeners"][0]["max_message_size"]
            site.write()
            await house.relay.reload()
            assert await offered(house) == "52428800"


@pytest.mark.asyncio
async def test_the_content_is_judged_by_what_leaves_to_the_octet(site: Site) -> None:
    async with site.upstream(keywords=SMALL) as own:
        site.configure(upstreams={"own": site.way_to(own)})
        async with site.house() as house:
            await house.send(JAN, [PIET])
            await house.event(RecipientDelivered)
            grows = len((await own.message(1)).content) - len(mail())
            # Received tells the size of nothing, so the next message grows by the same.
            await house.send(JAN, [PIET], of_size(SIZE - grows))
            assert len((await own.message(2)).content) == SIZE
            with pytest.raises(AssertionError, match="552"):
                await house.send(JAN, [PIET], of_size(SIZE - grows + 1))
            refused = await house.event(MessageRefused)
            assert (refused.result, refused.code, refused.status) == ("rejected_size", 552, "5.3.4")
            assert str(SIZE) in refused.text
            assert len(house.seen.all(MessageQueued)) == 2


@pytest.mark.asyncio
async def test_the_largest_provider_counts_until_the_route_is_known(site: Site) -> None:
    async with site.upstream(keywords=SMALL) as small, site.upstream() as big:
        site.configure(
            upstreams={"small": site.way_to(small), "big": site.way_to(big)},
            routes={"default": {"upstreams": ["small", "big"], "retry": "1s"}, "narrow": {"upstreams": ["small"]}},
            senders=[{"match": {"from": JAN}, "keep": True, "route": "narrow"}],
        )
        async with site.house() as house:
            await house.send(JAN, [PIET])
            await house.event(UpstreamConnected, upstream="small")
            assert await offered(house) == "52428800"
            # Too large for the first of two: the second carries it.
            other = mail(sender="piet@example.nl", body=b"x" * SIZE + b"\r\n")
            queue_id = await house.send("piet@example.nl", [PIET], other)
            assert (await house.event(RecipientDelivered, queue_id=queue_id)).upstream == "big"
            # Too large for the only one.
            with pytest.raises(AssertionError, match="552"):
                await house.send(JAN, [PIET], of_size(SIZE + 1))


@pytest.mark.asyncio
async def test_a_message_for_a_provider_without_8bitmime_is_re_encoded_and_logged(site: Site) -> None:
    async with site.upstream(keywords=NARROW) as own:
        site.configure(upstreams={"own": site.way_to(own)})
        async with site.house() as house:
            text = "Bijgaand: € 5, café\r\n".encode()
            queue_id = await house.send(JAN, [PIET], mail(body=text))
            got = await own.message()
            assert got.content.isascii()
            assert email.message_from_bytes(got.content).get_payload(decode=True) == text
            done = await house.event(MessageReencoded)
            assert (done.queue_id, done.upstream, done.why, done.parts) == (queue_id, "own", "no 8BITMIME", 1)


@pytest.mark.asyncio
async def test_a_signed_message_that_may_not_be_converted_comes_back_with_what_to_do(site: Site) -> None:
    async with site.upstream(keywords=NARROW) as own:
        site.configure(upstreams={"own": site.way_to(own)})
        async with site.house() as house:
            head = b"From: jan@example.nl\r\nContent-Type: multipart/signed; boundary=x\r\n\r\n"
            signed = head + b"--x\r\n\r\n\xe9\r\n--x--\r\n"
            await house.send(JAN, [PIET], signed)
            failed = await house.event(RecipientFailed)
            assert (failed.code, failed.status) == (554, "5.6.3")
            await house.event(NotificationQueued)
            bounce = email.message_from_bytes((await own.message()).content)
            words = bounce.get_payload()[0].get_payload(decode=True).decode()  # type: ignore[union-attr,index]
            assert "verstuur het zonder ondertekening" in words
            assert "send it without a signature" in words


@pytest.mark.asyncio
async def test_a_refused_long_line_goes_re_encoded_at_once_and_after_a_restart_from_the_start(site: Site) -> None:
    def short_lines_only(received: object) -> str | None:
        content = received.content  # type: ignore[attr-defined]
        return "500 5.2.3 Line too long" if max(map(len, content.split(b"\r\n"))) > 998 else None

    async with site.upstream(content_allowed=short_lines_only) as own:
        site.configure(upstreams={"own": site.way_to(own)})
        for first in (True, False):
            async with site.house() as house:
                queue_id = await house.send(JAN, [PIET], mail(body=b"woord " * 400 + b"\r\n"))
                delivered = await house.event(RecipientDelivered, queue_id=queue_id)
                assert delivered.attempt == 1
                assert (await house.event(MessageReencoded)).why == "long lines"
            asked = sum(line == "DATA" for line in own.commands)
            assert asked == (2 if first else 3)
    for received in own.messages:
        assert email.message_from_bytes(received.content).get_payload(decode=True) == b"woord " * 400 + b"\r\n"


@pytest.mark.asyncio
async def test_thirty_megabytes_are_re_encoded_with_less_than_100_mb_of_memory(site: Site) -> None:
    port = free_port()
    octets = bytes(octet for octet in range(256) if octet not in b"\r\n.")
    attached = b"\r\n".join([octets] * (30 * MIB // len(octets)))
    head = b"From: jan@example.nl\r\nContent-Type: application/pdf\r\n\r\n"
    async with site.upstream(keywords=NARROW) as own:
        site.configure(
            upstreams={"own": site.way_to(own)},
            listeners=[{"name": "legacy", "listen": f"127.0.0.1:{port}"}],
            log={"format": "json"},
        )
        async with Process.serving(site) as relay:
            async with Client.to(port) as client:
                await client.send(JAN, [PIET], head + attached + b"\r\n")
            received = await own.message()
            await relay.line("delivered")
            assert relay.peak_memory < 100_000_000
            relay.signal(signal.SIGTERM)
            assert await relay.ended() == 0
    assert received.content.isascii()
    assert email.message_from_bytes(received.content).get_payload(decode=True) == attached + b"\r\n"
