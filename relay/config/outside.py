"""What the configuration points at outside itself: files, variables and credentials that must be there.

Only looked at, never kept. `relay check` asks outside the service, where systemd's credentials and the
service's environment are not to be had (`service` knows what is installed); `relay serve` and a reload ask inside.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path as FilePath

from relay.config import password, tls
from relay.config.files import MAKE, File
from relay.config.model import Config
from relay.config.problems import Finding, Path, below
from relay.config.secrets import Secret, SecretMissing
from relay.config.section import Section
from relay.errors import ConfigError, RelayError

CREDENTIALS = FilePath("/run/credentials/relay.service")  # where systemd lays them, once the service runs


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
        *_bad_listener_files(config, serving=serving),
        *_bad_folders(config, serving=serving),
        *_bad_upstream_files(config, serving=serving),
    ]
    return [config.source.error(finding) for finding in found]


def absent(config: Config) -> list[ConfigError]:
    """Variables and credentials that are not there now, where no service is installed that would have them.

    A file beside the configuration, of the credential's name, is taken for what it will be loaded from.
    """
    found, inside = [], "CREDENTIALS_DIRECTORY" in os.environ
    for path, secret in secrets(config):
        if secret.kind == "env" and secret.reference not in os.environ:
            found.append(Finding(path, f"{secret.source} is not set", "what starts the relay must set it"))
        if secret.kind == "credential" and not inside:
            file = FilePath(config.source.file).absolute().parent / secret.reference
            hint = f"write the secret into {file}, and LoadCredential={file.name}:{file} into relay.service"
            if not file.exists():
                found.append(Finding(path, f"{secret.source}: no relay.service is installed here that gives it", hint))
    return [config.source.error(finding) for finding in found]


def unusable(path: Path, secret: Secret) -> Iterator[Finding]:
    """What is wrong with a secret that is to be had here, if anything. Raises SecretMissing where it is not."""
    try:
        text = secret.reveal()
        if text.startswith(password.PREFIX):
            if path[0] == "upstreams":
                yield Finding(path, f"{secret.source} holds a hash", "the password itself is needed here")
            else:
                password.parse(text)
    except SecretMissing:
        raise
    except RelayError as error:
        who = "the user that runs this must be able to read it: root, or that of the service"
        denied = secret.kind == "file" and not os.access(secret.path(), os.R_OK)
        yield Finding(path, str(error), who if denied else "write the secret into it, as one line")


def exposed(path: Path, file: FilePath) -> Iterator[Finding]:
    """A file with a secret that more than its owner and group may read."""
    try:
        mode = os.stat(file).st_mode
    except (OSError, ValueError):
        return
    if stat.S_ISREG(mode) and mode & stat.S_IROTH:
        yield Finding(path, f"{file} can be read by everybody on this machine", f"chmod 0600 {file}")


def files(config: Config) -> Iterator[tuple[Path, File]]:
    """All files that are no secrets in one line, and the sections that name them."""
    for number, listener in config.smtp_listeners.items():
        yield from ((("listeners", number), file) for file in listener.files)
    for name, upstream in config.upstreams.items():
        yield from ((("upstreams", name), file) for file in upstream.files)
        if upstream.oauth2 is not None:
            yield from ((("upstreams", name, "oauth2"), file) for file in upstream.oauth2.files)


def _bad_secrets(config: Config, *, serving: bool) -> Iterator[Finding]:
    for path, secret in secrets(config):
        try:
            yield from unusable(path, secret)
        except SecretMissing as error:
            named = secret.kind == "file"
            if serving or (named and not _to_come(secret.path())):
                yield Finding(path, str(error), MAKE if named else "")


def _to_come(file: FilePath) -> bool:
    """True for what systemd lays there at the start, and has not yet."""
    return file.parent == CREDENTIALS and not os.path.lexists(file)


def _bad_listener_files(config: Config, *, serving: bool) -> Iterator[Finding]:
    for number, listener in config.smtp_listeners.items():
        path: Path = ("listeners", number)
        for pair in listener.files:
            if not serving and any(_to_come(each) for _, each in pair.read):
                continue
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


def _bad_upstream_files(config: Config, *, serving: bool) -> Iterator[Finding]:
    for path, file in files(config):
        if path[0] == "upstreams" and (serving or not any(_to_come(each) for _, each in file.read)):
            yield from below(path, file.problems())


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
