"""The longest turn of the relay's loop under messages that are made to hold it up.

    python -m bench.turns [-m] [NAME...]

Each message goes through the whole relay, in this process: taken at a listener, decided about, kept, sent to an
upstream, settled, and where that refuses it returned to its sender; then the configuration is read anew. A turn is what
the loop does before it looks at its sockets again; it is measured in processor time of the loop's thread, so that what
other threads and programs do meanwhile counts for nothing. Says the longest turn of each message, the reply at the door
and who had the turn; `-m`: as a table in Markdown. NAME: only scenes whose name has it. Exit code 1 where a turn took
more than 100 ms. Needs the [dev] packages.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import socket
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from relay.events import RecipientDeferred, UpstreamSetAside
from tests.kit.certificates import Certificates
from tests.kit.house import RunningHouse, Site
from tests.kit.upstream import KEYWORDS, ScriptedUpstream

MOST = 0.1  # seconds
FOLLOWING = b"To: k@example.org\r\nSubject: x\r\nDate: Mon, 02 Nov 2026 10:00:00 +0100\r\nMessage-ID: <1@x.nl>\r\n"
ADDRESS = {"address": "administratie@example.nl"}
ROOM = 250_000  # octets that a crafted header has, of the 256 KiB that a listener takes

Rules = list[dict[str, Any]]


@dataclass(frozen=True)
class Scene:
    """`head` without its empty line. `upstream`: what it says at each stage, always. `parts` of the configuration."""

    name: str
    head: Callable[[], bytes]
    rules: Callable[[], Rules] = lambda: [ADDRESS]
    body: bytes = b"hi\r\n"
    recipients: Sequence[str] = ("k@example.org",)
    upstream: dict[str, Any] = field(default_factory=dict)
    keywords: tuple[str, ...] = KEYWORDS
    parts: dict[str, Any] = field(default_factory=dict)


def folded(name: str, item: str, room: int = ROOM, line: int = 900) -> bytes:
    """A field of `item` again and again, in lines of about `line` octets."""
    octets = item.encode()
    each = octets * max(1, line // len(octets)) + b"\r\n "
    return name.encode() + b": " + (each * (room // len(each))).removesuffix(b"\r\n ") + b"\r\n"


def many(field: bytes, number: int = 1990) -> bytes:
    return field * number


def authors(number: int, line: int = 60) -> bytes:
    lines = [",".join(f"u{n + i}@x.nl" for i in range(min(line, number - n))) for n in range(0, number, line)]
    return b"From: " + ",\r\n ".join(lines).encode() + b"\r\n"


def rules(key: str, pattern: str, number: int = 1000, each: int = 4, **effect: Any) -> Rules:
    """As many rules, `each` with so many patterns of its own; none of them matches."""
    patterns = [[pattern.format(each * n + i) for i in range(each)] for n in range(number)]
    return [{"match": _condition(key, each)} | (effect or ADDRESS) for each in patterns]


def _condition(key: str, patterns: list[str]) -> dict[str, Any]:
    name = key.removeprefix("header.")
    return {"header": {name: patterns}} if name != key else {key: patterns}


FROM = b"From: Jan <jan@x.nl>\r\n"
TWO: Rules = [{"match": {"from": "jan@example.nl"}, "keep": True}, ADDRESS]
THOUSAND = tuple(f"klant.nummer.{n}@afdeling.example.org" for n in range(1000))
REFUSED = {"dot": "550 5.7.1 " + "wij willen dit bericht niet hebben " * 12}
EACH_REFUSED = {"rcpt": "550 5.1.1 " + "deze gebruiker is hier niet bekend " * 12}
SCENES = (
    Scene("an ordinary message", lambda: FROM, lambda: TWO),
    Scene("From of 250 000 commas", lambda: folded("From", ","), lambda: TWO),
    Scene(
        "10 200 authors, 100 anchored rules",
        lambda: authors(10_200),
        lambda: rules("from", r"/^user{}@x\.nl$/", 100, each=1),
    ),
    Scene(
        "10 200 authors, 100 rules that search",
        lambda: authors(10_200),
        lambda: rules("from", r"/user{}@x/", 100, each=1),
    ),
    Scene("100 authors, 1 000 rules that search", lambda: authors(100), lambda: rules("from", r"/user{}@x/")),
    Scene("100 authors, 1 000 rules that keep", lambda: authors(100), lambda: rules("from", "*u{}q*x*", keep=True)),
    Scene("100 authors, 1 000 rules with gaps", lambda: authors(100), lambda: rules("from", "/u.{{0,30}}x{}q/")),
    Scene(
        "1 000 recipients, 1 000 rules that search",
        lambda: FROM,
        lambda: rules("to", "/nummer{}@afd/"),
        recipients=THOUSAND,
    ),
    Scene("1 000 recipients, 1 000 globs", lambda: FROM, lambda: rules("to", "*nummer*{}q@*"), recipients=THOUSAND),
    Scene(
        "1 000 recipients, 1 000 rules of *@domain",
        lambda: FROM,
        lambda: rules("to", "*@x{}.example"),
        recipients=THOUSAND,
    ),
    Scene(
        "1 990 fields of one name, 1 000 rules",
        lambda: FROM + many(b"X-A: " + b"w0rd " * 23 + b"\r\n"),
        lambda: rules("header.X-A", "/w{}ord/"),
    ),
    Scene(
        "1 990 fields, 1 000 rules of as many names",
        lambda: FROM + many(b"X-A: " + b"w0rd " * 23 + b"\r\n"),
        lambda: [{"match": {"header": {f"X-{n}": "a", "X-A": f"{n}"}}} | ADDRESS for n in range(1000)],
    ),
    Scene(
        "Subject of encoded words, 1 000 rules",
        lambda: FROM + folded("Subject", "=?utf-8?b?w6nDqcOp?= "),
        lambda: rules("subject", r"/(?i)\bfactuur{}\b/"),
    ),
    Scene("From of encoded words", lambda: folded("From", "=?utf-8?q?a=2C?= ") + b" <a@x.nl>\r\n"),
    Scene("From of one word without spaces", lambda: b"From: " + b"a" * ROOM + b"\r\n"),
    Scene("From of quotes that never close", lambda: folded("From", '"\\" ')),
    Scene("From of comments in comments", lambda: folded("From", "(")),
    Scene("1 990 From fields", lambda: many(b"From: " + b"a" * 60 + b"@x.nl, b@x.nl\r\n")),
    Scene("Reply-To of 10 000 addresses", lambda: FROM + folded("Reply-To", "aaaaaaa@example.nl, ")),
    Scene("Reply-To within what is read", lambda: FROM + folded("Reply-To", "a@x.nl,", 16_000)),
    Scene("From of quotes within what is read", lambda: folded("From", '"\\" ', 16_000)),
    Scene("From of comments within what is read", lambda: folded("From", "(a) ", 16_000)),
    Scene("From of @ and commas within what is read", lambda: folded("From", "@,", 16_000)),
    Scene("Reply-To of @ and commas within what is read", lambda: FROM + folded("Reply-To", "@,", 16_000)),
    Scene(
        "From and Sender of brackets within what is read",
        lambda: folded("From", "((@ ", 16_000) + folded("Sender", "((@ ", 15_000),
    ),
    Scene(
        "a refused sender in 1 990 Resent-From fields",
        lambda: FROM + b"".join(b"Resent-From: " + b'"a" ' * 20 + b"%d <jan@x.nl>\r\n" % n for n in range(1990)),
        lambda: [ADDRESS | {"when": "refused"}],
        upstream={"dot": "550 5.7.60 SMTP; Client does not have permissions to send as this sender"},
    ),
    Scene("receipts in 32 kB", lambda: FROM + many(b"Disposition-Notification-To: " + b"a@x.nl, " * 11 + b"\r\n", 270)),
    Scene(
        "encoded words in 32 kB",
        lambda: folded("From", "=?utf-8?q?a=2C?= ", 15_000) + folded("Subject", "=?utf-8?q?a=2C?= ", 16_000),
    ),
    Scene(
        "1 990 receipts asked for", lambda: FROM + many(b"Disposition-Notification-To: " + b"a@x.nl, " * 11 + b"\r\n")
    ),
    Scene(
        "1 990 signatures",
        lambda: FROM + many(b"DKIM-Signature: v=1; h=" + b"from:" * 18 + b"\r\n"),
        lambda: [{"address": "jan@x.nl", "reply_to": "a@x.nl"}],
    ),
    Scene(
        "a signature that signs 50 000 names",
        lambda: FROM + folded("DKIM-Signature", "h=a:b:c;"),
        lambda: [{"address": "jan@x.nl", "reply_to": "a@x.nl"}],
    ),
    Scene("1 990 empty fields", lambda: FROM + many(b"X:\r\n")),
    Scene("a field in 120 000 lines", lambda: FROM + folded("X", "x", line=1)),
    Scene("49 Received fields of 5 000 octets", lambda: FROM + folded("Received", "received ", 5000) * 49),
    Scene("returned: header of 250 000 8-bit octets", lambda: FROM + folded("X", "é"), upstream=REFUSED),
    Scene(
        "returned: Subject of encoded words",
        lambda: FROM + folded("Subject", "=?utf-8?b?w6nDqcOp?= "),
        upstream=REFUSED,
    ),
    Scene(
        "returned: header of long lines", lambda: FROM + many(b"X: " + b"x" * 20_000 + b"\r\n", 12), upstream=REFUSED
    ),
    Scene(
        "returned: long 8-bit lines to three readers",
        lambda: FROM + many(b"X: " + b"\xff" * 20_000 + b"\r\n", 12),
        upstream=REFUSED,
        parts={"bounces": {"to": "both", "also": ["beheer@example.nl"]}},
    ),
    Scene(
        "returned: 1 000 recipients",
        lambda: FROM,
        recipients=THOUSAND,
        upstream=EACH_REFUSED,
        parts={"bounces": {"to": "both", "also": ["beheer@example.nl"]}},
    ),
    Scene(
        "1 000 recipients refused, each with 8 000 octets",
        lambda: FROM,
        recipients=THOUSAND,
        upstream={"rcpt": "550 5.1.1 " + "é" * 4000},
    ),
    Scene("1 000 recipients taken", lambda: FROM, recipients=THOUSAND),
    Scene(
        "1 000 recipients, one word for each line of the upstream",
        lambda: FROM,
        recipients=THOUSAND,
        upstream={"rcpt": "\r\n".join(["250-ok"] * 60 + ["250 ok"])},
    ),
    Scene(
        "an upstream's reply of 60 000 lines",
        lambda: FROM,
        upstream={"dot": "\r\n".join(["550-nee"] * 60_000 + ["550 nee"])},
    ),
    Scene("EHLO with 20 000 keywords", lambda: FROM, keywords=(*KEYWORDS, *(f"X{n}" for n in range(20_000)))),
    Scene("8-bit header, no 8BITMIME", lambda: FROM + folded("Subject", "é"), keywords=("PIPELINING",)),
    Scene(
        "8-bit header of small fields, no 8BITMIME",
        lambda: FROM + many("X: é\r\n".encode() * 1),
        keywords=("PIPELINING",),
    ),
    Scene(
        "8-bit body in 3 000 nested parts, no 8BITMIME",
        lambda: FROM + b"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b0\r\n",
        body=b"".join(b"--b%d\r\nContent-Type: multipart/mixed; boundary=b%d\r\n\r\n" % (n, n + 1) for n in range(3000))
        + "é\r\n".encode(),
        keywords=("PIPELINING",),
    ),
    Scene(
        "8-bit body of 31 kB of odd lines, no 8BITMIME",
        lambda: FROM,
        body="é\r\n".encode() * 7900,
        keywords=("PIPELINING",),
    ),
    Scene("2 MB of dots", lambda: FROM, body=b"..\r\n" * 500_000),
    Scene("2 MB of bare newlines", lambda: FROM, body=b"\n" * 2_000_000 + b"\r\n"),
    Scene("200 kB of dots", lambda: FROM, body=b"..\r\n" * 50_000),
    Scene("200 kB of bare newlines", lambda: FROM, body=b"\n" * 200_000 + b"\r\n"),
)


@dataclass
class Turns:
    """What the loop of this thread had to do at a time."""

    longest: float = 0.0
    whose: str = ""

    def __post_init__(self) -> None:
        self._thread = threading.get_ident()
        run = asyncio.events.Handle._run

        def timed(handle: asyncio.Handle) -> None:
            if threading.get_ident() != self._thread:
                run(handle)
                return
            whose = _whose(handle)
            began = time.thread_time()
            run(handle)
            took = time.thread_time() - began
            if took > self.longest:
                self.longest, self.whose = took, whose

        asyncio.events.Handle._run = timed  # type: ignore[method-assign,assignment]

    def again(self) -> None:
        self.longest, self.whose = 0.0, ""


def _whose(handle: asyncio.Handle) -> str:
    callback: Any = handle._callback  # type: ignore[attr-defined]
    owner = getattr(callback, "__self__", None)
    if isinstance(owner, asyncio.Task):
        callback = owner.get_coro()
        while hasattr(getattr(callback, "cr_await", None), "cr_code"):
            callback = callback.cr_await
    return str(getattr(callback, "__qualname__", callback))


@asynccontextmanager
async def upstream(scene: Scene) -> AsyncIterator[ScriptedUpstream]:
    """In a thread of its own."""
    found: asyncio.Future[ScriptedUpstream] = asyncio.get_running_loop().create_future()
    home, ended = asyncio.get_running_loop(), threading.Event()

    async def serve() -> None:
        async with ScriptedUpstream(keywords=scene.keywords) as one:
            for stage, fault in scene.upstream.items():
                one.script(stage, fault, times=None)
            home.call_soon_threadsafe(found.set_result, one)
            await asyncio.to_thread(ended.wait)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        yield await found
    finally:
        ended.set()
        await asyncio.to_thread(thread.join)


def send(port: int, recipients: Sequence[str], content: bytes) -> str:
    """Hand it in, as fast as can be; the last reply."""
    with socket.create_connection(("127.0.0.1", port), timeout=120) as wire:
        answers = wire.makefile("rb")
        answers.readline()
        lines = [f"RCPT TO:<{recipient}>" for recipient in recipients]
        wire.sendall("\r\n".join(["HELO bench", "MAIL FROM:<jan@x.nl>", *lines, "DATA", ""]).encode())
        for _ in range(len(recipients) + 3):
            answers.readline()
        wire.sendall(content + b".\r\n")
        return answers.readline().decode().rstrip()


def _over(house: RunningHouse) -> bool:
    """Nothing is left, or what is left waits for its next attempt."""
    ledger = house.ledger
    if house.seen.all(UpstreamSetAside):
        return True
    return not (ledger.pending or ledger.active) and not (ledger.deferred and not house.seen.all(RecipientDeferred))


async def play(scene: Scene, folder: Path, turns: Turns) -> tuple[float, str, str]:
    site = Site(folder, Certificates(folder))
    async with upstream(scene) as own:
        way = {"host": own.host, "port": own.port, "tls": "none", "max_recipients": 1000}
        site.configure(upstreams={"own": way}, senders=scene.rules(), **scene.parts)
        async with site.house() as house:
            content = scene.head() + FOLLOWING + b"\r\n" + scene.body
            turns.again()
            reply = await asyncio.to_thread(send, house.port(), scene.recipients, content)
            if reply.startswith("250"):
                await house.seen.until(lambda: _over(house))
                await house.relay.reload()
                await house.seen.until(lambda: _over(house))
            return turns.longest, turns.whose, reply[:3]


async def main(names: Sequence[str], *, markdown: bool) -> int:
    turns, worst = Turns(), 0.0
    scenes = [scene for scene in SCENES if not names or any(name in scene.name for name in names)]
    for number, scene in enumerate((SCENES[0], *scenes)):
        gc.collect()  # as `relay serve` does before it begins
        gc.freeze()
        gc.set_threshold(50_000, 20, 50)
        with tempfile.TemporaryDirectory(prefix="relay-") as folder:
            took, whose, reply = await play(scene, Path(folder), turns)
        if not number:
            continue  # modules were imported
        worst = max(worst, took)
        if markdown:
            print(f"| {scene.name} | {took * 1e3:.0f} ms |", flush=True)
        else:
            print(f"{took * 1e3:7.1f} ms  {reply}  {scene.name}: {whose}", flush=True)
    return 1 if worst > MOST else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.turns", description=__doc__.partition("\n")[0])
    parser.add_argument("-m", "--markdown", action="store_true", help="as a table")
    parser.add_argument("names", nargs="*", help="only scenes whose name has one of these")
    asked = parser.parse_args()
    sys.exit(asyncio.run(main(asked.names, markdown=asked.markdown)))
