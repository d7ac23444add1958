"""Certificates for tests: a good one for 127.0.0.1 and localhost, and each kind of bad one.

    certificates = Certificates(tmp_path)
    server = certificates.good.server()          # an ssl.SSLContext for a server
    client = {"tls_ca": certificates.ca_path}    # what a client has to trust

`authority()` is made once per test run: keys cost time.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache, cached_property
from pathlib import Path

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass(frozen=True)
class Certificate:
    """Certificate chain and key as one PEM."""

    pem: bytes

    def server(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with trustme.Blob(self.pem).tempfile() as path:
            context.load_cert_chain(path)
        return context


@cache
def authority() -> trustme.CA:
    return trustme.CA()


def _of(leaf: trustme.LeafCert) -> Certificate:
    return Certificate(leaf.private_key_and_cert_chain_pem.bytes())


class Certificates:
    """`ca_path` is the PEM to trust; it lies in `directory`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.ca_path = str(directory / "ca.pem")
        authority().cert_pem.write_to_path(self.ca_path)

    @cached_property
    def good(self) -> Certificate:
        return _of(authority().issue_cert("127.0.0.1", "localhost", "::1"))

    @cached_property
    def rsa(self) -> Certificate:
        """As good, with a key of the kind that old cipher suites need."""
        return _of(authority().issue_cert("127.0.0.1", "localhost", "::1", key_type=trustme.KeyType.RSA))

    @cached_property
    def expired(self) -> Certificate:
        yesterday = datetime.now(UTC) - timedelta(days=1)
        return _of(authority().issue_cert("127.0.0.1", "localhost", not_after=yesterday))

    @cached_property
    def wrong_name(self) -> Certificate:
        return _of(authority().issue_cert("mail.example.net", "smtp.example.net"))

    @cached_property
    def untrusted(self) -> Certificate:
        return _of(trustme.CA().issue_cert("127.0.0.1", "localhost"))

    @cached_property
    def self_signed(self) -> Certificate:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
            .sign(key, hashes.SHA256())
        )
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return Certificate(private + certificate.public_bytes(serialization.Encoding.PEM))
