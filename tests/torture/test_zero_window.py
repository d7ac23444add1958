"""Upstreams that stop reading in the middle of a message: they hold up nobody but their own mail."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tests.kit.house import Site
from tests.kit.sink import Sink
from tests.torture.load import LONG_PATIENCE, MIB, MOST, Large, loaded, ordinary, to

Size = Callable[[Any, Any], Any]
Figures = Callable[[str], None]

STUCK_SENDER = "boekhouding@example.nl"
GIVEN_UP = 3  # seconds


@pytest.mark.promise(
    "Providers that stop reading in mid-message are given up, nothing of what was under way arrives later, other mail "
    "flows meanwhile, and theirs arrives once they read again"
)
@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("octets", "timeout", "stage", "text"),
    [
        # So much the kernel takes at once: it has left us, dot and all, though nobody reads it.
        (200_000, "final", "dot", "in doubt, may be delivered twice"),
        (5_000_000, "progress", "body", f"the upstream took nothing for {GIVEN_UP} s"),
    ],
    ids=["small", "large"],
)
async def test_connections_that_are_not_read_are_given_up_and_their_mail_arrives_later(
    site: Site, size: Size, figures: Figures, octets: int, timeout: str, stage: str, text: str
) -> None:
    many = size(10, 50)
    stuck_way = {"max_connections": many, "timeouts": {timeout: f"{GIVEN_UP}s"}}
    async with Sink(small_buffers=True) as stuck, Sink() as other:
        parts: dict[str, Any] = {
            "upstreams": {"stuck": to(stuck.port, **stuck_way), "other": to(other.port)},
            "routes": {"default": {"upstreams": ["other"]}, "theirs": {"upstreams": ["stuck"], "retry": "1s"}},
            "senders": [{"match": {"envelope_from": STUCK_SENDER}, "keep": True, "route": "theirs"}],
        }
        async with loaded(site, **parts) as relay:
            stuck.hold = True
            other.bodies.clear()
            before = relay.forget_peak()
            async with asyncio.timeout(LONG_PATIENCE):
                sent = await Large(octets, sender=STUCK_SENDER).send_all(relay.port, many)
                await stuck.until(lambda: stuck.holding == many)
                await ordinary(relay.port, [f"Factuur {number}" for number in range(100)])
                await other.until(lambda: other.bodies.total() == 100)
                await relay.process.line("deferred", many, upstream="stuck", stage=stage)
                grown = relay.memory("VmHWM") - before
                assert stuck.bodies.total() == 0
                stuck.read_on()
                await stuck.until(lambda: stuck.bodies.total() >= many)
                await relay.process.line("delivered", many, upstream="stuck")
                grown = max(grown, relay.memory("VmHWM") - before)
            tries = relay.process.all("deferred", upstream="stuck")
    assert {(one["stage"], one["text"].partition(";")[0]) for one in tries} == {(stage, text)}
    assert stuck.bodies == sent  # each once: nothing of a connection given up came to its end
    assert stuck.broken_off == len(tries)
    assert grown < MOST
    figures(
        f"{many} connections stuck with {octets / 1e6:g} MB each: all given up ({len(tries)} times), {grown / MIB:.0f} "
        f"MiB over idle, 100 other messages delivered meanwhile; then all {many} arrived, each once"
    )
