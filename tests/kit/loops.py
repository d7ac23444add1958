"""The loops that tests run on: uvloop, as the relay does, and asyncio's own, which is a repetition."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
import uvloop

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "uvloop": uvloop.new_event_loop,
    "asyncio": asyncio.new_event_loop,
}
EACH_LOOP = [pytest.param("uvloop"), pytest.param("asyncio", marks=pytest.mark.repetition)]
