"""How connecting ends when something is wrong: stage by fault, against real sockets."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from relay.errors import RelayError
from relay.events import UpstreamConnected
from relay.mail.outcome import Deferred, Stage, Trouble
from relay.mail.reply import Reply
from relay.transport import dial
from relay.transport.stopped import reason
from relay.transport.transaction import SmtpConnection, SmtpTimeouts
from tests.kit import configured
from tests.kit.certificates import Certificates
from tests.kit.upstream import CLOSE, DROP, SILENCE, Act, Fault, ScriptedUpstream, half, then_drop
from tests.transport.conftest import Run
from tests.transport.parts import HASTY, PATIENT, SOON, Seen, connected, refused, request, transport_to

FAULTS: list[tuple[str, Fault, Trouble, int]] = [
    ("reset", DROP, Trouble.DROPPED, 0),
    ("closed", CLOSE, Trouble.DROPPED, 0),
    ("half a line", half("220 o"), Trouble.DROPPED, 0),
    ("421", "421 4.3.2 closing", Trouble.TRANSIENT, 421),
    ("421 and gone", then_drop("421 4.3.2 closing"), Trouble.TRANSIENT, 421),
    ("4xx", "451 4.3.0 later", Trouble.TRANSIENT, 451),
    ("5xx", "554 5.7.1 never", Trouble.PERMANENT, 554),
    ("garbage", "HTTP/1.1 400 Bad Request", Trouble.TRANSIENT, 0),
    ("oversized", b"250 " + b"x" * 70_000 + b"\r\n", Trouble.TRANSIENT, 0),
    ("endless", b"250-x\r\n" * 10_000, Trouble.TRANSIENT, 0),
    ("mixed codes", "250-a\r\n550 b", Trouble.TRANSIENT, 0),
    ("NUL", b"250 a\0\r\n", Trouble.TRANSIENT, 0),
    ("two replies", b"250 a\r\n250 b\r\n", Trouble.TRANSIENT, 0),
    ("silence", SILENCE, Trouble.TIMEOUT, 0),
]


@pytest.mark.parametrize("stage", [Stage.BANNER, Stage.EHLO, Stage.STARTTLS, Stage.AUTH])
@pytest.mark.parametrize(("fault", "trouble", "code"), [row[1:] for row in FAULTS], ids=[row[0] for row in FAULTS])
def test_whatever_goes_wrong_before_mail_defers_and_names_its_stage(
    run: Run, certificates: Certificates, stage: Stage, fault: Fault, trouble: Trouble, code: int
) -> None:
    async def scene() -> None:
        async with ScriptedUpstream(
            tls="starttls", certificate=certificates.good, users={"relay": "open sesame"}
        ) as upstream:
            upstream.script(stage, fault, times=None)
            greeting = SOON if fault is SILENCE else 20
            outcome = await refused(
                upstream,
                tls_ca=certificates.ca_path,
                auth="auto",
                username="relay",
                password=lambda: "open sesame",
                timeouts=replace(PATIENT, greeting=greeting),
            )
            assert (outcome.stage, outcome.trouble) == (stage, trouble)
            assert (outcome.reply.code if outcome.reply else 0) == code
            outcome.text.encode()
            assert outcome.text.isprintable()
            assert upstream.messages == []
            await upstream.until(lambda: upstream.open == 0)

    run(scene())


@pytest.mark.parametrize(
    ("fault", "trouble"),
    [
        (DROP, Trouble.DROPPED),
        (CLOSE, Trouble.DROPPED),
        (b"no TLS here\r\n" * 9, Trouble.TRANSIENT),
        (SILENCE, Trouble.TIMEOUT),
    ],
    ids=["reset", "closed", "plain text", "silence"],
)
@pytest.mark.parametrize("mode", ["starttls", "implicit"])
def test_a_handshake_that_fails_is_a_matter_of_tls(
    run: Run, certificates: Certificates, mode: str, fault: Fault, trouble: Trouble
) -> None:
    async def scene() -> None:
        async with ScriptedUpstream(tls=mode, certificate=certificates.good) as upstream:
            upstream.script("tls", fault, times=None)
            greeting = SOON if fault is SILENCE else 20
            outcome = await refused(upstream, tls_ca=certificates.ca_path, timeouts=replace(PATIENT, greeting=greeting))
            # Plain text may come before the handshake begins: then STARTTLS is what went wrong.
            early = isinstance(fault, bytes) and mode == "starttls"
            assert outcome.stage in ((Stage.STARTTLS, Stage.TLS) if early else (Stage.TLS,))
            assert outcome.trouble is trouble
            await upstream.until(lambda: upstream.open == 0)

    run(scene())


@pytest.mark.parametrize("mode", ["starttls", "implicit"])
@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("expired", "certificate has expired"),
        ("wrong_name", "certificate is for mail.example.net, smtp.example.net, not for localhost"),
        ("untrusted", "certificate is signed by an unknown authority"),
        ("self_signed", "certificate is self-signed"),
    ],
)
def test_a_bad_certificate_is_named_for_what_it_is_and_no_password_leaves(
    run: Run, certificates: Certificates, mode: str, kind: str, words: str
) -> None:
    async def scene() -> None:
        certificate = getattr(certificates, kind)
        async with ScriptedUpstream(tls=mode, certificate=certificate, users={"relay": "x"}) as upstream:
            outcome = await refused(
                upstream,
                host="localhost",
                tls_ca=certificates.ca_path,
                auth="auto",
                username="relay",
                password=lambda: "open sesame",
            )
            assert outcome.stage is Stage.TLS
            assert words in outcome.text
            assert upstream.auth_tries == []
            await upstream.until(lambda: upstream.open == 0)

    run(scene())


def test_a_bad_certificate_is_good_enough_where_the_configuration_says_so(run: Run, certificates: Certificates) -> None:
    async def scene() -> None:
        async with ScriptedUpstream(tls="implicit", certificate=certificates.self_signed) as upstream:
            connection = await connected(upstream, tls_verify=False)
            await connection.deliver(request())
            assert (await upstream.message()).tls
            await connection.close()

    run(scene())


def test_starttls_that_was_stripped_ends_the_connection_before_the_password(
    run: Run, certificates: Certificates
) -> None:
    async def scene() -> None:
        async with ScriptedUpstream(users={"relay": "x"}) as upstream:
            outcome = await refused(
                upstream,
                tls="starttls",
                tls_ca=certificates.ca_path,
                auth="auto",
                username="relay",
                password=lambda: "x",
            )
            assert outcome.stage is Stage.STARTTLS
            assert upstream.auth_tries == []
            assert [line.split()[0] for line in upstream.commands] == ["EHLO"]

    run(scene())


@pytest.mark.parametrize("text", ["454 4.7.0 TLS not available", "500 5.5.1 what?"])
def test_starttls_that_is_refused_ends_the_connection_before_the_password(
    run: Run, certificates: Certificates, text: str
) -> None:
    async def scene() -> None:
        async with ScriptedUpstream(tls="starttls", certificate=certificates.good, users={"relay": "x"}) as upstream:
            upstream.script("starttls", text)
            outcome = await refused(
                upstream, tls_ca=certificates.ca_path, auth="auto", username="relay", password=lambda: "x"
            )
            assert outcome.stage is Stage.STARTTLS
            assert upstream.auth_tries == []

    run(scene())


@pytest.mark.parametrize("injected", [b"250 injected\r\n", b"250", b"\r\n"])
def test_plain_text_behind_the_answer_to_starttls_is_fatal(
    run: Run, certificates: Certificates, injected: bytes
) -> None:
    async def scene() -> None:
        async with ScriptedUpstream(tls="starttls", certificate=certificates.good) as upstream:
            upstream.script("starttls", b"220 go on\r\n" + injected)
            outcome = await refused(upstream, tls_ca=certificates.ca_path)
            assert outcome.stage is Stage.STARTTLS
            assert outcome.trouble is Trouble.TRANSIENT

    run(scene())


def test_what_was_offered_before_tls_is_forgotten(run: Run, certificates: Certificates) -> None:
    async def scene() -> None:
        async with ScriptedUpstream(tls="starttls", certificate=certificates.good) as upstream:
            upstream.script("ehlo", "250-upstream.example\r\n250-SIZE 10\r\n250 STARTTLS")
            transport = transport_to(upstream, tls_ca=certificates.ca_path)
            connection = await transport.connect()
            assert isinstance(connection, SmtpConnection)
            assert transport.size_limit == 52428800
            await connection.close()
            assert [line.split()[0] for line in upstream.commands] == ["EHLO", "STARTTLS", "EHLO", "QUIT"]

    run(scene())


def test_a_connection_tells_until_when_the_certificate_is_good(run: Run, certificates: Certificates) -> None:
    async def scene() -> None:
        async with ScriptedUpstream(tls="starttls", certificate=certificates.good) as upstream:
            seen = Seen()
            connection = await transport_to(upstream, seen, tls_ca=certificates.ca_path).connect()
            assert isinstance(connection, SmtpConnection)
            await connection.close()
            (event,) = seen.events
            assert isinstance(event, UpstreamConnected)
            assert event.certificate_expires is not None
            assert event.certificate_expires.tzinfo is not None

    run(scene())


def test_a_ca_file_that_cannot_be_read_defers(run: Run, certificates: Certificates) -> None:
    async def scene() -> None:
        async with ScriptedUpstream(tls="implicit", certificate=certificates.good) as upstream:
            outcome = await refused(upstream, tls_ca="/nonexistent/ca.pem")
            assert outcome.stage is Stage.TLS
            assert "No such file" in outcome.text

    run(scene())


def test_a_ca_file_is_read_anew_after_a_reload(run: Run, certificates: Certificates, tmp_path: Any) -> None:
    async def scene() -> None:
        ca = tmp_path / "ca.pem"
        ca.write_bytes(certificates.self_signed.pem)
        async with ScriptedUpstream(tls="implicit", certificate=certificates.good) as upstream:
            transport = transport_to(upstream, tls_ca=str(ca))
            assert isinstance(await transport.connect(), Deferred)
            with open(certificates.ca_path, "rb") as good:
                ca.write_bytes(good.read())
            assert isinstance(await transport.connect(), Deferred)
            transport.reload()
            connection = await transport.connect()
            assert isinstance(connection, SmtpConnection)
            await connection.close()

    run(scene())


# AUTH


@pytest.mark.parametrize("mechanism", ["plain", "login", "cram-md5"])
@pytest.mark.parametrize("named", [True, False])
def test_each_mechanism_proves_who_we_are(run: Run, mechanism: str, named: bool) -> None:
    async def scene() -> None:
        async with ScriptedUpstream(users={"jan@example.nl": "geheim é"}, mechanisms=(mechanism.upper(),)) as upstream:
            auth = mechanism if named else "auto"
            connection = await connected(upstream, auth=auth, username="jan@example.nl", password=lambda: "geheim é")
            await connection.deliver(request())
            assert (await upstream.message()).user == "jan@example.nl"
            await connection.close()

    run(scene())


@pytest.mark.parametrize("mechanisms", [("CRAM-MD5", "LOGIN", "PLAIN"), ("LOGIN", "CRAM-MD5"), ("CRAM-MD5",)])
def test_a_refused_password_is_tried_once_and_by_one_mechanism(run: Run, mechanisms: tuple[str, ...]) -> None:
    async def scene() -> None:
        async with ScriptedUpstream(users={"relay": "right"}, mechanisms=mechanisms) as upstream:
            outcome = await refused(upstream, auth="auto", username="relay", password=lambda: "wrong password")
            assert (outcome.stage, outcome.trouble) == (Stage.AUTH, Trouble.PERMANENT)
            assert outcome.reply == Reply(535, "5.7.8", "wrong name or password")
            assert len(upstream.auth_tries) == 1
            order = [one for one in ("PLAIN", "LOGIN", "CRAM-MD5") if one in mechanisms]
            assert upstream.auth_tries[0].mechanism == order[0]

    run(scene())


def test_no_mechanism_in_common_defers_without_a_try(run: Run) -> None:
    async def scene() -> None:
        async with ScriptedUpstream(users={"relay": "x"}, mechanisms=("XOAUTH2", "GSSAPI")) as upstream:
            outcome = await refused(upstream, auth="auto", username="relay", password=lambda: "x")
            assert outcome.stage is Stage.AUTH
            assert "XOAUTH2 GSSAPI" in outcome.text
        async with ScriptedUpstream() as upstream:
            outcome = await refused(upstream, auth="plain", username="relay", password=lambda: "x")
            assert outcome.stage is Stage.AUTH
            assert "no AUTH" in outcome.text

    run(scene())


def test_a_secret_that_cannot_be_read_defers_with_its_own_words(run: Run) -> None:
    def unreadable() -> str:
        raise RelayError("the password file of own cannot be read")

    async def scene() -> None:
        async with ScriptedUpstream(users={"relay": "x"}) as upstream:
            outcome = await refused(upstream, auth="auto", username="relay", password=unreadable)
            assert (outcome.stage, outcome.text) == (Stage.AUTH, "the password file of own cannot be read")
            assert upstream.auth_tries == []

    run(scene())


def test_an_upstream_that_quotes_the_password_is_not_quoted(run: Run) -> None:
    async def scene() -> None:
        async with ScriptedUpstream(users={"relay": "x"}) as upstream:
            upstream.script("auth", lambda _: "501 5.5.4 bad: " + upstream.commands[-1] + " open sesame")
            outcome = await refused(upstream, auth="plain", username="relay", password=lambda: "open sesame")
            assert "open sesame" not in outcome.text
            assert "AHJlbGF5" not in outcome.text

    run(scene())


@pytest.mark.parametrize("allowed", [False, True])
def test_a_password_goes_unencrypted_to_another_host_only_where_that_is_allowed(
    run: Run, monkeypatch: pytest.MonkeyPatch, allowed: bool
) -> None:
    # Loopback is all that can be relied on here: say that it is not this machine.
    monkeypatch.setattr("relay.transport.smtp._Opening.peer_is_here", False)

    async def scene() -> None:
        async with ScriptedUpstream(users={"relay": "x"}) as upstream:
            transport = transport_to(
                upstream, auth="auto", username="relay", password=lambda: "x", cleartext_auth=allowed
            )
            outcome = await transport.connect()
            assert len(upstream.auth_tries) == allowed
            if isinstance(outcome, SmtpConnection):
                await outcome.close()
            else:
                assert outcome.stage is Stage.AUTH
                assert not allowed

    run(scene())


def test_neither_name_nor_password_is_in_the_settings_repr(run: Run) -> None:
    async def scene() -> None:
        async with ScriptedUpstream() as upstream:
            transport = transport_to(upstream, username="jan@example.nl", password=lambda: "x")
            assert "jan@" not in repr(transport.settings)

    run(scene())


# Names and addresses


def test_a_refused_connection_is_a_matter_of_connect(run: Run) -> None:
    async def scene() -> None:
        async with ScriptedUpstream() as upstream:
            await upstream.stop_listening()
            outcome = await refused(upstream)
            assert (outcome.stage, outcome.trouble) == (Stage.CONNECT, Trouble.TRANSIENT)
            assert "refused" in outcome.text.lower()

    run(scene())


def test_a_name_that_does_not_exist_is_deferred(run: Run) -> None:
    async def scene() -> None:
        async with ScriptedUpstream() as upstream:
            outcome = await refused(upstream, host="smtp.nowhere.invalid")
            assert outcome.stage is Stage.DNS
            outcome = await refused(upstream, host="a" * 70 + ".example")
            assert outcome.stage is Stage.DNS

    run(scene())


def test_a_resolver_that_never_answers_is_given_up(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answer.wait() and [])

    async def scene() -> None:
        async with ScriptedUpstream() as upstream:
            outcome = await refused(upstream, host="smtp.example.nl", timeouts=HASTY)
            assert (outcome.stage, outcome.trouble) == (Stage.DNS, Trouble.TIMEOUT)

    try:
        run(scene())
    finally:
        answer.set()


def address(host: str, port: int) -> dial.Address:
    return (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port))


@contextmanager
def silent_address() -> Iterator[dial.Address]:
    """The address of a listener whose backlog is full: it lets nobody in."""
    with ExitStack() as open_sockets:
        full = open_sockets.enter_context(socket.socket())
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):
            filler = open_sockets.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        yield address(*full.getsockname())


def test_every_address_of_a_name_is_tried(run: Run) -> None:
    async def scene() -> None:
        async with ScriptedUpstream() as upstream:
            with socket.socket() as closed:
                closed.bind(("127.0.0.1", 0))
                addresses = [address(*closed.getsockname()), address(upstream.host, upstream.port)]
                sock = await dial.connect(addresses, 20)
                assert sock.getpeername() == (upstream.host, upstream.port)
                sock.close()

    run(scene())


def test_an_address_that_is_silent_does_not_keep_the_next_one_waiting(run: Run) -> None:
    async def scene() -> None:
        async with ScriptedUpstream() as upstream:
            with silent_address() as silent:
                sock = await dial.connect([silent, address(upstream.host, upstream.port)], 20)
                assert sock.getpeername() == (upstream.host, upstream.port)
                with pytest.raises(TimeoutError):
                    await dial.connect([silent], 0.05)
                sock.close()

    run(scene())


def test_of_several_errors_that_of_the_last_address_is_told(run: Run) -> None:
    async def scene() -> None:
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            refuses, unreachable = address(*closed.getsockname()), address("255.255.255.255", 25)
            for addresses, told in (
                ([refuses], "Connection refused"),
                ([unreachable, refuses], "Connection refused"),
                ([refuses, unreachable], "Network is unreachable"),
                ([unreachable, refuses, refuses], "Connection refused"),
            ):
                with pytest.raises(OSError, match="Errno") as caught:
                    await dial.connect(addresses, 20)
                assert reason(caught.value) == told

    run(scene())


def test_a_cancellation_that_meets_an_answer_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second address has answered, and the call to the first, which is silent, is being given up: then it comes."""
    real = asyncio.SelectorEventLoop.sock_connect

    async def given_up(loop: asyncio.SelectorEventLoop, sock: socket.socket, address: object) -> None:
        try:
            await real(loop, sock, address)
        except asyncio.CancelledError:
            call.cancel()
            raise

    monkeypatch.setattr(asyncio.SelectorEventLoop, "sock_connect", given_up)

    async def scene() -> None:
        nonlocal call
        async with ScriptedUpstream() as upstream:
            with silent_address() as silent:
                call = asyncio.create_task(dial.connect([silent, address(upstream.host, upstream.port)], 20))
                await asyncio.wait([call])
                assert call.cancelled()

    call: asyncio.Task[socket.socket]
    asyncio.run(scene())


def test_what_was_dialled_sends_without_delay(run: Run) -> None:
    async def scene() -> None:
        async with ScriptedUpstream() as upstream:
            sock = await dial.connect(await dial.Dialer(upstream.host, upstream.port).resolve(20), 20)
            transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=sock)
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            transport.abort()

    run(scene())


@pytest.mark.parametrize(
    ("hostname", "said"), [("relay.example.nl", "relay.example.nl"), ("server1", "[127.0.0.1]"), ("", "[127.0.0.1]")]
)
def test_ehlo_says_a_name_with_a_dot_or_the_address(run: Run, hostname: str, said: str) -> None:
    async def scene() -> None:
        async with ScriptedUpstream() as upstream:
            connection = await connected(upstream, hostname=hostname)
            await connection.close()
            assert upstream.commands == [f"EHLO {said}", "QUIT"]

    run(scene())


def test_a_connect_that_is_cancelled_leaves_no_connection(run: Run, certificates: Certificates) -> None:
    async def scene() -> None:
        for stage in ("banner", "tls", "auth"):
            async with ScriptedUpstream(
                tls="starttls", certificate=certificates.good, users={"relay": "x"}
            ) as upstream:
                reached = asyncio.Event()

                def stall(_: object, reached: asyncio.Event = reached) -> Act:
                    reached.set()
                    return SILENCE

                upstream.script(stage, stall, times=None)
                transport = transport_to(
                    upstream, tls_ca=certificates.ca_path, auth="auto", username="relay", password=lambda: "x"
                )
                task = asyncio.create_task(transport.connect())
                await reached.wait()
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                await upstream.until(partial(_nobody, upstream))

    run(scene())


def _nobody(upstream: ScriptedUpstream) -> bool:
    return upstream.open == 0


def test_the_times_are_those_that_are_promised() -> None:
    assert configured.timeouts() == SmtpTimeouts(
        connect=15, greeting=60, command=300, data=120, progress=180, final=600
    )
