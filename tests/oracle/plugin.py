"""A pytest plugin for a process that runs aiosmtpd's tests: our session takes the place of its `SMTP`.

The tests of aiosmtpd want two packages that we do not; what little they use of them is here. Replies are
compared by their code: texts are ours. The outcome of each test goes to the file that ORACLE_OUTCOMES names.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from importlib import resources
from types import ModuleType
from typing import Any
from unittest import mock

import aiosmtpd.controller
import aiosmtpd.smtp
import pytest
from aiosmtpd.testing.statuscodes import StatusCode

from relay.ingress import secure
from tests.kit.ports import free_port
from tests.oracle.standin import StandIn


class MockFixture:
    """As much of pytest-mock as is used: `patch`, `Mock` and `spy`, undone at the end."""

    Mock = mock.Mock

    def __init__(self) -> None:
        self._undo: list[Callable[[], Any]] = []

    def patch(self, target: str, **options: Any) -> Any:
        return self._begin(mock.patch(target, **options))

    def spy(self, thing: object, name: str) -> Any:
        return self._begin(mock.patch.object(thing, name, side_effect=getattr(thing, name)))

    def _begin(self, patcher: Any) -> Any:
        self._undo.append(patcher.stop)
        return patcher.start()

    def end(self) -> None:
        while self._undo:
            self._undo.pop()()


def _mocker() -> Iterator[MockFixture]:
    fixture = MockFixture()
    yield fixture
    fixture.end()


mocker = pytest.fixture(name="mocker")(_mocker)
session_mocker = pytest.fixture(name="session_mocker", scope="session")(_mocker)


def _same_code(self: StatusCode, other: object) -> bool:
    return isinstance(other, tuple) and other[0] == self.code


def _different_code(self: StatusCode, other: object) -> bool:
    return not _same_code(self, other)


def _module(name: str, **content: Any) -> None:
    sys.modules[name] = module = ModuleType(name)
    vars(module).update(content)


PORT = free_port()
_module("pytest_mock", MockFixture=MockFixture)
_module("pkg_resources", resource_filename=lambda package, name: str(resources.files(package) / name))
StatusCode.__eq__ = _same_code
StatusCode.__ne__ = _different_code
StatusCode.__hash__ = tuple.__hash__
aiosmtpd.smtp.SMTP = aiosmtpd.controller.SMTP = StandIn
aiosmtpd.controller.InetMixin.__init__.__defaults__ = ("127.0.0.1", PORT, None)
secure.AUTH_PAUSE = 0.0  # nobody tries passwords here
outcomes: dict[str, str] = {}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    conftest: Any = sys.modules["aiosmtpd.tests.conftest"]
    conftest.HostPort.__new__.__defaults__ = ("127.0.0.1", PORT)
    conftest.Global.SrvAddr = conftest.HostPort()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    name = report.nodeid.removeprefix("tests/")
    if report.failed:
        outcomes[name] = "failed"
    elif report.when == "call":
        outcomes.setdefault(name, report.outcome)


def pytest_sessionfinish() -> None:
    with open(os.environ["ORACLE_OUTCOMES"], "w") as file:
        json.dump(outcomes, file)
