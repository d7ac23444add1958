"""What the configuration points at outside itself: files, variables and credentials that must be there.

Only looked at, never kept. `relay check` asks outside the service, where systemd's credentials and the
service's environment are not to be had; `relay serve` and a reload ask inside.
"""

from __future__ import annotations

import importlib.util
import json
import os
import ssl
from collections.abc import Iterator
from pathlib import Path as FilePath

from relay.config import password, tls
from relay.config.model import CaptureUpstream, Config, GoogleOAuth2, HttpsUpstream, MicrosoftOAuth2, SmtpUpstream
from relay.config.problems import Finding, Path
from relay.config.secrets import Secret, SecretMissing
from relay.durable import open_regular
from relay.errors import ConfigError, RelayError


def secrets(config: Config) -> Iterator[tuple[Path, Secret]]:
    """All secrets, and where they stand."""
    for number, listener in config.smtp_listeners.items():
        for place, user in enumerate(listener.users):
            yield ("listeners", number, "users", place, "password"), user.password
    for name, upstream in config.upstreams.items():
        if isinstance(upstream, SmtpUpstream) and upstream.password is not None:
            yield ("upstreams", name, "password"), upstream.password
        if isinstance(upstream, SmtpUpstream) and upstream.oauth2 is not None:
            for key in ("client_secret", "refresh_token"):
                if (secret := getattr(upstream.oauth2, key, None)) is not None:
                    yield ("upstreams", name, "oauth2", key), secret
        if isinstance(upstream, HttpsUpstream):
            for key in ("password", "token", "secret"):
                if (secret := getattr(upstream, key)) is not None:
                    yield ("upstreams", name, key), secret


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
        if listener.certificate is not None and listener.key is not None:
            path: Path = ("listeners", number)
            try:
                context = tls.server_context(listener.tls_profile)
            except RelayError as error:
                yield Finding((*path, "tls_profile"), str(error), "write tls_profile: modern")
                continue
            yield from _bad_pair(context, (*path, "certificate"), listener.certificate, (*path, "key"), listener.key)


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
        path: Path = ("upstreams", name)
        if isinstance(upstream, CaptureUpstream):
            if os.path.islink(upstream.directory):
                yield Finding(
                    (*path, "directory"), "a link: messages are not written where it leads", "name the folder"
                )
            elif os.path.exists(upstream.directory) and not os.path.isdir(upstream.directory):
                yield Finding((*path, "directory"), "not a folder")
            continue
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if upstream.tls_ca is not None:
            yield from _bad_authorities(context, (*path, "tls_ca"), upstream.tls_ca)
        if upstream.tls_certificate is not None:
            key = upstream.tls_key or upstream.tls_certificate
            key_path = (*path, "tls_key" if upstream.tls_key else "tls_certificate")
            yield from _bad_pair(context, (*path, "tls_certificate"), upstream.tls_certificate, key_path, key)


_LIBRARIES = {"microsoft": ("msal", "msal"), "google": ("google.auth", "google-auth")}


def _bad_oauth2(config: Config) -> Iterator[Finding]:
    """What tokens are to be had with: a library, a certificate, the key of a service account."""
    for name, upstream in config.upstreams.items():
        if not isinstance(upstream, SmtpUpstream) or upstream.oauth2 is None:
            continue
        path: Path = ("upstreams", name, "oauth2")
        terms = upstream.oauth2
        module, package = _LIBRARIES.get(terms.provider, ("", ""))
        if module and not _installed(module):
            problem = f"{terms.provider} needs the package {package}, which is not installed"
            yield Finding((*path, "provider"), problem, f"pip install 'relay[{terms.provider}]'")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if terms.tls_ca is not None:
            yield from _bad_authorities(context, (*path, "tls_ca"), terms.tls_ca)
        if isinstance(terms, MicrosoftOAuth2) and terms.certificate is not None:
            key_path = (*path, "key" if terms.key else "certificate")
            key = terms.key or terms.certificate
            yield from _bad_pair(context, (*path, "certificate"), terms.certificate, key_path, key)
        if isinstance(terms, GoogleOAuth2) and terms.key is not None:
            yield from _bad_service_account((*path, "key"), terms.key)


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _bad_service_account(path: Path, file: FilePath) -> Iterator[Finding]:
    unreadable = _unreadable(file)
    if unreadable:
        yield Finding(path, unreadable)
        return
    try:
        found = json.loads(file.read_bytes())
    except ValueError:
        found = None
    if not isinstance(found, dict) or not {"client_email", "private_key", "token_uri"} <= found.keys():
        yield Finding(path, f"{file} is not the key of a service account", "the JSON file that Google made for it")


def _bad_authorities(context: ssl.SSLContext, path: Path, file: FilePath) -> Iterator[Finding]:
    unreadable = _unreadable(file)
    if unreadable:
        yield Finding(path, unreadable)
        return
    try:
        context.load_verify_locations(file)
    except ssl.SSLError:
        yield Finding(path, f"{file} holds no certificate in PEM form")


def _bad_pair(
    context: ssl.SSLContext, path: Path, certificate: FilePath, key_path: Path, key: FilePath
) -> Iterator[Finding]:
    unreadable = [(where, _unreadable(file)) for where, file in ((path, certificate), (key_path, key))]
    bad = {where: problem for where, problem in unreadable if problem}
    if bad:
        yield from (Finding(where, problem) for where, problem in bad.items())
        return
    try:
        tls.load_pair(context, certificate, key)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            yield Finding(key_path, "the key does not belong to the certificate")
        else:
            yield Finding(path, "not a certificate and a key without passphrase in PEM form")


def _unreadable(file: FilePath) -> str:
    try:
        with open_regular(file):
            return ""
    except FileNotFoundError:
        return f"{file} does not exist"
    except OSError as error:
        return f"{file} cannot be read: {error.strerror or 'error'}"
