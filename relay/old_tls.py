"""TLS for what knows nothing newer: `tls_profile: legacy`, at our doors and towards upstreams."""

from __future__ import annotations

import ssl
import warnings

# Level 0, because the signatures of TLS 1.0 and 1.1 rest on SHA-1 and MD5, which OpenSSL 3 takes at no other.
_CIPHERS = "ALL:!aNULL:!eNULL:@SECLEVEL=0"


def allow(context: ssl.SSLContext) -> None:
    """`context` does TLS 1.0 and 1.1, where OpenSSL has them, and all ciphers that authenticate and encrypt.

    Raises ValueError or SSLError where OpenSSL refuses that.
    """
    if ssl.HAS_TLSv1 and ssl.HAS_TLSv1_1:
        with warnings.catch_warnings():
            # Python calls TLS 1.0 deprecated. So do we, but software that knows nothing newer has no choice.
            warnings.filterwarnings("ignore", r"ssl\.TLSVersion\.TLSv1 is deprecated", DeprecationWarning)
            context.minimum_version = ssl.TLSVersion.TLSv1
    context.set_ciphers(_CIPHERS)
