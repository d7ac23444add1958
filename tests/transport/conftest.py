"""Every test of this room that runs on a loop runs on uvloop, as the relay does, and (with all tests) on asyncio's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from tests.kit.certificates import Certificates
from tests.kit.loops import EACH_LOOP, LOOPS

Run = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(params=EACH_LOOP)
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a coroutine to its end, within a minute; an exception that only the loop heard of is a failure too."""

    def runner(coroutine: Coroutine[Any, Any, None]) -> None:
        unheard: list[dict[str, Any]] = []

        async def main() -> None:
            asyncio.get_running_loop().set_exception_handler(lambda _, context: unheard.append(context))
            async with asyncio.timeout(60):
                await coroutine

        with asyncio.Runner(loop_factory=LOOPS[request.param]) as loop:
            loop.run(main())
        # uvloop says this of a wire that was reset in the very moment when TLS was to begin.
        assert [one for one in unheard if "SSLProtocol.connection_made" not in one["message"]] == []

    return runner


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "captured"
