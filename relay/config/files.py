"""The files that a section points at, and what is wrong with them here and now. They are looked at, never kept.

Paths count from the section, as in what it says of its keys.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path as FilePath

from relay import figures
from relay.config import tls
from relay.config.problems import Finding, Path
from relay.durable import read_regular
from relay.values import frozen

MAKE = "make it, or correct the path"


@frozen
class Authorities:
    """A PEM file with the certificates of authorities; `path` is the key that names it."""

    path: Path
    file: FilePath

    private = None

    @property
    def read(self) -> list[tuple[Path, FilePath]]:
        """The files that the relay reads, each with its key."""
        return [(self.path, self.file)]

    def problems(self) -> Iterator[Finding]:
        if unreadable := _unreadable(self.file):
            yield Finding(self.path, *unreadable)
            return
        try:
            _context().load_verify_locations(self.file)
        except ssl.SSLError:
            yield Finding(self.path, f"{self.file} holds no certificate in PEM form")


@frozen
class Pair:
    """A certificate and its private key, PEM files named by the keys `path` and `key_path`; without `key` both are in
    the one file."""

    path: Path
    certificate: FilePath
    key_path: Path
    key: FilePath | None

    @property
    def read(self) -> list[tuple[Path, FilePath]]:
        return [(self.path, self.certificate), *([(self.key_path, self.key)] if self.key is not None else [])]

    @property
    def private(self) -> tuple[Path, FilePath] | None:
        """What nobody else may read, where that is a file of its own."""
        return (self.key_path, self.key) if self.key is not None else None

    def problems(self, context: ssl.SSLContext | None = None) -> Iterator[Finding]:
        """`context` is the one that the pair is for, where it takes weaker keys than others."""
        bad = [Finding(path, *problem) for path, file in self.read if (problem := _unreadable(file))]
        if bad:
            yield from bad
            return
        try:
            self._load(context or _context())
        except ssl.SSLError as error:
            if error.reason == "KEY_VALUES_MISMATCH":
                where = self.path if self.key is None else self.key_path
                yield Finding(where, "the key does not belong to the certificate")
            else:
                yield Finding(self.path, "not a certificate and a key without passphrase in PEM form")

    def end(self) -> datetime | None:
        """When the certificate ends; None where it cannot be used, which whoever shows it will report."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            self._load(context)
        except (OSError, ssl.SSLError):
            return None
        return tls.certificate_end(context, self.certificate)

    def _load(self, context: ssl.SSLContext) -> None:
        tls.load_pair(context, self.certificate, self.key)


@frozen
class ServiceAccount:
    """The key of a service account of Google: a JSON file that nobody else may read."""

    path: Path
    file: FilePath

    @property
    def read(self) -> list[tuple[Path, FilePath]]:
        return [(self.path, self.file)]

    @property
    def private(self) -> tuple[Path, FilePath]:
        return self.path, self.file

    def problems(self) -> Iterator[Finding]:
        if unreadable := _unreadable(self.file):
            yield Finding(self.path, *unreadable)
            return
        found = figures.json_of(read_regular(self.file))
        if not isinstance(found, dict) or not {"client_email", "private_key", "token_uri"} <= found.keys():
            problem = f"{self.file} is not the key of a service account"
            yield Finding(self.path, problem, "the JSON file that Google made for it")


@frozen
class Folder:
    """A folder that is written into, and made where it is missing."""

    path: Path
    directory: FilePath

    read = ()
    private = None

    def problems(self) -> Iterator[Finding]:
        if os.path.islink(self.directory):
            yield Finding(self.path, "a link: nothing is written where it leads", "name the folder itself")
        elif os.path.exists(self.directory) and not os.path.isdir(self.directory):
            yield Finding(self.path, "not a folder")


File = Authorities | Pair | ServiceAccount | Folder


def of_tls(ca: FilePath | None, certificate: FilePath | None, key: FilePath | None) -> Iterator[File]:
    """The files of the keys tls_ca, tls_certificate and tls_key."""
    if ca is not None:
        yield Authorities(("tls_ca",), ca)
    if certificate is not None:
        yield Pair(("tls_certificate",), certificate, ("tls_key",), key)


def _context() -> ssl.SSLContext:
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def _unreadable(file: FilePath) -> tuple[str, str] | None:
    """What is wrong, and what to do."""
    try:
        read_regular(file, 1)
    except FileNotFoundError:
        return f"{file} does not exist", MAKE
    except OSError as error:
        return f"{file} cannot be read: {error.strerror or 'error'}", ""
    return None
