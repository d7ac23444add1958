"""Alarms by a program: it gets text and cause, has its time, and says why it did not work."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from relay.delivery import alarm_command
from relay.delivery.alarm_command import ByCommand
from relay.delivery.alarm_way import NotSent
from tests.delivery.test_alarm_mail import ALARM

pytestmark = pytest.mark.asyncio


async def why(*command: str) -> str:
    with pytest.raises(NotSent) as failed:
        await ByCommand(command).send(ALARM)
    return str(failed.value)


async def test_it_gets_the_text_and_what_the_alarm_is(tmp_path: Path) -> None:
    got = tmp_path / "got"
    script = f'{{ printf "%s|%s|%s\\n" "$RELAY_CAUSE" "$RELAY_SEVERITY" "$1"; cat; }} > {got}'
    assert await ByCommand(["/bin/sh", "-c", script, "sh", "$HOME; *"]).send(ALARM) == "/bin/sh"
    first, _, text = got.read_text().partition("\n")
    assert first == "auth-refused:own|error|$HOME; *"
    assert text == f"{ALARM.title}\n\n{ALARM.text}"


async def test_a_program_that_does_not_read_is_fine() -> None:
    assert await ByCommand(["/bin/true"]).send(ALARM) == "/bin/true"


async def test_why_it_did_not_work_is_its_code_and_its_last_words(tmp_path: Path) -> None:
    assert await why("/bin/false") == "it ended with code 1"
    assert await why("/bin/sh", "-c", "echo eerst >&2; echo 'geen \033[1mnet.' >&2; exit 7") == (
        "it ended with code 7: geen ?[1mnet"
    )
    assert await why("/bin/sh", "-c", "kill -9 $$") == "signal 9 ended it"
    assert await why(str(tmp_path / "nothing")) == "it cannot be run: No such file or directory"
    assert await why(str(tmp_path)) == "it cannot be run: Permission denied"


async def test_much_that_it_writes_costs_nothing() -> None:
    said = await why("/bin/sh", "-c", "head -c 3000000 /dev/zero | tr '\\0' 'x' >&2; head -c 3000000 /dev/zero; exit 3")
    assert said == f"it ended with code 3: {'x' * 199}…"


async def test_what_it_leaves_behind_is_not_waited_for() -> None:
    async with asyncio.timeout(10):
        assert await ByCommand(["/bin/sh", "-c", "sleep 60 & exit 0"]).send(ALARM) == "/bin/sh"


async def test_it_is_ended_with_its_children_once_its_time_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alarm_command, "PATIENCE", 0.5)
    pids = tmp_path / "pids"
    said = await why("/bin/sh", "-c", f"sleep 60 & echo $$ $! > {pids}; wait")
    assert said == "it was not done within 0.5 s, and was ended"
    for pid in map(int, pids.read_text().split()):
        async with asyncio.timeout(30):
            while is_running(pid):
                await asyncio.sleep(0.01)


def is_running(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_it_runs_in_the_environment_of_the_relay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANG", "nl_NL.UTF-8")
    assert os.environ["PATH"]
    assert await why("sh", "-c", 'echo "$LANG" >&2; exit 1') == "it ended with code 1: nl_NL.UTF-8"
