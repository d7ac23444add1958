"""`size`, `figures` and `promise`: short and long forms of a test, what it saw, and what it is about.

RELAY_TORTURE=long runs the long forms. RELAY_TORTURE_KEEP=1 keeps in `results.json` what was seen.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.kit.certificates import Certificates
from tests.kit.house import Site
from tests.kit.machine import MEMORY
from tests.kit.process import Process
from tests.scenarios.conftest import certificates as certificates
from tests.scenarios.conftest import site as site
from tests.torture.faults import Faults, build
from tests.torture.nursery import Nursery
from tests.torture.results import Result, keep, promise_of

LONG = os.environ.get("RELAY_TORTURE") == "long"
KEEP = os.environ.get("RELAY_TORTURE_KEEP") == "1"
HOUR_AND_A_HALF = 5400

_FIGURES = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    if LONG:
        Process.patience = HOUR_AND_A_HALF
    config.addinivalue_line("markers", "promise(text): the promise that a test of tests/torture attacks")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if LONG and "/torture/" in item.path.as_posix():
            item.add_marker(pytest.mark.timeout(HOUR_AND_A_HALF))


@pytest.fixture
def size() -> Callable[..., Any]:
    """`size(20, 200)`: the first in the short form, the second in the long one."""
    return lambda short, long: long if LONG else short


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Say what was seen, in a few words with figures: it stands in docs/reliability.md."""
    said = request.node.stash.setdefault(_FIGURES, [])
    return said.append


@pytest.fixture
def quick_site(certificates: Certificates) -> Iterator[Site]:
    """A site; in the short form it lies in memory, where a sync costs nothing. (What SIGKILL leaves is the same.)"""
    with tempfile.TemporaryDirectory(prefix="relay-", dir=None if LONG else MEMORY) as folder:
        yield Site(Path(folder), certificates)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def one_nursery() -> AsyncIterator[Nursery]:
    async with Nursery.open() as nursery:
        yield nursery


@pytest_asyncio.fixture(loop_scope="session")
async def nursery(one_nursery: Nursery) -> AsyncIterator[Nursery]:
    """Relays that may be killed. A test that uses it is marked `asyncio(loop_scope="session")`."""
    yield one_nursery
    await one_nursery.clear()


@pytest.fixture(scope="session")
def faults_library() -> Iterator[Path]:
    """The shim of `tests/torture/faults.py`, built for this session."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not there to build the shim")
    with tempfile.TemporaryDirectory(prefix="relay-shim-") as folder:
        yield build(Path(folder))


@pytest.fixture
def faults(faults_library: Path) -> Iterator[Faults]:
    """A disk and a clock that fail as the test says, for processes that get their `environment`."""
    with (
        tempfile.TemporaryDirectory(prefix="relay-faults-") as folder,
        Faults.made(Path(folder), faults_library) as made,
    ):
        yield made


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if KEEP and report.when == "call" and promise_of(item):
        said = "; ".join(item.stash.get(_FIGURES, []))
        if report.skipped:
            said = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
        keep(Result(item.nodeid, promise_of(item), report.outcome, LONG, report.duration, said))
    return report
