"""Relays for tests that end them: the test's side of `dying`. A relay is there within milliseconds.

async with Nursery.open() as nursery:
    relay = nursery.birth(site, point="before MAIL")
    if await relay.started():
        ...
    assert await relay.ended() == -signal.SIGKILL
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from tests.kit.house import PATIENCE, Site
from tests.torture.dying import Order

PROJECT = Path(__file__).parents[2]


class Nursery:
    """One relay lives at a time."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._ready = asyncio.Event()
        self._relay: Relay | None = None
        self._reading = asyncio.create_task(self._read())

    @classmethod
    @asynccontextmanager
    async def open(cls, environment: Mapping[str, str] | None = None) -> AsyncIterator[Nursery]:
        """Until the end of the block; a relay that lives then is killed."""
        nursery = cls(
            await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.torture.dying"),
                cwd=PROJECT,
                env={**os.environ, **(environment or {})},
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                limit=2**20,
            )
        )
        try:
            async with asyncio.timeout(PATIENCE):
                await nursery._ready.wait()
            yield nursery
        finally:
            await nursery.clear()
            nursery._process.kill()
            await nursery._process.wait()
            await nursery._reading

    def birth(self, site: Site, **order: Any) -> Relay:
        """A new one; `order` is what `Order` knows beside the configuration."""
        assert self._relay is None or self._relay.code is not None, "one at a time"
        self._relay = Relay()
        assert self._process.stdin is not None
        self._process.stdin.write(Order(str(site.config_path), **order).to_line())
        return self._relay

    async def clear(self) -> None:
        """Kill the relay that lives, if one does."""
        if self._relay is not None:
            await self._relay.kill()
            self._relay = None

    async def _read(self) -> None:
        assert self._process.stderr is not None
        said = []
        while line := (await self._process.stderr.readline()).decode():
            said.append(line)
            if line == "ready\n":
                self._ready.set()
            elif self._relay is not None:
                await self._relay.said(line.rstrip())
        if self._relay is not None and self._relay.code is None:
            await self._relay.said("exit 70")
        if not self._ready.is_set():
            sys.stderr.write("".join(said))


class Relay:
    """A relay, and what it has said in its log."""

    def __init__(self) -> None:
        self.pid = 0
        self.code: int | None = None
        self.lines: list[str] = []
        self.tell: Callable[[dict[str, Any]], None] = lambda _: None  # called with each line of the log
        self._documents: list[dict[str, Any]] = []
        self._changed = asyncio.Condition()

    async def said(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        async with self._changed:
            if word == "pid":
                self.pid = int(rest)
            elif word == "exit":
                self.code = int(rest)
            elif line:
                self.lines.append(line)
                self._documents.append(_document(line))
                self.tell(self._documents[-1])
            self._changed.notify_all()

    async def born(self) -> int:
        """Its process."""
        async with asyncio.timeout(PATIENCE), self._changed:
            await self._changed.wait_for(lambda: self.pid)
        return self.pid

    async def started(self) -> bool:
        """True as soon as it serves; False when it dies before that."""
        return await self.line("started") is not None

    async def until(self, look: Callable[[], object], wanted: object) -> None:
        """Wait until that is what one sees; one looks after each line of the log, which follow the commits."""
        try:
            async with asyncio.timeout(PATIENCE), self._changed:
                while look() != wanted:
                    assert self.code is None, self.lines[-5:]
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"{look()}, not {wanted}; it said last: {self.lines[-20:]}") from None

    async def line(self, event: str, number: int = 1, **fields: object) -> dict[str, Any] | None:
        """The log line of that number (counted from 1) of `event` with these fields, as soon as it is there; None when
        the relay is dead first."""
        async with asyncio.timeout(PATIENCE), self._changed:
            while len(found := self.all(event, **fields)) < number:
                if self.code is not None:
                    return None
                await self._changed.wait()
        return found[number - 1]

    def all(self, event: str, **fields: object) -> list[dict[str, Any]]:
        wanted = {"event": event, **fields}.items()
        return [one for one in self._documents if wanted <= one.items()]

    def signal(self, number: signal.Signals) -> None:
        assert self.pid, "it is not born yet"
        if self.code is None:
            with suppress(ProcessLookupError):  # dead, and we are about to hear of it
                os.kill(self.pid, number)

    async def kill(self) -> None:
        await self.born()
        self.signal(signal.SIGKILL)
        await self.ended()

    async def ended(self) -> int:
        """The exit code, as soon as there is one."""
        async with asyncio.timeout(PATIENCE + 30), self._changed:
            await self._changed.wait_for(lambda: self.code is not None)
        assert self.code is not None
        return self.code

    async def stop(self) -> None:
        """By SIGTERM, in good order."""
        self.signal(signal.SIGTERM)
        assert await self.ended() == 0, self.lines[-5:]
        assert self.all("exception") == []


def _document(line: str) -> dict[str, Any]:
    """What a log line says; nothing, where it was cut off or is no JSON."""
    try:
        return dict(json.loads(line))
    except ValueError:
        return {}
