"""What an upstream's refusals show of the recipients it takes at once, and how long that is believed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
import pytest_asyncio

from relay.config.preset import table
from relay.delivery.recipients import MostRecipients, divided, one_too_many
from relay.mail.outcome import Deferred, Delivered, Failed, Outcome, Stage, Trouble
from relay.mail.reply import Reply
from relay.transport.port import Delivery
from tests.delivery.house import Store
from tests.delivery.ways import BROKEN, GREYLISTED, IN_DOUBT, REFUSED, TAKEN, Watch
from tests.kit.store import usual
from tests.queue.mail import NOON


def refused(stage: Stage, code: int, text: str, status: str = "") -> Outcome:
    reply = Reply(code, status, text)
    if code >= 500:
        return Failed(stage, reply)
    return Deferred(stage, Trouble.TRANSIENT, text, reply, upstream_sick=code == 421)


MANY = refused(Stage.RCPT, 552, "Too many recipients")
BARE = refused(Stage.RCPT, 452, "no")
AT_DATA = refused(Stage.DATA, 554, "Too many recipients")
GOODBYE = refused(Stage.RCPT, 421, "Too many recipients")
HUNG_UP = Deferred(Stage.RCPT, Trouble.DROPPED, "the upstream closed the connection", upstream_sick=True)


def read(*outcomes: Outcome, taken: int = 0) -> Delivery | None:
    judged = tuple(map(table(None).judge, outcomes))
    sick = next((one for one in judged if isinstance(one, Deferred) and one.upstream_sick), None)
    return divided(Delivery(judged, sick, taken=taken))


@pytest.mark.parametrize(
    ("delivery", "room", "again"),
    [
        (read(TAKEN, TAKEN, MANY, MANY), 2, 2),
        (read(TAKEN, REFUSED, TAKEN, MANY), 2, 1),
        (read(TAKEN, TAKEN, BARE), 2, 1),
        (read(IN_DOUBT, IN_DOUBT, MANY, taken=2), 2, 1),  # whoever may have it does not go again at once
        (read(BROKEN, BROKEN, MANY, taken=2), 2, 1),
        (read(AT_DATA, AT_DATA, AT_DATA, AT_DATA), 2, 4),
        (read(REFUSED, AT_DATA, AT_DATA, AT_DATA), 1, 3),
        (read(*[refused(Stage.DOT, 554, "Recipient count exceeds 5.")] * 9), 5, 9),
        (read(*[refused(Stage.DOT, 554, "Recipient count exceeds 50 (#5.5.3)")] * 9), 4, 9),
        (read(refused(Stage.DATA, 503, "Bad sequence"), refused(Stage.DATA, 503, "Bad sequence"), MANY), 2, 3),
        (read(GOODBYE, GOODBYE, GOODBYE, taken=1), 1, 3),
        (read(HUNG_UP, HUNG_UP, MANY, HUNG_UP, taken=2), 2, 4),
    ],
)
def test_a_limit_shows_how_many_are_taken_and_who_goes_again(delivery: Delivery, room: int, again: int) -> None:
    assert delivery.room == room
    assert sum(map(one_too_many, delivery.outcomes)) == again
    assert delivery.sick is None or delivery.sick.stage in (Stage.BODY, Stage.DOT)


@pytest.mark.parametrize(
    "outcomes",
    [
        (MANY, MANY),
        (AT_DATA,),
        (GOODBYE, GOODBYE),
        (TAKEN, BARE, TAKEN),  # it was about that one
        (REFUSED, MANY),
    ],
)
def test_where_none_is_taken_before_or_one_is_behind_it_is_no_limit_of_a_transaction(
    outcomes: tuple[Outcome, ...],
) -> None:
    assert read(*outcomes) is None


def test_whoever_has_it_or_has_a_refusal_of_its_own_keeps_that() -> None:
    delivery = read(TAKEN, REFUSED, GREYLISTED, MANY)
    assert delivery is not None
    assert [type(one) for one in delivery.outcomes] == [Delivered, Failed, Deferred, Deferred]
    assert [one_too_many(one) for one in delivery.outcomes] == [False, False, False, True]


class Memory:
    """What is known of upstreams, the store that remembers it, and a clock."""

    def __init__(self, store: Store, watch: Watch) -> None:
        self.store, self.watch = store, watch
        self.now = NOON

    async def restart(self) -> MostRecipients:
        recipients = MostRecipients(self.store, observer=self.watch, now=lambda: self.now)
        await recipients.load()
        return recipients


@pytest_asyncio.fixture
async def memory(tmp_path: Path) -> AsyncIterator[Memory]:
    watch = Watch()
    store = await Store.open(tmp_path / "queue.db", observer=watch, **usual())
    yield Memory(store, watch)
    await store.close()


@pytest.mark.asyncio
async def test_it_is_believed_for_a_day_over_restarts(memory: Memory) -> None:
    recipients = await memory.restart()
    assert recipients.of("own") is None
    await recipients.learn("own", 10)
    memory.now += timedelta(hours=23)
    for known in (recipients, await memory.restart()):
        most = known.of("own")
        assert most is not None
        assert (most.recipients, most.until) == (10, NOON + timedelta(days=1))
        assert known.of("vendor") is None
    memory.now += timedelta(hours=1)
    for known in (recipients, await memory.restart()):
        assert known.of("own") is None


@pytest.mark.asyncio
@pytest.mark.parametrize(("value", "days"), [("ten", 0.5), ("", 0.5), ("10", -0.1), ("10", 3.0)])
async def test_what_cannot_be_or_is_over_is_forgotten(memory: Memory, value: str, days: float) -> None:
    await memory.store.remember("recipients", "own", NOON + timedelta(days=days), value)
    assert (await memory.restart()).of("own") is None
    assert await memory.store.memories("recipients") == []
