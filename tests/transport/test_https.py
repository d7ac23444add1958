"""The way out to an HTTPS endpoint, against a real server with real TLS."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import logging
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from relay.durable import Directory
from relay.errors import RelayError
from relay.events import UpstreamConnected
from relay.mail.outcome import Deferred, Delivered, Failed, Outcome, Stage, Trouble
from relay.mail.reply import Reply
from relay.policy.pattern import code_pattern
from relay.queue.content import FileContent
from relay.transport import exchange, pin
from relay.transport.exchange import HttpsConnection
from relay.transport.https import HttpsTransport
from relay.transport.port import CALLED_OFF, Delivery
from tests.kit import configured
from tests.kit.certificates import Certificate, Certificates, authority
from tests.kit.endpoint import Endpoint, answer, hangs_up, raw, says, stalls, without_end
from tests.transport.conftest import Run
from tests.transport.parts import Seen, request

CODE = "913557"
CODE_MAIL = (
    b"From: Inlog <noreply@example.nl>\r\nTo: piet@example.org\r\nSubject: =?utf-8?q?Uw_sessiecode_caf=C3=A9?=\r\n"
    b"Message-ID: <1@example.nl>\r\n\r\nDe code is " + CODE.encode() + b".\r\nDeel hem niet.\r\n"
)
_TAKEN = b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n"
TERMS = {"url", "host", "method", "template", "code_pattern", "headers", "on_client_error", "total"}


def transport_to(
    endpoint: Endpoint, certificates: Certificates, observer: Seen | None = None, **settings: Any
) -> HttpsTransport:
    terms: dict[str, Any] = {"url": endpoint.url, "host": "127.0.0.1", "total": 20.0}
    terms |= {name: settings.pop(name) for name in TERMS & settings.keys()}
    usual = {"name": "vendor", "port": endpoint.port, "connect": 20.0, "tls_ca": certificates.ca_path}
    return HttpsTransport(configured.https(terms, **usual | settings), observer=observer or Seen())


async def connected(endpoint: Endpoint, certificates: Certificates, **settings: Any) -> HttpsConnection:
    connection = await transport_to(endpoint, certificates, **settings).connect()
    assert isinstance(connection, HttpsConnection), connection
    return connection


async def refused(endpoint: Endpoint, certificates: Certificates, **settings: Any) -> Deferred:
    """How far a connection that does not come about gets."""
    outcome = await transport_to(endpoint, certificates, **settings).connect()
    assert isinstance(outcome, Deferred), outcome
    assert (outcome.upstream_sick, outcome.in_doubt) == (True, False)
    assert endpoint.requests == []
    return outcome


async def sent(endpoint: Endpoint, certificates: Certificates, message: bytes = CODE_MAIL, **settings: Any) -> Delivery:
    """One message over a connection of its own."""
    asked = settings.pop("asked", {})
    connection = await connected(endpoint, certificates, **settings)
    try:
        return await connection.deliver(request(message=message, **asked))
    finally:
        await connection.close()


async def outcome_of(endpoint: Endpoint, certificates: Certificates, **settings: Any) -> Outcome:
    (outcome,) = (await sent(endpoint, certificates, **settings)).outcomes
    return outcome


# What is sent


def test_the_fields_of_a_message_arrive_as_json(run: Run, certificates: Certificates) -> None:
    async def scene() -> None:
        async with Endpoint(certificates.good) as endpoint:
            pattern = code_pattern(r"/code is (\d{6})/")
            outcome = await outcome_of(endpoint, certificates, code_pattern=pattern)
            assert outcome == Delivered(Reply(250, "2.0.202", "HTTP 202 Accepted"))
            asked = await endpoint.request()
            assert (asked.method, asked.path) == ("POST", "/v1/messages")
            assert asked.headers["Content-Type"] == "application/json"
            assert asked.key == "7QK3Z0M5X2A1"
            assert asked.json == {
                "recipient": "piet@example.org",
                "sender": "noreply@example.nl",
                "subject": "Uw sessiecode café",
                "text": f"De code is {CODE}.\nDeel hem niet.\n",
                "html": None,
                "code": CODE,
                "message_id": "<1@example.nl>",
                "queue_id": "7QK3Z0M5X2A1",
            }

    run(scene())


def test_the_template_of_the_configuration_is_filled_in_however_deep(run: Run, certificates: Certificates) -> None:
    async def scene() -> None:
        async with Endpoint(certificates.good) as endpoint:
            template = {"to": ({"email": "{recipient}"},), "title": "[{queue_id}] {subject}", "html": "{html}", "n": 1}
            headers = (("X-Customer", "12"),)
            await sent(endpoint, certificates, template=template, method="PUT", headers=headers)
            asked = await endpoint.request()
            assert asked.method == "PUT"
            assert asked.headers["X-Customer"] == "12"
            assert asked.json == {
                "to": [{"email": "piet@example.org"}],
                "title": "[7QK3Z0M5X2A1] Uw sessiecode café",
                "html": None,
                "n": 1,
            }

    run(scene())


def test_the_message_itself_arrives_byte_for_byte_with_its_envelope_beside_it(
    run: Run, certificates: Certificates
) -> None:
    async def scene() -> None:
        async with Endpoint(certificates.good) as endpoint:
            message = b"From: jan@example.nl\r\n\r\n\x00\xff.\r\n..\r\n"
            await sent(endpoint, certificates, message, template=None)
            asked = await endpoint.request()
            assert asked.body == message
            assert asked.headers["Content-Type"] == "message/rfc822"
            assert asked.headers["X-Relay-Recipient"] == "piet@example.org"
            assert asked.headers["X-Relay-Sender"] == "jan@example.nl"

    run(scene())


def test_addresses_cannot_bring_header_fields_of_their_own(run: Run, certificates: Certificates) -> None:
    async def scene() -> None:
        async with Endpoint(certificates.good) as endpoint:
            connection = await connected(endpoint, certificates, template=None)
            await connection.deliver(request('"a\r\nX-Evil: 1 %"@exämple.org', reverse_path=None))
            await connection.close()
            asked = await endpoint.request()
            assert asked.headers["X-Relay-Recipient"] == '"a%0D%0AX-Evil:%201%20%25"@ex%C3%A4mple.org'
            assert asked.headers["X-Relay-Sender"] == ""
            assert "X-Evil" not in asked.headers

    run(scene())


def test_a_large_message_that_lies_in_a_file_arrives_whole_and_signed(
    run: Run, certificates: Certificates, tmp_path: Path
) -> None:
    head, body = b"From: a@b.nl\r\n\r\n", bytes(range(256)) * 8_000
    (tmp_path / "spool").write_bytes(head + body)

    async def scene() -> None:
        async with Endpoint(certificates.good) as endpoint:
            content = FileContent(Directory(tmp_path), "spool", len(head) + len(body), head)
            connection = await connected(
                endpoint, certificates, template=None, auth="hmac-sha256", secret=lambda: "geheim"
            )
            (outcome,) = (await connection.deliver(request(content=content))).outcomes
            await connection.close()
            assert isinstance(outcome, Delivered)
            asked = await endpoint.request()
            assert asked.body == head + body
            assert_signed(asked.headers, asked.body)

    run(scene())


def test_content_that_cannot_be_read_is_an_error_and_nothing_arrives(
    run: Run, certificates: Certificates, tmp_path: Path
) -> None:
    async def scene() -> None:
        async with Endpoint(certificates.good) as endpoint:
            connection = await connected(endpoint, certificates, template=None)
            missing = FileContent(Directory(tmp_path), "gone", 10_000, b"A: b\r\n\r\n")
            with pytest.raises(OSError, match="No such file"):
                await connection.deliver(request(content=missing))
            assert not connection.usable
            assert endpoint.requests == []

    run(scene())


@pytest.mark.parametrize(
    ("message", "code", "status"),
    [
        (b"Subject: x\r\n\r\n" + b"x" * 51_200, 552, "5.3.4"),
        (
            b"".join(b"Content-Type:multipart/m;boundary=%X\n\n--%X\n" % (n, n) for n in range(1_100)),
            554,
            "5.6.0",
        ),
    ],
)
def test_a_message_that_cannot_be_put_into_fields_is_left_to_others_unsent(
    run: Run, certificates: Certificates, message: bytes, code: int, status: str
) -> None:
    async def scene() -> None:
        async with Endpoint(certificates.good) as endpoint:
            delivery = await sent(endpoint, certificates, message)
            (outcome,) = delivery.outcomes
            assert isinstance(outcome, Failed)
            assert (outcome.stage, outcome.unasked) == (Stage.HTTP, True)
            assert (outcome.reply.code, outcome.reply.status) == (code, status)
            assert delivery.sick is None
            assert endpoint.requests == []

    run(scene())


@pytest.mark.parametrize("template", [None, {"to": "{recipient}"}])
def test_a_message_that_goes_another_way_is_not_sent_and_the_connection_stays(
    run: Run, certificates: Certificates, template: Any
) -> None:
    class Gate:
        contested = True
        opens = False

        async def __call__(self) -> bool:
            assert endpoint.requests == []
            return self.opens

    gate = Gate()
    endpoint = Endpoint(certificates.good)

    async def scene() -> None:
        async with endpoint:
            connection = await connected(endpoint, certificates, template=template)
            delivery = await connection.deliver(request(gate=gate))
            assert delivery == Delivery((CALLED_OFF,))
            assert (endpoint.requests, connection.usable) == ([], True)
            gate.opens = True
            delivery = await connection.deliver(request(gate=gate))
            assert [type(outcome) for outcome in delivery.outcomes] == [Delivered]
            await connection.close()

    run(scene())


def test_the_key_is_the_queue_id_and_counts_recipients_beyond_the_first(run: Run, certificates: Certificates) -> None:
    async def scene() -> None:
        async with Endpoint(certificates.good) as endpoint:
            connection = await connected(endpoint, certificates)
            for place in (0, 1, 11, 1):
                await connection.deliver(request(places=(place,)))
            await connection.close()
            assert [asked.key for asked in endpoint.requests] == [
                "7QK3Z0M5X2A1",
                "7QK3Z0M5X2A1-2",
                "7QK3Z0M5X2A1-12",
                "7QK3Z0M5X2A1-2",
            ]
            assert endpoint.connections == 1

    run(scene())


# Who sends


@pytest.mark.parametrize(
    ("settings", "header", "value"),
    [
        ({"auth": "bearer"}, "Authorization", "Bearer geheim"),
        ({"auth": "basic", "username": "jan"}, "Authorization", f"Basic {base64.b64encode(b'jan:geheim').decode()}"),
        ({"auth": "header", "auth_header": "X-Api-Key"}, "X-Api-Key", "geheim"),
    ],
)
def test_a_request_says_who_sends_it(
    run: Run, certificates: Certificates, settings: dict[str, Any], header: str, value: str
) -> None:
    async def scene() -> None:
        async with Endpoint(certificates.good) as endpoint:
            await sent(endpoint, certificates, secret=lambda: "geheim", **settings)
            assert (await endpoint.request()).headers[header] == value

    run(scene())


def assert_signed(headers: dict[str, str], body: bytes) -> None:
    """As the contract has it, and with nothing of the relay's."""
    moment = headers["X-Relay-Timestamp"]
    assert abs(int(moment) - datetime.now(UTC).timestamp()) < 60
    expected = hmac.new(b"geheim", moment.encode() + b"." + body, hashlib.sha256).hexdigest()
    assert headers["X-Relay-Signature"] == "sha256=" + expected


def test_a_signature_is_of_the_moment_and_the_body(run: Run, certificates: Certificates) -> None:
    async def scene() -> None:
        async with Endpoint(certificates.good) as endpoint:
            await sent(endpoint, certificates, auth="hmac-sha256", secret=lambda: "geheim")
            asked = await endpoint.request()
            assert_signed(asked.headers, asked.body)
            assert "geheim" not in str(asked.headers)

    run(scene())


def test_a_secret_that_cannot_be_read_or_sent_ends_before_the_connection(run: Run, certificates: Certificates) -> None:
    def missing() -> str:
        raise RelayError("password file /x does not exist")

    async def scene() -> None:
        async with Endpoint(certificates.good) as endpoint:
            outcome = await refused(endpoint, certificates, auth="bearer", secret=missing)
            assert (outcome.stage, outcome.trouble) == (Stage.AUTH, Trouble.TRANSIENT)
            assert outcome.text == "password file /x does not exist"
            outcome = await refused(endpoint, certificates, auth="bearer", secret=lambda: "gehéim")
            assert (outcome.stage, "héim" in outcome.text) == (Stage.AUTH, False)
            assert endpoint.connections == 0

    run(scene())


# Whom it is told


@pytest.mark.parametrize("kind", ["expired", "wrong_name", "untrusted", "self_signed"])
def test_a_certificate_that_is_not_good_ends_the_connection(run: Run, certificates: Certificates, kind: str) -> None:
    async def scene() -> None:
        async with Endpoint(getattr(certificates, kind)) as endpoint:
            outcome = await refused(endpoint, certificates)
            assert (outcome.stage, outcome.trouble) == (Stage.TLS, Trouble.TRANSIENT)
            assert "certificate" in outcome.text

    run(scene())


def spki(certificate: Certificate) -> str:
    """The pin of a key, by somebody else's reading of the certificate."""
    key = x509.load_pem_x509_certificates(certificate.pem)[0].public_key()
    return base64.b64encode(
        hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()
    ).decode()


def test_a_pinned_key_is_asked_for_besides_a_good_certificate(run: Run, certificates: Certificates) -> None:
    other = spki(certificates.wrong_name)

    async def scene() -> None:
        async with Endpoint(certificates.good) as endpoint:
            outcome = await refused(endpoint, certificates, tls_pin=(other,))
            assert (outcome.stage, outcome.text) == (Stage.TLS, "the upstream's key is none of those in tls_pin")
            pins = (other, spki(certificates.good))
            assert isinstance(await outcome_of(endpoint, certificates, tls_pin=pins), Delivered)
        async with Endpoint(certificates.untrusted) as endpoint:
            outcome = await refused(endpoint, certificates, tls_pin=(spki(certificates.untrusted),))
            assert outcome.stage is Stage.TLS

    run(scene())


def test_the_pin_of_a_key_is_read_strictly(certificates: Certificates) -> None:
    certificate = x509.load_pem_x509_certificates(certificates.good.pem)[0]
    der = certificate.public_bytes(Encoding.DER)
    assert pin.of(der) == spki(certificates.good)
    for bad in (b"", der[:-1], der + b"\0", b"\x31" + der[1:], b"\x30\x80" + der[4:], der[:4] + b"\x04" + der[5:]):
        with pytest.raises(ValueError, match="parsing"):
            pin.of(bad)


# `openssl genpkey -algorithm RSA-PSS` and `openssl req -x509`
RSA_PSS = base64.b64decode(
    "MIICXDCCAZGgAwIBAgIUUnD9brAeI4Uw3WwlqU5oqJux3LowQQYJKoZIhvcNAQEKMDSgDzANBglghkgBZQMEAgEFAKEcMBoGCSqGSIb3DQEB"
    "CDANBglghkgBZQMEAgEFAKIDAgFeMAwxCjAIBgNVBAMMAWEwIBcNMjYxMjAxMTEwMDE0WhgPMjEyNjExMDcxMTAwMTRaMAwxCjAIBgNVBAMM"
    "AWEwgZ0wCwYJKoZIhvcNAQEKA4GNADCBiQKBgQDWcdQAlF2ZQ3kCgpZIBdte254sSyXysWkbJjcSCb2oZF94klNylbqsXxLEk5ESvjokdzQI"
    "faRKXnSbxeh93oOJtrvupZ55tVgTulZvXnOK2krKTzz6ub6mmd+UhnxxZQ0zupqxcp9g1bBwsk314+vKkZw8lPB1++utjh0s0mcC4QIDAQAB"
    "o1MwUTAdBgNVHQ4EFgQU/1hx+MWhTQCVc7/XQAUJmqrIqa4wHwYDVR0jBBgwFoAU/1hx+MWhTQCVc7/XQAUJmqrIqa4wDwYDVR0TAQH/BAUw"
    "AwEB/zBBBgkqhkiG9w0BAQowNKAPMA0GCWCGSAFlAwQCAQUAoRwwGgYJKoZIhvcNAQEIMA0GCWCGSAFlAwQCAQUAogMCAV4DgYEAKP2ariYL"
    "wi7csPaUP2I3c3u+hy0AayCBO6cnWAV+2rhrvAe55fNcOigJlgjfzrRgtF1dfVrjT1WNqEXmwwZM8WSjs1umqEZG+z/eTqig4ycxbxM8IcVt"
    "a5fgB95MoWvW4xOUoXiMcQ77myYxSWbKw+a6GitKG7LBLr4LanL078A="
)


def test_a_key_that_cryptography_would_write_otherwise_is_not_taken_for_another() -> None:
    with pytest.raises(ValueError, match="cannot be pinned"):
        pin.of(RSA_PSS)


def test_who_pins_nothing_loads_nothing_for_it() -> None:
    code = "import sys, relay.transport.https; print('cryptography' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


def test_a_client_certificate_is_shown_where_one_is_wanted(
    run: Run, certificates: Certificates, tmp_path: Path
) -> None:
    pem = tmp_path / "client.pem"
    authority().issue_cert("relay.example.nl").private_key_and_cert_chain_pem.write_to_path(str(pem))

    async def scene() -> None:
        async with Endpoint(certificates.good, client_authority=authority()) as endpoint:
            outcome = await outcome_of(endpoint, certificates, tls_certificate=str(pem))
            assert isinstance(outcome, Delivered)
            outcome = await outcome_of(endpoint, certificates)
            # TLS 1.3 tells it after the first words, if the line holds until then.
            assert isinstance(outcome, Deferred)
            assert outcome.upstream_sick
            assert outcome.stage in (Stage.TLS, Stage.HTTP)
            assert len(endpoint.requests) == 1

    run(scene())


@pytest.mark.parametrize("address", ["169.254.169.254", "fe80::1%lo", "::ffff:169.254.169.254", "fd00:ec2::254"])
def test_a_name_that_leads_to_the_metadata_of_a_cloud_is_not_followed(
    run: Run, certificates: Certificates, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene() -> None:
        async with Endpoint(certificates.good) as endpoint:
            transport = transport_to(endpoint, certificates)

            async def resolve(_: float) -> list[Any]:
                return [(10, 1, 6, "", (address, 443, 0, 0))]

            monkeypatch.setattr(transport._dialer, "resolve", resolve)
            outcome = await transport.connect()
            assert isinstance(outcome, Deferred)
            assert (outcome.stage, "metadata" in outcome.text) == (Stage.CONNECT, True)

    run(scene())


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "HTTP_PROXY"])
def test_proxies_and_passwords_of_the_environment_are_not_used(
    run: Run, certificates: Certificates, variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login jan password geheim\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))

    async def scene() -> None:
        async with Endpoint(certificates.good) as endpoint, Endpoint(certificates.good) as proxy:
            monkeypatch.setenv(variable, f"http://127.0.0.1:{proxy.port}")
            assert isinstance(await outcome_of(endpoint, certificates), Delivered)
            assert proxy.connections == 0
            assert "Authorization" not in (await endpoint.request()).headers

    run(scene())


def test_an_endpoint_that_is_not_there_or_says_nothing_is_given_up(run: Run, certificates: Certificates) -> None:
    async def scene() -> None:
        writers: list[asyncio.StreamWriter] = []
        silent = await asyncio.start_server(lambda _, writer: writers.append(writer), "127.0.0.1", 0)
        endpoint = Endpoint(certificates.good)
        endpoint.port = silent.sockets[0].getsockname()[1]
        outcome = await refused(endpoint, certificates, connect=0.2)
        assert (outcome.stage, outcome.trouble) == (Stage.TLS, Trouble.TIMEOUT)
        for writer in writers:
            writer.transport.abort()
        silent.close()
        await silent.wait_closed()
        outcome = await refused(endpoint, certificates)
        assert (outcome.stage, outcome.trouble) == (Stage.CONNECT, Trouble.TRANSIENT)
        assert "Connection refused" in outcome.text

    run(scene())


def test_an_endpoint_that_does_not_speak_tls_is_told_so(run: Run, certificates: Certificates) -> None:
    async def scene() -> None:
        def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            writer.close()

        plain = await asyncio.start_server(greet, "127.0.0.1", 0)
        endpoint = Endpoint(certificates.good)
        endpoint.port = plain.sockets[0].getsockname()[1]
        outcome = await refused(endpoint, certificates)
        assert outcome.stage is Stage.TLS
        plain.close()

    run(scene())


def test_a_connection_is_told_with_the_end_of_the_certificate(run: Run, certificates: Certificates) -> None:
    async def scene() -> None:
        async with Endpoint(certificates.good) as endpoint:
            seen = Seen()
            connection = await connected(endpoint, certificates, observer=seen)
            await connection.close()
            (event,) = seen.events
            assert isinstance(event, UpstreamConnected)
            assert event.certificate_expires is not None

    run(scene())


# What it answers

HTTP_DATE = format_datetime(datetime(2026, 3, 1, 12, 0, 30, tzinfo=UTC), usegmt=True)
ITS_CLOCK = format_datetime(datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC), usegmt=True)


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_any_2xx_is_delivered(run: Run, certificates: Certificates, status: int) -> None:
    async def scene() -> None:
        async with Endpoint(certificates.good) as endpoint:
            endpoint.script(answer(status))
            outcome = await outcome_of(endpoint, certificates)
            assert isinstance(outcome, Delivered)
            assert (outcome.reply.code, outcome.reply.status, outcome.reported) == (250, f"2.0.{status}", False)

    run(scene())


@pytest.mark.parametrize(
    ("status", "headers", "sick", "after"),
    [
        (408, {}, False, None),
        (425, {}, False, None),
        (429, {}, True, None),
        (429, {"Retry-After": "7"}, True, 7.0),
        (429, {"Retry-After": HTTP_DATE, "Date": ITS_CLOCK}, True, 30.0),
        (429, {"Retry-After": "Thu, 01 Jan 1970 00:00:00 GMT"}, True, 0.0),
        (429, {"Retry-After": "soon"}, True, None),
        (500, {}, True, None),
        (503, {"Retry-After": "9" * 30}, True, 86_400.0),
        (599, {}, True, None),
    ],
)
def test_what_may_pass_is_deferred_and_an_endpoint_in_trouble_is_sick(
    run: Run, certificates: Certificates, status: int, headers: dict[str, str], sick: bool, after: float | None
) -> None:
    async def scene() -> None:
        async with Endpoint(certificates.good) as endpoint:
            endpoint.script(answer(status, headers))
            delivery = await sent(endpoint, certificates)
            (outcome,) = delivery.outcomes
            assert isinstance(outcome, Deferred)
            assert outcome.reply is not None
            assert (outcome.stage, outcome.trouble) == (Stage.HTTP, Trouble.TRANSIENT)
            assert (outcome.reply.code, outcome.reply.status) == (450, f"4.0.{status}")
            assert (outcome.in_doubt, outcome.upstream_sick, delivery.sick is not None) == (False, sick, sick)
            assert outcome.retry_after == after
            if delivery.sick is not None:
                assert delivery.sick.retry_after == after

    run(scene())


def test_a_date_in_retry_after_is_counted_by_our_clock_where_the_endpoint_tells_none(
    run: Run, certificates: Certificates
) -> None:
    async def scene() -> None:
        async with Endpoint(certificates.good) as endpoint:
            later = format_datetime(datetime.now(UTC) + timedelta(minutes=2), usegmt=True)
            endpoint.script(raw(f"HTTP/1.1 503 x\r\nRetry-After: {later}\r\nContent-Length: 0\r\n\r\n".encode()))
            outcome = await outcome_of(endpoint, certificates)
            assert isinstance(outcome, Deferred)
            assert outcome.retry_after is not None
            assert 100 < outcome.retry_after <= 121

    run(scene())


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_login_is_the_configurations_fault(run: Run, certificates: Certificates, status: int) -> None:
    async def scene() -> None:
        async with Endpoint(certificates.good) as endpoint:
            endpoint.script(says(status, {"detail": f"{CODE} may not"}))
            delivery = await sent(endpoint, certificates, on_client_error="next")
            (outcome,) = delivery.outcomes
            assert isinstance(outcome, Deferred)
            assert outcome is delivery.sick
            assert (outcome.stage, outcome.trouble, outcome.in_doubt) == (Stage.AUTH, Trouble.PERMANENT, False)
            assert CODE not in str(delivery)

    run(scene())


@pytest.mark.parametrize("status", [400, 404, 409, 410, 413, 415, 421, 422, 451])
def test_any_other_4xx_is_as_the_configuration_says(run: Run, certificates: Certificates, status: int) -> None:
    async def scene() -> None:
        async with Endpoint(certificates.good) as endpoint:
            endpoint.always(says(status, {"detail": "no"}))
            outcome = await outcome_of(endpoint, certificates)
            assert isinstance(outcome, Failed)
            code, enhanced = (552, "5.3.4") if status == 413 else (550, f"5.0.{status}")
            assert (outcome.stage, outcome.reply.code, outcome.reply.status) == (Stage.HTTP, code, enhanced)
            assert outcome.reply.text.startswith(f"HTTP {status} ")
            assert outcome.reply.text.endswith(": no")
            assert not outcome.unasked
            delivery = await sent(endpoint, certificates, on_client_error="next")
            assert delivery == Delivery((replace(outcome, unasked=True),))

    run(scene())


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed(run: Run, certificates: Certificates, status: int) -> None:
    async def scene() -> None:
        async with Endpoint(certificates.good) as endpoint, Endpoint(certificates.good) as elsewhere:
            endpoint.script(answer(status, {"Location": elsewhere.url}))
            delivery = await sent(endpoint, certificates)
            assert delivery.sick is not None
            assert (delivery.sick.stage, delivery.sick.in_doubt) == (Stage.HTTP, False)
            assert "redirects are not followed" in delivery.sick.text
            assert (len(endpoint.requests), elsewhere.connections) == (1, 0)

    run(scene())


@pytest.mark.parametrize(
    ("body", "kind", "said"),
    [
        ('{"message": "weigerde\\nhet"}', "application/json", ": weigerde het"),
        ('{"title": "x", "detail": "no such customer"}', "application/problem+json", ": no such customer"),
        ('{"error": {"message": "no", "code": 7}}', "application/json", ": no"),
        ('{"error": 7}', "application/json", ""),
        ('["no"]', "application/json", ""),
        ("[" * 30_000, "application/json", ""),
        ("<h1>no</h1>", "text/html", ""),
        ("<h1>no</h1>", "application/json", ""),
        ('{"message": "' + "x" * 65_536 + '"}', "application/json", ""),
    ],
)
def test_the_sentence_in_an_answer_of_json_is_told_with_the_recipient(
    run: Run, certificates: Certificates, body: str, kind: str, said: str
) -> None:
    async def scene() -> None:
        async with Endpoint(certificates.good) as endpoint:
            endpoint.script(answer(422, text=body, kind=kind), answer(503, text=body, kind=kind))
            outcome = await outcome_of(endpoint, certificates)
            assert isinstance(outcome, Failed)
            words = f"HTTP 422 {HTTPStatus(422).phrase}"  # another one in each Python
            assert outcome.reply.text == words + said
            delivery = await sent(endpoint, certificates)
            assert delivery.sick is not None
            assert delivery.sick.reply == Reply(450, "4.0.503", "HTTP 503 Service Unavailable")

    run(scene())


def test_an_answer_without_end_is_cut_and_its_status_counts(
    run: Run, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "REST_OF_AN_ANSWER", 100.0)  # not the time ends it

    async def scene() -> None:
        async with Endpoint(certificates.good) as endpoint:
            endpoint.script(without_end)
            connection = await connected(endpoint, certificates, total=100.0)
            (outcome,) = (await connection.deliver(request(message=CODE_MAIL))).outcomes
            assert outcome == Delivered(Reply(250, "2.0.200", "HTTP 200 OK"))
            assert not connection.usable
            connection.abort()

    run(scene())


def test_an_answer_that_stalls_after_its_status_is_not_waited_for(
    run: Run, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "REST_OF_AN_ANSWER", 0.2)

    async def scene() -> None:
        async with Endpoint(certificates.good) as endpoint:
            endpoint.script(stalls)
            assert isinstance(await outcome_of(endpoint, certificates), Delivered)

    run(scene())


def test_an_endpoint_that_hangs_leaves_delivery_in_doubt(run: Run, certificates: Certificates) -> None:
    async def scene() -> None:
        async with Endpoint(certificates.good) as endpoint:
            endpoint.script(endpoint.hangs())
            delivery = await sent(endpoint, certificates, total=0.3)
            assert delivery.sick == delivery.outcomes[0]
            assert delivery.sick == Deferred(
                Stage.HTTP, Trouble.TIMEOUT, "no answer within 0.3 s", in_doubt=True, upstream_sick=True
            )

    run(scene())


@pytest.mark.parametrize(
    ("behaviour", "trouble"),
    [
        (hangs_up, Trouble.DROPPED),
        (raw(b""), Trouble.DROPPED),
        (raw(b"HTTP/1.1 2"), Trouble.DROPPED),
        (raw(b"220 smtp.example.nl ESMTP 913557\r\n\r\n"), Trouble.TRANSIENT),
        (raw(b"HTTP/1.1 200 OK\r\nX: " + b"913557" * 5_000 + b"\r\n\r\n"), Trouble.TRANSIENT),
    ],
)
def test_an_endpoint_that_gives_no_status_leaves_delivery_in_doubt(
    run: Run, certificates: Certificates, behaviour: Any, trouble: Trouble
) -> None:
    async def scene() -> None:
        async with Endpoint(certificates.good) as endpoint:
            endpoint.script(behaviour)
            delivery = await sent(endpoint, certificates)
            assert delivery.sick is not None
            assert (delivery.sick.stage, delivery.sick.trouble) == (Stage.HTTP, trouble)
            assert delivery.sick.in_doubt
            assert CODE not in str(delivery)

    run(scene())


def test_a_request_that_could_not_be_sent_in_time_leaves_nothing_in_doubt(run: Run, certificates: Certificates) -> None:
    async def scene() -> None:
        async with Endpoint(certificates.good) as endpoint:
            delivery = await sent(endpoint, certificates, asked={"patience": 0.0})
            assert delivery.sick is not None
            assert (delivery.sick.trouble, delivery.sick.in_doubt) == (Trouble.TIMEOUT, False)
            assert endpoint.requests == []

    run(scene())


def test_patience_ends_with_the_request_and_the_answer_has_all_its_time(run: Run, certificates: Certificates) -> None:
    async def scene() -> None:
        async with Endpoint(certificates.good) as endpoint:
            endpoint.script(endpoint.hangs())
            connection = await connected(endpoint, certificates)
            task = asyncio.create_task(connection.deliver(request(message=CODE_MAIL, patience=0.4)))
            await endpoint.request()
            await asyncio.wait((task,), timeout=0.8)
            assert connection.past_dot
            endpoint.release.set()
            (outcome,) = (await task).outcomes
            assert isinstance(outcome, Delivered)
            assert not connection.past_dot
            await connection.close()

    run(scene())


def test_an_answer_before_the_whole_request_is_believed_if_it_refuses(run: Run, certificates: Certificates) -> None:
    """413 at the sight of Content-Length, or 200 by somebody who cannot count."""

    async def scene() -> None:
        done = asyncio.Event()
        answers = [b"413 Too Large", b"200 OK"]

        async def answer_early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 " + answers.pop(0) + b"\r\nContent-Length: 0\r\n\r\n")
            try:
                await done.wait()
            finally:
                writer.transport.abort()

        server = await asyncio.start_server(answer_early, "127.0.0.1", 0, ssl=certificates.good.server(), limit=1024)
        endpoint = Endpoint(certificates.good)
        endpoint.port = server.sockets[0].getsockname()[1]
        message = b"From: a@b.nl\r\n\r\n" + b"x" * 60_000_000
        delivery = await sent(endpoint, certificates, message, template=None)
        assert isinstance(delivery.outcomes[0], Failed)
        delivery = await sent(endpoint, certificates, message, template=None)
        assert delivery.sick is not None
        assert not delivery.sick.in_doubt
        server.close()
        done.set()

    run(scene())


def test_a_request_that_is_taken_before_all_of_it_is_over_there_is_in_doubt(
    run: Run, certificates: Certificates
) -> None:
    """It is one piece, which lies in buffers: whoever takes it has not read it."""

    async def scene() -> None:
        done = asyncio.Event()

        async def answer_early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")
            try:
                await done.wait()
            finally:
                writer.transport.abort()

        listening = socket.socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listening.bind(("127.0.0.1", 0))
        context = certificates.good.server()
        server = await asyncio.start_server(answer_early, sock=listening, ssl=context, limit=1024)
        endpoint = Endpoint(certificates.good)
        endpoint.port = listening.getsockname()[1]
        message = b"From: a@b.nl\r\n\r\n" + b"x" * 200_000
        (outcome,) = (await sent(endpoint, certificates, message, template=None)).outcomes
        server.close()
        done.set()
        assert isinstance(outcome, Deferred)
        assert outcome.in_doubt

    run(scene())


def test_an_answer_that_was_there_before_the_request_takes_nothing(run: Run, certificates: Certificates) -> None:
    """The endpoint says 202 twice, the second time while the loop is busy with something else."""

    async def scene() -> None:
        taken, again = [], threading.Event()

        def vendor() -> None:
            wire = context.wrap_socket(listening.accept()[0], server_side=True)
            with wire, wire.makefile("rb") as requests:
                while head := requests.readline():
                    while (line := requests.readline()) != b"\r\n":
                        head += line
                    taken.append(requests.read(int(head.lower().partition(b"content-length: ")[2].split()[0])))
                    wire.sendall(_TAKEN)
                    again.wait()
                    wire.sendall(_TAKEN)

        listening, context = socket.create_server(("127.0.0.1", 0)), certificates.good.server()
        thread = threading.Thread(target=vendor, daemon=True)
        thread.start()
        endpoint = Endpoint(certificates.good)
        endpoint.port = listening.getsockname()[1]
        connection = await connected(endpoint, certificates, template=None)
        assert isinstance((await connection.deliver(request(message=CODE_MAIL))).outcomes[0], Delivered)
        again.set()
        while not connection._wire.unread():  # the loop is busy
            pass
        (outcome,) = (await connection.deliver(request(message=CODE_MAIL, queue_id="7QK3Z0M5X2A2"))).outcomes
        assert isinstance(outcome, Deferred)
        assert not outcome.in_doubt
        assert not connection.usable
        await asyncio.to_thread(thread.join)
        assert len(taken) == 1
        listening.close()

    run(scene())


# The connection


def test_an_idle_connection_that_the_endpoint_closes_is_told_of_and_leaves_nothing_behind(
    run: Run, certificates: Certificates
) -> None:
    async def scene() -> None:
        lost = asyncio.Event()
        async with Endpoint(certificates.good) as endpoint:
            connection = await connected(endpoint, certificates)
            await connection.deliver(request())
            assert await connection.refresh()
            assert len(endpoint.requests) == 1
            connection.when_lost(lost.set)
        await lost.wait()
        assert not connection.usable
        assert not await connection.refresh()

    run(scene())


def test_a_connection_is_used_again_until_the_endpoint_ends_it(run: Run, certificates: Certificates) -> None:
    async def scene() -> None:
        async with Endpoint(certificates.good) as endpoint:
            connection = await connected(endpoint, certificates)
            endpoint.script(answer(202), answer(202), answer(202, {"Connection": "close"}))
            for usable in (True, True, False):
                await connection.deliver(request())
                assert connection.usable is usable
            await connection.close()
            assert endpoint.connections == 1

    run(scene())


def test_a_connection_that_was_used_and_breaks_is_stale_and_says_what_is_in_doubt(
    run: Run, certificates: Certificates
) -> None:
    async def scene() -> None:
        async with Endpoint(certificates.good) as endpoint:
            connection = await connected(endpoint, certificates)
            endpoint.script(answer(202), hangs_up)
            await connection.deliver(request())
            delivery = await connection.deliver(request())
            assert delivery.sick is not None
            assert (delivery.sick.stage, delivery.sick.trouble) == (Stage.HTTP, Trouble.DROPPED)
            assert delivery.sick.in_doubt
            assert not connection.usable

    run(scene())


@pytest.mark.parametrize("how", ["abort", "cancel"])
def test_a_connection_that_is_dropped_ends_the_request(run: Run, certificates: Certificates, how: str) -> None:
    async def scene() -> None:
        async with Endpoint(certificates.good) as endpoint:
            endpoint.script(endpoint.hangs())
            connection = await connected(endpoint, certificates)
            task = asyncio.create_task(connection.deliver(request()))
            await endpoint.request()
            assert connection.past_dot
            if how == "cancel":
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            else:
                connection.abort()
                (outcome,) = (await task).outcomes
                assert isinstance(outcome, Deferred)
                assert outcome.in_doubt
            assert not connection.usable
            connection.abort()
            await connection.close()

    run(scene())


def test_nothing_is_logged_about_an_endpoint_that_talks(
    run: Run, certificates: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    behaviours: Iterable[Any] = (
        says(422, {"detail": CODE}),
        answer(503, {"Set-Cookie": f"a={CODE}; expires={CODE}", "Retry-After": CODE}),
        raw(f"{CODE} {CODE}\r\n\r\n".encode()),
        hangs_up,
    )

    async def scene() -> None:
        async with Endpoint(certificates.good) as endpoint:
            for behaviour in behaviours:
                endpoint.script(behaviour)
                await sent(endpoint, certificates, code_pattern=code_pattern(r"/(\d{6})/"))

    run(scene())
    assert CODE not in caplog.text
