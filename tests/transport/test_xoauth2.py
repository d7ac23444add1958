"""Logging in with a token, against real sockets: what is sent, what a refusal says, and one more try with a new one."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from relay.mail.outcome import Deferred, Delivered, Stage, Trouble
from relay.transport.smtp import SmtpTransport
from relay.transport.transaction import SmtpConnection
from tests.kit import configured
from tests.kit.certificates import Certificates
from tests.kit.upstream import CLOSE, ScriptedUpstream
from tests.transport.conftest import Run
from tests.transport.parts import PATIENT, request
from tests.transport.test_tokens import MAILBOX, SECRET, World, in_world

GOOGLE_ERROR = {"status": "400", "schemes": "Bearer", "scope": "https://mail.google.com/"}


def transport(world: World, upstream: ScriptedUpstream, **terms: Any) -> SmtpTransport:
    settings = configured.smtp(
        name="own",
        host=upstream.host,
        port=upstream.port,
        hostname="relay.example.nl",
        tls="starttls",
        tls_ca=world.entra.ca,
        auth="xoauth2",
        username=MAILBOX,
        timeouts=PATIENT,
    )
    return SmtpTransport(settings, observer=world, tokens=world.source(**terms))


def strict(world: World, **settings: Any) -> ScriptedUpstream:
    terms: dict[str, Any] = {
        "tls": "starttls",
        "certificate": Certificates(world.folder).good,
        "tokens": world.entra.allows,
        "mechanisms": ("LOGIN",),
    }
    return ScriptedUpstream(**terms | settings)


def test_a_token_logs_in_and_mail_leaves(run: Run, certificates: Certificates, tmp_path: Path) -> None:
    async def scene(world: World) -> None:
        async with strict(world) as upstream:
            connection = await transport(world, upstream).connect()
            assert isinstance(connection, SmtpConnection), connection
            delivery = await connection.deliver(request())
            assert isinstance(delivery.outcomes[0], Delivered)
            await connection.close()
            (tried,) = upstream.auth_tries
            assert (tried.mechanism, tried.username, tried.encrypted) == ("XOAUTH2", MAILBOX, True)
            assert tried.password == world.entra.tokens[0]

    in_world(run, certificates, tmp_path, scene)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (GOOGLE_ERROR, "wrong name or password (XOAUTH2: status 400, schemes Bearer, scope https://mail.google.com/)"),
        (None, "Authentication unsuccessful (XOAUTH2)"),
        ({"status": "4\u202e\n" + "0" * 500}, None),
        ({"note": "nothing known"}, "wrong name or password (XOAUTH2)"),
    ],
    ids=["Google", "Microsoft", "hostile", "strange"],
)
def test_a_refusal_says_what_the_upstream_said_of_the_token_and_never_the_token(
    run: Run, certificates: Certificates, tmp_path: Path, error: dict[str, str] | None, said: str | None
) -> None:
    async def scene(world: World) -> None:
        world.entra.mailboxes["0d9f1c52-6f4e"] = set()
        async with strict(world, token_error=error) as upstream:
            outcome = await transport(world, upstream).connect()
            assert isinstance(outcome, Deferred)
            assert (outcome.stage, outcome.trouble) == (Stage.AUTH, Trouble.PERMANENT)
            assert outcome.reply is not None
            assert outcome.reply.code == 535
            assert outcome.text.isprintable()
            assert len(outcome.text) < 300
            if said is not None:
                assert outcome.text == said
            assert world.entra.tokens[0] not in outcome.text
            # It was a fresh one: another would say the same, and many tries lock an account.
            assert len(upstream.auth_tries) == 1
            assert len(world.entra.asked) == 1
            # But the next time a new one is asked for: rights are in the token.
            world.entra.mailboxes["0d9f1c52-6f4e"] = {MAILBOX}

    in_world(run, certificates, tmp_path, scene)


def test_an_upstream_that_repeats_the_token_does_not_get_it_into_a_text(
    run: Run, certificates: Certificates, tmp_path: Path
) -> None:
    async def scene(world: World) -> None:
        source = world.source()
        token = await source.get()
        assert not isinstance(token, Deferred)
        world.entra.revoked.add(token.value)
        async with strict(world, token_error={"status": "400", "scope": token.value}) as upstream:
            upstream.script("auth", f"535 5.7.8 no such token: {token.value}")
            outcome = await transport(world, upstream).connect()
            assert isinstance(outcome, Deferred)
            assert outcome.text == "no such token: [secret] (XOAUTH2: status 400, scope [secret])"

    in_world(run, certificates, tmp_path, scene)


def test_rights_that_were_given_since_are_in_the_token_of_the_next_attempt(
    run: Run, certificates: Certificates, tmp_path: Path
) -> None:
    async def scene(world: World) -> None:
        world.entra.mailboxes["0d9f1c52-6f4e"] = set()
        async with strict(world) as upstream:
            way = transport(world, upstream)
            assert isinstance(await way.connect(), Deferred)
            world.entra.mailboxes["0d9f1c52-6f4e"] = {MAILBOX}
            connection = await way.connect()
            assert isinstance(connection, SmtpConnection)
            await connection.close()
            assert len(world.entra.asked) == 2

    in_world(run, certificates, tmp_path, scene)


@pytest.mark.parametrize("error", [GOOGLE_ERROR, None], ids=["Google", "Microsoft"])
def test_an_old_token_that_is_refused_is_fetched_anew_once_and_tried_at_once(
    run: Run, certificates: Certificates, tmp_path: Path, error: dict[str, str] | None
) -> None:
    async def scene(world: World) -> None:
        async with strict(world, token_error=error) as upstream:
            way = transport(world, upstream)
            first = await way.connect()
            assert isinstance(first, SmtpConnection)
            await first.close()
            world.later(timedelta(minutes=10))
            world.entra.revoked.update(world.entra.tokens)
            second = await way.connect()
            assert isinstance(second, SmtpConnection)
            await second.close()
            assert [tried.accepted for tried in upstream.auth_tries] == [True, False, True]
            assert len(world.entra.asked) == 2
            # Refused again, and the new one as well: that is the end of it.
            world.later(timedelta(minutes=10))
            world.entra.mailboxes["0d9f1c52-6f4e"] = set()
            world.entra.revoked.update(world.entra.tokens)
            assert isinstance(await way.connect(), Deferred)
            assert len(upstream.auth_tries) == 5
            assert len(world.entra.asked) == 3

    in_world(run, certificates, tmp_path, scene)


def test_a_token_that_a_restart_found_and_the_upstream_refuses_is_fetched_anew(
    run: Run, certificates: Certificates, tmp_path: Path
) -> None:
    async def scene(world: World) -> None:
        async with strict(world) as upstream:
            assert world.source() is not None
            await world.source().get()
            world.later(timedelta(minutes=5))
            world.entra.revoked.update(world.entra.tokens)
            connection = await transport(world, upstream).connect()
            assert isinstance(connection, SmtpConnection)
            await connection.close()
            assert len(world.entra.asked) == 2

    in_world(run, certificates, tmp_path, scene)


def test_without_a_token_the_upstream_is_not_even_called(run: Run, certificates: Certificates, tmp_path: Path) -> None:
    async def scene(world: World) -> None:
        async with strict(world) as upstream:
            outcome = await transport(world, upstream, client_secret=lambda: "verkeerd").connect()
            assert isinstance(outcome, Deferred)
            assert (outcome.stage, outcome.trouble) == (Stage.AUTH, Trouble.PERMANENT)
            assert "verkeerd" not in outcome.text
            assert SECRET not in outcome.text
            assert upstream.connections == 0

    in_world(run, certificates, tmp_path, scene)


def test_an_upstream_without_xoauth2_never_sees_the_token(run: Run, certificates: Certificates, tmp_path: Path) -> None:
    async def scene(world: World) -> None:
        async with strict(world, tokens=None, users={MAILBOX: "x"}, mechanisms=("LOGIN",)) as upstream:
            outcome = await transport(world, upstream).connect()
            assert isinstance(outcome, Deferred)
            assert outcome.text == "the upstream offers LOGIN, not XOAUTH2"
            assert upstream.auth_tries == []

    in_world(run, certificates, tmp_path, scene)


def test_a_connection_that_breaks_at_the_login_is_no_refusal_of_the_token(
    run: Run, certificates: Certificates, tmp_path: Path
) -> None:
    async def scene(world: World) -> None:
        async with strict(world) as upstream:
            upstream.script("auth", CLOSE, "454 4.7.0 Temporary authentication failure")
            way = transport(world, upstream)
            for trouble in (Trouble.DROPPED, Trouble.TRANSIENT):
                outcome = await way.connect()
                assert isinstance(outcome, Deferred)
                assert (outcome.stage, outcome.trouble) == (Stage.AUTH, trouble)
            assert len(world.entra.asked) == 1

    in_world(run, certificates, tmp_path, scene)


@pytest.mark.parametrize("longest", [512, 1024])
def test_a_token_that_fits_no_command_line_goes_on_a_line_of_its_own(
    run: Run, certificates: Certificates, tmp_path: Path, longest: int
) -> None:
    """Case token-longer-than-a-command."""

    async def scene(world: World) -> None:
        world.entra.longer = 700
        async with strict(world, longest_line=longest) as upstream:
            connection = await transport(world, upstream).connect()
            assert isinstance(connection, SmtpConnection), connection
            assert isinstance((await connection.deliver(request())).outcomes[0], Delivered)
            await connection.close()
            assert len(world.entra.tokens[0]) > 1900
            assert [line for line in upstream.commands if line.startswith("AUTH")] == ["AUTH XOAUTH2"]

    in_world(run, certificates, tmp_path, scene)


def test_a_long_token_that_is_refused_after_a_334_ends_with_the_reply(
    run: Run, certificates: Certificates, tmp_path: Path
) -> None:
    async def scene(world: World) -> None:
        world.entra.longer = 700
        async with strict(world, tokens=lambda *_: False, token_error=GOOGLE_ERROR) as upstream:
            outcome = await transport(world, upstream).connect()
            assert isinstance(outcome, Deferred)
            assert "XOAUTH2: status 400" in outcome.text
            assert world.entra.tokens[0] not in outcome.text

    in_world(run, certificates, tmp_path, scene)
