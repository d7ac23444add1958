"""The show itself: the real relay between real sockets, and what stands on the terminal."""

from __future__ import annotations

import asyncio
import io
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from rich.console import Console

from relay.demo import show
from relay.errors import RelayError
from tests.kit.ports import free_port


@pytest.mark.asyncio
async def test_the_show_ends_well_and_fits_eighty_columns() -> None:
    paper = io.StringIO()
    console = Console(file=paper, width=80)
    async with asyncio.timeout(60):
        assert await show.run(console, once=True, port=free_port())
    text = paper.getvalue()
    assert text.count("✓") == 5
    assert "✗" not in text
    for words in (
        "From: Jan de Vries <jan.devries@kantoor.example>",
        "From: Jan de Vries via Administratie <administratie@kantoor.example>",
        "Reply-To: René Zoë <r.zoe@kantoor.example>",
        "From: René Zoë via Administratie <administratie@kantoor.example>",
        "route session-codes, upstream vendor, TLSv1.3",
        "All 5 mails arrived once",
    ):
        assert words in text
    assert max(len(line) for line in text.splitlines() if "/relay-demo-" not in line) <= 80


@pytest.mark.asyncio
async def test_a_port_in_use_is_named_with_a_way_out() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(RelayError, match=rf"127\.0\.0\.1:{port}: Address already in use: .*--port \d+"):
            await show.run(Console(file=io.StringIO()), once=True, port=port)


def test_the_demo_goes_on_until_it_is_told_to_end_and_shows_what_is_sent_to_it(tmp_path: Path) -> None:
    port = free_port()
    environment = {**os.environ, "TMPDIR": str(tmp_path), "COLUMNS": "80"}
    with subprocess.Popen(
        [sys.executable, "-m", "relay", "demo", "--port", str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        text=True,
        encoding="utf-8",
    ) as process:
        try:
            assert process.stdout is not None
            said = ""
            while "Ctrl-C" not in said:
                line = process.stdout.readline()
                assert line, said
                said += line
            assert f"swaks --server 127.0.0.1:{port} " in said
            metrics = re.search(r"http://127\.0\.0\.1:\d+/metrics", said)
            assert metrics is not None
            example = re.search(r"(import smtplib\n.*?\n.*?\n)", said)
            assert example is not None
            subprocess.run([sys.executable, "-c", example[1]], check=True, timeout=60)
            shown = ""
            while "upstream own" not in shown:
                shown += process.stdout.readline()
            assert "From: Jij <jij@kantoor.example>" in shown
            assert "From: Jij via Administratie <administratie@kantoor.example>" in shown
            with urllib.request.urlopen(metrics[0], timeout=20) as page:
                assert b"relay_" in page.read()
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0
        finally:
            process.kill()
    assert list(tmp_path.iterdir()) == []
