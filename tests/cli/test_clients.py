"""`relay clients`: who sends, and which of their habits to care about."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from rich.cells import cell_len

from relay.admin import documents
from relay.cli.clients import lines
from relay.cli.table import text
from relay.mail.quirk import Quirk
from relay.observe.clients import ClientSeen
from tests.admin.house import CLIENT, answering, ask, open_store
from tests.cli.desk import EVIL, NOW, configuration, run, unescaped
from tests.kit.sentences import EN

SEEN = (
    replace(
        CLIENT,
        last_seen=NOW - timedelta(seconds=30),
        software="iMUIS 2026.1 (Windows)",
        quirks={Quirk.BARE_LF: 1_203, Quirk.NO_DATE: 7, Quirk.LONG_LINE: 4},
    ),
    ClientSeen("192.0.2.9", ("legacy", "scanners"), NOW, NOW - timedelta(hours=2), 17, 2, EVIL, EVIL, {}),
)


def drawn(width: int | None) -> list[str]:
    return [text(line) for line in lines(documents.clients(SEEN)["clients"], NOW, width)]


def test_the_quirks_to_care_about_come_first_with_a_sentence_each() -> None:
    told = drawn(160)
    assert "long-line 4, bare-lf 1203, no-date 7" in told[1]
    meanings = told[told.index("") + 2 :]
    assert [line.split()[:2] for line in meanings] == [["long-line", "yes"], ["bare-lf", "no"], ["no-date", "no"]]
    assert meanings[0].endswith(EN["quirk"]["long-line"])


@pytest.mark.parametrize("width", [80, 160])
def test_clients_fit_their_terminal(width: int) -> None:
    assert all(cell_len(line) <= width for line in drawn(width))


@pytest.mark.parametrize("width", [80, None])
def test_what_a_client_calls_itself_commands_no_terminal(width: int | None) -> None:
    told = lines(unescaped(documents.clients(SEEN))["clients"], NOW, width)
    assert [text(line) for line in told if not text(line).isprintable()] == []


def test_a_quirk_of_a_newer_relay_is_shown_by_its_word() -> None:
    client = documents.clients(SEEN[:1])["clients"][0] | {"quirks": {"writes-backwards": 3}}
    assert any("writes-backwards" in text(line) for line in lines([client], NOW, 80))


@pytest.mark.asyncio
async def test_the_running_relay_is_asked(tmp_path: Path) -> None:
    config = configuration(tmp_path)
    store = await open_store(tmp_path)
    try:
        async with answering(tmp_path / "admin.sock", store):
            shown = await ask(run, "clients", "-c", str(config))
            document = await ask(run, "clients", "--json", "-c", str(config))
    finally:
        await store.close()
    assert shown.exit_code == 0
    assert shown.stdout.splitlines()[1].split()[0] == CLIENT.address
    assert json.loads(document.stdout)["clients"][0]["quirks"] == {"bare-lf": 3}


def test_without_a_relay_there_are_no_clients(tmp_path: Path) -> None:
    result = run("clients", "-c", str(configuration(tmp_path)))
    assert result.exit_code == 3
    assert result.stderr == f"relay: no relay is running behind {tmp_path}/admin.sock\n"
