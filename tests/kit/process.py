"""`relay serve` as a process of its own, where signals, kill -9 and memory matter.

    async with Process.serving(site) as relay:
        ...
        relay.signal(signal.SIGTERM)
        assert await relay.ended() == 0

Its log is JSON (`site.configure` with `log: {format: json}`); `line` waits for an event of it.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.kit.house import PATIENCE, Site


class Process:
    """A running `relay serve`."""

    patience = 240.0  # seconds that it may run

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.lines: list[str] = []
        self._changed = asyncio.Condition()
        self._reading = asyncio.create_task(self._read())

    @classmethod
    @asynccontextmanager
    async def serving(cls, site: Site, **environment: str) -> AsyncIterator[Process]:
        """From its first "started" on; killed at the end of the block if it still runs."""
        process = cls(
            await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "relay", "serve", "-c", str(site.config_path)),
                stderr=asyncio.subprocess.PIPE,
                env={**os.environ, **environment},
            )
        )
        try:
            async with asyncio.timeout(cls.patience):
                await process.line("started")
                yield process
        finally:
            if process._process.returncode is None:
                process._process.kill()
            await process.ended()

    async def _read(self) -> None:
        assert self._process.stderr is not None
        while line := await self._process.stderr.readline():
            async with self._changed:
                self.lines.append(line.decode().rstrip())
                self._changed.notify_all()
        async with self._changed:
            self._changed.notify_all()

    async def line(self, event: str, number: int = 1, **fields: object) -> dict[str, Any]:
        """The log line of that number (counted from 1) of `event` with these fields, as soon as it is there."""
        async with asyncio.timeout(PATIENCE), self._changed:
            while len(found := self.all(event, **fields)) < number:
                assert not self._reading.done(), self.lines
                await self._changed.wait()
        return found[number - 1]

    def all(self, event: str, **fields: object) -> list[dict[str, Any]]:
        documents = [json.loads(line) for line in self.lines if line.startswith("{")]
        wanted = {"event": event, **fields}.items()
        return [one for one in documents if wanted <= one.items()]

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    async def ended(self) -> int:
        """The exit code, as soon as there is one."""
        async with asyncio.timeout(PATIENCE + 40):
            code = await self._process.wait()
            await self._reading
        return code

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def peak_memory(self) -> int:
        """The most octets that were resident at any moment."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024
