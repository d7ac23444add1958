"""`--help` on a terminal of 80 columns: no sentence ends in the middle."""

from __future__ import annotations

import pytest

from tests.kit import commands


@pytest.mark.parametrize("words", [(), ("queue",), ("codes",), ("senders",), ("auth",)], ids=" ".join)
@pytest.mark.asyncio
async def test_what_a_command_does_is_said_whole_where_commands_are_listed(words: tuple[str, ...]) -> None:
    code, told, _ = await commands.run(*words, "--help", COLUMNS="80")
    listed = told.partition("Commands:\n")[2].splitlines()
    assert code == 0
    assert listed
    assert [line for line in listed if line.endswith("...")] == []
