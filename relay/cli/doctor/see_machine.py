"""Looking at this machine: its clock, the disk, the queue, the listeners, and the relay that runs on it."""

from __future__ import annotations

import asyncio
import ctypes
import os
import shutil
import ssl
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from relay.cli import desk
from relay.cli.doctor import of_machine, see_upstream
from relay.cli.doctor.findings import Chapter, Finding, Mark, bad, good, untried, warning
from relay.cli.human import of_json
from relay.cli.language import say
from relay.config.model import Config, SmtpListener
from relay.config.values import BadValue, ListenAddress, listen_address
from relay.errors import RelayError
from relay.ingress import ports

_PATIENCE = 10.0  # seconds for a banner
_TIMEX = 1024  # octets; struct timex has about 200
_UNSYNCHRONISED = 5  # TIME_ERROR of adjtimex(2)

Snapshot = dict[str, Any]


async def look(config: Config, snapshot: Snapshot | None, silent: str) -> Chapter:
    """`snapshot`: that of the running relay, as `relay status` has it; `silent`: why one that runs does not answer."""
    found = [_relay(snapshot, silent), await _clock(config)]
    found += await asyncio.to_thread(lambda: [*_disk(config)])
    found.append(await _mail(config, snapshot, silent))
    if silent:
        found.append(untried("listener", say("finding.listener-unknown")))
        return Chapter(say("finding.machine"), tuple(found))
    for listener in config.smtp_listeners.values():
        for address in _addresses(listener, snapshot):
            found.append(await _listener(listener, address, running=snapshot is not None))
    return Chapter(say("finding.machine"), tuple(found))


def _relay(snapshot: Snapshot | None, silent: str) -> Finding:
    if snapshot is not None:
        count = sum([trouble["needs_a_person"] for trouble in snapshot["troubles"]])
        values = {"version": snapshot["version"], "pid": snapshot["pid"]}
        if not count:
            return good("relay", say("finding.relay", **values))
        return warning("relay", say("finding.relay-troubles", count=count, **values), "troubles")
    if silent:
        return warning("relay", silent, "relay-silent")
    return warning("relay", say("finding.no-relay"), "no-relay")


async def _clock(config: Config) -> Finding:
    compared = await see_upstream.clock_of(config)
    return of_machine.of_clock(*compared) if compared is not None else of_machine.of_kernel_clock(_synchronised())


def _synchronised() -> bool | None:
    """adjtimex(2), which tells without a privilege; None where it does not."""
    timex = ctypes.create_string_buffer(_TIMEX)  # all zero: modes 0 changes nothing
    try:
        state = ctypes.CDLL(None).adjtimex(timex)
    except (OSError, AttributeError):
        return None
    return None if state < 0 else state != _UNSYNCHRONISED


# The queue


def _disk(config: Config) -> Iterator[Finding]:
    folder = config.queue.store.folder
    there = next(each for each in (folder, *folder.parents) if each.is_dir())
    try:
        yield of_machine.of_disk(shutil.disk_usage(there).free, config.queue.min_free, str(folder))
    except OSError as error:
        yield bad("disk", f"{there}: {error.strerror}", "folder")
    if not folder.is_dir():
        yield warning("queue", say("finding.no-folder", folder=folder), "folder-missing", folder=str(folder))
        return
    try:
        yield of_machine.of_fsync(_flushed(folder))
    except OSError as error:
        yield bad("queue", say("finding.folder", folder=folder, said=error.strerror), "folder")


def _flushed(folder: Path) -> float:
    """Seconds for a small file beside the database: written, on the disk, and gone again."""
    with tempfile.NamedTemporaryFile(prefix="doctor-", dir=folder) as file:
        begun = time.perf_counter()
        file.write(bytes(4096))
        file.flush()
        os.fsync(file.fileno())
        return time.perf_counter() - begun


async def _mail(config: Config, snapshot: Snapshot | None, silent: str) -> Finding:
    now = datetime.now(UTC)
    if snapshot is not None:
        waiting = sum(route[place] for route in snapshot["routes"] for place in ("pending", "deferred", "active"))
        oldest = [of_json(route["oldest"]) for route in snapshot["routes"] if route["oldest"]]
        return of_machine.of_ages(waiting, min(oldest, default=None), now)
    if silent:
        return untried("mail", say("finding.mail-unknown"))
    try:
        view = await desk.look(config)
    except RelayError as error:
        return warning("mail", str(error), "queue-unknown")
    if view is None:
        return good("mail", say("finding.no-queue"))
    return of_machine.of_ages(sum(view.messages.values()), min(view.oldest.values(), default=None), now)


# The listeners


def _addresses(listener: SmtpListener, snapshot: Snapshot | None) -> list[ListenAddress | str]:
    """Where it listens: as the running relay says, else as the configuration does; text where that is no address."""
    if snapshot is None:
        return [*listener.listen]
    for one in snapshot["listeners"]:
        if one["name"] == listener.name:
            return [_parsed(written) for written in one["addresses"]]
    return [say("finding.listener-new", name=listener.name)]


def _parsed(written: str) -> ListenAddress | str:
    try:
        return listen_address(written)
    except BadValue:
        return written


async def _listener(listener: SmtpListener, address: ListenAddress | str, *, running: bool) -> Finding:
    if isinstance(address, str):
        return bad("listener", address, "listener")
    if not running:
        return await asyncio.to_thread(_free, listener, address)
    where = f"{address} ({listener.name})"
    try:
        async with asyncio.timeout(_PATIENCE):
            banner = await _banner(listener, address)
    except TimeoutError:
        if listener.proxy_protocol:
            return good("listener", say("finding.listener-proxy", where=where))
        return bad("listener", say("finding.listener-silent", where=where, seconds=f"{_PATIENCE:.0f}"), "listener")
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else error
        return bad("listener", say("finding.listener-dead", where=where, said=why), "listener")
    if banner[:3] == b"220":
        return good("listener", say("finding.listener", where=where))
    if banner[:3] in (b"554", b"421"):
        return good("listener", say("finding.listener-not-us", where=where, code=banner[:3].decode()))
    return bad("listener", say("finding.listener-other", where=where), "listener")


async def _banner(listener: SmtpListener, address: ListenAddress) -> bytes:
    if address.kind == "unix":
        reader, writer = await asyncio.open_unix_connection(address.host)
    else:
        context = None
        if listener.tls == "implicit":
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        reader, writer = await asyncio.open_connection(address.from_here, address.port, ssl=context)
    try:
        banner = await reader.readline()
        writer.write(b"QUIT\r\n")
        return banner
    finally:
        writer.close()


def _free(listener: SmtpListener, address: ListenAddress) -> Finding:
    """Whether a relay that starts would get the port."""
    where = f"{address} ({listener.name})"
    if address.kind == "systemd":
        return untried("listener", say("finding.listener-systemd", where=where))
    if address.kind == "unix":
        return untried("listener", say("finding.listener-off", where=where))
    if listener.listen_is_default and not ports.has_family(address.host):
        return untried("listener", say("finding.listener-family", where=where))
    try:
        ports.open_port(address.host, address.port).close()
    except RelayError as error:
        if 0 < address.port < 1024 and os.geteuid() != 0:
            return Finding(Mark.UNTRIED, "listener", say("finding.listener-root", where=where))
        return bad("listener", str(error), "port")
    return good("listener", say("finding.listener-free", where=where))
