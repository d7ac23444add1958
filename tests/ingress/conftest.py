"""What the tests of the door share."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from tests.ingress.house import HouseOf, a_house
from tests.kit.certificates import Certificates


@pytest.fixture
def house_of(tmp_path: Path) -> HouseOf:
    """`async with house_of(tls="starttls", …) as house`."""
    return partial(a_house, tmp_path)


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path)
