"""The show: upstreams, a real configuration, the real relay; mails in, mails out, and whether all is well.

Nothing here is special treatment: the relay reads its file, listens, keeps, delivers; the show sends
with smtplib, and waits for the relay's own events. Only `_relay` starts it.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import smtplib
import tempfile
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from relay.demo import board, judgement, scene, upstream
from relay.demo.mails import OWN, VENDOR, Mail, all_mails
from relay.demo.upstream import Received, Upstream
from relay.errors import RelayError
from relay.events import Event, MessageQueued, Observer, RecipientDelivered, RecipientExpired, RecipientFailed

if TYPE_CHECKING:
    from relay.daemon.house import House

PATIENCE = 30.0  # seconds for all mails of the show
_QUEUE_ID = re.compile(rb"[0-9A-HJKMNP-TV-Z]{12}")


class Witness:
    """An observer that remembers what became of each mail, and wakes who waits for it."""

    def __init__(self) -> None:
        self.queued: dict[str, MessageQueued] = {}
        self.delivered: dict[str, list[RecipientDelivered]] = {}
        self._ended: dict[str, int] = {}
        self.changed = asyncio.Event()

    def observe(self, event: Event) -> None:
        match event:
            case MessageQueued():
                self.queued[event.queue_id] = event
            case RecipientDelivered():
                self.delivered.setdefault(event.queue_id, []).append(event)
                self._end(event.queue_id)
            case RecipientFailed() | RecipientExpired():
                self._end(event.queue_id)

    def _end(self, queue_id: str) -> None:
        self._ended[queue_id] = self._ended.get(queue_id, 0) + 1
        self.changed.set()

    async def settled(self, recipients: dict[str, int]) -> None:
        """Return when each queue ID has as many ended recipients as `recipients` says."""
        while any(self._ended.get(queue_id, 0) < count for queue_id, count in recipients.items()):
            await self.changed.wait()
            self.changed.clear()


async def run(console: Console, *, once: bool, port: int) -> bool:
    """The whole demo on `port`; with `once` it ends after the show. True if everything arrived as it should.

    Raises RelayError, with a sentence for the operator, when the port is taken.
    """
    trouble = scene.trouble_with(port)
    if trouble is not None:
        raise RelayError(
            f"127.0.0.1:{port}: {trouble}: end the program that has it (perhaps another demo), "
            f"or take another port: relay demo --port {scene.free_port(scene.OTHER_PORT)}"
        )
    admin_port = scene.free_port(scene.ADMIN_PORT)
    witness = Witness()
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="relay-demo-")))
        authority = upstream.Authority()
        authority.write(folder / "ca.pem")
        own = await stack.enter_async_context(upstream.running(OWN, scene.OWN_ACCOUNT, authority))
        vendor = await stack.enter_async_context(upstream.running(VENDOR, scene.VENDOR_ACCOUNT, authority))
        config = scene.write(folder, own=own, vendor=vendor, port=port, admin_port=admin_port)
        house = await stack.enter_async_context(_relay(config, witness))
        board.opening(console, port=port, folder=str(folder))
        good = await _show(console, witness, (own, vendor), port)
        if not once:
            await house.pages.opened.wait()
            board.invitation(console, port=port, admin_port=admin_port)
            await _keep_running(console, witness, (own, vendor))
    return good


@contextlib.asynccontextmanager
async def _relay(config_path: Path, observer: Observer) -> AsyncIterator[House]:
    """The relay itself, as `relay serve` runs it, until the block ends."""
    from relay.config.load import load
    from relay.daemon.main import running

    async with running(load(config_path), path=config_path, observers=(observer,)) as house:
        yield house


async def _show(console: Console, witness: Witness, upstreams: Sequence[Upstream], port: int) -> bool:
    mails = all_mails(datetime.now().astimezone())
    queue_ids = await asyncio.to_thread(_send, mails, port)
    try:
        async with asyncio.timeout(PATIENCE):
            await witness.settled({queue_ids[mail.title]: len(mail.recipients) for mail in mails})
    except TimeoutError:
        console.print(f"Not all mails left within {PATIENCE:.0f} seconds.", style="red")
    received = [one for server in upstreams for one in server.received]
    shown = [_shown(mail, queue_ids[mail.title], witness, received) for mail in mails]
    for one in shown:
        board.block(console, one)
    board.verdict(console, shown)
    return not any(one.problems for one in shown)


def _send(mails: Sequence[Mail], port: int) -> dict[str, str]:
    """Hand in the mails as the software would, one after the other; the queue ID of each, by title. Blocks."""
    try:
        return _conversation(mails, port)
    except OSError as error:  # smtplib's own errors are among them
        raise RelayError(f"the relay did not answer as it should: {error}") from error


def _conversation(mails: Sequence[Mail], port: int) -> dict[str, str]:
    queue_ids = {}
    with smtplib.SMTP("127.0.0.1", port, local_hostname="werkplek-7", timeout=PATIENCE) as client:
        for mail in mails:
            client.ehlo_or_helo_if_needed()
            client.mail(mail.reverse_path)
            for recipient in mail.recipients:
                client.rcpt(recipient)
            code, text = client.data(mail.content)
            found = _QUEUE_ID.search(text)
            if code != 250 or found is None:
                raise RelayError(f"the relay did not take the {mail.title}: {code} {text.decode('ascii', 'replace')}")
            queue_ids[mail.title] = found[0].decode()
    return queue_ids


def _shown(mail: Mail, queue_id: str, witness: Witness, received: Sequence[Received]) -> board.Shown:
    queued, delivered = witness.queued.get(queue_id), witness.delivered.get(queue_id, [])
    arrived = judgement.arrivals(mail, received)
    return board.Shown(
        mail=mail,
        received=arrived[0] if arrived else None,
        route=queued.route if queued else "",
        accepted=queued.seconds if queued else 0.0,
        delivered=max((event.delay for event in delivered), default=0.0),
        problems=judgement.problems(mail, received),
    )


async def _keep_running(console: Console, witness: Witness, upstreams: Sequence[Upstream]) -> None:
    """Show what else arrives, until Ctrl-C or SIGTERM."""
    stop = asyncio.Event()

    def end() -> None:
        stop.set()
        witness.changed.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end)
    seen = {server.name: len(server.received) for server in upstreams}
    while not stop.is_set():
        for server in upstreams:
            for received in server.received[seen[server.name] :]:
                board.own_block(console, received)
            seen[server.name] = len(server.received)
        await witness.changed.wait()
        witness.changed.clear()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.remove_signal_handler(number)
