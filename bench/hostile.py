"""Ordinary mail through `relay serve` while hostile clients of every kind are at work; first without them.

    python -m bench.hostile [EACH [MESSAGES]]

EACH hostile clients of each kind of `tests.kit.hostile` (200), in a process of their own, and MESSAGES (1 000) over ten
sessions at a time, each message in a connection of its own. Says how many arrived, how long the relay took to greet
and to accept (p50, p99), and its memory. The relay writes the mail to files, so that no upstream is measured.
Needs the [dev] packages, and 2 × 10 × EACH file descriptors.
"""

from __future__ import annotations

import asyncio
import re
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.kit.certificates import Certificates
from tests.kit.hostile import KINDS, besieged
from tests.kit.house import JAN, PIET, Client, Site, free_port, mail
from tests.kit.process import Process

AT_ONCE = 10
SETTLING = 5  # seconds, in which hostile clients reach limits, are thrown out and come back
BODY = b"Regel van de factuur, met bedrag en omschrijving: 1.250,00.\r\n" * 64


@dataclass(frozen=True)
class Seen:
    """Milliseconds, one for each message."""

    greeted: list[float]
    accepted: list[float]
    seconds: float

    def __str__(self) -> str:
        return f"greeting {_quantiles(self.greeted)}; accepting {_quantiles(self.accepted)}; {self.seconds:.1f} s"


async def main(each: int, messages: int) -> int:
    with tempfile.TemporaryDirectory(prefix="relay-") as name:
        folder = Path(name)
        site = Site(folder, Certificates(folder))
        port = configure(site, each)
        async with Process.serving(site) as relay:
            await ordinary(port, 50, "warm")
            print(f"idle: {memory(relay, 'VmRSS')} MiB")
            print(f"without: {await ordinary(port, messages, 'without')}; {memory(relay, 'VmHWM')} MiB at most")
            async with attackers(port, each) as told:
                await asyncio.sleep(SETTLING)
                print(f"with {each} of each of {len(KINDS)} kinds: {await ordinary(port, messages, 'with')}")
                now, most = memory(relay, "VmRSS"), memory(relay, "VmHWM")
            print(f"while they were at work: {now} MiB, {most} MiB at most; they connected {told[0]}")
            return 0 if await all_arrived(folder / "out", messages, relay) else 1


def configure(site: Site, each: int) -> int:
    """A door that offers STARTTLS, with room for all of them; its port."""
    port = free_port()
    pem = site.folder / "door.pem"
    pem.write_bytes(site.certificates.good.pem)
    door = {"name": "legacy", "listen": f"127.0.0.1:{port}", "tls": "starttls", "certificate": str(pem)}
    site.configure(
        listeners=[
            door
            | {"key": str(pem), "max_message_size": "5MiB", "limits": {"sessions": 2 * len(KINDS) * each + 4 * AT_ONCE}}
        ],
        upstreams={"files": {"type": "capture", "directory": str(site.folder / "out")}},
        log={"format": "json"},
    )
    (site.folder / "out").mkdir(mode=0o700)
    return port


async def ordinary(port: int, messages: int, word: str) -> Seen:
    greeted: list[float] = []
    accepted: list[float] = []

    async def some(first: int) -> None:
        for number in range(first, messages, AT_ONCE):
            started = time.perf_counter()
            async with Client.to(port) as client:
                greeted.append((time.perf_counter() - started) * 1e3)
                await client.begin(JAN, [PIET])
                client.write(mail(f"{word} {number}", body=BODY) + b".\r\n")
                started = time.perf_counter()
                assert (await client.reply()).startswith("250")
                accepted.append((time.perf_counter() - started) * 1e3)

    started = time.perf_counter()
    await asyncio.gather(*map(some, range(AT_ONCE)))
    return Seen(greeted, accepted, time.perf_counter() - started)


@asynccontextmanager
async def attackers(port: int, each: int) -> AsyncIterator[list[str]]:
    """All connected once this begins; what they say at the end is in the list then."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.hostile", "attack", str(port), str(each)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    told: list[str] = []
    try:
        assert await process.stdout.readline() == b"at work\n"
        yield told
        out, _ = await process.communicate(b"")  # the end of its input is the end of its work
        told.append(out.decode().strip())
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def attack(port: int, each: int) -> None:
    async with besieged(port, each=each) as siege:
        print("at work", flush=True)
        await asyncio.to_thread(sys.stdin.read)
        print(", ".join(f"{name} {number}" for name, number in siege.made.items()))


async def all_arrived(directory: Path, messages: int, relay: Process) -> bool:
    """Look until all are there, a minute at most."""
    for _ in range(600):
        if len(list(directory.glob("*.eml"))) >= 50 + 2 * messages:
            break
        await asyncio.sleep(0.1)
    subjects = [re.findall(rb"^Subject: (.*)\r$", path.read_bytes(), re.MULTILINE) for path in directory.glob("*.eml")]
    copies = Counter(subject for [subject] in subjects)
    arrived = sum(
        copies[f"{word} {number}".encode()] == 1 for word in ("without", "with") for number in range(messages)
    )
    print(f"arrived once: {arrived} of {2 * messages}; others: {len(subjects) - arrived - 50}")
    bugs = len(relay.all("exception_caught")) + sum(not line.startswith("{") for line in relay.lines)
    print(f"exceptions and lines that are no log: {bugs}")
    return arrived == 2 * messages and not bugs


def memory(relay: Process, kind: str) -> int:
    """VmRSS (now) or VmHWM (the most since the start), in MiB."""
    status = Path(f"/proc/{relay.pid}/status").read_text()
    return int(status.split(f"{kind}:", 1)[1].split(None, 1)[0]) // 1024


def _quantiles(values: list[float]) -> str:
    cuts = statistics.quantiles(values, n=100)
    return f"p50 {cuts[49]:.1f} ms, p99 {cuts[98]:.1f} ms"


if __name__ == "__main__":
    if sys.argv[1:2] == ["attack"]:
        raise SystemExit(asyncio.run(attack(int(sys.argv[2]), int(sys.argv[3]))))
    numbers = [int(word) for word in sys.argv[1:]] + [200, 1_000][len(sys.argv) - 1 :]
    raise SystemExit(asyncio.run(main(*numbers)))
