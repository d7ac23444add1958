"""Passwords of listener users: scrypt hashes in the usual written form, `$scrypt$ln=14,r=8,p=5$SALT$HASH`.

One check takes a sixth of a second of CPU without the interpreter's lock: call `matches` on a thread.
What matched once is known again at once, as applications log in for every message.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
import threading
from dataclasses import field

from relay.config.secrets import Secret
from relay.errors import RelayError
from relay.values import frozen

PREFIX = "$scrypt$"

_FORM = re.compile(r"\$scrypt\$ln=(\d{1,2}),r=(\d{1,2}),p=(\d{1,2})\$([A-Za-z0-9+/]{8,128})\$([A-Za-z0-9+/]{22,128})")
_LN, _R, _P = 14, 8, 5  # 16 MiB for a check
_MOST_MEMORY = 32 * 2**20
_room = threading.BoundedSemaphore(2)  # memory that clients can make us use is bounded
_KEY = os.urandom(32)
_MOST_KNOWN = 1_000
_known: set[bytes] = set()


@frozen
class Hash:
    """A hash taken apart."""

    ln: int
    r: int
    p: int
    salt: bytes = field(repr=False)
    digest: bytes = field(repr=False)

    def of(self, text: str) -> bytes:
        n, most = 1 << self.ln, _MOST_MEMORY + 2**20
        with _room:
            return hashlib.scrypt(
                _octets(text), salt=self.salt, n=n, r=self.r, p=self.p, maxmem=most, dklen=len(self.digest)
            )


def hash_password(text: str) -> str:
    """A new hash of `text`, with fresh salt."""
    salt = os.urandom(16)
    digest = Hash(_LN, _R, _P, salt, bytes(32)).of(text)
    return f"{PREFIX}ln={_LN},r={_R},p={_P}${_encoded(salt)}${_encoded(digest)}"


def parse(text: str) -> Hash:
    """The hash written as `text`. Raises RelayError, which repeats nothing of it."""
    found = _FORM.fullmatch(text)
    if found is None:
        raise RelayError("not a scrypt hash as `relay hash` writes it")
    ln, r, p = int(found[1]), int(found[2]), int(found[3])
    if not (1 <= ln <= 20 and r >= 1 and 1 <= p <= 16) or 128 * r * (p + (1 << ln)) > _MOST_MEMORY:
        raise RelayError("a scrypt hash that takes more than 32 MiB to check, or nothing at all")
    try:
        return Hash(ln, r, p, _decoded(found[4]), _decoded(found[5]))
    except binascii.Error:
        raise RelayError("not a scrypt hash as `relay hash` writes it") from None


def matches(stored: Secret | str, given: str) -> bool:
    """True if `given` is the password `stored`, a hash or the password itself.

    Raises RelayError where that cannot be read.
    """
    kept = stored.reveal() if isinstance(stored, Secret) else stored
    if not kept.startswith(PREFIX):
        return hmac.compare_digest(_octets(kept), _octets(given))
    seen = hmac.digest(_KEY, _octets(kept) + b"\0" + _octets(given), "sha256")
    if seen in _known:
        return True
    hashed = parse(kept)
    if not hmac.compare_digest(hashed.of(given), hashed.digest):
        return False
    if len(_known) >= _MOST_KNOWN:
        _known.clear()
    _known.add(seen)
    return True


def _octets(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _encoded(octets: bytes) -> str:
    return base64.b64encode(octets).rstrip(b"=").decode("ascii")


def _decoded(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
