"""TLS at the door: STARTTLS and implicit."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import replace

import pytest

from relay.events import ConnectionAccepted, ConnectionDenied, ExceptionCaught, QuirksTolerated, SessionEnded
from relay.ingress import replies
from tests.ingress.house import MESSAGE, PATIENCE, SOON, HouseOf, hard_reset, on_both_loops
from tests.kit import configured
from tests.kit.certificates import Certificates


@pytest.fixture
def trusting(certificates: Certificates) -> ssl.SSLContext:
    """What a client needs."""
    return ssl.create_default_context(cafile=certificates.ca_path)


@pytest.fixture
def server(certificates: Certificates) -> ssl.SSLContext:
    return certificates.good.server()


@on_both_loops
async def test_starttls_is_offered_and_mail_goes_through_it(
    house_of: HouseOf, server: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    async with house_of(tls="starttls", tls_context=server) as house:
        client = await house.client()
        assert b"250-STARTTLS\r\n" in await client.say(b"EHLO pc")
        assert await client.say(b"STARTTLS") == replies.START_TLS
        await client.start_tls(trusting)
        assert b"STARTTLS" not in await client.say(b"EHLO pc")
        assert (await client.mail())[:3] == b"250"
        peer = (await house.entries())[0].submission.peer
        assert peer.protocol == "ESMTPS"
        assert peer.tls is not None
        assert peer.tls.startswith("TLSv1.3 TLS_")
        assert await client.say(b"STARTTLS") == replies.TLS_ALREADY
        assert await client.say(b"QUIT") == replies.BYE


@pytest.mark.parametrize("injected", [b"NOOP\r\n", b"MAIL FROM:<evil@example.com>\r\n", b"NOOP", b"x" * 3_000])
@on_both_loops
async def test_nothing_said_in_clear_behind_starttls_is_answered_inside(
    house_of: HouseOf, server: ssl.SSLContext, trusting: ssl.SSLContext, injected: bytes
) -> None:
    async with house_of(tls="starttls", tls_context=server) as house:
        client = await house.client()
        client.send(b"STARTTLS\r\n" + injected)
        assert await client.reply() == replies.START_TLS
        await client.start_tls(trusting)
        assert await client.say(b"RCPT TO:<victim@example.com>") == replies.NO_MAIL  # the first answer inside
        client.send(b"QUIT\r\n")
        assert await client.end() == replies.BYE


@on_both_loops
async def test_commands_before_starttls_are_answered_before_the_handshake(
    house_of: HouseOf, server: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    async with house_of(tls="starttls", tls_context=server) as house:
        client = await house.client()
        client.send(b"NOOP\r\nRSET\r\nSTARTTLS\r\n")
        assert [await client.reply() for _ in range(3)] == [replies.OK, replies.OK, replies.START_TLS]
        await client.start_tls(trusting)
        assert await client.say(b"NOOP") == replies.OK


@on_both_loops
async def test_what_was_known_before_the_handshake_is_forgotten(
    house_of: HouseOf, server: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    async with house_of(tls="starttls", tls_context=server) as house:
        client = await house.client()
        await client.say(b"MAIL FROM:<jan@example.nl>", b"RCPT TO:<piet@example.com>")
        await client.say(b"STARTTLS")
        await client.start_tls(trusting)
        assert await client.say(b"DATA") == replies.NO_MAIL
        assert (await client.mail())[:3] == b"250"
        (entry,) = await house.entries()
        assert (entry.submission.peer.helo, entry.submission.peer.protocol) == ("", "SMTP")
        assert len(entry.submission.envelope.recipients) == 1


@on_both_loops
async def test_starttls_takes_no_argument(house_of: HouseOf, server: ssl.SSLContext) -> None:
    async with house_of(tls="starttls", tls_context=server) as house:
        client = await house.client()
        assert await client.say(b"STARTTLS now") == replies.BAD_SYNTAX
        assert await client.say(b"NOOP") == replies.OK


@on_both_loops
async def test_a_listener_may_require_tls(house_of: HouseOf, server: ssl.SSLContext, trusting: ssl.SSLContext) -> None:
    async with house_of(tls="starttls", tls_context=server, require_tls=True) as house:
        client = await house.client()
        for command in (b"MAIL FROM:<jan@example.nl>", b"RCPT TO:<a@b.nl>", b"DATA", b"AUTH PLAIN", b"VRFY jan"):
            assert await client.say(command) == replies.TLS_REQUIRED
        for command in (b"NOOP", b"RSET", b"HELP", b"EHLO pc"):
            assert (await client.say(command))[:1] == b"2"
        await client.say(b"STARTTLS")
        await client.start_tls(trusting)
        assert (await client.mail())[:3] == b"250"


@on_both_loops
async def test_a_failed_handshake_is_told_and_closed(house_of: HouseOf, server: ssl.SSLContext) -> None:
    async with house_of(tls="starttls", tls_context=server) as house:
        client = await house.client()
        await client.say(b"STARTTLS")
        client.send(b"NOOP\r\nMAIL FROM:<jan@example.nl>\r\n")
        answer = await client.end()
        assert b"250" not in answer
        assert b"451" not in answer
        (denied,) = await house.observed.until(ConnectionDenied)
        assert denied.reason == "tls_error"
        assert denied.text
        assert [event.why for event in await house.observed.until(SessionEnded)] == ["reset"]


@on_both_loops
async def test_a_client_that_leaves_within_the_handshake_is_told(house_of: HouseOf, server: ssl.SSLContext) -> None:
    async with house_of(tls="starttls", tls_context=server) as house:
        client = await house.client()
        await client.say(b"STARTTLS")
        await client.close()
        (denied,) = await house.observed.until(ConnectionDenied)
        assert denied.reason == "tls_error"
        await house.observed.until(SessionEnded)


@on_both_loops
async def test_implicit_tls_speaks_smtp_inside_only(
    house_of: HouseOf, server: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    async with house_of(tls="implicit", tls_context=server) as house:
        client = await house.client(trusting)
        assert b"STARTTLS" not in await client.say(b"EHLO pc")
        assert await client.say(b"STARTTLS") == replies.NOT_IMPLEMENTED
        content = MESSAGE + (b"x" * 98 + b"\r\n") * 20_000
        assert (await client.mail(content))[:3] == b"250"
        assert await client.say(b"QUIT") == replies.BYE
        assert await house.contents() == [content]
        (entry,) = await house.entries()
        assert entry.submission.peer.protocol == "ESMTPS"


@on_both_loops
async def test_many_clients_may_begin_implicit_tls_at_once(
    house_of: HouseOf, server: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    async with house_of(tls="implicit", tls_context=server) as house:

        async def one() -> bytes:
            client = await house.client(trusting)
            return await client.mail()

        async with asyncio.timeout(PATIENCE):
            answers = await asyncio.gather(*[one() for _ in range(10)])
        assert {answer[:3] for answer in answers} == {b"250"}


@on_both_loops
async def test_a_client_that_speaks_no_tls_is_closed_unheard(house_of: HouseOf, server: ssl.SSLContext) -> None:
    async with house_of(tls="implicit", tls_context=server) as house:
        client = await house.connect()
        client.send(b"EHLO pc\r\n")
        assert b"220" not in await client.end()
        (denied,) = await house.observed.until(ConnectionDenied)
        assert denied.reason == "tls_error"
        assert denied.text
        await house.nobody_is_left()
        assert not house.observed.of(ExceptionCaught)


@on_both_loops
async def test_a_handshake_may_come_in_crumbs(
    house_of: HouseOf, server: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    async with house_of(tls="implicit", tls_context=server) as house:
        client = await house.connect()
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = trusting.wrap_bio(incoming, outgoing, server_hostname="localhost")
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    tls.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    for octet in outgoing.read():
                        client.send(bytes([octet]))
                        await asyncio.sleep(0)
                    incoming.write(await client.reader.read(100_000))
            client.send(outgoing.read())
            while True:
                try:
                    assert tls.read(100) == b"220 relay.example.nl ESMTP relay\r\n"
                    break
                except ssl.SSLWantReadError:
                    incoming.write(await client.reader.read(100_000))


@pytest.mark.parametrize("how", ["eof", "reset"])
@on_both_loops
async def test_a_look_whether_somebody_listens_is_no_failed_handshake(
    house_of: HouseOf, server: ssl.SSLContext, how: str
) -> None:
    async with house_of(tls="implicit", tls_context=server) as house:
        client = await house.connect()
        async with asyncio.timeout(PATIENCE):
            while not house.door.live:
                await asyncio.sleep(0)
        if how == "eof":
            client.writer.write_eof()
        else:
            hard_reset(client)
        await house.observed.until(SessionEnded)
        assert not house.observed.of(ConnectionDenied)
        assert not house.observed.of(QuirksTolerated)


@on_both_loops
async def test_a_client_that_leaves_within_an_implicit_handshake_is_told(
    house_of: HouseOf, server: ssl.SSLContext
) -> None:
    async with house_of(tls="implicit", tls_context=server) as house:
        client = await house.connect()
        client.send(b"\x16\x03\x01\x02\x00\x01")
        await client.close()
        (denied,) = await house.observed.until(ConnectionDenied)
        assert denied.reason == "tls_error"
        assert [event.why for event in await house.observed.until(SessionEnded)] == ["reset"]


@on_both_loops
async def test_a_client_that_says_nothing_where_tls_comes_first_is_given_up(
    house_of: HouseOf, server: ssl.SSLContext
) -> None:
    async with house_of(tls="implicit", tls_context=server, limits=configured.limits(command=SOON)) as house:
        client = await house.connect()
        assert await client.end() == b""
        assert [event.why for event in await house.observed.until(SessionEnded)] == ["timeout"]


@on_both_loops
async def test_sessions_are_counted_before_their_handshake(house_of: HouseOf, server: ssl.SSLContext) -> None:
    async with house_of(tls="implicit", tls_context=server, limits=configured.limits(per_client=1)) as house:
        await house.connect()
        await house.observed.until(ConnectionAccepted)
        await house.connect()
        (denied,) = await house.observed.until(ConnectionDenied)
        assert denied.reason == "denied_limit"


@on_both_loops
async def test_chunks_from_before_the_handshake_are_forgotten(
    house_of: HouseOf, server: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    async with house_of(tls="starttls", tls_context=server) as house:
        client = await house.client()
        await client.say(b"MAIL FROM:<jan@example.nl>", b"RCPT TO:<piet@example.com>")
        client.send(b"BDAT 6\r\nA: b\r\n")
        assert await client.reply() == replies.CHUNK_OK
        await client.say(b"STARTTLS")
        await client.start_tls(trusting)
        assert house.door.memory.used == 0
        client.send(b"BDAT 5 LAST\r\nHallo")
        assert await client.reply() == replies.NO_MAIL


@on_both_loops
async def test_a_client_that_is_turned_away_hears_it_inside_tls(
    house_of: HouseOf, server: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    async with house_of(tls="implicit", tls_context=server, limits=configured.limits(sessions=0)) as house:
        client = await house.connect(trusting)
        assert await client.end() == replies.TOO_MANY_SESSIONS
    async with house_of(tls="implicit", tls_context=server, allow=()) as house:
        client = await house.connect(trusting)
        assert await client.end() == replies.NOT_ALLOWED


@on_both_loops
async def test_a_new_certificate_is_shown_to_new_sessions(
    house_of: HouseOf, certificates: Certificates, trusting: ssl.SSLContext
) -> None:
    async with house_of(tls="implicit", tls_context=certificates.expired.server()) as house:
        with pytest.raises(ssl.SSLCertVerificationError):
            await house.connect(trusting)
        house.listener.change(replace(house.door.settings, tls_context=certificates.good.server()))
        client = await house.client(trusting)
        assert await client.say(b"NOOP") == replies.OK


@on_both_loops
async def test_a_stop_does_not_wait_for_a_handshake(house_of: HouseOf, server: ssl.SSLContext) -> None:
    async with house_of(tls="starttls", tls_context=server) as house:
        client = await house.client()
        await client.say(b"STARTTLS")
        async with asyncio.timeout(PATIENCE):
            await house.listener.close()
        assert await client.end() == b""


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
@on_both_loops
async def test_a_client_that_leaves_after_the_dot_inside_tls_never_cancels_the_commit(
    house_of: HouseOf, server: ssl.SSLContext, trusting: ssl.SSLContext, tls: str
) -> None:
    async with house_of(tls=tls, tls_context=server) as house:
        house.store.gate.clear()
        client = await house.client(trusting if tls == "implicit" else None)
        if tls == "starttls":
            await client.say(b"STARTTLS")
            await client.start_tls(trusting)
        await client.say(b"MAIL FROM:<jan@example.nl>", b"RCPT TO:<piet@example.com>", b"DATA")
        client.send(MESSAGE + b".\r\n")
        async with asyncio.timeout(PATIENCE):
            await house.store.arrived.wait()
            (session,) = house.door.live
            await client.close()
            while not session._over:
                await asyncio.sleep(0)
        house.store.gate.set()
        await house.observed.until(SessionEnded)
        assert await house.contents() == [MESSAGE]
