"""What a plain message costs the relay: instructions of its two busiest threads, and Python's calls on the loop.

    python -m bench.steps [--calls | --instructions] [--keep | --check]
    python -m bench.steps --list

The plain message: 4 KiB of ASCII, one recipient, one upstream, one rule that rewrites; log and metrics on, everything
else as it is by default; the upstream offers PIPELINING and no CHUNKING. Instructions are those in user space, counted
by callgrind (Debian: valgrind) while smtp-source (Debian: postfix) keeps twenty sessions busy: they repeat within one
per cent, whatever else the machine does. Calls are those that `sys.setprofile` reports, of Python and of C, while one
message follows the other over one connection: the fewest that a message had, which vary by two.

Both depend on the Python and on the libraries. `steps.json` has the figures of Debian's Python 3.11 with the versions
of `requirements.lock`: `--keep` writes them, `--check` compares (calls within three, instructions at most 3 % more on
the loop) and ends with exit code 1 where they differ. `--list` prints the calls of one message in their order.
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
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

import yaml

from bench import ours
from bench.build import build
from bench.peer import ADDRESS, Site, free_port
from bench.sink import Offers, Sink

KEPT = Path(__file__).with_name("steps.json")
CALLS_APART = 3  # a commit that waits for company or does not makes two
MORE_AT_MOST = {"loop": 1.03, "writer": 1.15}  # of the instructions that are kept
# How many messages share a commit varies with what else the machine does. What each commit costs, in thousands of
# instructions, beside what its messages cost (seen with 20, 5, 3 and 2 sessions): so much is set off.
A_COMMIT = {"loop": 33, "writer": 130}
PATIENCE = 120.0
SESSIONS = 20
CONNECTIONS = 20
WARM = 400  # messages before anything is counted
COUNTED = 1000
ONE_BY_ONE = 50
SIZE = 4096
FROM, TO = "jan@example.nl", "klant@example.org"
HEAD = (
    f"From: Jan <{FROM}>\r\nTo: {TO}\r\nSubject: factuur\r\n"
    "Date: Mon, 02 Nov 2026 10:00:00 +0100\r\nMessage-ID: <1@example.nl>\r\n\r\n"
).encode()
LINE = b"x" * 70 + b"\r\n"
MESSAGE = HEAD + LINE * ((SIZE - len(HEAD)) // len(LINE)) + b".\r\n"
COMMANDS = (f"MAIL FROM:<{FROM}>\r\n".encode(), f"RCPT TO:<{TO}>\r\n".encode(), b"DATA\r\n", MESSAGE)


# In the process that is looked at


class Calls:
    """Counts the calls of the thread that it is set for, and notes them while it is asked to."""

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
    where = code.co_filename.rpartition("site-packages/")[2].removeprefix(f"{Path.cwd()}/")
    return f"{where}:{frame.f_lineno} {code.co_qualname}"


def _serve(config: str, calls: Calls | None) -> None:
    from relay.cli import serve

    sys.setprofile(calls)
    sys.exit(serve.main(["-c", config]))


def _answer(calls: Calls) -> None:
    """A line on fd 3 for each on stdin: the number of calls, or what was noted since the last "note"."""
    with os.fdopen(3, "w") as out:
        for line in sys.stdin:
            noted, calls.noted = calls.noted, [] if line == "note\n" else None
            out.write(json.dumps(noted if line == "note\n" else calls.number) + "\n")
            out.flush()


# Beside it


@dataclass(frozen=True, slots=True)
class Relay:
    """One that serves. Its `log` says what was delivered; `answers` come from `_answer`."""

    process: subprocess.Popen[str]
    port: int
    metrics: str
    log: Path
    answers: TextIO

    def delivered(self) -> int:
        return self.log.read_text().count(" delivered ")

    def commits(self) -> int:
        with urllib.request.urlopen(self.metrics, timeout=PATIENCE) as page:  # its own
            found = re.search(rb"^relay_queue_commit_seconds_count (\S+)", page.read(), re.MULTILINE)
        return int(float(found[1])) if found else 0

    def ask(self, word: str) -> Any:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()
        return json.loads(self.answers.readline())


@contextmanager
def serving(folder: Path, how: str, *before: str) -> Iterator[Relay]:
    """A relay with the plain configuration; its process is begun by the command `before`."""
    with Sink(build(folder), folder / "counters", Offers(chunking=False), ADDRESS) as sink:
        port, log = free_port(), folder / "log"
        config = ours.lay_out(folder / "relay", Site(port, sink.port, CONNECTIONS)).start[-1]
        read, write = os.pipe()
        with log.open("w") as to:
            process = subprocess.Popen(
                ["sh", "-c", f'exec "$@" 3>&{write}', "sh", *before, sys.executable, "-m", "bench.steps", how, config],
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
                until(lambda: _greets(port))
                metrics = f"http://{yaml.safe_load(Path(config).read_text())['admin']['listen']}/metrics"
                yield Relay(process, port, metrics, log, answers)
            finally:
                process.terminate()
                process.wait(PATIENCE)


def _greets(port: int) -> bool:
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
    """So many messages over twenty sessions at once, until all are delivered."""
    before = relay.delivered()
    source = shutil.which("smtp-source", path=f"{os.environ['PATH']}:/usr/sbin") or "smtp-source"
    options = f"-d -s {SESSIONS} -m {number} -l {SIZE} -f {FROM} -t {TO} 127.0.0.1:{relay.port}"
    subprocess.run([source, *options.split()], check=True)
    until(lambda: relay.delivered() >= before + number)


class Client:
    """One connection, a command at a time."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._wire = socket.create_connection(("127.0.0.1", relay.port), PATIENCE)
        self._wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._wire.recv(1000)
        self._say(b"EHLO client.example.nl\r\n")

    def _say(self, octets: bytes) -> None:
        self._wire.sendall(octets)
        self._wire.recv(1000)

    def send(self) -> None:
        """One message, until it is delivered."""
        before = self._relay.delivered()
        for octets in COMMANDS:
            self._say(octets)
        until(lambda: self._relay.delivered() > before)
        time.sleep(0.02)  # what is done after the log has its line


def calls(folder: Path) -> int:
    """The calls of the loop's thread for one message: the fewest that one had, with nothing else done meanwhile."""
    with serving(folder, "--asked") as relay:
        client, seen = Client(relay), list[int]()
        for number in range(2 * ONE_BY_ONE):
            client.send()
            if number >= ONE_BY_ONE:
                seen.append(relay.ask("number"))
    return min(after - before for before, after in pairwise(seen))


def listed(folder: Path) -> list[str]:
    """The calls of one message."""
    with serving(folder, "--asked") as relay:
        client = Client(relay)
        for _ in range(ONE_BY_ONE):
            client.send()
        relay.ask("note")
        client.send()
        return list(relay.ask("note"))


def instructions(folder: Path) -> tuple[float, float, float]:
    """Of one message, in thousands: the loop's thread, and that of the queue's writer and its SQLite; and commits."""
    out = folder / "callgrind"
    how = ("--tool=callgrind", "--separate-threads=yes", "--instr-atstart=no", f"--callgrind-out-file={out}")
    with serving(folder, "--served", "valgrind", *how) as relay:
        many(relay, WARM)
        before = relay.commits()
        _collect(relay, "on")
        many(relay, COUNTED)
        _collect(relay, "off")
        commits = (relay.commits() - before) / COUNTED
    totals = [_total(path) / COUNTED / 1000 for path in folder.glob("callgrind-*")]
    loop, writer, *_ = sorted(totals, reverse=True)
    return loop, writer, commits


def _collect(relay: Relay, word: str) -> None:
    command = ["callgrind_control", "-i", word, str(relay.process.pid)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _total(path: Path) -> int:
    found = re.search(r"^totals: (\d+)", path.read_text(), re.MULTILINE)
    return int(found[1]) if found else 0


def measured(*, only_calls: bool, only_instructions: bool) -> dict[str, float]:
    """The figures by name."""
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="relay-") as one, tempfile.TemporaryDirectory(prefix="relay-") as other:
        if not only_instructions:
            figures["calls"] = calls(Path(one))
        if not only_calls:
            loop, writer, commits = instructions(Path(other))
            figures |= {"loop": round(loop), "writer": round(writer), "commits": round(commits, 2)}
    return figures


def differences(figures: dict[str, float], kept: dict[str, float]) -> list[str]:
    """What is not as it was, in sentences."""
    found = []
    more_commits = figures.get("commits", 0.0) - kept["commits"]
    if "calls" in figures and abs(figures["calls"] - kept["calls"]) > CALLS_APART:
        found.append(f"{figures['calls']} calls on the loop, {kept['calls']} are kept")
    found += [
        f"{figures[name]} k instructions of the {name} with {figures['commits']} commits, {kept[name]} k are kept"
        for name, more in MORE_AT_MOST.items()
        if name in figures and figures[name] - A_COMMIT[name] * more_commits > kept[name] * more
    ]
    return found


def main(asked: argparse.Namespace) -> int:
    if asked.list:
        with tempfile.TemporaryDirectory(prefix="relay-") as folder:
            print("\n".join(listed(Path(folder))))
        return 0
    figures = measured(only_calls=asked.calls, only_instructions=asked.instructions)
    print(json.dumps(figures))
    kept = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    if asked.keep:
        KEPT.write_text(json.dumps(kept | figures, indent=1) + "\n")
    elif asked.check and (found := differences(figures, kept)):
        print(*found, sep="\n")
        return 1
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--served"]:
        _serve(sys.argv[2], None)
    if sys.argv[1:2] == ["--asked"]:
        counting = Calls()
        threading.Thread(target=_answer, args=(counting,), daemon=True).start()
        _serve(sys.argv[2], counting)
    parser = argparse.ArgumentParser(prog="python -m bench.steps", description=__doc__.partition("\n")[0])
    what, then = parser.add_mutually_exclusive_group(), parser.add_mutually_exclusive_group()
    what.add_argument("--calls", action="store_true", help="only the calls")
    what.add_argument("--instructions", action="store_true", help="only the instructions")
    what.add_argument("--list", action="store_true", help="the calls of one message in their order")
    then.add_argument("--keep", action="store_true", help="keep the figures in steps.json")
    then.add_argument("--check", action="store_true", help="compare with the figures that are kept")
    sys.exit(main(parser.parse_args()))
