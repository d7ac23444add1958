"""The application of the soak: so many messages a second over several sessions, and what was acknowledged.

    python -m bench.soak.client PORT LEDGER COUNT PER_SECOND

Messages of 25 MB have a session of their own, so that they hold up no other. What is not acknowledged is not sent
again. At the end it says what it saw, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import uvloop

from bench.soak import mail
from bench.soak.ledger import Ledger

SESSIONS = 10
A_SESSION = 50  # messages, then it is opened anew

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Application:
    """Sends the messages at their times."""

    def __init__(self, port: int, ledger: Ledger, count: int, per_second: int) -> None:
        self._port = port
        self._ledger = ledger
        self._count = count
        self._per_second = per_second
        self._taken: list[float] = []
        self._refusals: list[str] = []
        self._behind = 0

    async def run(self) -> dict[str, object]:
        small: asyncio.Queue[int | None] = asyncio.Queue()
        large: asyncio.Queue[int | None] = asyncio.Queue()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._pace(small, large))
            group.create_task(self._session(large))
            for _ in range(SESSIONS):
                group.create_task(self._session(small))
        taken = sorted(self._taken)
        return {
            "accept_ms_p50": round(taken[len(taken) // 2] * 1e3, 2),
            "accept_ms_p99": round(taken[len(taken) * 99 // 100] * 1e3, 2),
            "accept_ms_max": round(taken[-1] * 1e3, 2),
            "behind_at_most": self._behind,
            "refused": len(self._refusals),
            "refusals": self._refusals[:10],
        }

    async def _pace(self, small: asyncio.Queue[int | None], large: asyncio.Queue[int | None]) -> None:
        loop = asyncio.get_running_loop()
        start = loop.time()
        for number in range(self._count):
            pause = start + number / self._per_second - loop.time()
            if pause > 0:
                await asyncio.sleep(pause)
            queue = large if mail.size(number, self._per_second) == mail.LARGE else small
            queue.put_nowait(number)
            self._behind = max(self._behind, small.qsize())
        for _ in range(SESSIONS):
            small.put_nowait(None)
        large.put_nowait(None)

    async def _session(self, numbers: asyncio.Queue[int | None]) -> None:
        connection: Connection | None = None
        sent = 0
        while (number := await numbers.get()) is not None:
            try:
                if connection is None:
                    connection, sent = await self._open(), 0
                await self._send(number, connection)
                sent += 1
            except (OSError, EOFError, _RefusedError) as error:
                self._refusals.append(f"{number}: {error!r}")
                sent = A_SESSION
            if sent >= A_SESSION and connection is not None:
                connection[1].close()
                connection = None
        if connection is not None:
            connection[1].close()

    async def _open(self) -> Connection:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        await _hear(reader, b"220")
        writer.write(b"HELO werkplek-7\r\n")
        await _hear(reader, b"250")
        return reader, writer

    async def _send(self, number: int, connection: Connection) -> None:
        reader, writer = connection
        writer.write(mail.envelope(number))
        for expected in (b"250", b"250", b"354"):
            await _hear(reader, expected)
        for piece in mail.pieces(number, mail.size(number, self._per_second)):
            writer.write(piece)
            await writer.drain()
        loop = asyncio.get_running_loop()
        ended = loop.time()
        await _hear(reader, b"250")
        self._ledger.add(number)
        self._taken.append(loop.time() - ended)


class _RefusedError(Exception):
    """The relay said something else than hoped for."""


async def _hear(reader: asyncio.StreamReader, expected: bytes) -> None:
    line = await reader.readline()
    if not line.startswith(expected):
        raise _RefusedError(line.decode().strip())


def main(port: int, ledger: Path, count: int, per_second: int) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        seen = runner.run(Application(port, Ledger(ledger, count), count, per_second).run())
    print(json.dumps(seen))


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
