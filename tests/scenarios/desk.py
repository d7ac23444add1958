"""The administrator at work: `relay …` as commands of their own, in a pipe or at a terminal of some width.

    answer = await relay(site, "queue", "list")
    assert (answer.code, answer.err) == (0, "")
    screen = await at_terminal(site, 80, "status")

`reachable` waits for the admin socket, which opens a moment after the doors.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import re
import struct
import termios
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tests.kit import commands, machine
from tests.kit.house import PATIENCE, Site

_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass(frozen=True)
class Answer:
    """What a command said. At a terminal both streams are in `out`, with escapes if it has colours."""

    code: int
    out: str
    err: str = ""

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    @property
    def plain(self) -> str:
        """Without escapes."""
        return _ESCAPE.sub("", self.out)

    @property
    def document(self) -> Any:
        return json.loads(self.out)


async def relay(site: Site, *words: str, **environment: str) -> Answer:
    """`relay WORDS -c FILE`, its answers in pipes."""
    return Answer(*await commands.run(*words, "-c", str(site.config_path), **environment))


async def at_terminal(site: Site, width: int, *words: str, still: datetime | None = None, **environment: str) -> Answer:
    """`relay WORDS -c FILE` on a terminal of `width` columns and 60 lines; `still`: where the clock of a queue verb
    stands."""
    leader, follower = machine.terminal()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 60, width, 0, 0))
    plain = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS", "LINES")}
    terminal = {**plain, "TERM": "xterm-256color", "PAGER": "cat", **environment}
    words = (*words, "-c", str(site.config_path))
    try:
        if still is None:
            code = commands.start(words, (follower,) * 3, terminal)
        else:
            code = commands.start((still.isoformat(), *words), (follower,) * 3, terminal, "tests.scenarios.still")
        os.close(follower)
        async with asyncio.timeout(PATIENCE):
            shown = await asyncio.to_thread(_all_of, leader)
            return Answer(await commands.code_of(code), shown.decode().replace("\r\n", "\n"))
    finally:
        os.close(leader)


def _all_of(leader: int) -> bytes:
    shown = b""
    while True:
        try:
            some = os.read(leader, 65_536)
        except OSError:  # nobody writes there any more
            return shown
        if not some:
            return shown
        shown += some


async def reachable(site: Site) -> None:
    """Wait until the relay can be asked."""
    async with asyncio.timeout(PATIENCE):
        while not site.control_path.exists():
            await asyncio.sleep(0.01)
