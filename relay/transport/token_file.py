"""What is kept of an upstream's tokens over a restart: a file of its own, 0600, replaced in one step.

With a key it is encrypted (Fernet); one that is not is read all the same, and encrypted then: `relay auth login` may
not have had the key.
A lock beside it sees to it that a relay and a command never spend one refresh token at the same time.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from relay import figures
from relay.durable import Directory, leave_to_owner, make_folder
from relay.errors import RelayError
from relay.values import frozen

if TYPE_CHECKING:
    from cryptography.fernet import Fernet

SHORTEST_KEY = 32
_LARGEST = 1024 * 1024  # octets; no more of a file is read
_TEXTS = ("identity", "access_token", "refresh_token", "origin", "error")


@frozen
class Kept:
    """`identity`: whose it is, so that another account never gets it. Moments are Unix times.

    `origin`: the digest of the refresh token in the configuration that `refresh_token` came from, "" after a login.
    `error`: what went wrong last, "" since the last token that was had.
    """

    identity: str
    access_token: str = field(default="", repr=False)
    fetched_at: float = 0.0
    expires_at: float = 0.0
    refresh_token: str = field(default="", repr=False)
    origin: str = ""
    error: str = ""
    error_at: float = 0.0


class TokenFile:
    """`key`: the secret that it is encrypted with, or None. Every method but `stamp` may wait for the disk."""

    def __init__(self, path: Path, key: str | None = None) -> None:
        if key is not None and len(key) < SHORTEST_KEY:
            raise RelayError(f"the credential state-key has less than {SHORTEST_KEY} characters")
        self.path = path
        self._key = key

    def stamp(self) -> tuple[int, int, int] | None:
        """Another one whenever somebody wrote the file; None while there is none."""
        try:
            found = os.lstat(self.path)
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size

    def read(self, identity: str) -> Kept:
        """What is kept for `identity`, which may be nothing. Raises RelayError where it cannot be read."""
        try:
            with open(Directory(self.path.parent).open(self.path.name), "rb") as file:
                octets = file.read(_LARGEST)
        except FileNotFoundError:
            return Kept(identity)
        except OSError as error:
            raise RelayError(f"{self.path} cannot be read: {error.strerror}") from None
        plain = octets.startswith(b"{")
        if not plain:
            octets = self._decrypted(octets)
        kept = _kept(figures.json_of(octets))
        if kept is None:
            raise RelayError(f"{self.path} holds no tokens (remove it)")
        if plain and self._key is not None:
            self.write(kept)
        return kept if kept.identity == identity else Kept(identity)

    def write(self, kept: Kept) -> None:
        """Raises RelayError; the file is then as it was."""
        octets = json.dumps({"version": 1, **asdict(kept)}).encode()
        if self._key is not None:
            octets = self._fernet(self._key).encrypt(octets)
        try:
            # Root may write here, in a folder of the relay's own user: nothing that lies there leads elsewhere.
            self._folder().replace(self.path.name, (octets,), to_owner=True)
        except OSError as error:
            raise RelayError(f"{self.path} cannot be written: {error.strerror}") from None

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """One at a time, over all processes. Raises RelayError."""
        path = self.path.with_name(f"{self.path.name}.lock")
        try:
            folder = self._folder()
            try:
                lock = folder.create(path.name)
                leave_to_owner(folder.fileno(), lock)
            except FileExistsError:
                lock = folder.open(path.name, os.O_WRONLY)
        except OSError as error:
            raise RelayError(f"{path} cannot be written: {error.strerror}") from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _folder(self) -> Directory:
        """Where it lies; made if it is not there."""
        path = self.path.parent
        if path.is_dir():
            return Directory(path)
        make_folder(path.parent)
        make_folder(path)
        folder = Directory(path)
        leave_to_owner(path.parent, folder.fileno())
        return folder

    def _decrypted(self, octets: bytes) -> bytes:
        if self._key is None:
            raise RelayError(f"{self.path} is encrypted, and there is no credential state-key")
        fernet = self._fernet(self._key)
        from cryptography.fernet import InvalidToken

        try:
            decrypted: bytes = fernet.decrypt(octets)
        except InvalidToken:
            raise RelayError(f"{self.path} was encrypted with another state-key (log in again, or remove it)") from None
        return decrypted

    def _fernet(self, key: str) -> Fernet:
        from cryptography.fernet import Fernet
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF

        derived = HKDF(SHA256(), 32, salt=None, info=b"relay: kept tokens").derive(key.encode())
        return Fernet(base64.urlsafe_b64encode(derived))


def _kept(document: Any) -> Kept | None:
    """What a file says, whoever wrote it. A token of no moment, or without a lifetime, is none."""
    if not isinstance(document, dict) or not all(isinstance(document.get(name), str) for name in _TEXTS):
        return None
    kept = Kept(**{name: document[name] for name in _TEXTS}, error_at=figures.moment(document.get("error_at")) or 0.0)
    fetched_at, expires_at = figures.moment(document.get("fetched_at")), figures.number(document.get("expires_at"))
    if fetched_at is None or expires_at is None or (lifetime := figures.lifetime(expires_at - fetched_at)) is None:
        return replace(kept, access_token="")
    return replace(kept, fetched_at=fetched_at, expires_at=fetched_at + lifetime)
