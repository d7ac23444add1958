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
import pty
import re
import struct
import sys
import termios
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from tests.kit.house import PATIENCE, Site

PROJECT = Path(__file__).parents[2]
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
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "relay", *words, "-c", str(site.config_path)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **environment},
    )
    async with asyncio.timeout(PATIENCE):
        out, err = await process.communicate()
    assert process.returncode is not None
    return Answer(process.returncode, out.decode(), err.decode())


async def at_terminal(site: Site, width: int, *words: str, still: datetime | None = None, **environment: str) -> Answer:
    """`relay WORDS -c FILE` on a terminal of `width` columns and 60 lines; `still`: where the clock of a queue verb
    stands."""
    command = ("relay",) if still is None else ("tests.scenarios.still", still.isoformat())
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 60, width, 0, 0))
    plain = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS", "LINES")}
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", *command, *words, "-c", str(site.config_path)),
            cwd=PROJECT,
            stdin=follower,
            stdout=follower,
            stderr=follower,
            env={**plain, "TERM": "xterm-256color", "PAGER": "cat", **environment},
        )
        os.close(follower)
        async with asyncio.timeout(PATIENCE):
            shown = await asyncio.to_thread(_all_of, leader)
            code = await process.wait()
    finally:
        os.close(leader)
    return Answer(code, shown.decode().replace("\r\n", "\n"))


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
