"""Large messages, many at once: they cost the disk, not memory, and keep nobody else waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tests.kit.house import JAN, PIET, Client, Site, mail
from tests.kit.sink import KEYWORDS, Sink
from tests.torture.load import LONG_PATIENCE, MIB, MOST, Large, loaded, to

Size = Callable[[Any, Any], Any]
Figures = Callable[[str], None]

STUCK = 10  # messages that the upstream began to take
REWRITTEN = [{"name": "all", "address": "administratie@example.nl"}]


@pytest.mark.promise(
    "200 messages of 25 MB at once, or 500 of 250 kB, cost the relay at most 64 MiB of memory, and arrive whole"
)
@pytest.mark.asyncio
@pytest.mark.parametrize("kept", ["in files", "in memory"])
async def test_messages_that_arrive_all_at_once_cost_bounded_memory_and_arrive_whole(
    site: Site, size: Size, figures: Figures, kept: str
) -> None:
    many, octets = size((20, 5_000_000), (200, 25_000_000)) if kept == "in files" else (500, 250_000)
    async with Sink() as sink, loaded(site, upstreams={"own": to(sink.port)}, senders=REWRITTEN) as relay:
        sink.bodies.clear()
        before, lag = relay.forget_peak(), await relay.lag()
        sent = await Large(octets).send_all(relay.port, many)
        accepting = relay.memory("VmHWM") - before
        async with asyncio.timeout(LONG_PATIENCE):
            await sink.until(lambda: sink.bodies.total() == many)
        grown, lag = relay.memory("VmHWM") - before, (await relay.lag()).since(lag)
    assert sink.bodies == sent
    assert grown < MOST
    figures(
        f"{many} × {octets / 1e6:g} MB at once: {accepting / MIB:.0f} MiB over idle ({before / MIB:.0f} MiB) while "
        f"they arrived, {grown / MIB:.0f} MiB at most until all had left; bound {MOST // MIB} MiB; {lag}"
    )


@pytest.mark.promise(
    "Large messages cost the relay at most 64 MiB of memory, also while the provider takes none of them"
)
@pytest.mark.asyncio
async def test_large_messages_lie_on_the_disk_while_the_upstream_is_stuck_and_arrive_when_it_reads_again(
    site: Site, size: Size, figures: Figures
) -> None:
    many, octets = size((10, 8_000_000), (200, 25_000_000))
    large = Large(octets)
    way = {"max_connections": STUCK}
    async with Sink(small_buffers=True) as sink, loaded(site, upstreams={"own": to(sink.port, **way)}) as relay:
        sink.bodies.clear()
        before = relay.forget_peak()
        sink.hold = True
        async with asyncio.timeout(LONG_PATIENCE):
            sent = await large.send_all(relay.port, STUCK)
            await sink.until(lambda: sink.holding == STUCK)
            sent += await large.send_all(relay.port, many)
            stuck = relay.memory("VmHWM") - before
            assert sink.bodies.total() == 0
            sink.read_on()
            await sink.until(lambda: sink.bodies.total() == many + STUCK)
        grown = relay.memory("VmHWM") - before
    assert sink.bodies == sent
    assert sink.broken_off == 0
    assert grown < MOST
    figures(
        f"{STUCK} × {octets / 1e6:g} MB stuck on their way out, {many} more at once: {stuck / MIB:.0f} MiB over idle, "
        f"{grown / MIB:.0f} MiB at most until all had left; bound {MOST // MIB} MiB"
    )


@pytest.mark.promise(
    "Re-encoding large messages for a provider without 8BITMIME costs the relay at most 64 MiB of memory"
)
@pytest.mark.asyncio
async def test_large_messages_that_have_to_be_re_encoded_cost_bounded_memory(
    site: Site, size: Size, figures: Figures
) -> None:
    many, octets = size((2, 15_000_000), (20, 25_000_000))
    keywords = tuple(word for word in KEYWORDS if word != "8BITMIME")
    way = {"max_connections": 10}
    async with Sink(keywords=keywords) as sink, loaded(site, upstreams={"own": to(sink.port, **way)}) as relay:
        sink.bodies.clear()
        before, lag = relay.forget_peak(), await relay.lag()
        await Large(octets, wide=True).send_all(relay.port, many)
        async with asyncio.timeout(LONG_PATIENCE):
            await sink.until(lambda: sink.bodies.total() == many)
        grown, lag = relay.memory("VmHWM") - before, (await relay.lag()).since(lag)
        await relay.process.line("reencoded", many)
    assert len(sink.bodies) == many  # they differ, and each came once
    assert grown < MOST
    figures(f"{many} × {octets / 1e6:g} MB at once, all re-encoded: {grown / MIB:.0f} MiB over idle; {lag}")


@pytest.mark.promise(
    "Small mail is taken and delivered while messages of 25 MB pass: nothing that is large holds up the rest"
)
@pytest.mark.asyncio
async def test_small_mail_passes_while_large_messages_do(site: Site, size: Size, figures: Figures) -> None:
    rounds, at_once, octets = size((2, 2, 5_000_000), (30, 4, 25_000_000))
    accepted: list[float] = []
    loop = asyncio.get_running_loop()

    async def small() -> None:
        async with Client.to(relay.port) as client:
            while not large.done():
                started = loop.time()
                await client.send(JAN, [PIET], mail(f"Factuur {len(accepted)}"))
                accepted.append(loop.time() - started)

    async def pass_through() -> None:
        for _ in range(rounds):
            await Large(octets).send_all(relay.port, at_once)

    async with Sink() as sink, loaded(site, upstreams={"own": to(sink.port)}, senders=REWRITTEN) as relay:
        sink.bodies.clear()
        lag = await relay.lag()
        async with asyncio.timeout(LONG_PATIENCE):
            large = asyncio.create_task(pass_through())
            await small()
            await large
            await sink.until(lambda: sink.bodies.total() == rounds * at_once + len(accepted))
        lag = (await relay.lag()).since(lag)
    assert len(accepted) >= rounds * at_once
    accepted.sort()
    p50, p99 = (accepted[int(share * len(accepted))] * 1e3 for share in (0.5, 0.99))
    figures(
        f"{rounds * at_once} × {octets / 1e6:g} MB, {at_once} at a time, and {len(accepted)} small ones one after the "
        f"other meanwhile, taken in {p50:.1f} ms (p50), {p99:.1f} ms (p99); {lag}"
    )
