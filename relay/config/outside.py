"""What the configuration points at outside itself: files, variables and credentials that must be there.

Only looked at, never kept. `relay check` asks outside the service, where systemd's credentials and the
service's environment are not to be had; `relay serve` and a reload ask inside.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path as FilePath

from relay.config import password, tls
from relay.config.model import Config
from relay.config.problems import Finding, Path, below
from relay.config.secrets import Secret, SecretMissing
from relay.config.section import Section
from relay.errors import ConfigError, RelayError


def secrets(config: Config) -> Iterator[tuple[Path, Secret]]:
    """All secrets, and where they stand."""
    return _secrets((), config)


def _secrets(path: Path, value: object) -> Iterator[tuple[Path, Secret]]:
    below: Iterable[tuple[str | int, object]] = ()
    match value:
        case Secret():
            yield path, value
        case Section():
            below = value
        case tuple():
            below = enumerate(value)
        case dict():
            below = value.items()
    for key, part in below:
        yield from _secrets((*path, key), part)


def problems(config: Config, *, serving: bool) -> list[ConfigError]:
    """What would keep the relay from working with this configuration, here and now.

    Without `serving`, a missing variable or credential is not among them (`absent` tells those).
    """
    found = [
        *_bad_secrets(config, serving=serving),
        *_bad_listener_files(config),
        *_bad_folders(config, serving=serving),
        *_bad_upstream_files(config),
        *_bad_oauth2(config),
    ]
    return [config.source.error(finding) for finding in found]


def absent(config: Config) -> list[ConfigError]:
    """Variables and credentials that are not there now; inside the service they must be."""
    return [
        config.source.error(Finding(path, problem, "the service must have it"))
        for path, secret in secrets(config)
        if secret.kind != "file" and (problem := _missing(secret))
    ]


def _missing(secret: Secret) -> str:
    try:
        secret.reveal()
    except SecretMissing as error:
        return str(error)
    except RelayError:
        pass
    return ""


def _bad_secrets(config: Config, *, serving: bool) -> Iterator[Finding]:
    for path, secret in secrets(config):
        try:
            text = secret.reveal()
            if text.startswith(password.PREFIX):
                if path[0] == "upstreams":
                    yield Finding(path, f"{secret.source} holds a hash", "the password itself is needed here")
                else:
                    password.parse(text)
        except SecretMissing as error:
            if serving or secret.kind == "file":
                yield Finding(path, str(error))
        except RelayError as error:
            yield Finding(path, str(error))


def _bad_listener_files(config: Config) -> Iterator[Finding]:
    for number, listener in config.smtp_listeners.items():
        path: Path = ("listeners", number)
        for pair in listener.files:
            try:
                context = tls.server_context(listener.tls_profile)
            except RelayError as error:
                yield Finding((*path, "tls_profile"), str(error), "write tls_profile: modern")
            else:
                yield from below(path, pair.problems(context))


def _bad_folders(config: Config, *, serving: bool) -> Iterator[Finding]:
    """Folders that files are taken from: one that is missing is made at the start, if its parent allows it.

    The rights of one that is there keep no relay from starting or reloading, for they are its owner's: the relay says
    then that it cannot take files from it.
    """
    queue = os.path.realpath(config.queue.store.folder)
    for number, listener in config.pickup_listeners.items():
        path: Path = ("listeners", number, "directory")
        folder = listener.directory
        parent = folder.parent
        rights = os.R_OK | os.W_OK | os.X_OK
        if FilePath(os.path.realpath(folder)).is_relative_to(queue):
            yield Finding(path, f"in the folder of the queue ({queue}), where nobody else can write", "name another")
        elif os.path.isdir(folder):
            if os.path.islink(folder):
                yield Finding(path, "a link: whoever can change it leads the relay elsewhere", "name the folder itself")
            elif not serving and not os.access(folder, rights):
                yield Finding(path, f"{folder}: files can not be taken from it", "the relay must own it, or its group")
        elif os.path.lexists(folder):
            yield Finding(path, "not a folder")
        elif not os.path.isdir(parent):
            yield Finding(path, f"does not exist, and {parent} is no folder that it could be made in", f"make {folder}")
        elif not os.access(parent, os.W_OK | os.X_OK):
            yield Finding(path, f"does not exist, and can not be made in {parent}", f"make {folder}")


def _bad_upstream_files(config: Config) -> Iterator[Finding]:
    for name, upstream in config.upstreams.items():
        for file in upstream.files:
            yield from below(("upstreams", name), file.problems())


def _bad_oauth2(config: Config) -> Iterator[Finding]:
    """What tokens are to be had with: a library, a certificate, the key of a service account."""
    for name, upstream in config.upstreams.items():
        terms = upstream.oauth2
        if terms is None:
            continue
        path: Path = ("upstreams", name, "oauth2")
        module, package = terms.library or ("", "")
        if module and not _installed(module):
            problem = f"{terms.provider} needs the package {package}, which is not installed"
            yield Finding((*path, "provider"), problem, f"pip install 'relay[{terms.provider}]'")
        for file in terms.files:
            yield from below(path, file.problems())


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def credentials(config: Config) -> dict[str, datetime]:
    """When what the relay logs in with ends, by "secret:NAME" or "certificate:NAME"; reads the certificates."""
    ends: dict[str, datetime] = {}
    for name, upstream in config.upstreams.items():
        if upstream.oauth2 is not None and (day := upstream.oauth2.secret_expires) is not None:
            ends[f"secret:{name}"] = datetime(day.year, day.month, day.day, tzinfo=UTC)
        found = [end for pair in upstream.watched if (end := pair.end()) is not None]
        if found:
            ends[f"certificate:{name}"] = min(found)
    return ends


def oauth2_ends(config: Config, ends: dict[str, datetime]) -> dict[str, datetime]:
    """Of those ends, the first of each upstream that logs in with a token."""
    found: dict[str, datetime] = {}
    for what_and_name, end in ends.items():
        name = what_and_name.partition(":")[2]
        if config.upstreams[name].oauth2 is not None:
            found[name] = min(end, found.get(name, end))
    return found
