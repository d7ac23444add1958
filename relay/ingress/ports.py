"""Sockets to listen on: opened here, or handed over by systemd (sd_listen_fds(3)).

A port that cannot be had is an error that says which, why, by whom it is held, and what to do. A Unix
socket replaces one that a dead process left behind, never one that is in use, and never another file.
"""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

from relay import figures
from relay.durable import UnixSocket
from relay.errors import RelayError

BACKLOG = 1024
UNREAD = 64 * 1024  # octets of replies that wait in the kernel for a client (which takes twice the figure)
_FIRST_PASSED = 3  # SD_LISTEN_FDS_START
_MOST_PASSED = 4096


class PortError(RelayError):
    """A listening socket cannot be had."""


def open_port(host: str, port: int) -> socket.socket:
    """A listening TCP socket. An IPv6 one takes IPv6 only, so that `::` and `0.0.0.0` can stand side by side."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        _for_replies(listener)
        listener.bind((host, port))
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise PortError(_explain(host, port, error)) from None
    return listener


def _for_replies(listener: socket.socket) -> None:
    """Replies leave at once, and few of them wait in the kernel; connections inherit it.

    (asyncio asks for TCP_NODELAY only where the socket names its protocol. On its own, the kernel would keep megabytes
    for each client that reads nothing.)
    """
    if listener.family == socket.AF_UNIX:
        return
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, UNREAD)


def open_unix(path: str) -> UnixSocket:
    """A listening Unix socket at `path`, which its owner and its group may use (0660)."""
    try:
        return UnixSocket(path, 0o660, BACKLOG)
    except OSError as error:
        raise PortError(_explain_unix(path, error)) from None


def _explain_unix(path: str, error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return f"unix:{path}: there is no folder {os.path.dirname(path) or '.'} (make it, or choose another path)"
    if isinstance(error, PermissionError):
        return f"unix:{path} cannot be made: permission denied (the folder must be writable for the relay)"
    if error.errno == errno.EADDRINUSE:
        if not Path(path).is_socket():
            return f"unix:{path} is a file that is no socket (remove it, or choose another path)"
        return f"unix:{path} is in use by another process (stop it, or choose another path)"
    return f"unix:{path} cannot be opened: {error.strerror}"


def has_family(host: str) -> bool:
    """False when this machine has no address of the family of `host` (IPv6 switched off)."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.bind((host, 0))
    except OSError as error:
        return error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)
    return True


def passed_sockets(name: str) -> list[socket.socket]:
    """All sockets that systemd passed under `name`; a PortError when there is none."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        raise PortError(f"systemd:{name}: no sockets were passed (start relay.socket, or use an address)")
    names = os.environ.get("LISTEN_FDNAMES", "").split(":")
    count = figures.count(os.environ.get("LISTEN_FDS", ""), _MOST_PASSED) or 0
    found = [_FIRST_PASSED + index for index, one in enumerate(names[:count]) if one == name]
    if not found:
        known = ", ".join(sorted(set(names) - {""})) or "none"
        raise PortError(f"systemd:{name}: no socket of that name was passed (passed: {known}; FileDescriptorName=)")
    # Duplicated, so that a listener can be closed and opened again at a reload.
    try:
        sockets = [socket.socket(fileno=os.dup(descriptor)) for descriptor in found]
    except OSError as error:
        raise PortError(f"systemd:{name}: what was passed is no socket: {error.strerror}") from None
    for listener in sockets:
        _for_replies(listener)
        listener.setblocking(False)
        os.set_inheritable(listener.fileno(), False)
    return sockets


def _explain(host: str, port: int, error: OSError) -> str:
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if error.errno == errno.EADDRINUSE:
        return f"{where} is in use {_by_whom(port)} (stop it, or choose another port under `listen`)"
    if error.errno == errno.EACCES:
        return (
            f"{where} needs a privilege: ports below 1024 are reserved "
            "(use systemd/relay.socket, give CAP_NET_BIND_SERVICE, or listen on a port such as 2525)"
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{where} is no address of this machine (see `ip address`, and correct `listen`)"
    return f"{where} cannot be opened: {os.strerror(error.errno or 0)}"


def _by_whom(port: int) -> str:
    """ "by process 123 (master)", as far as /proc lets us see."""
    inodes = set[str]()
    for table in ("tcp", "tcp6"):
        try:
            lines = Path(f"/proc/net/{table}").read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            columns = line.split()
            if columns[3] == "0A" and int(columns[1].rpartition(":")[2], 16) == port:
                inodes.add(f"socket:[{columns[9]}]")
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(_target(descriptor) in inodes for descriptor in (process / "fd").iterdir()):
                return f"by process {process.name} ({(process / 'comm').read_text().strip()})"
        except OSError:
            continue
    return "by another process"


def _target(descriptor: Path) -> str:
    try:
        return os.readlink(descriptor)
    except OSError:
        return ""  # closed meanwhile
