"""What the service that is installed here would lack with a configuration: files that it may not read, credentials,
variables, sockets.

It is concluded from the units, from modes and owners; nothing is done as the service's user. Where these do not say (an
ACL, a file that this process may not see), nothing is found.
"""

from __future__ import annotations

import fnmatch
import grp
import os
import pwd
import shlex
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path as FilePath

from relay.config import outside
from relay.config.checks import same_place
from relay.config.files import MAKE
from relay.config.model import Config
from relay.config.problems import Finding, Path, did_you_mean
from relay.config.secrets import FORM, Secret, SecretMissing
from relay.config.units import Unit, installed, sockets_of
from relay.config.values import BadValue, ListenAddress, listen_address
from relay.durable import read_regular

NAME = "relay.service"

_OWN = {"StateDirectory": "/var/lib", "RuntimeDirectory": "/run", "CacheDirectory": "/var/cache"}
_HIDDEN = {"ProtectHome": ("/home", "/root", "/run/user"), "PrivateTmp": ("/tmp", "/var/tmp")}  # noqa: S108
_SEEN = ("", "no", "false", "off", "0", "read-only")
_ROOT = 0


@dataclass(frozen=True, slots=True)
class Service:
    """The service: its unit; the name and number of its user, None for one that is made at the start; its groups."""

    unit: Unit
    runs_as: str
    user: int | None
    groups: frozenset[int]

    def serves(self, file: FilePath) -> bool:
        """Whether `file` is the configuration that it starts with."""
        with suppress(ValueError):
            words = shlex.split(self.unit.last("Service", "ExecStart"))
            return any(os.path.realpath(word.removeprefix("--config=")) == os.path.realpath(file) for word in words)
        return False

    def lacks(self, config: Config, file: FilePath) -> Iterator[Finding]:
        """What it would lack with `config`, which was read from `file`."""
        if self.serves(file) and (barrier := self._barrier(file)):
            hint = f"chmod 0644 {file}, with the secrets in files of their own"
            yield Finding((), f"{NAME} cannot read this file: {barrier}", hint)
        for path, secret in outside.secrets(config):
            match secret.kind:
                case "credential":
                    yield from self._credential(path, secret.reference, file)
                case "file":
                    yield from self._file(path, secret.path(), "{credential: NAME}", file)
                case "env" if not self._sets(secret.reference):
                    hint = f"add EnvironmentFile=/etc/relay/environment to it, and {secret.reference}=… in that file"
                    yield Finding(path, f"{NAME} does not set the variable {secret.reference}", hint)
        for section, pointed_at in outside.files(config):
            for key, each in pointed_at.read:
                yield from self._file((*section, *key), each, f"{key[-1]}: {outside.CREDENTIALS}/NAME", file)
        for path, secret in self._loaded_secrets(config):
            try:
                yield from outside.unusable(path, secret)
            except SecretMissing as missing:
                yield Finding(path, f"{missing}, and {NAME} loads it from there", MAKE)
        yield from self._sockets(config)

    def exposes(self, config: Config) -> Iterator[Finding]:
        """Files that it loads secrets from, which others may read as well."""
        for path, secret in self._loaded_secrets(config):
            yield from outside.exposed(path, secret.path())

    def _loaded_secrets(self, config: Config) -> Iterator[tuple[Path, Secret]]:
        """Credentials, as the files that they are loaded from, where this process may read those."""
        loaded = dict(self._loaded())
        for path, secret in outside.secrets(config):
            file = loaded.get(secret.reference) if secret.kind == "credential" else None
            if file is not None and (os.access(file, os.R_OK) or not os.path.lexists(file)):
                yield path, Secret("file", str(file))

    def _file(self, path: Path, named: FilePath, instead: str, file: FilePath) -> Iterator[Finding]:
        if named.parent == outside.CREDENTIALS:
            yield from self._credential(path, named.name, file)
        elif barrier := self._barrier(named):
            name = named.name if FORM["credential"].fullmatch(named.name) else "NAME"
            hint = f"write {instead.replace('NAME', name)}, and LoadCredential={name}:{named} in {NAME}"
            yield Finding(path, f"{NAME} cannot read {named}: {barrier}", hint)

    def _barrier(self, file: FilePath) -> str:
        """What keeps its user from reading the file; nothing where nothing does, or that is not known."""
        real = FilePath(os.path.realpath(file))
        for key, base in _OWN.items():
            names = [word.partition(":")[0] for word in self.unit.words("Service", key)]
            if any(real.is_relative_to(f"{base}/{more}{name}") for name in names for more in ("", "private/")):
                return ""
        for key, folders in _HIDDEN.items():
            if self.unit.last("Service", key).lower() not in _SEEN and any(map(real.is_relative_to, folders)):
                return f"{key}= hides it"
        for part in () if self.user == _ROOT else (*reversed(real.parents), real):
            with suppress(OSError):
                found = os.stat(part)
                if _has_acl(part):
                    return ""
                if not self._may(found, stat.S_IROTH if part == real else stat.S_IXOTH):
                    return f"{part} is {_owner(found)} {stat.S_IMODE(found.st_mode):04o}, and it runs as {self.runs_as}"
        return ""

    def _may(self, found: os.stat_result, of_others: int) -> bool:
        if found.st_uid == self.user:
            return bool(found.st_mode & of_others << 6)
        return bool(found.st_mode & (of_others << 3 if found.st_gid in self.groups else of_others))

    def _credential(self, path: Path, name: str, file: FilePath) -> Iterator[Finding]:
        names = [each for each, _ in self._loaded()]
        if name not in names and not self._imports(name):
            close = did_you_mean(name, names)
            hint = f"add LoadCredential={name}:{file.absolute().parent / name} to it"
            hint += f"; or {close}" if close.startswith("did") else ""
            yield Finding(path, f"{NAME} has no credential {name}", hint)

    def _loaded(self) -> Iterator[tuple[str, FilePath | None]]:
        """The names of its credentials, each with the file that it is loaded from, None where that is not told."""
        for key in ("LoadCredential", "LoadCredentialEncrypted", "SetCredential", "SetCredentialEncrypted"):
            for value in self.unit.all("Service", key):
                name, _, where = value.partition(":")
                file = FilePath(where) if where.startswith("/") and "%" not in where else None
                if key.startswith("Load") and file is not None and file.is_dir():  # one for each file in it
                    with suppress(OSError):
                        yield from ((f"{name}_{each.name}", each) for each in file.iterdir())
                else:
                    yield name, file if key == "LoadCredential" else None

    def _imports(self, name: str) -> bool:
        """Whether it may come from where systemd keeps credentials."""
        for value in self.unit.all("Service", "ImportCredential"):
            pattern, renamed, new = value.partition(":")
            if name.startswith(new) if renamed else fnmatch.fnmatchcase(name, pattern):
                return True
        return False

    def _sets(self, name: str) -> bool:
        """Whether it has the environment variable; True as well where a file of them cannot be read here."""
        if name in self.unit.words("Service", "PassEnvironment"):
            return True
        try:
            assigned = [word for value in self.unit.all("Service", "Environment") for word in shlex.split(value)]
            for file in self.unit.all("Service", "EnvironmentFile"):
                with suppress(FileNotFoundError):
                    assigned += read_regular(file.removeprefix("-")).decode("utf-8", "replace").split("\n")
        except (OSError, ValueError):
            return True
        return any(each.strip().startswith(f"{name}=") for each in assigned)

    def _sockets(self, config: Config) -> Iterator[Finding]:
        units = sockets_of(self.unit)
        names = {unit.last("Socket", "FileDescriptorName", unit.name): unit.name for unit in units}
        instead = f"write systemd:{' or systemd:'.join(names)}"
        started = set(self.unit.words("Service", "Sockets"))
        held = [
            (each, unit.name) for unit in units if unit.name in started for each in unit.all("Socket", "ListenStream")
        ]
        for number, listener in config.smtp_listeners.items():
            for place, address in enumerate(listener.listen):
                path: Path = ("listeners", number, "listen", place)
                holder = next((name for stream, name in held if _same(stream, address)), None)
                if holder is not None:
                    yield Finding(path, f"{holder} listens at {address} already", instead)
                elif address.kind == "systemd" and not names:
                    hint = "install systemd/relay.socket, or write an address"
                    yield Finding(path, f"no unit hands over sockets to {NAME}", hint)
                elif address.kind == "systemd" and address.host not in names:
                    handed = " and ".join(f"{unit} hands over {known}" for known, unit in names.items())
                    yield Finding(path, f"no socket has this name: {handed}", instead)


def service() -> Service | None:
    """The service that is installed here; None where there is none."""
    unit = installed(NAME)
    if unit is None:
        return None
    dynamic = unit.yes("Service", "DynamicUser")
    name = unit.last("Service", "User", unit.name.partition(".")[0] if dynamic else "root")
    named = [*unit.all("Service", "Group")[-1:], *unit.words("Service", "SupplementaryGroups")]
    groups = {group for each in named if (group := _group(each)) is not None}
    user = _user(name)
    if user is not None:
        groups.update(os.getgrouplist(user.pw_name, user.pw_gid))
        return Service(unit, name, user.pw_uid, frozenset(groups))
    if dynamic:
        return Service(unit, f"{name}, a user that is made at its start", None, frozenset(groups))
    return Service(unit, name, _ROOT, frozenset())  # it does not start at all, and systemd says so


def _same(stream: str, address: ListenAddress) -> bool:
    """Whether systemd listens there, by a line such as 127.0.0.1:25, [::1]:25 or 25, which is everywhere."""
    if stream.isdecimal():
        return address.kind == "tcp" and address.port == int(stream)
    try:
        return same_place(listen_address(f"unix:{stream}" if stream.startswith("/") else stream), address)
    except BadValue:
        return False


def _user(name: str) -> pwd.struct_passwd | None:
    with suppress(KeyError):
        return pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)
    return None


def _group(name: str) -> int | None:
    with suppress(KeyError):
        return int(name) if name.isdecimal() else grp.getgrnam(name).gr_gid
    return None


def _owner(found: os.stat_result) -> str:
    user, group = str(found.st_uid), str(found.st_gid)
    with suppress(KeyError):
        user = pwd.getpwuid(found.st_uid).pw_name
    with suppress(KeyError):
        group = grp.getgrgid(found.st_gid).gr_name
    return f"{user}:{group}"


def _has_acl(path: FilePath) -> bool:
    with suppress(OSError):
        return bool(os.getxattr(path, "system.posix_acl_access"))
    return False
