from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from tests.queue.house import SqliteHouse


@pytest_asyncio.fixture
async def house(tmp_path: Path) -> AsyncIterator[SqliteHouse]:
    house = SqliteHouse(tmp_path / "house")
    await house.open()
    yield house
    await house.demolish()
