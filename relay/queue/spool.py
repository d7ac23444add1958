"""Large content: files beside the database, complete and durable before a row points to them.

A file is written under a temporary name, fsynced, renamed to the queue ID of its entry, and the
directory is fsynced; then the row may be committed. So a file without a row is an orphan, and a
row without its file means that somebody took it away. No name ever comes from a message.
"""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import ParamSpec, TypeVar

from relay.durable import Directory, make_folder
from relay.errors import StoreUnavailable
from relay.queue.content import FileContent

P = ParamSpec("P")
T = TypeVar("T")

_SUFFIX = ".eml"
_TEMPORARY = ".part"
_NOBODY = "0"  # no queue ID is that short
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class Spool:
    """The directory of spool files, 0700; the files are 0600. Blocking work is done on threads of its own.

    `told` hears of a disk that fails (StoreUnavailable), and of each file that was made durable (None).
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        make_folder(directory)
        self.folder = Directory(directory)
        self.told: Callable[[StoreUnavailable | None], None] = lambda _: None
        self._threads = ThreadPoolExecutor(max_workers=4, thread_name_prefix="spool")
        self._changing = Lock()
        self._keepers = 0
        self._later: list[str] = []

    def begin(self) -> SpoolWriter:
        """A new file; nothing touches the disk before its first write."""
        return SpoolWriter(self)

    def name(self, content: FileContent) -> str:
        """What a row keeps of `content`: its name in this directory."""
        if content.folder is not self.folder:
            raise ValueError("the content is no file of this spool")
        return content.name

    def name_of(self, queue_id: str) -> str:
        """The name that the file of this message was given."""
        return queue_id + _SUFFIX

    def names(self) -> set[str]:
        """The files here that are ours by their names: whatever else somebody put here stays."""
        return {name for name in self.folder.names() if name.endswith((_SUFFIX, _TEMPORARY))}

    def require_folder(self) -> None:
        """OSError where its path leads elsewhere by now, for the next start would not find what is written here."""
        if not self.folder.is_there:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))

    def remove(self, names: Iterable[str], *, at_once: bool = False) -> None:
        """Forget files whose entries are gone, beside everything else; what stays is an orphan for the next start.

        While a copy is made (`kept`) they stay, unless it has to be `at_once`.
        """
        with self._changing:
            if self._keepers and not at_once:
                self._later += names
                return
        self._threads.submit(self.remove_now, list(names))

    @contextmanager
    def kept(self) -> Iterator[None]:
        """No file is removed in this context. On any thread."""
        with self._changing:
            self._keepers += 1
        try:
            yield
        finally:
            with self._changing:
                self._keepers -= 1
                later, self._later = ([], self._later) if self._keepers else (self._later, [])
            self._threads.submit(self.remove_now, later)

    def remove_now(self, names: Iterable[str]) -> None:
        for name in names:
            try:
                self.folder.remove(name)
            except OSError:
                continue  # gone already, or a failing disk: the next start looks again

    async def on_thread(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """`work` on a thread of the spool; a failing disk becomes StoreUnavailable."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: work(*args, **kwargs))
        except OSError as error:
            reason = "full" if error.errno in _FULL else "io"
            trouble = StoreUnavailable(reason, f"spool file: {os.strerror(error.errno or errno.EIO)}")
            self.told(trouble)
            raise trouble from None

    async def try_out(self) -> None:
        """Make a file durable, and remove it; raises StoreUnavailable."""
        writer = self.begin()
        await writer.write(b"\r\n")
        content = await writer.finish(_NOBODY, b"", writer.written)
        self.remove([self.name(content)])

    def close(self) -> None:
        """Wait for removals under way, and end the threads. Idempotent."""
        self._threads.shutdown(wait=True)


class SpoolWriter:
    """One file on its way in: any number of `write`, then `finish`, or `discard` at any time before the put.

    `write` and `finish` raise StoreUnavailable ("full", "io"); nothing stays on the disk then.
    One call at a time. A caller cancelled in a call has to `discard`.
    """

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._name = secrets.token_hex(8) + _TEMPORARY
        self._descriptor: int | None = None
        self._work: asyncio.Future[None] | None = None
        self._touched = False
        self._over = False
        self.written = 0

    async def write(self, data: bytes) -> None:
        """Append `data`; pieces of about 256 KiB are best."""
        await self._run(lambda: self._append(data))

    async def finish(self, queue_id: str, head: bytes, size: int) -> FileContent:
        """Make the file durable under its final name. `head` is the beginning of what was written, `size` all of it."""
        if size != self.written:
            raise ValueError(f"{self.written} octets were written, {size} were announced")
        if not (queue_id.isascii() and queue_id.isalnum()):
            raise ValueError("no queue ID")
        await self._run(lambda: self._settle(self._spool.name_of(queue_id)))
        self._spool.told(None)
        return FileContent(self._spool.folder, self._name, size, head)

    async def discard(self) -> None:
        """Remove the file, under whatever name. Idempotent; not after its entry was put."""
        if self._work is not None and not self._work.done():
            await asyncio.wait([self._work])
        self._over = True
        if self._touched:
            await self._spool.on_thread(self._drop)

    async def _run(self, step: Callable[[], None]) -> None:
        if self._over:
            raise ValueError("the spool file is discarded")
        work = asyncio.ensure_future(self._spool.on_thread(self._guarded, step))
        self._work = work
        await asyncio.shield(work)  # a thread cannot be called back; discard waits for it

    def _guarded(self, step: Callable[[], None]) -> None:
        try:
            step()
        except OSError:
            self._over = True
            self._drop()
            raise

    def _append(self, data: bytes) -> None:
        if self._descriptor is None:
            self._touched = True
            self._descriptor = self._spool.folder.create(self._name)
            self._spool.require_folder()
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]
        self.written += len(data)

    def _settle(self, final: str) -> None:
        if self._descriptor is None:
            self._append(b"")
        assert self._descriptor is not None
        os.fsync(self._descriptor)
        self._close()
        folder = self._spool.folder
        folder.rename(self._name, final)
        self._name = final
        folder.sync()
        self._spool.require_folder()

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def _drop(self) -> None:
        try:
            self._close()
        finally:
            self._spool.remove_now([self._name])
