"""Alarms by a program of the administrator's: run without a shell, with the text on standard input.

It has 30 seconds; then it is ended, with the processes that it started. Its exit code says whether it worked, and what
it wrote last to standard error is reported where it did not.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from contextlib import closing, suppress

from relay.delivery.alarm_way import Alarm, NotSent
from relay.mail.reply import sanitise

PATIENCE = 30.0  # seconds
_KEPT = 4096  # octets of standard error
_IN_THE_PIPE = 65536  # octets that may lie there once it has ended (pipe(7))
_SHOWN = 200  # characters


class ByCommand:
    """`command` is the program and its arguments."""

    name = "command"

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command

    async def send(self, alarm: Alarm) -> str:
        with closing(_Words()) as words:
            code = await self._run(alarm, words)
            said = words.last
        if code:
            ended = f"it ended with code {code}" if code > 0 else f"signal {-code} ended it"
            raise NotSent(f"{ended}: {said}" if said else ended)
        return self._command[0]

    async def _run(self, alarm: Alarm, words: _Words) -> int:
        """Its exit code. Raises NotSent."""
        environment = os.environ | {"RELAY_CAUSE": alarm.cause, "RELAY_SEVERITY": alarm.severity.value}
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=words.theirs,
                env=environment,
                start_new_session=True,
            )
        except OSError as error:
            raise NotSent(f"it cannot be run: {error.strerror}") from None
        assert process.stdin is not None
        try:
            async with asyncio.timeout(PATIENCE):
                process.stdin.write(f"{alarm.title}\n\n{alarm.text}".encode())
                process.stdin.close()
                return await process.wait()
        except TimeoutError:
            raise NotSent(f"it was not done within {PATIENCE:g} s, and was ended") from None
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()

    def parts(self) -> tuple[ByCommand]:
        return (self,)


class _Words:
    """What a program writes to standard error; it need not wait for us, and the last of it is kept.

    It is read until `close`, and no longer: a process that the program leaves behind may never close its end.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._kept = b""
        self._ours, self.theirs = os.pipe()
        os.set_blocking(self._ours, False)
        self._loop.add_reader(self._ours, self._read)

    def _read(self) -> None:
        with suppress(BlockingIOError):
            self._kept = (self._kept + os.read(self._ours, _KEPT))[-_KEPT:]

    @property
    def last(self) -> str:
        """The last line so far, as it may stand in a log."""
        for _ in range(_IN_THE_PIPE // _KEPT):
            self._read()
        lines = self._kept.decode("utf-8", "replace").strip().splitlines()
        return sanitise(lines[-1], _SHOWN).rstrip(" .") if lines else ""

    def close(self) -> None:
        self._loop.remove_reader(self._ours)
        os.close(self._ours)
        os.close(self.theirs)
