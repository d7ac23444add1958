"""The pin of a key: the SHA-256 of a certificate's SubjectPublicKeyInfo in base64, as in RFC 7469, section 2.4.

    openssl x509 -in FILE -pubkey -noout | openssl pkey -pubin -outform DER | openssl dgst -sha256 -binary | base64

Python shows the peer's certificate as DER and no part of it; cryptography reads the key.
"""

from __future__ import annotations

import base64
import hashlib


def of(certificate: bytes) -> str:
    """The pin of the key in `certificate`, which is DER. Raises ValueError where that is no certificate, or its key
    has a form that cannot be pinned. Call it on a thread: the first call loads cryptography."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
    from cryptography.x509 import InvalidVersion, load_der_x509_certificate

    try:
        key = load_der_x509_certificate(certificate).public_key()
    except (InvalidVersion, UnsupportedAlgorithm) as error:
        raise ValueError(str(error)) from None
    octets = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if octets not in certificate:  # RSA-PSS, and curves by their parameters: cryptography writes another key
        raise ValueError("a key of a form that cannot be pinned")
    return base64.b64encode(hashlib.sha256(octets).digest()).decode("ascii")
