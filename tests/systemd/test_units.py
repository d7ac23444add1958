"""The unit files: systemd understands them, the sandbox is as tight as it can be, and the sockets reach the relay."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import smtplib
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kit.house import JAN, PATIENCE, PIET, free_port, mail
from tests.kit.process import Process

UNITS = Path(__file__).parents[2] / "systemd"

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")

needs_sysusers = pytest.mark.skipif(shutil.which("systemd-sysusers") is None, reason="systemd-sysusers is missing")
needs_activation = pytest.mark.skipif(
    shutil.which("systemd-socket-activate") is None, reason="systemd-socket-activate is not installed"
)


def settings(unit: str) -> list[tuple[str, str]]:
    lines = (UNITS / unit).read_text(encoding="utf-8").splitlines()
    return [(key, value) for key, equals, value in (line.partition("=") for line in lines) if equals and key[0] != "#"]


@needs_systemd
def test_systemd_understands_both_units(tmp_path: Path) -> None:
    for unit in ("relay.service", "relay.socket"):
        text = (UNITS / unit).read_text(encoding="utf-8")
        # The program is not installed where the tests run, and systemd looks whether it is there.
        (tmp_path / unit).write_text(text.replace("/opt/relay/venv/bin/relay", "/bin/true"), encoding="utf-8")
    checked = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", tmp_path / "relay.service", tmp_path / "relay.socket"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (checked.returncode, checked.stderr) == (0, "")


@needs_systemd
def test_the_sandbox_is_as_tight_as_a_relay_can_have_it() -> None:
    checked = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=20", UNITS / "relay.service"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert checked.returncode == 0, checked.stdout[-200:]


def test_process_metrics_are_not_shut_out() -> None:
    assert "ProcSubset" not in dict(settings("relay.service"))


def test_the_service_takes_its_ports_from_the_socket_and_is_never_given_up() -> None:
    service = dict(settings("relay.service"))
    assert service["Sockets"] == "relay.socket"
    assert service["Restart"] == "always"
    assert service["StartLimitIntervalSec"] == "0"
    socket = settings("relay.socket")
    assert [value for key, value in socket if key == "ListenStream"] == ["127.0.0.1:25", "[::1]:25"]
    assert ("FileDescriptorName", "legacy") in socket


def test_the_service_has_what_the_documents_promise() -> None:
    service = dict(settings("relay.service"))
    assert service["Type"] == "notify"
    assert int(service["TimeoutStopSec"]) > 30 + 60  # DATA in progress, then attempts past the dot
    assert service["KillMode"] == "mixed"
    assert (service["StateDirectory"], service["StateDirectoryMode"]) == ("relay", "0700")
    assert (service["RuntimeDirectory"], service["UMask"]) == ("relay", "0077")
    assert int(service["WatchdogSec"]) > 0


def test_no_line_of_a_unit_has_a_comment_behind_its_value() -> None:
    """systemd would take it for a part of the value."""
    for unit in UNITS.iterdir():
        for line in unit.read_text(encoding="utf-8").splitlines():
            assert line.startswith("#") or " #" not in line, line


@needs_sysusers
def test_the_fixed_user_of_the_relay_is_one_that_systemd_can_make(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    made = subprocess.run(
        ["systemd-sysusers", "--dry-run", f"--root={tmp_path}", UNITS / "relay.sysusers.conf"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert made.returncode == 0, made.stderr
    assert "Creating group 'relay'" in made.stderr
    assert "Creating user 'relay' (SMTP relay proxy)" in made.stderr
    assert dict(settings("relay.service"))["User"] == "relay"


@needs_activation
@pytest.mark.asyncio
async def test_the_sockets_of_the_unit_reach_the_relay_in_both_families(tmp_path: Path) -> None:
    """As systemd does it: the sockets are passed under the name of the unit, and one listener takes all of them."""
    unit = settings("relay.socket")
    name = dict(unit)["FileDescriptorName"]
    hosts = [value.rpartition(":")[0].strip("[]") for key, value in unit if key == "ListenStream"]
    assert hosts == ["127.0.0.1", "::1"]
    places = [(host, free_port()) for host in hosts]
    config = tmp_path / "config.yaml"
    # JSON is YAML as well.
    config.write_text(
        json.dumps(
            {
                "hostname": "relay.example.nl",
                "listeners": [{"name": "legacy", "listen": f"systemd:{name}"}],
                "upstreams": {"own": {"type": "capture", "directory": str(tmp_path / "out")}},
                "queue": {"store": f"sqlite:{tmp_path / 'queue.db'}", "min_free": "1MiB"},
                "admin": {"listen": None, "socket": str(tmp_path / "s")},
                "log": {"format": "json"},
            }
        )
    )
    listen = [f"--listen={'[::1]' if ':' in host else host}:{port}" for host, port in places]
    names = f"--fdname={':'.join([name] * len(places))}"
    relay = Process(
        await asyncio.create_subprocess_exec(
            *("systemd-socket-activate", *listen, names),
            *(sys.executable, "-m", "relay", "serve", "-c", str(config)),
            stderr=asyncio.subprocess.PIPE,
        )
    )
    try:
        while not any(line.startswith("Listening on") and f"{places[-1][1]}" in line for line in relay.lines):
            async with asyncio.timeout(PATIENCE), relay._changed:
                await relay._changed.wait()
        for host, port in places:  # the first connection starts the relay, and waits for it
            await asyncio.to_thread(send, host, port)
        await relay.line("delivered", 2)
        assert {line["client"] for line in relay.all("queued")} == {"127.0.0.1", "::1"}
        relay.signal(signal.SIGTERM)
        assert await relay.ended() == 0
    finally:
        if relay._process.returncode is None:
            relay._process.kill()
        await relay.ended()


def send(host: str, port: int) -> None:
    with smtplib.SMTP(host, port, local_hostname="werkplek-7", timeout=PATIENCE) as client:
        client.sendmail(JAN, [PIET], mail())
