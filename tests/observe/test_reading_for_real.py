"""What really goes wrong on the way to an upstream leads to the remedy that helps: real sockets, real TLS."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from relay.errors import RelayError
from relay.mail.outcome import Deferred
from relay.observe.reading import connection_remedy
from tests.kit.certificates import Certificates
from tests.kit.house import free_port
from tests.kit.upstream import ScriptedUpstream
from tests.transport.parts import PATIENT, SOON, refused, transport_to


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
