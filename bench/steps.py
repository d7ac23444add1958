"""What a plain message costs the relay: instructions of each thread, and Python's calls on the loop.

    python -m bench.steps [--calls] [--instructions] [-w]

The plain message: 4 KiB of ASCII, one recipient, one upstream, one rule that rewrites; log and metrics on, everything
else as it is by default. Instructions are those in user space, counted by callgrind (Debian: valgrind) while smtp-source
(Debian: postfix) has twenty sessions: they repeat within half a percent, whatever else the machine does. Calls are those
that `sys.setprofile` reports, of Python and of C, while one message follows the other over one connection: a number
that does not vary. Both depend on the Python and on the libraries: the figures that are kept (`steps.json`) are of
Debian's Python 3.11 with the versions of `requirements.lock`; `-w` writes them. `-l`: the calls of one message, in their
order.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

from bench import ours
from bench.build import build
from bench.peer import ADDRESS, Lacking, Site, free_port
from bench.sink import Offers, Sink

KEPT = Path(__file__).with_name("steps.json")
PATIENCE = 120.0
SESSIONS = 20
WARM = 400  # messages before anything is counted
COUNTED = 1000
ONE_BY_ONE = 50
SIZE = 4096


@dataclass(frozen=True, slots=True)
class Steps:
    """Of one message. `loop`, `writer`: instructions, in thousands; `calls`: of the loop's thread."""

    loop: float
    writer: float
    calls: int


# In the process that is looked at


class Calls:
    """Counts the calls of a thread, and notes them where it is asked to."""

    def __init__(self) -> None:
        self.number = 0
        self.noted: list[str] | None = None

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        if event in ("call", "c_call"):
            self.number += 1
            if self.noted is not None:
                self.noted.append(_named(frame, event, argument))


def _named(frame: FrameType, event: str, argument: Any) -> str:
    if event == "c_call":
        return f"    {getattr(argument, '__qualname__', argument)}"
    code = frame.f_code
    where = code.co_filename.rpartition("site-packages/")[2].removeprefix(f"{os.getcwd()}/")
    return f"{where}:{frame.f_lineno} {code.co_qualname}"


def _serve(config: str, calls: Calls | None) -> None:
    from relay.cli import serve

    if calls is not None:
        sys.setprofile(calls)
    sys.exit(serve.main(["-c", config]))


def _looked_at(config: str) -> None:
    """Serve; answer on fd 3 for each line on stdin: "number", or "note" and what was noted since."""
    calls = Calls()

    def answer() -> None:
        with os.fdopen(3, "w") as out:
            for line in sys.stdin:
                if line == "note\n":
                    calls.noted, noted = [], calls.noted
                    out.write(json.dumps(noted) + "\n")
                else:
                    out.write(f"{calls.number}\n")
                out.flush()

    threading.Thread(target=answer, daemon=True).start()
    _serve(config, calls)


# Beside it


@dataclass(frozen=True, slots=True)
class Relay:
    """One that serves, and what is beside it. `process` is what was started."""

    process: subprocess.Popen[str]
    port: int
    sink: Sink
    log: Path
    answers: TextIO | None

    def delivered(self) -> int:
        """How many messages are over, by its log."""
        return self.log.read_text().count(" delivered ")

    def ask(self, word: str) -> Any:
        assert self.process.stdin is not None
        assert self.answers is not None
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()
        return json.loads(self.answers.readline())


@contextmanager
def serving(folder: Path, *before: str, asked: bool = False) -> Iterator[Relay]:
    """A relay with the plain configuration, its process begun by `before`."""
    with Sink(build(folder), folder / "counters", Offers(chunking=False), ADDRESS) as sink:
        port = free_port()
        peer = ours.lay_out(folder / "relay", Site(port, sink.port, 20))
        config, log = peer.start[-1], folder / "log"
        command = [sys.executable, "-m", "bench.steps", "--looked-at" if asked else "--serve", config]
        read, write = os.pipe()
        with log.open("w") as to:
            process = subprocess.Popen(
                ["sh", "-c", f'exec "$@" 3>&{write}', "sh", *before, *command],
                stdin=subprocess.PIPE,
                stdout=to,
                stderr=to,
                text=True,
                pass_fds=[write],
                env={**os.environ, "PYTHONHASHSEED": "0"},
            )
        os.close(write)
        with os.fdopen(read) as answers:
            try:
                until(lambda: _answers(port))
                yield Relay(process, port, sink, log, answers if asked else None)
            finally:
                process.terminate()
                process.wait(PATIENCE)


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 1) as wire:
            return wire.recv(3) == b"220"
    except OSError:
        return False


def until(true: Callable[[], bool]) -> None:
    """Raises TimeoutError."""
    end = time.monotonic() + PATIENCE
    while not true():
        if time.monotonic() > end:
            raise TimeoutError("the relay does not get on")
        time.sleep(0.005)


def many(relay: Relay, number: int) -> None:
    """So many messages over twenty sessions at once, until all are over."""
    before = relay.delivered()
    source = shutil.which("smtp-source", path=f"{os.environ['PATH']}:/usr/sbin") or ""
    options = [
        "-d",  # one connection for a session
        "-s",
        str(SESSIONS),
        "-m",
        str(number),
        "-l",
        str(SIZE),
        "-f",
        "jan@example.nl",
        "-t",
        "klant@example.org",
    ]
    subprocess.run([source, *options, f"127.0.0.1:{relay.port}"], check=True)
    until(lambda: relay.delivered() >= before + number)


HEAD = b"From: Jan <jan@example.nl>\r\nTo: klant@example.org\r\nSubject: factuur\r\nDate: Mon, 02 Nov 2026 10:00:00 +0100\r\nMessage-ID: <1@example.nl>\r\n\r\n"
MESSAGE = HEAD + b"x" * 70 + b"\r\n"
MESSAGE = HEAD + (b"x" * 70 + b"\r\n") * ((SIZE - len(HEAD)) // 72) + b".\r\n"
ENVELOPE = (b"MAIL FROM:<jan@example.nl>\r\n", b"RCPT TO:<klant@example.org>\r\n", b"DATA\r\n")


class Client:
    """One connection, a command at a time."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._wire = socket.create_connection(("127.0.0.1", relay.port), PATIENCE)
        self._wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._wire.recv(1000)
        self._ask(b"EHLO client.example.nl\r\n")

    def _ask(self, octets: bytes) -> None:
        self._wire.sendall(octets)
        self._wire.recv(1000)

    def send(self) -> None:
        """One message; until it is over."""
        before = self._relay.delivered()
        for octets in (*ENVELOPE, MESSAGE):
            self._ask(octets)
        until(lambda: self._relay.delivered() > before)
        time.sleep(0.02)  # what is done after the log's line


def calls(folder: Path) -> int:
    """The calls of the loop's thread for one message: what most messages had."""
    with serving(folder, asked=True) as relay:
        client = Client(relay)
        seen = [0]
        for number in range(ONE_BY_ONE + 20):
            client.send()
            if number >= 19:
                seen.append(relay.ask("number"))
        found = Counter(after - before for before, after in zip(seen[1:], seen[2:], strict=False))
        return found.most_common(1)[0][0]


def listed(folder: Path) -> list[str]:
    with serving(folder, asked=True) as relay:
        client = Client(relay)
        for _ in range(20):
            client.send()
        relay.ask("note")
        client.send()
        return list(relay.ask("note"))


def instructions(folder: Path) -> tuple[float, float]:
    """Thousands for one message: the loop's thread, and the writer's."""
    out = folder / "callgrind"
    grind = (
        "valgrind",
        "--tool=callgrind",
        "--separate-threads=yes",
        "--instr-atstart=no",
        f"--callgrind-out-file={out}",
    )
    with serving(folder, *grind) as relay:
        many(relay, WARM)
        _control(relay, "-i", "on")
        many(relay, COUNTED)
        _control(relay, "-i", "off")
    if "KEEP" in os.environ: os.system(f"cp {folder}/callgrind-0* {os.environ['KEEP']}/")
    totals = [_total(path) / COUNTED / 1000 for path in sorted(folder.glob("callgrind-*"))]
    threads = sorted((total for total in totals if total > 1), reverse=True)
    print(threads)
    return threads[0], threads[1]


def _control(relay: Relay, *command: str) -> None:
    subprocess.run(["callgrind_control", *command, str(relay.process.pid)], check=True, stdout=subprocess.DEVNULL)


def _total(path: Path) -> int:
    found = re.search(r"^totals: (\d+)", path.read_text(), re.MULTILINE)
    return int(found[1]) if found else 0


def main(asked: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory(prefix="relay-") as name:
        folder = Path(name)
        if asked.list:
            print("\n".join(listed(folder)))
            return 0
        if asked.calls:
            print(calls(folder), "calls on the loop")
        if asked.instructions:
            loop, writer = instructions(folder)
            print(f"{loop:.1f} k instructions on the loop, {writer:.1f} k of the writer")
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        _serve(sys.argv[2], None)
    if sys.argv[1:2] == ["--looked-at"]:
        _looked_at(sys.argv[2])
    parser = argparse.ArgumentParser()
    parser.add_argument("--calls", action="store_true")
    parser.add_argument("--instructions", action="store_true")
    parser.add_argument("-l", "--list", action="store_true")
    sys.exit(main(parser.parse_args()))
