"""Secrets: a password as the configuration names it, read only when it is used.

Where it comes from is shown; its value is in no representation, log or error.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from relay.config.values import BadValue
from relay.durable import read_regular
from relay.errors import RelayError

_KINDS = ("credential", "file", "env")
REFERENCE = "{credential: NAME}, {file: PATH} or {env: NAME}"
_HOW = f"write {REFERENCE}"
FORM = {
    "credential": re.compile(r"[A-Za-z0-9_.@-]{1,255}"),
    "file": re.compile(r"[^\x00-\x1f]{1,4096}"),
    "env": re.compile(r"[A-Za-z_][A-Za-z0-9_]*"),
}
_LARGEST = 64 * 1024


class SecretMissing(RelayError):
    """The file, variable or credential is not there."""


@dataclass(frozen=True, slots=True, repr=False)
class Secret:
    """A secret of `kind` "credential" (of systemd), "file", "env" or "plain".

    `reference` is the name or the path; for a plain secret it is the value.
    """

    kind: str
    reference: str = field(repr=False)

    def __repr__(self) -> str:
        return f"Secret({self.kind})"

    __str__ = __repr__

    def reveal(self) -> str:
        """The secret as it is now, without the line end behind it.

        Raises RelayError with a sentence that names the source.
        """
        if self.kind == "plain":
            return self.reference
        if self.kind == "env":
            value = os.environ.get(self.reference)
            if value is None:
                raise SecretMissing(f"environment variable {self.reference} is not set")
        else:
            value = _read(self.path(), self.source)
        value = value.rstrip("\r\n")
        if not value:
            raise RelayError(f"{self.source} is empty")
        if not value.isprintable():
            raise RelayError(f"{self.source} holds more than one line, or control characters")
        return value

    @property
    def source(self) -> str:
        """ "password file /etc/relay/password", "credential own-password": for sentences."""
        if self.kind == "file":
            return f"password file {self.reference}"
        if self.kind == "env":
            return f"environment variable {self.reference}"
        return f"credential {self.reference}" if self.kind == "credential" else "the password in the configuration"

    def path(self) -> Path:
        """The file that holds it (kinds "file" and "credential"). Raises RelayError outside a service."""
        if self.kind == "file":
            return Path(self.reference)
        folder = os.environ.get("CREDENTIALS_DIRECTORY")
        if not folder:
            how = "systemd sets it in a service; elsewhere write {file: PATH}"
            raise SecretMissing(f"{self.source}: $CREDENTIALS_DIRECTORY is not set, {how}")
        return Path(folder, self.reference)

    def below(self, folder: Path) -> Secret:
        """The same, with a relative path counted from `folder`."""
        return replace(self, reference=str(folder / self.reference)) if self.kind == "file" else self


def secret(value: object) -> Secret:
    """The secret written as a string or as {credential|file|env: …}. Raises BadValue, which repeats nothing of it."""
    if isinstance(value, str):
        if not value:
            raise BadValue("the password is empty", _HOW)
        if not value.isprintable():
            raise BadValue("the password holds more than one line, or control characters", _HOW)
        return Secret("plain", value)
    if not isinstance(value, Mapping):
        raise BadValue("a password is text or names where it is kept", f"quote it, or {_HOW}")
    if len(value) != 1 or next(iter(value)) not in _KINDS:
        raise BadValue("a password is kept in exactly one place: credential, file or env", _HOW)
    ((kind, reference),) = value.items()
    if not isinstance(reference, str) or not FORM[kind].fullmatch(reference):
        wanted = {"credential": "the name of a credential", "file": "a path", "env": "the name of a variable"}[kind]
        raise BadValue(f"{kind}: wants {wanted}", _HOW)
    return Secret(kind, reference)


def _read(path: Path, source: str) -> str:
    try:
        content = read_regular(path, _LARGEST + 1)
    except FileNotFoundError:
        raise SecretMissing(f"{source} does not exist") from None
    except OSError as error:
        raise RelayError(f"{source} cannot be read: {error.strerror or 'error'}") from None
    if len(content) > _LARGEST:
        raise RelayError(f"{source} is larger than 64 KiB")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise RelayError(f"{source} is not UTF-8") from None
