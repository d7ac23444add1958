"""`tls_profile`: which versions of TLS a listener speaks, seen in real handshakes."""

from __future__ import annotations

import ssl
import warnings
from pathlib import Path

import pytest

from relay import wiring
from relay.config import outside, tls
from relay.config.load import parse
from relay.errors import BadConfig, RelayError
from tests.kit.certificates import authority

OLD = (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1)
NEW = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)


@pytest.fixture
def configured(tmp_path: Path) -> str:
    """A configuration with TLS; PROFILE stands for its profile."""
    pem = tmp_path / "door.pem"
    authority().issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(pem))
    return (
        "upstreams:\n  own: {host: a.nl}\nlisteners:\n"
        f"  - {{tls: starttls, tls_profile: PROFILE, certificate: {pem}, key: {pem}}}\n"
    )


def only(version: ssl.TLSVersion) -> ssl.SSLContext:
    """A client that knows one version, as software of its time does."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.maximum_version = version
        context.minimum_version = version
    return context


def spoken(server: ssl.SSLContext, client: ssl.SSLContext) -> str | None:
    """The version that the two agree on; raises ssl.SSLError where they do not."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    while ends:
        for end in list(ends):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            ends.remove(end)
            version = end.version()
    return version


def context_of(text: str) -> ssl.SSLContext:
    context = wiring.listener_settings(0, parse(text)).tls_context
    assert context is not None
    return context


@pytest.mark.parametrize("version", NEW)
@pytest.mark.parametrize("profile", ["modern", "legacy"])
def test_what_is_new_is_spoken_at_every_door(configured: str, profile: str, version: ssl.TLSVersion) -> None:
    context = context_of(configured.replace("PROFILE", profile))
    assert spoken(context, only(version)) == version.name.replace("_", ".")


@pytest.mark.parametrize("version", OLD)
def test_old_software_is_refused_unless_the_door_is_of_the_legacy_kind(
    configured: str, version: ssl.TLSVersion
) -> None:
    with pytest.raises(ssl.SSLError):
        spoken(context_of(configured.replace("PROFILE", "modern")), only(version))
    assert spoken(context_of(configured.replace("PROFILE", "legacy")), only(version)) == version.name.replace("_", ".")


def test_without_a_profile_a_door_is_modern(configured: str) -> None:
    context = context_of(configured.replace("tls_profile: PROFILE, ", ""))
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2


def test_no_profile_takes_a_cipher_that_encrypts_nothing_or_proves_nothing() -> None:
    for profile in ("modern", "legacy"):
        ciphers = tls.server_context(profile).get_ciphers()
        assert all(cipher["strength_bits"] > 0 for cipher in ciphers)
        assert not [cipher["name"] for cipher in ciphers if "NULL" in cipher["name"] or "ADH" in cipher["name"]]
        assert not [cipher["name"] for cipher in ciphers if cipher["auth"] == "auth-null"]


def test_an_openssl_without_old_tls_is_told_where_the_profile_stands(
    configured: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssl, "HAS_TLSv1", False)
    with pytest.raises(RelayError, match=r"has no TLS 1\.0 and 1\.1"):
        tls.server_context("legacy")
    tls.server_context("modern")
    config = parse(configured.replace("PROFILE", "legacy"))
    (problem,) = outside.problems(config, serving=False)
    assert problem.where == "config.yaml:4: listeners[0].tls_profile"
    assert (problem.problem, problem.hint) == (
        f"{ssl.OPENSSL_VERSION} has no TLS 1.0 and 1.1",
        "write tls_profile: modern",
    )
    with pytest.raises(BadConfig) as caught:
        wiring.listener_settings(0, config)
    assert str(caught.value) == str(problem)
