"""What the scenarios stand on: certificates, and a folder with short paths (a socket lies in it)."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.certificates import Certificates
from tests.kit.house import Site


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def site(certificates: Certificates) -> Iterator[Site]:
    with tempfile.TemporaryDirectory(prefix="relay-") as folder:
        yield Site(Path(folder), certificates)
