"""`relay …` as commands of their own that begin at once: each is a fork of a process that has imported everything.

    code, out, err = await run("queue", "list", "-c", path, NO_COLOR="1")

What a command is given is as real as ever: its words, its environment, its streams, its exit code. Only its start is
not its own; that `python -m relay` starts, and what it loads, is seen elsewhere (`tests/cli`, `tests/systemd`).

    python -m tests.kit.commands     serves orders on the socket that is its standard input
"""

from __future__ import annotations

import array
import asyncio
import atexit
import contextlib
import ctypes
import gc
import importlib
import json
import locale
import os
import runpy
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import NoReturn

from relay.cli.main import VERBS
from relay.config.load import load

PROJECT = Path(__file__).parents[2]
PATIENCE = 60.0  # seconds until a command that does not end fails its test
PR_SET_PDEATHSIG = 1
# What commands import when they need it, and each would import again.
IMPORTED = ("relay.daemon.main", "typer", "pydantic.dataclasses")
_ORDER = 2**18  # octets at most


async def run(*words: str, **environment: str) -> tuple[int, str, str]:
    """Run `relay` with these words, its answers in pipes: exit code, stdout, stderr."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    out, its_out = os.pipe()
    err, its_err = os.pipe()
    code = start(words, (nothing, its_out, its_err), {**os.environ, **environment})
    for descriptor in (nothing, its_out, its_err):
        os.close(descriptor)
    async with asyncio.timeout(PATIENCE):
        said, complained, ended = await asyncio.gather(_all_of(out), _all_of(err), code_of(code))
    return ended, said.decode(), complained.decode()


def start(
    words: tuple[str, ...], streams: tuple[int, int, int], environment: Mapping[str, str], module: str = "relay"
) -> int:
    """Begin `python -m MODULE WORDS` with these descriptors as its streams; what `code_of` reads."""
    code, its_code = os.pipe()
    order = json.dumps({"words": words, "environment": dict(environment), "module": module}).encode()
    descriptors = array.array("i", (*streams, its_code))
    assert len(order) < _ORDER
    _server().sendmsg([order], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)])
    os.close(its_code)
    return code


async def code_of(code: int) -> int:
    """The exit code, as soon as the command has ended; negative: by that signal."""
    return int(await _all_of(code))


async def _all_of(descriptor: int) -> bytes:
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb", 0))
    return await reader.read()


@cache
def _server() -> socket.socket:
    """The process that has imported everything; it ends with this one."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _ORDER)
    with its:
        server = subprocess.Popen([sys.executable, "-m", __name__], cwd=PROJECT, stdin=its, start_new_session=True)

    def end() -> None:
        ours.close()
        server.wait()

    atexit.register(end)
    return ours


# The process behind `_server`


def main() -> None:
    """Fork for each order, until nobody is left to give one."""
    _die_with_the_parent()
    for name in (*IMPORTED, *(entry.partition(":")[0] for entry in VERBS.values())):
        importlib.import_module(name)
    load(PROJECT / "config.example.yaml")  # the models are built with the first file that is read
    gc.freeze()
    orders = socket.socket(fileno=os.dup(0))
    while True:
        _bury(os.WNOHANG)
        order, descriptors, _, _ = socket.recv_fds(orders, _ORDER, 4)
        if not order:
            _bury(0)
            os._exit(0)
        if os.fork() == 0:
            _die_with_the_parent()
            orders.close()
            child = os.fork()
            if child == 0:
                _die_with_the_parent()
                os.close(descriptors.pop())
                _become(json.loads(order), descriptors)
            for descriptor in (0, 1, 2, *descriptors[:3]):
                os.close(descriptor)
            _, status = os.waitpid(child, 0)
            os.write(descriptors[3], b"%d" % os.waitstatus_to_exitcode(status))
            os._exit(0)
        for descriptor in descriptors:
            os.close(descriptor)


def _bury(how: int) -> None:
    """Those who waited for a command."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, how) != (0, 0):
            pass


def _become(order: dict[str, object], streams: list[int]) -> NoReturn:
    """Be the command of that order."""
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
        os.close(descriptor)
    encoding = locale.getpreferredencoding(False)
    sys.stdin = open(0, encoding=encoding, closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding=encoding, closefd=False, buffering=1 if os.isatty(1) else -1)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding=encoding, errors="backslashreplace", closefd=False, buffering=1)  # noqa: SIM115
    environment, words = order["environment"], order["words"]
    assert isinstance(environment, dict)
    assert isinstance(words, list)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:0] = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.argv[1:] = words
    code: object = 0
    try:
        runpy.run_module(str(order["module"]), run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    os._exit(code if isinstance(code, int) else 1)  # to tidy up what was inherited takes longer than the command


def _die_with_the_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    main()
