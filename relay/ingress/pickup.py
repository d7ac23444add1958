"""A pickup folder: the way in for software that can only write files.

A complete .eml file that lies in `directory` is taken: kept durably, then removed. Write it elsewhere on the
same file system and rename it into the folder; a file that is written in the folder itself is left alone until
nobody has changed it for two seconds. What cannot be taken moves to `bad/`, with the reason beside it; what cannot
be moved, or not be read now, keeps no other file waiting. While the store cannot keep it, a file stays where it is.
At least once: a file is taken a second time only if the relay crashed right behind keeping it, and its entry was
delivered and forgotten (`queue.history: null`) meanwhile.

The envelope comes from the header (`mail.parcel`). Who puts files here is known by the folder's rights alone: rules see
the client "pickup", which is in no network.
"""

from __future__ import annotations

import asyncio
import errno
import os
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from math import inf
from pathlib import Path
from traceback import format_exception
from typing import Literal

from relay.errors import RelayError, StoreUnavailable
from relay.events import ExceptionCaught, MessageRefused, Observer, QuirksTolerated, Warned
from relay.ingress import quirks
from relay.ingress.accept import Acceptor, QueueIds
from relay.ingress.folder import BAD, Claimed, Folder
from relay.ingress.pickup_file import BadFile, Bounds, PickupFile
from relay.mail.aliases import Aliases
from relay.mail.content import Content, MemoryContent
from relay.mail.quirk import Quirk
from relay.mail.reply import sanitise
from relay.mail.submission import Peer, Submission
from relay.queue.content import FileContent
from relay.queue.spool import Spool, SpoolWriter
from relay.queue.store import QueueStore
from relay.values import frozen

PEER = Peer("pickup")
LISTED = 1_000  # files looked at before the folder is listed again
AT_ONCE = 32  # files on their way at the same time
READ_AT_ONCE = 2  # of them; a header that is made to be hard keeps a thread busy, and others need threads as well
EVERY = 1.0  # seconds between two looks
NOT_NOW = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO, errno.ESTALE, errno.EAGAIN, errno.ENOENT})
"""No fault of the file: the machine lacks something, another program has a lease on it, or it is gone."""
AGAIN = 30.0  # seconds until the next try where a file could not be kept, read or moved


class NotNow(Exception):
    """A file cannot be read now."""


@frozen
class PickupSettings:
    """What a pickup listener is configured to do; `header_size` is in octets, `aliases` None where there are none."""

    name: str
    directory: Path
    max_message_size: int
    header_size: int
    header_fields: int
    dots: Literal["auto", "doubled", "plain"]
    aliases: Aliases | None


class Pickup:
    """One pickup folder: `open`, then `run` until `stop`."""

    def __init__(
        self,
        settings: PickupSettings,
        *,
        acceptor: Acceptor,
        store: QueueStore,
        queue_ids: QueueIds,
        spool: Spool,
        space: Callable[[], bool],
        observer: Observer,
        now: Callable[[], datetime],
        every: float = EVERY,
        again: float = AGAIN,
    ) -> None:
        self.settings = settings
        self.taken = 0  # messages since the start
        self._acceptor = acceptor
        self._store = store
        self._queue_ids = queue_ids
        self._spool = spool
        self._space = space
        self._observer = observer
        self._now = now
        self._every = every
        self._again = again
        self._folder = Folder(settings.directory)
        self._kept: set[str] = set()  # entries that are kept, whose files are not removed yet
        self._aside: dict[Claimed, str] = {}  # what is to lie in bad/, and does not yet, with the reason
        self._resting: dict[str, float] = {}  # by name: when a file that could not be moved or read is tried again
        self._settle_at = 0.0  # when to look at what is ours and lies where it should not
        self._told = ""
        self.problem = ""  # what is in the way of taking files from it, as a sentence
        self._reading = asyncio.Semaphore(READ_AT_ONCE)
        self._stop = asyncio.Event()

    @property
    def name(self) -> str:
        return self.settings.name

    @property
    def shown(self) -> list[str]:
        """Where it takes mail, as people write it."""
        return [str(self.settings.directory)]

    @property
    def lying(self) -> int:
        """How many things lie there that could not be taken, as last seen."""
        return self._folder.lying + len(self._aside) + len(self._resting)

    def change(self, settings: PickupSettings) -> None:
        """Files taken from now on follow `settings`; the directory is the same."""
        self.settings = settings

    async def open(self) -> None:
        """Make the folder, and settle what a crash left behind; before workers run. Raises RelayError.

        Its rights, and what lies in it, keep no relay from starting: whoever may write there may see to both.
        """
        try:
            await asyncio.to_thread(self._folder.make)
        except PermissionError:
            pass  # so says the next step
        except OSError as error:
            raise RelayError(self._sentence(error)) from None
        try:
            await self._settle()
        except OSError as error:
            self._tell(error)

    async def run(self) -> None:
        """Take files until `stop`; what is on its way then is finished."""
        while not self._stop.is_set():
            try:
                if self._clock() >= self._settle_at:
                    await self._settle()
                pause = await self._look()
            except (OSError, StoreUnavailable) as error:
                self._tell(error)
                pause = self._every
            if pause:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._stop.wait(), pause)

    def stop(self) -> None:
        self._stop.set()

    def _clock(self) -> float:
        return asyncio.get_running_loop().time()

    async def _settle(self) -> None:
        """Files claimed for entries that are kept are removed, others become files of the folder again; and what could
        not be set aside is."""
        self._settle_at = self._clock() + self._again
        left = await asyncio.to_thread(self._folder.claimed, LISTED)
        done = len(left) < LISTED
        for one in left:
            if one in self._aside:
                continue
            kept = one.queue_id in self._kept or one.queue_id in await self._store.match(one.queue_id)
            if await self._on_disk(self._folder.remove if kept else self._folder.give_back, one):
                self._kept.discard(one.queue_id)
            else:
                done = False
        for one in list(self._aside):
            done &= await self._lay_aside(one)
        await asyncio.to_thread(self._folder.sync)
        if done:
            self._settle_at = inf

    async def _look(self) -> float:
        """Take what lies there; how long to wait before the next look."""
        clock = self._clock()
        self._resting = {name: at for name, at in self._resting.items() if at > clock - self._again}  # the rest is gone
        resting = {name for name, at in self._resting.items() if at > clock}
        names = await asyncio.to_thread(self._folder.waiting, LISTED if self._space() else 0, resting)
        for begin in range(0, len(names), AT_ONCE):
            if self._stop.is_set():
                break
            now = self._now()
            wanted = [Claimed(self._queue_ids.next(now), name) for name in names[begin : begin + AT_ONCE]]
            claimed, stuck = await asyncio.to_thread(self._folder.claim, wanted)
            for name, error in stuck:
                self._rest(name, str(error.strerror))
            if not all(await asyncio.gather(*map(self._take, claimed))):
                return self._again
        if self._settle_at == inf:
            self._told = self.problem = ""
        return 0.0 if len(names) == LISTED else self._every

    def _rest(self, name: str, why: str) -> None:
        """Leave a file alone for a while, so that others have their turn."""
        if name not in self._resting:
            shown = sanitise(os.fsencode(name).decode("utf-8", "replace"), 400)
            self._observer.observe(Warned(f"{self.settings.name}: {shown} cannot be taken now: {why}"))
        self._resting[name] = self._clock() + self._again

    async def _take(self, one: Claimed) -> bool:
        """One file, to its end; False when it has to be tried again later, and others with it."""
        try:
            await self._accept(one)
        except BadFile as bad:
            self._refused(one, bad)
            await self._set_aside(one, str(bad))
        except NotNow as error:
            await self._put_off(one, str(error))
        except StoreUnavailable as error:
            self._tell(error)
            await self._on_disk(self._folder.give_back, one)
            return False
        except Exception as error:  # noqa: BLE001  # bulkhead: a bug stops no folder; the next start looks at it again
            self._observer.observe(ExceptionCaught("accept", type(error).__name__, "".join(format_exception(error))))
        return True

    async def _accept(self, one: Claimed) -> None:
        """Raises BadFile, NotNow, StoreUnavailable."""
        started = time.perf_counter()
        file, content = await self._read(one)
        envelope = file.envelope
        submission = Submission(one.queue_id, envelope, file.head, content.size, PEER, self.settings.name, self._now())
        reply = await self._acceptor.accept(submission, content, lambda: time.perf_counter() - started)
        if reply[:1] == b"2":
            self.taken += 1
            self._kept.add(one.queue_id)
            tolerated = quirks.of_head(file.head, size=content.size, smtputf8=envelope.smtputf8)
            tolerated |= {Quirk.NUL} if file.nul else quirks.NONE
            if tolerated:
                self._observer.observe(QuirksTolerated(self.settings.name, PEER.address, tuple(sorted(tolerated))))
            await self._on_disk(self._folder.remove, one)
            self._kept.discard(one.queue_id)
            return
        if isinstance(content, FileContent):
            self._spool.remove([self._spool.name(content)])
        text = reply.decode("utf-8", "replace").strip()
        if reply[:1] == b"4":
            raise StoreUnavailable("other", text)
        await self._set_aside(one, text)

    async def _read(self, one: Claimed) -> tuple[PickupFile, Content]:
        """The message; large content goes to a spool file."""
        settings = self.settings
        bounds = Bounds(settings.max_message_size, settings.header_size, settings.header_fields, settings.dots)
        descriptor = -1
        try:
            descriptor = await asyncio.to_thread(self._folder.open, one)
            async with self._reading:
                file = await asyncio.to_thread(PickupFile, descriptor, bounds, settings.aliases)
            if file.whole:
                return file, MemoryContent(file.first, len(file.head))
            return file, await self._spooled(one, file)
        except OSError as error:
            if error.errno in NOT_NOW:
                raise NotNow(error.strerror) from None
            raise BadFile(f"cannot be read: {error.strerror}") from None
        finally:
            if descriptor >= 0:
                os.close(descriptor)

    async def _spooled(self, one: Claimed, file: PickupFile) -> Content:
        writer: SpoolWriter = self._spool.begin()
        try:
            piece = file.first
            while piece:
                await writer.write(piece)
                piece = await asyncio.to_thread(file.more)
            return await writer.finish(one.queue_id, file.head, writer.written)
        except BaseException:
            with suppress(StoreUnavailable):  # then it is an orphan for the next start
                await writer.discard()
            raise

    def _refused(self, one: Claimed, bad: BadFile) -> None:
        self._observer.observe(
            MessageRefused(
                listener=self.settings.name,
                client=PEER.address,
                user=None,
                reverse_path="",
                recipients=(),
                result="rejected_size" if bad.code == 552 else "rejected_syntax",
                code=bad.code,
                status=bad.status,
                text=sanitise(f"{one.shown}: {bad}", 400),
            )
        )

    async def _put_off(self, one: Claimed, why: str) -> None:
        try:
            name = await asyncio.to_thread(self._folder.give_back, one)
        except OSError as error:
            self._settle_later(error)
        else:
            self._rest(name, why)

    async def _set_aside(self, one: Claimed, reason: str) -> None:
        self._aside[one] = reason
        await self._lay_aside(one)

    async def _lay_aside(self, one: Claimed) -> bool:
        reason, when = self._aside[one], self._now().astimezone().isoformat(" ", "seconds")
        text = (
            f"{when}: this message was not taken, and nobody got it: {reason}\n"
            f"Correct it and move it back into {self.settings.directory}, or delete both files.\n"
        )
        try:
            explained = await asyncio.to_thread(self._folder.set_aside, one, text)
        except OSError as error:
            if isinstance(error, FileNotFoundError):
                del self._aside[one]  # somebody took it away
            self._settle_later(error)
            return False
        del self._aside[one]
        self._folder.lying += 1  # until it is counted again
        if not explained:
            said = sanitise(f"{one.shown}: {reason}", 400)
            self._observer.observe(
                Warned(f"{self.settings.name}: {said} (it lies in {BAD}/, where the reason cannot be written)")
            )
        return True

    async def _on_disk(self, step: Callable[..., object], *arguments: object) -> bool:
        """What is left to do about a file; where it fails, it is done later."""
        try:
            await asyncio.to_thread(step, *arguments)
        except OSError as error:
            self._settle_later(error)
            return False
        return True

    def _settle_later(self, error: OSError) -> None:
        self._settle_at = min(self._settle_at, self._clock() + self._again)
        if not isinstance(error, FileNotFoundError):
            self._tell(error)

    def _sentence(self, error: OSError | StoreUnavailable) -> str:
        where = f"{self.settings.name}: {self.settings.directory}"
        if isinstance(error, StoreUnavailable):
            return f"{where}: mail cannot be kept, the files stay: {error}"
        return (
            f"{where}: {error.strerror or 'error'} (the folder must belong to the relay, or be writable for its group)"
        )

    def _tell(self, error: OSError | StoreUnavailable) -> None:
        """A warning, once until all is well again."""
        sentence = self._sentence(error)
        if isinstance(error, OSError):
            self.problem = sentence  # a store that fails is a trouble of its own
        if sentence != self._told:
            self._told = sentence
            self._observer.observe(Warned(sentence))
