"""Handing a message to the relay on this machine by SMTP, as any other application does.

Found by `$RELAY_SMTP` ("unix:/path" or "host:port"), else by the configuration, as far as this user may read it;
else localhost:25. The first that greets is taken: Unix sockets before loopback, loopback before other addresses.
Listeners that want a password, or TLS from the start, are no way in for a command.
"""

from __future__ import annotations

import os
import smtplib
import socket
from collections.abc import Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING

from relay.mail.address import Address
from relay.mail.reply import sanitise
from relay.values import frozen

if TYPE_CHECKING:
    from relay.config.model import Config

TIMEOUT = 300.0  # seconds for each reply
OK, USAGE, DATAERR, NOUSER, UNAVAILABLE = 0, 64, 65, 67, 69  # sysexits.h
OSERR, TEMPFAIL, NOPERM, CONFIG = 71, 75, 77, 78
_NOT_FOR_US = frozenset({530, 535, 538, 554})

Where = tuple[str, int]  # a host and its port; a path and 0


class NotTaken(Exception):
    """The message was not taken; `code` is one of sysexits.h, the text says why."""

    def __init__(self, code: int, text: str) -> None:
        self.code = code
        super().__init__(text)


class Refused(NotTaken):
    """What the relay refused, and its reply."""


@frozen
class Relay:
    """Where the relay may be, and what unqualified addresses belong to."""

    places: tuple[Where, ...]
    hostname: str


@frozen
class Letter:
    """What is handed over. `mail` and `rcpt` are ESMTP parameters of DSN, passed on where the relay offers it."""

    reverse_path: Address | None
    recipients: tuple[Address, ...]
    content: bytes
    mail: Mapping[str, str] = field(default_factory=dict)
    rcpt: Mapping[str, str] = field(default_factory=dict)


def find(config: Path | None, environment: Mapping[str, str]) -> Relay:
    """Raises NotTaken when the configuration that was named cannot be used."""
    place = environment.get("RELAY_SMTP")
    if place and config is None:
        return Relay((_place(place),), _hostname())
    from relay.cli.serve import DEFAULT_CONFIG
    from relay.config.load import load
    from relay.errors import BadConfig

    path = config or Path(environment.get("RELAY_CONFIG") or DEFAULT_CONFIG)
    try:
        loaded = load(path)
    except BadConfig as bad:
        if config is not None:
            raise NotTaken(CONFIG, str(bad.problems[0])) from None
        return Relay((("localhost", 25),), _hostname())
    return Relay(_places(loaded), loaded.hostname)


def _place(written: str) -> Where:
    from relay.config.values import BadValue, listen_address

    try:
        address = listen_address(written)
    except BadValue as bad:
        raise NotTaken(CONFIG, f"RELAY_SMTP: {bad}") from None
    return address.host, address.port


def _places(config: Config) -> tuple[Where, ...]:
    found: list[tuple[int, Where]] = []
    for listener in config.smtp_listeners.values():
        if listener.auth == "users" or listener.require_tls or listener.tls == "implicit":
            continue
        for address in listener.listen:
            ip = address.ip
            if address.kind == "unix":
                found.append((0, (address.host, 0)))
            elif address.kind == "systemd":
                found.append((2, ("localhost", 25)))
            elif ip is not None and ip.is_unspecified:
                found.append((1, ("127.0.0.1" if ip.version == 4 else "::1", address.port)))
            else:
                loopback = ip is None or ip.is_loopback
                found.append((1 if loopback else 3, (address.host, address.port)))
    if not found:
        raise NotTaken(CONFIG, "no listener takes mail from this machine without a password and TLS (add a unix: one)")
    return tuple(dict.fromkeys(where for _, where in sorted(found, key=lambda each: each[0])))


def _hostname() -> str:
    name = socket.gethostname()
    return name if "." in name else socket.getfqdn()


def connect(relay: Relay) -> smtplib.SMTP:
    """A session with the first that greets; raises NotTaken."""
    trouble: NotTaken | None = None
    for where in relay.places:
        client = smtplib.SMTP(local_hostname=relay.hostname or "localhost", timeout=TIMEOUT)
        try:
            if where[1]:
                code, text = client.connect(*where)
            else:
                client.sock = socket.socket(socket.AF_UNIX)
                client.sock.settimeout(TIMEOUT)
                client.sock.connect(where[0])
                code, text = client.getreply()
        except (OSError, smtplib.SMTPException) as error:
            reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else "no greeting"
            trouble = trouble or NotTaken(TEMPFAIL, f"no relay answers at {_shown(where)}: {reason}")
            client.close()
            continue
        if code == 220:
            return client
        client.close()
        trouble = _refusal(f"a session at {_shown(where)}", code, text)
    assert trouble is not None  # there is one place at least
    raise trouble


def _shown(where: Where) -> str:
    host, port = where
    return f"unix:{host}" if not port else f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def submit(client: smtplib.SMTP, letter: Letter) -> str:
    """Hand it over, in several transactions where the relay wants fewer recipients; the last reply. Raises NotTaken."""
    try:
        client.ehlo_or_helo_if_needed()
        waiting, reply = list(letter.recipients), ""
        while waiting:
            waiting, reply = _transaction(client, letter, waiting)
        client.quit()
        return reply
    except smtplib.SMTPResponseException as error:
        raise _refusal("a session", error.smtp_code, error.smtp_error) from None
    except (OSError, smtplib.SMTPException):  # a lost answer to the final dot as well: it may be kept
        raise NotTaken(TEMPFAIL, "the connection with the relay was lost") from None
    finally:
        client.close()


def _transaction(client: smtplib.SMTP, letter: Letter, recipients: Sequence[Address]) -> tuple[list[Address], str]:
    """One message to as many recipients as the relay takes; those that are left, and what it replied."""
    parameters = [f"SIZE={len(letter.content)}"] if client.has_extn("size") else []
    addresses = [*recipients, *([letter.reverse_path] if letter.reverse_path else [])]
    if not all(address.is_ascii for address in addresses) and client.has_extn("smtputf8"):
        client.command_encoding = "utf-8"
        parameters.append("SMTPUTF8")
    if not letter.content.isascii() and client.has_extn("8bitmime"):
        parameters.append("BODY=8BITMIME")
    dsn = client.has_extn("dsn")
    sender = str(letter.reverse_path) if letter.reverse_path else ""
    code, text = client.docmd(
        "MAIL", " ".join([f"FROM:<{sender}>", *parameters, *(_written(letter.mail) if dsn else [])])
    )
    if code != 250:
        raise _refusal(f"the sender <{sender}>", code, text)
    taken = 0
    for address in recipients:
        code, text = client.docmd("RCPT", " ".join([f"TO:<{address}>", *(_written(letter.rcpt) if dsn else [])]))
        if code == 452 and taken:
            break
        if code not in (250, 251):
            raise _refusal(f"the recipient <{address}>", code, text, permanent=NOUSER)
        taken += 1
    code, text = client.data(letter.content)
    if code != 250:
        raise _refusal("the message", code, text)
    return list(recipients[taken:]), _said(code, text)


def _written(parameters: Mapping[str, str]) -> list[str]:
    return [f"{key}={value}" for key, value in parameters.items()]


def _refusal(what: str, code: int, text: bytes | str, *, permanent: int = UNAVAILABLE) -> Refused:
    if 400 <= code < 500:
        permanent = TEMPFAIL
    elif code == 552:
        permanent = DATAERR
    elif code in _NOT_FOR_US and permanent == UNAVAILABLE:
        permanent = NOPERM
    return Refused(permanent, f"{what}: {_said(code, text)}")


def _said(code: int, text: bytes | str) -> str:
    return sanitise(f"{code} {text.decode('utf-8', 'replace') if isinstance(text, bytes) else text}", 300)
