"""`relay status`: what an administrator sees at eight in the morning, and what a monitoring system hears."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from rich.cells import cell_len

from relay.admin import documents
from relay.admin.snapshot import CodesNow, ListenerNow, PaceNow, RouteNow, Snapshot, UpstreamNow
from relay.cli.overview import overview
from relay.cli.table import text
from relay.observe.situation import Answer, Noted, Severity, Trouble
from tests.admin.house import SNAPSHOT, FakeHouse, answering, ask, open_store
from tests.cli.desk import EVIL, NOW, configuration, run, unescaped
from tests.kit import machine
from tests.queue.mail import an_entry

REFUSED = Trouble(
    "upstream-auth:own",
    Severity.ERROR,
    NOW - timedelta(hours=2, minutes=10),
    "own weigert het wachtwoord (535 5.7.139): er gaat geen mail over deze weg uit.",
    "Zet het juiste wachtwoord in /etc/relay/own-password en geef het commando: relay reload.",
)
HELD = Trouble("held", Severity.WARNING, NOW - timedelta(minutes=5), "1 bericht wacht op een mens.", "relay queue list")
SICK = replace(
    SNAPSHOT,
    at=NOW,
    started_at=NOW - timedelta(days=1, hours=1),
    listeners=(ListenerNow("legacy", "smtp", ("127.0.0.1:25", "[::1]:25"), 3, 12_043),),
    upstreams=(
        UpstreamNow(
            "own",
            "smtp",
            "smtp.office365.com:587",
            False,
            40.2,
            0,
            0,
            3,
            Answer(NOW - timedelta(seconds=130), False, "auth", 535, "5.7.139", f"Authentication unsuccessful {EVIL}"),
        ),
        UpstreamNow("vendor", "smtp", "[::1]:465", True, 0.0, 1, 1, 3, Answer(NOW - timedelta(seconds=3), True)),
    ),
    routes=(
        RouteNow("default", ("own",), 3, 12, 2, 1, NOW - timedelta(hours=3, minutes=12)),
        RouteNow("session-codes", ("vendor", "own"), 0, 0, 0, 0, None),
    ),
    codes=CodesNow(True, 120, 0, 1, 0),
    queue_bytes=1_258_291,
    disk_free=13_300_000_000,
    min_free=200 * 2**20,
    troubles=(REFUSED, HELD),
    errors=tuple(Noted(NOW - timedelta(minutes=n), "warning", "upstream_set_aside", f"{n} {EVIL}") for n in range(9)),
)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return configuration(tmp_path)


def drawn(snapshot: Snapshot, width: int | None) -> list[str]:
    return [text(line) for line in overview(documents.status(snapshot)["status"], width)]


def test_the_first_lines_say_what_is_wrong_and_what_to_do() -> None:
    lines = drawn(SICK, 160)
    assert lines[0] == "relay 1.2.3 on relay.example.nl: 1 error, 1 warning"
    assert lines[1].startswith("ERROR    own weigert het wachtwoord (535 5.7.139)")
    assert lines[2].startswith("         -> Zet het juiste wachtwoord in /etc/relay/own-password")
    assert lines[3].startswith("WARNING  1 bericht wacht op een mens. (since ")
    assert ", 5m)" in lines[3]


def test_a_relay_in_good_health_says_so_first() -> None:
    assert drawn(SNAPSHOT, 80)[0] == "relay 1.2.3 on relay.example.nl: all is well"


def test_a_relay_that_stops_takes_no_mail_and_says_so() -> None:
    assert "takes no new mail" in drawn(replace(SNAPSHOT, ready=False), 80)[0]


@pytest.mark.parametrize("width", [60, 80, 100, 160])
def test_the_screen_fits_its_terminal(width: int) -> None:
    assert all(cell_len(line) <= width for line in drawn(SICK, width))


@pytest.mark.parametrize("width", [80, 160, None])
def test_nothing_on_the_screen_commands_a_terminal(width: int | None) -> None:
    told = overview(unescaped(documents.status(SICK))["status"], width)
    assert [text(line) for line in told if not text(line).isprintable()] == []


def test_the_screen_shows_upstreams_routes_codes_disk_and_the_last_errors() -> None:
    lines = drawn(SICK, 160)
    whole = "\n".join(lines)
    assert "down, tried in 40s" in whole
    assert "2m ago: auth: 535 5.7.139 Authentication unsuccessful" in whole
    assert "ok, 3s ago" in whole
    assert " ".join(next(line for line in lines if line.startswith("default")).split()) == "default 3 12 2 1 3h 12m own"
    assert "120 delivered, 0 failed, 1 expired since the start; 0 waiting" in whole
    assert "queue 1.2 MiB, 12 GiB free; mail is refused below 200 MiB" in whole
    assert whole.count("upstream_set_aside") == 5


def test_in_a_pipe_no_number_of_the_pace_looks_negative() -> None:
    pace = (PaceNow(14, 30, 60.0, False), PaceNow(14, 10_000, 86_400.0, True))
    paced = replace(SICK, upstreams=(replace(SICK.upstreams[1], pace=pace),))
    row = next(line for line in drawn(paced, None) if line.startswith("vendor"))
    assert "14_of_30/min,_14_of_10000_recipients/d" in row.split()


def test_an_upstream_that_answered_nothing_yet_is_no_trouble() -> None:
    fresh = replace(SICK, upstreams=(replace(SICK.upstreams[1], answer=None),))
    assert "none yet" in "\n".join(drawn(fresh, 160))


# The command


@pytest.mark.asyncio
async def test_the_exit_code_says_whether_something_needs_a_person(config: Path, tmp_path: Path) -> None:
    store = await open_store(tmp_path)
    try:
        async with answering(tmp_path / "admin.sock", store) as house:
            well = await ask(run, "status", "-c", str(config))
            assert (well.exit_code, well.stderr) == (0, "")
            assert well.stdout.startswith("relay 1.2.3 on relay.example.nl: all is well\n")
            _becomes(house, SICK)
            sick = await ask(run, "status", "--json", "-c", str(config))
            assert sick.exit_code == 1
            told = json.loads(sick.stdout)
            assert told["version"] == 1
            assert [trouble["cause"] for trouble in told["status"]["troubles"]] == ["upstream-auth:own", "held"]
    finally:
        await store.close()


def _becomes(house: FakeHouse, snapshot: Snapshot) -> None:
    async def now() -> Snapshot:
        return snapshot

    house.snapshot = now  # type: ignore[method-assign]


@pytest.mark.asyncio
async def test_without_a_relay_it_tells_how_much_mail_waits(config: Path, tmp_path: Path) -> None:
    store = await open_store(tmp_path)
    await store.put(an_entry(), leased=False)
    await store.put(an_entry(), leased=False, held=True)
    await store.close()
    result = await ask(run, "status", "-c", str(config))
    assert result.exit_code == 3
    first, second, third = result.stdout.splitlines()
    assert first == f"no relay is running behind {tmp_path}/admin.sock"
    assert second == f"the configuration {config} is good"
    assert third.startswith("1 message in the queue, the oldest for ")
    assert third.endswith("; 1 held")
    told = json.loads((await ask(run, "status", "--json", "-c", str(config))).stdout)
    assert told["status"] is None
    assert (told["queue"]["waiting"], told["queue"]["held"]) == (1, 1)


@pytest.mark.asyncio
async def test_a_queue_that_another_process_holds_is_named(config: Path, tmp_path: Path) -> None:
    store = await open_store(tmp_path)
    try:
        result = await ask(run, "status", "-c", str(config))
    finally:
        await store.close()
    assert result.exit_code == 3
    assert f"held by process {os.getpid()}" in result.stdout


def test_looking_makes_no_queue(config: Path, tmp_path: Path) -> None:
    assert run("status", "-c", str(config)).exit_code == 3
    assert not (tmp_path / "queue.db").exists()


def test_a_bad_configuration_is_named_when_no_relay_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    file = tmp_path / "config.yaml"
    file.write_text("upstreams: {own: {host: smtp.example.com, prt: 587}}\nlistners: []\n")
    result = run("status", "-c", str(file))
    assert result.exit_code == 3
    assert f"the configuration is bad: {file}:1: upstreams.own.prt: " in result.stdout
    assert "(and 1 more: relay check)" in result.stdout


@pytest.mark.asyncio
async def test_a_running_relay_with_a_file_that_has_become_bad_is_shown_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    file = tmp_path / "config.yaml"
    file.write_text("upstreams: {}\n")
    store = await open_store(tmp_path)
    try:
        async with answering(tmp_path / "admin.sock", store):
            result = await ask(run, "status", "-c", str(file))
    finally:
        await store.close()
    assert result.exit_code == 1
    assert "all is well" in result.stdout
    assert "the configuration is bad" in result.stderr


def test_watching_needs_a_terminal(config: Path) -> None:
    assert run("status", "--watch", "-c", str(config)).exit_code == 2
    assert run("status", "--watch", "--json", "-c", str(config)).exit_code == 2


@pytest.mark.asyncio
async def test_watching_draws_until_ctrl_c_and_leaves_the_terminal_as_it_was(config: Path, tmp_path: Path) -> None:
    store = await open_store(tmp_path)
    try:
        async with answering(tmp_path / "admin.sock", store):
            code, written = await ask(_watched, config)
    finally:
        await store.close()
    assert code == 0, written
    assert "all is well" in written
    assert written.index("\x1b[?1049h") < written.index("\x1b[?1049l")
    assert "Traceback" not in written
    assert "Aborted" not in written


def _watched(config: Path) -> tuple[int, str]:
    """`relay status --watch` on a terminal of its own; Ctrl-C once the screen is there."""
    leader, follower = machine.terminal()
    child = subprocess.Popen(
        [sys.executable, "-m", "relay", "status", "--watch", "-c", str(config)],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "80", "LINES": "24"},
    )
    os.close(follower)
    written = b""
    asked = False
    with child, os.fdopen(leader, "rb", buffering=0) as terminal:
        while True:
            try:
                written += terminal.read(4096)
            except OSError:  # EIO: how Linux says that nobody writes any more
                break
            if not asked and b"all is well" in written:
                asked = True
                child.send_signal(signal.SIGINT)
    return child.returncode, written.decode(errors="replace")
