"""A copy of the queue while mail flows: what it holds was there at one moment.

One short transaction copies what waits at that moment, without content; content and history follow in slices, so
that no long transaction keeps a session code's text in the log of the store. What came to its end meanwhile is left
out, or is among the finished. Session codes never get into the copy. The tokens of upstreams lie beside it, as they
lie beside the queue: without them a restored relay could not log in. The copy gets its name last, complete and
durable; an entry that somebody has leased is one that waits there.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

from relay.durable import Directory, sync
from relay.errors import RelayError, StoreUnavailable
from relay.queue.disk import Work
from relay.queue.listing import Saved
from relay.queue.spool import Spool
from relay.values import frozen

AT_ONCE = 4 * 1024 * 1024  # octets of content, in one transaction
ENTRIES_AT_ONCE = 500
HISTORY_AT_ONCE = 5000


@frozen
class Target:
    """Where a copy comes to lie, and where it is made."""

    path: Path

    @property
    def spool(self) -> Path:
        return self._beside(".spool")

    @property
    def tokens(self) -> Path:
        return self._beside(".tokens")

    @property
    def made(self) -> Path:
        return self._beside(".relay-part")  # a name that nobody else gives

    @property
    def made_spool(self) -> Path:
        return self._beside(".relay-part.spool")

    @property
    def made_tokens(self) -> Path:
        return self._beside(".relay-part.tokens")

    @contextmanager
    def begun(self) -> Iterator[None]:
        """An empty file, 0600, to make the copy in; nothing of it stays after an error."""
        try:
            with closing(Directory(self.path.parent.resolve())) as folder:  # its disk can be taken off in any case
                for path in (self.path, self.spool, self.tokens):
                    if folder.has(path.name):
                        raise RelayError(f"{path} exists: choose another name for the backup, or remove it")
                self._clear()  # what a dead process may have left
                os.close(folder.create(self.made.name))
            try:
                yield
            finally:
                self._clear()
        except OSError as error:
            raise RelayError(f"{self.path}: the backup cannot be written: {error.strerror}") from None

    def finish(self) -> None:
        """Make it durable under its name; first the files, which nobody looks for without it."""
        sync(self.made)
        for made, name in ((self.made_spool, self.spool), (self.made_tokens, self.tokens)):
            if made.exists():
                sync(made)
                os.rename(made, name)
        os.rename(self.made, self.path)
        sync(self.path.parent)

    def _beside(self, suffix: str) -> Path:
        return self.path.with_name(self.path.name + suffix)

    def _clear(self) -> None:
        self.made.unlink(missing_ok=True)
        for folder in (self.made_spool, self.made_tokens):
            shutil.rmtree(folder, ignore_errors=True)


def copy(
    transaction: Callable[[Callable[[Work], None]], None], target: Target, spool: Spool, stop: Callable[[], bool]
) -> Saved:
    """Copy into the database attached as `copy`. `transaction` runs one; after `stop` no other begins."""
    saved = Saved(0, 0, 0)
    left_out = last_key = 0
    contents: list[tuple[int, int, str | None]] = []

    def run(work: Callable[[Work], None]) -> None:
        if stop():
            raise StoreUnavailable("other", "the backup was stopped")
        transaction(work)

    def waiting(work: Work) -> None:
        nonlocal left_out, last_key
        for name in ("copy_entries", "copy_recipients", "copy_attempts", "copy_memory", "copy_told"):
            work.execute(name)
        left_out, last_key = next(work.execute("copy_bounds"))
        contents.extend(work.execute("copied_entries"))

    def without_the_ended(work: Work) -> None:
        nonlocal saved
        ended = {key for (key,) in work.execute("ended_meanwhile")}
        if ended:
            work.execute("drop_copied_attempts", (work.keys(ended),))
            work.execute("drop_copied", (work.keys(ended),))
        entries, octets = next(work.execute("count_copied"))
        saved = Saved(entries, octets, left_out)
        contents[:] = [content for content in contents if content[0] not in ended]

    run(waiting)
    for keys in _slices(contents):
        run(partial(_copy_contents, keys))
    run(without_the_ended)
    _link(spool, target.made_spool, [name for _, _, name in contents if name is not None])
    _copy_history(run, last_key)
    return saved


def copy_tokens(queue: Path, target: Target) -> None:
    """Copy what lies beside the database `queue` of its upstreams' tokens, as it is. Raises OSError."""
    try:
        tokens = Directory(queue.with_name(f"{queue.name}.tokens"))
    except FileNotFoundError:
        return
    target.made_tokens.mkdir(mode=0o700)
    with closing(tokens), closing(Directory(target.made_tokens)) as made:
        for name in tokens.names():
            if not name.endswith((".lock", ".partial")):
                with open(tokens.open(name), "rb") as file:
                    made.write_new(name, (file.read(),))


def _copy_contents(keys: list[int], work: Work) -> None:
    work.execute("copy_contents", (work.keys(keys),))


def _copy_history(run: Callable[[Callable[[Work], None]], None], last_key: int) -> None:
    done: int | None = 0

    def slice_after(work: Work) -> None:
        nonlocal done
        after = done
        done = next(work.execute("history_slice", (after, last_key, HISTORY_AT_ONCE)))[0]
        if done is not None:
            work.execute("copy_history", (after, done))
            work.execute("copy_history_attempts", (after, done))

    while done is not None:
        run(slice_after)


def _slices(contents: Iterable[tuple[int, int, str | None]]) -> Iterator[list[int]]:
    """Keys, so many that their content in the database is not too much at once."""
    keys: list[int] = []
    octets = 0
    for key, size, spool_file in contents:
        keys.append(key)
        octets += size if spool_file is None else 0
        if octets >= AT_ONCE or len(keys) == ENTRIES_AT_ONCE:
            yield keys
            keys, octets = [], 0
    if keys:
        yield keys


def _link(spool: Spool, directory: Path, names: list[str]) -> None:
    if not names:
        return
    directory.mkdir(mode=0o700)
    with closing(Directory(directory)) as made:
        for name in names:
            try:
                spool.folder.link(name, name, into=made)
            except FileNotFoundError:
                continue  # it was gone before: the entry is damaged there as here
            except OSError:  # another file system, or one without links
                with open(spool.folder.open(name), "rb") as file:
                    made.write_new(name, iter(partial(file.read, AT_ONCE), b""))
