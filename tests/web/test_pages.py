"""What a scrape of /metrics costs a relay with very much mail waiting. Hours of virtual time."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from relay.daemon.pages import Pages
from relay.queue.model import QueueView
from tests.kit.virtual_time import run

SCRAPES = 600  # one every second


class Queue:
    """A look at it takes so many seconds."""

    def __init__(self, takes: float) -> None:
        self.takes = takes
        self.looks = 0

    async def view(self) -> QueueView:
        self.looks += 1
        await asyncio.sleep(self.takes)
        return QueueView({"default": self.looks})


async def scraped(queue: Queue) -> list[int]:
    """What each scrape showed."""
    pages = Pages(cast(Any, SimpleNamespace(store=queue)))
    shown = []
    for _ in range(SCRAPES):
        shown.append((await pages._look()).messages["default"])
        await asyncio.sleep(1)
    return shown


def test_a_long_queue_is_looked_at_a_twentieth_of_the_time_at_most_however_often_it_is_scraped() -> None:
    queue = Queue(takes=0.5)
    shown = run(scraped(queue))
    assert shown[-1] == queue.looks  # and it is looked at again and again
    assert 1 < queue.looks * queue.takes < (SCRAPES + queue.looks * queue.takes) / 20 + 1


def test_who_scrapes_while_a_long_queue_is_looked_at_sees_what_that_look_finds() -> None:
    async def all_at_once(queue: Queue) -> list[int]:
        pages = Pages(cast(Any, SimpleNamespace(store=queue)))
        return [view.messages["default"] for view in await asyncio.gather(*(pages._look() for _ in range(10)))]

    assert run(all_at_once(Queue(takes=0.5))) == [1] * 10


@pytest.mark.parametrize("takes", [0.0, 0.01])
def test_a_short_queue_is_looked_at_anew_for_each_scrape(takes: float) -> None:
    assert run(scraped(Queue(takes))) == list(range(1, SCRAPES + 1))
