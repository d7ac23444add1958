"""What really goes wrong on the way to an upstream leads to the remedy that helps: real sockets, real TLS."""

from __future__ import annotations

import socket
import ssl
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from relay.errors import RelayError
from relay.mail.outcome import Deferred
from relay.observe.provider_texts import connection_remedy
from tests.kit.certificates import Certificates
from tests.kit.house import free_port
from tests.kit.sentences import EN
from tests.kit.upstream import ScriptedUpstream
from tests.transport.parts import PATIENT, SOON, connected, refused, request, transport_to


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


def remedy(outcome: Deferred) -> str:
    code, status = (outcome.reply.code, outcome.reply.status) if outcome.reply else (0, "")
    return connection_remedy(outcome.stage, outcome.trouble, code, status, outcome.text)


async def remedy_for(certificates: Certificates, *, upstream: dict[str, Any], way: dict[str, Any]) -> str:
    terms = {"tls": "starttls", "certificate": certificates.good, **upstream}
    async with ScriptedUpstream(**terms) as there:
        return remedy(await refused(there, **{"host": "localhost", "tls_ca": certificates.ca_path, **way}))


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("expired", "certificate-expired"),
        ("wrong_name", "certificate-name"),
        ("untrusted", "certificate-authority"),
        ("self_signed", "certificate-authority"),
    ],
)
async def test_a_bad_certificate(certificates: Certificates, kind: str, expected: str) -> None:
    assert await remedy_for(certificates, upstream={"certificate": getattr(certificates, kind)}, way={}) == expected


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("ciphers", "newest", "expected"),
    [
        ("AES128-SHA:@SECLEVEL=0", ssl.TLSVersion.TLSv1_2, "tls-ciphers"),  # case tls12-without-forward-secrecy
        ("AES256-GCM-SHA384:@SECLEVEL=0", ssl.TLSVersion.TLSv1_2, "tls-ciphers"),
        ("ALL:@SECLEVEL=0", ssl.TLSVersion.TLSv1_1, "tls"),
    ],
)
async def test_an_old_server_and_what_takes_it(
    certificates: Certificates, ciphers: str, newest: ssl.TLSVersion, expected: str
) -> None:
    context = certificates.rsa.server()
    context.set_ciphers(ciphers)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = newest
    way = {"host": "localhost", "tls_ca": certificates.ca_path}
    with _one_that_says_why(context) as port:
        outcome = await transport_to(ScriptedUpstream(tls="starttls"), port=port, **way).connect()
    assert isinstance(outcome, Deferred)
    assert remedy(outcome) == expected, outcome.text
    assert "tls_profile: legacy" in EN["remedy"][expected]
    async with ScriptedUpstream(tls="starttls", certificate=certificates.rsa) as there:
        there._context = context
        connection = await connected(there, **way, tls_profile="legacy")
        await connection.deliver(request())
        assert (await there.message()).tls
        await connection.close()


@contextmanager
def _one_that_says_why(context: ssl.SSLContext) -> Iterator[int]:
    """The port of a server whose handshake fails with an alert (asyncio's own fails without)."""

    def serve() -> None:
        sock, _ = listening.accept()
        with sock, suppress(OSError):
            sock.sendall(b"220 old.example ESMTP\r\n")
            for reply in (b"250-old.example\r\n250 STARTTLS\r\n", b"220 go on\r\n"):
                sock.recv(1000)
                sock.sendall(reply)
            context.wrap_socket(sock, server_side=True)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve)
        thread.start()
        yield listening.getsockname()[1]
        thread.join()


@pytest.mark.asyncio
async def test_legacy_verifies_the_certificate_all_the_same(certificates: Certificates) -> None:
    way = {"tls_profile": "legacy"}
    assert await remedy_for(certificates, upstream={"certificate": certificates.expired}, way=way) == (
        "certificate-expired"
    )


@pytest.mark.asyncio
async def test_a_wrong_password(certificates: Certificates) -> None:
    login = {"auth": "auto", "username": "relay", "password": lambda: "an old password"}
    assert await remedy_for(certificates, upstream={"users": {"relay": "a new one"}}, way=login) == "password"


@pytest.mark.asyncio
async def test_a_password_that_cannot_be_read(certificates: Certificates) -> None:
    def missing() -> str:
        raise RelayError("/run/credentials/own-password does not exist")

    login = {"auth": "auto", "username": "relay", "password": missing}
    assert await remedy_for(certificates, upstream={"users": {"relay": "x"}}, way=login) == "secret"


@pytest.mark.asyncio
async def test_an_upstream_that_knows_no_login(certificates: Certificates) -> None:
    login = {"auth": "auto", "username": "relay", "password": lambda: "secret"}
    assert await remedy_for(certificates, upstream={}, way=login) == "mechanism"


@pytest.mark.asyncio
async def test_starttls_where_there_is_none(certificates: Certificates) -> None:
    assert await remedy_for(certificates, upstream={"tls": "none"}, way={"tls": "starttls"}) == "no-starttls"


@pytest.mark.asyncio
async def test_implicit_tls_at_a_port_for_starttls(certificates: Certificates) -> None:
    assert await remedy_for(certificates, upstream={}, way={"tls": "implicit"}) == "port-and-tls"


@pytest.mark.asyncio
async def test_starttls_at_a_port_for_implicit_tls(certificates: Certificates) -> None:
    way = {"tls": "starttls", "timeouts": replace(PATIENT, greeting=SOON)}
    assert await remedy_for(certificates, upstream={"tls": "implicit"}, way=way) == "port-and-tls"


@pytest.mark.asyncio
async def test_a_ca_file_that_is_not_there(certificates: Certificates, tmp_path: Path) -> None:
    assert await remedy_for(certificates, upstream={}, way={"tls_ca": str(tmp_path / "ca.pem")}) == "tls-files"


@pytest.mark.asyncio
async def test_a_port_where_nobody_listens() -> None:
    async with ScriptedUpstream(tls="none") as there:
        transport = transport_to(there, port=free_port())
    outcome = await transport.connect()
    assert isinstance(outcome, Deferred)
    assert remedy(outcome) == "connection-refused"


@pytest.mark.asyncio
async def test_a_name_that_does_not_exist(certificates: Certificates) -> None:
    assert await remedy_for(certificates, upstream={}, way={"host": "smtp.example.invalid"}) == "dns"
