"""AUTH as servers really offer and refuse it: the next mechanism, and the remedy that names what was refused."""

from __future__ import annotations

import pytest

from relay.mail.outcome import Delivered, Stage, Trouble
from relay.observe.provider_texts import connection_remedy
from relay.transport.replies import reply_of
from tests.kit.upstream import ScriptedUpstream
from tests.transport.conftest import Run
from tests.transport.logins import LOGINS, NO_OTHER, Login
from tests.transport.parts import connected, refused, request

TERMS = {"auth": "auto", "username": "relay", "password": lambda: "secret"}


def offering(login: Login) -> ScriptedUpstream:
    upstream = ScriptedUpstream(users={"relay": "secret"})
    lines = ["upstream.example", "SIZE 1000000", *login.offered]
    reply = "\r\n".join(f"250{'-' if n < len(lines) else ' '}{word}" for n, word in enumerate(lines, 1))
    upstream.script("ehlo", reply, times=None)
    upstream.script("auth", login.reply)
    return upstream


@pytest.mark.parametrize("login", [one for one in LOGINS if one.then], ids=str)
def test_a_mechanism_that_is_refused_for_its_own_sake_gives_way_to_the_next(run: Run, login: Login) -> None:
    async def scene() -> None:
        async with offering(login) as upstream:
            await connected(upstream, **TERMS)
            assert [one.mechanism for one in upstream.auth_tries] == [login.tried, login.then]

    run(scene())


@pytest.mark.parametrize("login", [*NO_OTHER, *(one for one in LOGINS if not one.then)], ids=str)
def test_a_login_that_is_refused_for_what_it_is_is_not_tried_again(run: Run, login: Login) -> None:
    async def scene() -> None:
        async with offering(login) as upstream:
            outcome = await refused(upstream, **TERMS)
            assert [one.mechanism for one in upstream.auth_tries] == [login.tried]
            assert outcome.reply is not None
            assert outcome.reply.code == int(login.reply[:3])

    run(scene())


@pytest.mark.parametrize("login", [*LOGINS, *NO_OTHER], ids=str)
def test_the_remedy_names_what_was_really_refused(login: Login) -> None:
    reply = reply_of(login.reply.encode())
    trouble = Trouble.PERMANENT if reply.code >= 500 else Trouble.TRANSIENT
    assert connection_remedy(Stage.AUTH, trouble, reply.code, reply.status, reply.text) == login.remedy


def test_only_one_other_mechanism_is_tried_in_a_connection(run: Run) -> None:
    async def scene() -> None:
        async with ScriptedUpstream(users={"relay": "secret"}) as upstream:
            upstream.script("auth", "504 5.7.4 Unrecognized authentication type", times=None)
            outcome = await refused(upstream, **TERMS)
            assert [one.mechanism for one in upstream.auth_tries] == ["PLAIN", "LOGIN"]
            assert outcome.reply is not None
            assert outcome.reply.code == 504

    run(scene())


def test_a_mechanism_that_the_configuration_names_gives_way_to_none(run: Run) -> None:
    async def scene() -> None:
        async with ScriptedUpstream(users={"relay": "secret"}) as upstream:
            upstream.script("auth", "504 5.7.4 Unrecognized authentication type", times=None)
            await refused(upstream, **TERMS | {"auth": "plain"})
            assert [one.mechanism for one in upstream.auth_tries] == ["PLAIN"]

    run(scene())


def test_the_refusal_of_the_first_is_told_where_the_second_has_no_answer(run: Run) -> None:
    async def scene() -> None:
        async with ScriptedUpstream(users={"relay": "secret"}) as upstream:
            upstream.script("auth", "504 5.7.4 Unrecognized authentication type")
            upstream.script("auth", lambda session: session.writer.close())
            outcome = await refused(upstream, **TERMS)
            assert outcome.reply is not None
            assert outcome.reply.code == 504

    run(scene())


def test_a_password_that_fits_no_command_line_goes_on_a_line_of_its_own(run: Run) -> None:
    async def scene() -> None:
        async with ScriptedUpstream(users={"relay": "s" * 900}, longest_line=512) as upstream:
            await connected(upstream, auth="auto", username="relay", password=lambda: "s" * 900)
            assert [(one.mechanism, one.accepted) for one in upstream.auth_tries] == [("PLAIN", True)]

    run(scene())


# Case provider-without-ehlo


@pytest.mark.parametrize("reply", ["502 5.5.2 Command not implemented", "500 what?"])
def test_a_server_without_ehlo_gets_helo_and_the_message(run: Run, reply: str) -> None:
    async def scene() -> None:
        async with ScriptedUpstream() as upstream:
            upstream.script("ehlo", reply, times=None)
            connection = await connected(upstream)
            assert isinstance((await connection.deliver(request())).outcomes[0], Delivered)
            await connection.close()
            assert upstream.commands[:3] == [
                "EHLO relay.example.nl",
                "HELO relay.example.nl",
                "MAIL FROM:<jan@example.nl>",
            ]
            assert upstream.connections == 1

    run(scene())


@pytest.mark.parametrize(
    ("reply", "wanted"),
    [
        ("502 5.5.2 Command not implemented", {"auth": "auto", "username": "relay", "password": lambda: "x"}),
        ("500 what?", {"tls": "starttls"}),
        ("421 4.3.2 later", {}),
        ("550 5.7.1 go away", {}),
        ("501 5.5.4 bad name", {}),
        ("504 5.5.2 need a fully-qualified hostname", {}),
    ],
)
def test_helo_is_said_for_no_other_reply_and_not_where_tls_or_a_login_is_wanted(
    run: Run, reply: str, wanted: dict[str, object]
) -> None:
    async def scene() -> None:
        async with ScriptedUpstream() as upstream:
            upstream.script("ehlo", reply, times=None)
            outcome = await refused(upstream, **wanted)
            assert upstream.commands == ["EHLO relay.example.nl"]
            assert outcome.reply is not None
            remedy = connection_remedy(
                outcome.stage, outcome.trouble, outcome.reply.code, outcome.reply.status, outcome.text
            )
            assert (remedy == "no-ehlo") == bool(wanted)

    run(scene())
