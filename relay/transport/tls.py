"""TLS towards an upstream: the context, kept because building one takes 33 to 87 ms, and what its errors mean.

Certificates are verified, name included, unless the configuration says otherwise; TLS 1.2 at least, with forward
secrecy, unless the profile is legacy.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from datetime import datetime
from typing import Literal

from relay import figures, old_tls
from relay.durable import require_regular
from relay.values import frozen

# X509_V_ERR_… of OpenSSL's x509_vfy.h; ssl has no names for them.
_EXPIRED, _NOT_YET, _SELF_SIGNED, _WRONG_NAME, _WRONG_ADDRESS = 10, 9, 18, 62, 64
_LEGACY_SERVER_CONNECT = 0x4  # SSL_OP_LEGACY_SERVER_CONNECT: servers of before RFC 5746; `ssl` names it from 3.12 on
_UNKNOWN_AUTHORITY = frozenset({2, 19, 20, 21})
# Those that Python takes by default. Debian's is built to take what OpenSSL does, without forward secrecy as well.
_MODERN = "@SECLEVEL=2:ECDH+AESGCM:ECDH+CHACHA20:ECDH+AES:DHE+AES:!aNULL:!eNULL:!aDSS:!SHA1:!AESCCM"


@frozen
class TlsTerms:
    """`ca` replaces the system's store; `certificate` and `key` are the client's own. Paths of PEM files. `profile`
    legacy: old versions and cipher suites as well."""

    verify: bool
    ca: str | None
    certificate: str | None
    key: str | None
    profile: Literal["modern", "legacy"] = "modern"


class TlsContext:
    """The context for one upstream: built on a thread at first use, again after `reload`."""

    def __init__(self, terms: TlsTerms) -> None:
        self._terms = terms
        self._built: ssl.SSLContext | None = None

    async def get(self) -> ssl.SSLContext:
        """Raises OSError (of which ssl.SSLError) where a file cannot be read."""
        if self._built is None:
            self._built = await asyncio.to_thread(build, self._terms)
        return self._built

    def reload(self) -> None:
        """The files are read anew before the next connection."""
        self._built = None


def trusting(ca: str | None) -> ssl.SSLContext:
    """A context that trusts the authorities in the file `ca`, or those of the system."""
    if ca is not None:
        require_regular(ca)  # OpenSSL would wait for the other end of a FIFO
    return ssl.create_default_context(cafile=ca)


def build(terms: TlsTerms) -> ssl.SSLContext:
    context = trusting(terms.ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if terms.profile == "legacy":
        context.options |= _LEGACY_SERVER_CONNECT
        old_tls.allow(context)
    else:
        context.set_ciphers(_MODERN)
    if not terms.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if terms.certificate is not None:
        for file in (terms.certificate, terms.key or terms.certificate):
            require_regular(file)
        context.load_cert_chain(terms.certificate, terms.key)
    return context


def names_of(certificate: Mapping[str, object] | None) -> str:
    """The names in what `getpeercert` returned, as a list in words; "" if there are none."""
    alternatives = (certificate or {}).get("subjectAltName", ())
    assert isinstance(alternatives, tuple)
    return ", ".join(str(value) for kind, value in alternatives if kind in ("DNS", "IP Address"))


def end_of(certificate: Mapping[str, object] | None) -> datetime | None:
    """Until when the certificate that `getpeercert` returned is good; None where it was not verified."""
    return figures.certificate_end((certificate or {}).get("notAfter"))


def is_wrong_name(error: BaseException) -> bool:
    return isinstance(error, ssl.SSLCertVerificationError) and error.verify_code in (_WRONG_NAME, _WRONG_ADDRESS)


def explain(error: BaseException, host: str, *, whose: str = "the upstream's") -> str:
    """What went wrong with the TLS of `host`, for the operator; `whose` certificate it is."""
    if isinstance(error, ssl.SSLCertVerificationError):
        match error.verify_code:
            case code if code == _EXPIRED:
                return f"{whose} certificate has expired"
            case code if code == _NOT_YET:
                return f"{whose} certificate is not valid yet"
            case code if code == _SELF_SIGNED:
                return f"{whose} certificate is self-signed"
            case code if code in _UNKNOWN_AUTHORITY:
                return f"{whose} certificate is signed by an unknown authority"
            case code if code in (_WRONG_NAME, _WRONG_ADDRESS):
                return f"{whose} certificate is not for {host}"
            case _:
                return f"{whose} certificate is not good: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        reason = (error.reason or str(error)).replace("_", " ").lower()
        return f"TLS failed: {reason}"
    return f"TLS failed: {error}"
