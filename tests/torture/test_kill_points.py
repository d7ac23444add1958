"""SIGKILL at every moment of a relay's life that has a name: the table is `points.POINTS`. (The short form: some.)"""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest

from tests.kit.house import Site
from tests.kit.upstream import Received
from tests.torture.conftest import LONG
from tests.torture.day import Day
from tests.torture.nursery import Nursery
from tests.torture.points import POINTS

# One of each kind, for the short form.
SOME = (
    "its row is committed and 250 is not said",
    "250 is written",
    "its spool file is renamed and the folder is not synced",
    "its row is gone and its spool file is there",
    "leased and not committed",
    "the upstream's answer is here and unread",
    "the settlement is committed and the event loop does not know",
    "a bounce is put and not committed",
    "an operator's cancel is committed and not answered",
    "an operator's hold is written and not committed",
    "after a checkpoint",
    "the database is opened",
    "leases are taken back, orphans lie there",
    "all work has ended and the store is open",
)
BEFORE_THE_ANSWER = "the upstream has the message, dot and all, and has not answered"
"""Here it is the upstream that kills."""


@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.promise("Wherever a relay dies, between any two steps of its work, what was acknowledged arrives.")
@pytest.mark.parametrize("point", [*(POINTS if LONG else SOME), BEFORE_THE_ANSWER])
async def test_what_was_acknowledged_survives_sigkill_when(
    point: str, quick_site: Site, nursery: Nursery, figures: Callable[[str], None]
) -> None:
    async with quick_site.upstream(tls="none", users=None) as own:
        day = Day(quick_site, own)
        if point == BEFORE_THE_ANSWER:
            first = nursery.birth(quick_site, hasty=True)
            own.content_allowed = lambda received: kill_at_the_fourth(received)
        else:
            first = nursery.birth(quick_site, hasty=True, point=point, passage=POINTS[point].passage)

        def kill_at_the_fourth(received: Received) -> None:
            day.books.arrive(received)
            if len(day.books.arrivals) == 4:
                first.signal(signal.SIGKILL)

        await day.first(first)
        first.signal(signal.SIGTERM)
        assert await first.ended() == -signal.SIGKILL
        await own.until(lambda: own.open == 0)
        acknowledged = len(day.books.acknowledged)
        own.content_allowed = day.books.arrive
        kill = len(day.books.arrivals), {line["queue_id"] for line in first.all("delivered")}
        twice = await day.second(nursery.birth(quick_site, hasty=True), kill)
    figures(f"{acknowledged} acknowledged before, {twice} came twice")
