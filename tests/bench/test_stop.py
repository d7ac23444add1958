"""A soak that is stopped takes its relay, its client and its upstream with it."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from tests.kit.house import PATIENCE

PROJECT = Path(__file__).parents[2]


@pytest.mark.asyncio
async def test_a_soak_that_is_stopped_leaves_nothing_behind(tmp_path: Path) -> None:
    soak = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.soak", "600", "5", str(tmp_path / "soak.json")),
        cwd=PROJECT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(2 * PATIENCE):  # three processes have to start
            while not list(tmp_path.glob("*/admin.sock")):  # the relay is up
                await asyncio.sleep(0.05)
            soak.terminate()
            assert await soak.wait() == 143
    finally:
        left = _kill(soak.pid)
    assert not left
    assert list(tmp_path.iterdir()) == []


def _kill(group: int) -> bool:
    """Whatever there is of that group; whether there was anything."""
    try:
        os.killpg(group, 9)
    except ProcessLookupError:
        return False
    return True
