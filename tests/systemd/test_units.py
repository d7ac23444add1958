"""The unit files: systemd understands them, and the sandbox is as tight as it can be."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

UNITS = Path(__file__).parents[2] / "systemd"

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


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
