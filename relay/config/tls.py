"""TLS at our own doors: what a listener's `tls_profile` means.

`modern` is TLS 1.2 and later with the ciphers that Python chooses. `legacy` adds TLS 1.0 and 1.1 and all
ciphers that authenticate and encrypt, as far as the OpenSSL that Python is linked with still has them.
"""

from __future__ import annotations

import ssl
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from relay import figures, old_tls
from relay.durable import require_regular
from relay.errors import RelayError

_NO_CHECK_TIME = 0x200000  # X509_V_FLAG_NO_CHECK_TIME, which `ssl` has no name for


def server_context(profile: str) -> ssl.SSLContext:
    """A context for a listener, without a certificate; a RelayError where OpenSSL cannot do what is asked."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    if profile == "modern":
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        return context
    if not (ssl.HAS_TLSv1 and ssl.HAS_TLSv1_1):
        raise RelayError(f"{ssl.OPENSSL_VERSION} has no TLS 1.0 and 1.1")
    try:
        old_tls.allow(context)
    except (ValueError, ssl.SSLError):
        raise RelayError(f"{ssl.OPENSSL_VERSION} refuses TLS 1.0 and 1.1") from None
    return context


def load_pair(context: ssl.SSLContext, certificate: Path, key: Path | None) -> None:
    """Have `context` show the certificate, whose key is in the same file where there is no `key`.

    Raises OSError for what cannot be read to its end, and SSLError.
    """
    for file in (certificate, key or certificate):
        require_regular(file)  # OpenSSL would wait for the other end of a FIFO
    # Without a callback it would ask for the passphrase of an encrypted key on the terminal.
    context.load_cert_chain(certificate, key, password=lambda: "")


def certificate_end(context: ssl.SSLContext, certificate: Path) -> datetime | None:
    """When the certificate that `context` shows ends; it was loaded from the file `certificate`.

    Python tells it of a peer's certificate only, so two ends shake hands in memory. The file itself is what the
    other end trusts, and the time is not checked: a certificate that ended is told as well.
    """
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags = ssl.VerifyFlags(ssl.VERIFY_X509_PARTIAL_CHAIN | _NO_CHECK_TIME)
    try:
        require_regular(certificate)
        client.load_verify_locations(certificate)
        ends = _met(context, client)
    except (OSError, ssl.SSLError):
        return None
    return figures.certificate_end(ends)


def _met(server: ssl.SSLContext, client: ssl.SSLContext) -> object:
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    theirs = server.wrap_bio(there, back, server_side=True)
    ours = client.wrap_bio(back, there)
    for _ in range(4):  # flights of a handshake
        for end in (ours, theirs):
            with suppress(ssl.SSLWantReadError):
                end.do_handshake()
    return (ours.getpeercert() or {}).get("notAfter")
