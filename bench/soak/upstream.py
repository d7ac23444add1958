"""The upstream of the soak: it counts what arrives, keeps nothing, and comes and goes on a fixed pattern.

    python -m bench.soak.upstream LEDGER COUNT SECONDS SEED

Its first line is its port; it ends with its standard input, and then says what it went through. Some time it is up,
then for some seconds one of these: it refuses connections, answers 421 to everything, says nothing, or hangs up at
any moment, right after the end of the content too, where the message counts as arrived. After SECONDS it stays up. It
offers CHUNKING, so that what fits leaves in one write with its envelope.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import uvloop

from bench.soak import mail
from bench.soak.ledger import Ledger

UP, DOWN = (15.0, 30.0), (3.0, 8.0)  # seconds, at least and at most
FAULTS = ("refuses", "421", "silent", "hangs up")
END = b"\r\n.\r\n"
KEPT = 100  # octets of content that are looked at again with the next
EHLO = (
    b"250-upstream.example\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SIZE 52428800\r\n250-CHUNKING\r\n"
    b"250 ENHANCEDSTATUSCODES\r\n"
)


def weather(seconds: float, seed: int) -> Iterator[tuple[str, float]]:
    """Moods and how long each lasts, up to `seconds`."""
    chance = random.Random(seed)
    while seconds > 0:
        for fault in chance.sample(FAULTS, len(FAULTS)):
            for mood, (least, most) in (("up", UP), (fault, DOWN)):
                lasts = chance.uniform(least, most)
                seconds -= lasts
                if seconds <= 0:
                    return
                yield mood, lasts


class Upstream:
    """What the connections share."""

    def __init__(self, ledger: Ledger, chance: random.Random) -> None:
        self.ledger = ledger
        self.chance = chance
        self.mood = "up"
        self.seen: Counter[str] = Counter()
        self.open: set[Session] = set()
        self.port = 0
        self._server: asyncio.Server | None = None

    async def listen(self) -> None:
        self._server = await asyncio.get_running_loop().create_server(lambda: Session(self), "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def live(self, moods: Iterator[tuple[str, float]]) -> None:
        for self.mood, lasts in moods:
            self.seen[self.mood] += 1
            if self.mood == "refuses":
                self._stop()
            await asyncio.sleep(lasts)
            if self.mood == "refuses":
                await self.listen()
            elif self.mood == "silent":
                self._hang_up()
        self.mood = "up"

    def _stop(self) -> None:
        assert self._server is not None
        self._server.close()
        self._hang_up()

    def _hang_up(self) -> None:
        for session in tuple(self.open):
            session.transport.abort()

    def hangs_up(self) -> bool:
        return self.mood == "hangs up" and self.chance.random() < 0.2


class Session(asyncio.Protocol):
    """One connection."""

    transport: asyncio.Transport

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._held = b""
        self._number = -1
        self._in_content = False
        self._left = 0  # octets of the content that comes by BDAT
        self._last = b""  # of them

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        upstream = self._upstream
        upstream.open.add(self)
        upstream.seen["connections"] += 1
        if upstream.mood == "421":
            self._busy()
        elif upstream.hangs_up():
            self.transport.abort()
        elif upstream.mood != "silent":
            self.transport.write(b"220 upstream.example ESMTP\r\n")

    def connection_lost(self, _: Exception | None) -> None:
        self._upstream.open.discard(self)

    def data_received(self, data: bytes) -> None:
        upstream = self._upstream
        if upstream.mood == "silent":
            return
        if upstream.mood == "421":
            self._busy()
            return
        if upstream.hangs_up():
            self.transport.abort()
            return
        self._held += data
        replies: list[bytes] = []
        while (
            self._chunk(replies)
            if self._left
            else self._content(replies)
            if self._in_content
            else self._command(replies)
        ):
            pass
        if replies and not self.transport.is_closing():
            self.transport.write(b"".join(replies))

    def _busy(self) -> None:
        self.transport.write(b"421 4.3.2 too busy\r\n")
        self.transport.close()

    def _command(self, replies: list[bytes]) -> bool:
        """Answer the next command; False when none is complete."""
        line, found, rest = self._held.partition(b"\r\n")
        if not found:
            return False
        self._held = rest
        verb = line[:4].upper()
        if verb == b"RCPT":
            self._number = mail.number_of(line)
        if verb == b"BDAT":
            self._left, self._last = int(line.split()[1]), b""
            return True
        self._in_content = verb == b"DATA"
        replies.append(
            EHLO
            if verb == b"EHLO"
            else b"354 go ahead\r\n"
            if self._in_content
            else b"221 2.0.0 bye\r\n"
            if verb == b"QUIT"
            else b"250 2.0.0 ok\r\n"
        )
        return True

    def _content(self, replies: list[bytes]) -> bool:
        """Look for the end of the content; False when it has not come."""
        end = self._held.find(END)
        if end < 0:
            self._held = self._held[-KEPT:]
            return False
        content, self._held = self._held[:end], self._held[end + len(END) :]
        self._in_content = False
        return self._ended(content, replies)

    def _chunk(self, replies: list[bytes]) -> bool:
        """As `_content`; every message that comes by BDAT comes as a whole."""
        piece, self._held = self._held[: self._left], self._held[self._left :]
        self._left -= len(piece)
        self._last = (self._last + piece)[-KEPT:]
        if self._left:
            return False
        self._upstream.seen["by BDAT"] += 1
        return self._ended(self._last.removesuffix(b"\r\n"), replies)

    def _ended(self, content: bytes, replies: list[bytes]) -> bool:
        """Answer the message that ends so; False where the line is cut instead."""
        upstream = self._upstream
        if self._number < 0:
            upstream.seen["messages of no number"] += 1
        elif content.endswith(mail.last_line(self._number)):
            upstream.ledger.add(self._number)
            upstream.seen["messages"] += 1
        else:
            upstream.seen["broken messages"] += 1
        if upstream.hangs_up():
            upstream.seen["answers withheld"] += 1
            self.transport.abort()
            return False
        replies.append(b"250 2.0.0 taken\r\n")
        return True


async def serve(ledger: Ledger, seconds: float, seed: int) -> None:
    upstream = Upstream(ledger, random.Random(seed + 1))
    await upstream.listen()
    print(upstream.port, flush=True)
    living = asyncio.create_task(upstream.live(weather(seconds, seed)))
    await asyncio.to_thread(sys.stdin.read)
    living.cancel()
    print(json.dumps(upstream.seen))


if __name__ == "__main__":
    count = int(sys.argv[2])
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(Ledger(Path(sys.argv[1]), count), float(sys.argv[3]), int(sys.argv[4])))
