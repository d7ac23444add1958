"""`tls_profile: legacy` at a real door: software that knows nothing newer than TLS 1.0 hands in its mail."""

from __future__ import annotations

import ssl
import warnings

import pytest
import trustme

from relay.config import tls
from relay.errors import RelayError
from relay.events import ConnectionDenied
from tests.ingress.house import HouseOf, on_both_loops
from tests.kit.certificates import Certificates


def has_legacy() -> bool:
    try:
        tls.server_context("legacy")
    except RelayError:
        return False
    return True


pytestmark = pytest.mark.skipif(not has_legacy(), reason="an OpenSSL without TLS 1.0 and 1.1")


def server(certificates: Certificates, profile: str) -> ssl.SSLContext:
    context = tls.server_context(profile)
    with trustme.Blob(certificates.good.pem).tempfile() as path:
        context.load_cert_chain(path)
    return context


def old_client(certificates: Certificates, version: ssl.TLSVersion) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=certificates.ca_path)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = version
    return context


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("kind", ["starttls", "implicit"])
@on_both_loops
async def test_old_and_new_software_delivers_to_a_legacy_door(
    house_of: HouseOf, certificates: Certificates, kind: str, version: ssl.TLSVersion
) -> None:
    async with house_of(tls=kind, tls_context=server(certificates, "legacy")) as house:
        if kind == "implicit":
            client = await house.client(old_client(certificates, version))
        else:
            client = await house.client()
            assert (await client.say(b"STARTTLS"))[:3] == b"220"
            await client.start_tls(old_client(certificates, version))
            assert (await client.say(b"EHLO pc.example.nl"))[:3] == b"250"
        assert (await client.mail())[:3] == b"250"
        said = (await house.entries())[0].submission.peer.tls
        assert said is not None
        assert client.writer.get_extra_info("ssl_object").version() == version.name.replace("_", ".").replace(
            "v1.0", "v1"
        )


@on_both_loops
async def test_old_software_is_refused_at_a_modern_door_and_told_of(
    house_of: HouseOf, certificates: Certificates
) -> None:
    async with house_of(tls="starttls", tls_context=server(certificates, "modern")) as house:
        client = await house.client()
        assert (await client.say(b"STARTTLS"))[:3] == b"220"
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await client.start_tls(old_client(certificates, ssl.TLSVersion.TLSv1_1))
        (denied,) = await house.observed.until(ConnectionDenied)
        assert denied.reason == "tls_error"
