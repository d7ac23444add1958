"""The pin of a key: the SHA-256 of a certificate's SubjectPublicKeyInfo in base64, as in RFC 7469, section 2.4.

    openssl x509 -in FILE -pubkey -noout | openssl pkey -pubin -outform DER | openssl dgst -sha256 -binary | base64

Python shows the peer's certificate as DER and no part of it, so the way to the key is walked here. OpenSSL has read
the certificate by then; this reading is strict (DER has one way to write a thing), so that both see the same key.
"""

from __future__ import annotations

import base64
import hashlib

_SEQUENCE, _INTEGER, _VERSION = 0x30, 0x02, 0xA0
_BEFORE_THE_KEY = (_INTEGER, _SEQUENCE, _SEQUENCE, _SEQUENCE, _SEQUENCE)  # serial, algorithm, issuer, validity, subject


def of(certificate: bytes) -> str:
    """The pin of the key in `certificate`, which is DER. Raises ValueError where that is no certificate."""
    whole, end = _element(certificate, 0, _SEQUENCE)
    if end != len(certificate):
        raise ValueError("octets behind the certificate")
    signed, _ = _element(certificate, whole, _SEQUENCE)
    position = signed
    if certificate[position : position + 1] == bytes([_VERSION]):
        _, position = _element(certificate, position, _VERSION)
    for tag in _BEFORE_THE_KEY:
        _, position = _element(certificate, position, tag)
    _, end = _element(certificate, position, _SEQUENCE)
    return base64.b64encode(hashlib.sha256(certificate[position:end]).digest()).decode("ascii")


def _element(der: bytes, position: int, tag: int) -> tuple[int, int]:
    """Where the content of the element at `position` begins and ends; it must have this tag."""
    head = der[position : position + 2]
    if len(head) < 2 or head[0] != tag:
        raise ValueError("not a certificate")
    length, start = head[1], position + 2
    if length >= 0x80:
        octets = der[start : start + length - 0x80]
        start += len(octets)
        length = int.from_bytes(octets, "big")
        if not 1 <= len(octets) <= 4 or octets[0] == 0 or length < 0x80:
            raise ValueError("a length that is not DER")
    if start + length > len(der):
        raise ValueError("an element that ends behind the certificate")
    return start, start + length
