"""The scene of the demo: its configuration file, as an administrator would write it, and free ports."""

from __future__ import annotations

import socket
from pathlib import Path

from relay.demo.mails import MAILBOX, SUFFIX
from relay.demo.upstream import Account, Upstream

OWN_ACCOUNT = Account(MAILBOX, "demo-password", address=MAILBOX)
VENDOR_ACCOUNT = Account("boekhoudpakket", "vendor-password")
ADMIN_PORT = 9125
OTHER_PORT = 2526

CONFIG = """\
hostname: relay.kantoor.example
listeners:
  - name: legacy
    listen: 127.0.0.1:{port}
upstreams:
  {own.name}:
    host: 127.0.0.1
    port: {own.port}
    tls: starttls
    tls_ca: {folder}/ca.pem
    username: {own.account.username}
    password: {{file: {folder}/{own.name}.password}}
  {vendor.name}:
    host: 127.0.0.1
    port: {vendor.port}
    tls: starttls
    tls_ca: {folder}/ca.pem
    username: {vendor.account.username}
    password: {{file: {folder}/{vendor.name}.password}}
senders:
  - name: session-codes
    match: {{session_code: true}}
    keep: true
  - name: mailbox
    match: {{from: {mailbox}}}
    keep: true
  - name: bookkeepers
    address: {mailbox}
    display_name: "{{name}} {suffix}"
session_codes:
  enabled: true
  vendor: {vendor.name}
  own: {own.name}
queue:
  store: sqlite:{folder}/queue.db
  min_free: 20MiB
admin:
  listen: 127.0.0.1:{admin_port}
  socket: {folder}/admin.sock
log:
  level: warning
"""


def write(folder: Path, *, own: Upstream, vendor: Upstream, port: int, admin_port: int) -> Path:
    """The configuration file in `folder`, with the password files it names."""
    for upstream in (own, vendor):
        secret = folder / f"{upstream.name}.password"
        secret.touch(mode=0o600)
        secret.write_text(upstream.account.password, encoding="utf-8")
    path = folder / "config.yaml"
    text = CONFIG.format(
        folder=folder, own=own, vendor=vendor, port=port, admin_port=admin_port, mailbox=MAILBOX, suffix=SUFFIX
    )
    path.write_text(text, encoding="utf-8")
    return path


def trouble_with(port: int) -> str | None:
    """Why nobody may listen on this port of 127.0.0.1 now, or None."""
    with socket.socket() as attempt:
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            attempt.bind(("127.0.0.1", port))
        except OSError as error:
            return error.strerror or str(error)
    return None


def free_port(wanted: int) -> int:
    """`wanted` if it is free, else any port that is."""
    if wanted and trouble_with(wanted) is None:
        return wanted
    with socket.socket() as attempt:
        attempt.bind(("127.0.0.1", 0))
        port: int = attempt.getsockname()[1]
        return port
