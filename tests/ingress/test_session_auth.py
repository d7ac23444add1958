"""AUTH at the door: who may send, and what a wrong password costs."""

from __future__ import annotations

import asyncio
import ssl
from base64 import b64encode
from dataclasses import replace

import pytest

from relay.events import AuthenticationJudged, CommandRefused, SessionEnded
from relay.ingress import replies, secure
from relay.ingress.session import Session
from tests.ingress.house import PATIENCE, SETTINGS, HouseOf, on_both_loops
from tests.kit.certificates import Certificates

PASSWORD = "geheim"


def verify(user: str, password: str) -> bool:
    return (user, password) == ("jan", PASSWORD)


def plain(user: str, password: str = PASSWORD) -> bytes:
    return b"AUTH PLAIN " + b64encode(f"\0{user}\0{password}".encode())


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secure, "AUTH_PAUSE", 0.0)


@on_both_loops
async def test_users_must_log_in_before_they_send(house_of: HouseOf) -> None:
    async with house_of(auth="users", verify=verify) as house:
        client = await house.client()
        for command in (b"MAIL FROM:<jan@example.nl>", b"RCPT TO:<a@b.nl>", b"DATA", b"VRFY jan"):
            assert await client.say(command) == replies.AUTH_REQUIRED
        for command in (b"NOOP", b"RSET", b"HELP"):
            assert (await client.say(command))[:1] == b"2"
        ehlo = await client.say(b"EHLO pc")
        assert b"250-AUTH PLAIN LOGIN\r\n250-AUTH=PLAIN LOGIN\r\n" in ehlo
        assert await client.say(plain("jan")) == replies.AUTHENTICATED
        assert b"AUTH" not in await client.say(b"EHLO pc")
        assert (await client.mail())[:3] == b"250"
        peer = (await house.entries())[0].submission.peer
        assert (peer.user, peer.protocol) == ("jan", "ESMTPA")
        (judged,) = house.observed.of(AuthenticationJudged)
        assert (judged.user, judged.mechanism, judged.result) == ("jan", "plain", "ok")
        assert await client.say(plain("jan")) == replies.AUTHENTICATED_ALREADY


@on_both_loops
async def test_login_is_a_dialogue_in_any_case(house_of: HouseOf) -> None:
    async with house_of(auth="users", verify=verify) as house:
        client = await house.client()
        assert await client.say(b"auth login") == replies.ASK_USERNAME
        assert await client.say(b64encode(b"jan")) == replies.ASK_PASSWORD
        assert await client.say(b64encode(PASSWORD.encode())) == replies.AUTHENTICATED
        again = await house.client()
        assert await again.say(b"AUTH login " + b64encode(b"jan")) == replies.ASK_PASSWORD
        assert await again.say(b64encode(PASSWORD.encode())) == replies.AUTHENTICATED
        at_once = await house.client()
        at_once.send(b"AUTH LOGIN\r\n" + b64encode(b"jan") + b"\r\n" + b64encode(PASSWORD.encode()) + b"\r\nNOOP\r\n")
        answers = [await at_once.reply() for _ in range(4)]
        assert answers == [replies.ASK_USERNAME, replies.ASK_PASSWORD, replies.AUTHENTICATED, replies.OK]


@on_both_loops
async def test_a_cancelled_or_malformed_exchange_lets_the_session_go_on(house_of: HouseOf) -> None:
    async with house_of(auth="users", verify=verify) as house:
        client = await house.client()
        assert await client.say(b"AUTH LOGIN") == replies.ASK_USERNAME
        assert await client.say(b"*") == replies.AUTH_CANCELLED
        assert await client.say(b"AUTH PLAIN") == replies.ASK_RESPONSE
        assert await client.say(b"no base64") == replies.BAD_BASE64
        assert await client.say(b"AUTH") == replies.UNKNOWN_MECHANISM
        assert await client.say(b"AUTH CRAM-MD5") == replies.UNKNOWN_MECHANISM
        assert [event.result for event in house.observed.of(AuthenticationJudged)] == ["error"] * 4
        assert await client.say(plain("jan")) == replies.AUTHENTICATED


@on_both_loops
async def test_where_anybody_is_right_auth_is_offered_and_optional(house_of: HouseOf) -> None:
    async with house_of(auth="any") as house:
        silent, talkative = await house.client(), await house.client()
        assert (await silent.mail())[:3] == b"250"
        assert await talkative.say(plain("Administratie \u2028\x1b", "whatever")) == replies.AUTHENTICATED
        assert (await talkative.mail())[:3] == b"250"
        assert [entry.submission.peer.user for entry in await house.entries()] == [None, "Administratie ??"]


@on_both_loops
async def test_auth_is_not_for_the_middle_of_a_transaction(house_of: HouseOf) -> None:
    async with house_of(auth="any") as house:
        client = await house.client()
        await client.say(b"MAIL FROM:<jan@example.nl>")
        assert await client.say(plain("jan")) == replies.NO_AUTH_IN_MAIL


@on_both_loops
async def test_where_there_is_tls_auth_is_taken_inside_it_only(house_of: HouseOf, certificates: Certificates) -> None:
    trusting = ssl.create_default_context(cafile=certificates.ca_path)
    async with house_of(auth="users", verify=verify, tls="starttls", tls_context=certificates.good.server()) as house:
        client = await house.client()
        assert b"AUTH" not in await client.say(b"EHLO pc")
        assert await client.say(plain("jan")) == replies.AUTH_NEEDS_TLS
        await client.say(b"STARTTLS")
        await client.start_tls(trusting)
        assert b"AUTH PLAIN LOGIN" in await client.say(b"EHLO pc")
        assert await client.say(plain("jan")) == replies.AUTHENTICATED
        assert (await client.mail())[:3] == b"250"
        assert (await house.entries())[0].submission.peer.protocol == "ESMTPSA"


@on_both_loops
async def test_without_tls_auth_is_taken_from_loopback_only(house_of: HouseOf, monkeypatch: pytest.MonkeyPatch) -> None:
    async with house_of(auth="users", verify=verify) as house:
        monkeypatch.setattr(secure, "is_loopback", lambda client: False)
        client = await house.client()
        assert b"AUTH" not in await client.say(b"EHLO pc")
        assert await client.say(plain("jan")) == replies.AUTH_NEEDS_TLS


@on_both_loops
async def test_a_wrong_password_is_told_and_the_fifth_ends_the_session(house_of: HouseOf) -> None:
    async with house_of(auth="users", verify=verify) as house:
        client = await house.client()
        for _ in range(4):
            assert await client.say(plain("jan", "raden")) == replies.BAD_CREDENTIALS
        assert await client.say(plain("jan", "raden")) == replies.TOO_MANY_AUTH_FAILURES
        assert await client.end() == b""
        assert [event.why for event in await house.observed.until(SessionEnded)] == ["errors"]
        judged = house.observed.of(AuthenticationJudged)
        assert [(event.user, event.result) for event in judged] == [("jan", "bad")] * 5
        assert not any(secret in repr(house.observed.events) for secret in ("raden", plain("jan", "raden").decode()))


@on_both_loops
async def test_after_twenty_failures_in_a_minute_an_address_is_refused_before_it_is_tried(house_of: HouseOf) -> None:
    tried: list[str] = []

    def never(user: str, password: str) -> bool:
        tried.append(user)
        return False

    async with house_of(auth="users", verify=never) as house:
        for _ in range(5):
            client = await house.client()
            for _ in range(4):
                assert await client.say(plain("jan")) == replies.BAD_CREDENTIALS
            await client.say(b"QUIT")
        client = await house.client()
        assert await client.say(plain("jan")) == replies.AUTH_LATER
        assert await client.end() == b""
        assert len(tried) == 20


@on_both_loops
async def test_a_password_that_cannot_be_verified_is_put_off(house_of: HouseOf) -> None:
    def broken(user: str, password: str) -> bool:
        raise OSError("the file with the secret is gone")

    async with house_of(auth="users", verify=broken) as house:
        client = await house.client()
        assert await client.say(plain("jan")) == replies.LOCAL_ERROR
        assert await client.say(b"MAIL FROM:<jan@example.nl>") == replies.AUTH_REQUIRED
        assert [event.verb for event in house.observed.of(CommandRefused)] == ["MAIL"]


@on_both_loops
async def test_a_stop_does_not_wait_for_the_end_of_an_exchange(house_of: HouseOf) -> None:
    async with house_of(auth="users", verify=verify) as house:
        client = await house.client()
        await client.say(b"AUTH LOGIN")
        async with asyncio.timeout(PATIENCE):
            await house.listener.close()
        assert await client.end() == replies.AUTH_CANCELLED + replies.SHUTTING_DOWN


@on_both_loops
async def test_a_client_that_leaves_within_an_exchange_costs_nothing(house_of: HouseOf) -> None:
    async with house_of(auth="users", verify=verify) as house:
        client = await house.client()
        await client.say(b"AUTH LOGIN")
        await client.close()
        assert [event.why for event in await house.observed.until(SessionEnded)] == ["eof"]


def test_users_without_somebody_who_verifies_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="verifies"):
        replace(SETTINGS, auth="users")


def test_no_password_is_asked_of_a_session_itself() -> None:
    """aiosmtpd's own AUTH, which knows no limits, is out of reach."""
    assert {name for name in vars(Session) if name.startswith("auth_")} == set()
