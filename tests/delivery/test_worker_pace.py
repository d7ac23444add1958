"""The worker of a route whose provider lets go only so much: in the store it waits, in order, and fairly."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

from relay.delivery.account import Account, Terms
from relay.delivery.pace import Pace
from relay.delivery.places import Places
from relay.delivery.upstream import Upstream
from relay.events import RecipientDeferred, RecipientDelivered
from relay.mail.content import MemoryContent
from relay.mail.outcome import Deferred, Outcome, Refusal, Stage, Trouble
from relay.mail.reply import Reply
from relay.policy.pacing import DAY, Limit
from relay.policy.refusal import Line, Table
from relay.queue.model import Ledger
from relay.queue.writer import COMPANY
from tests.delivery.house import DeliveryHouse, policy
from tests.delivery.ways import TAKEN
from tests.kit import configured, virtual_time
from tests.kit.alone import forgetful
from tests.queue.mail import NOON, an_entry

TABLE = Table(
    (Line(Refusal.THROTTLED, codes=("432",)), Line(Refusal.QUOTA, codes=("554",)), Line(Refusal.AUTH, codes=("553",)))
)
TOO_MANY = Deferred(Stage.MAIL, Trouble.TRANSIENT, "too many", Reply(432, "4.3.2", "too many"))
USED_UP = Deferred(Stage.DOT, Trouble.TRANSIENT, "used up", Reply(554, "5.2.0", "used up"))
LOCKED = Deferred(Stage.DOT, Trouble.TRANSIENT, "locked", Reply(553, "5.2.1", "locked"))
CODE = MemoryContent(b"Subject: code 913\r\n\r\n913\r\n", 21)


class PacedHouse(DeliveryHouse):
    """In virtual time; `pace` gives an upstream limits."""

    def _clock(self):  # type: ignore[no-untyped-def]
        return virtual_time.now()

    def pace(self, name: str, *limits: Limit, connections: int = 3, codes: bool = False) -> None:
        account = Account(Pace(now=virtual_time.now, freed=self.changed), Places(connections))
        account.configure(Terms(connections, limits, codes))
        self.upstreams[name] = Upstream(
            self.ways[name],
            configured.upstream_limits(max_connections=connections),
            refusals=TABLE,
            account=account,
            recipients=forgetful(self.watch),
            observer=self.watch,
            changed=self.changed,
            long_lines=None,
        )

    @property
    def delivered(self) -> list[str]:
        return [event.queue_id for event in self.watch.events if isinstance(event, RecipientDelivered)]


def living(scene: Callable[[PacedHouse], Awaitable[None]], **routes: tuple[str, ...]) -> None:
    async def live(folder: Path) -> None:
        house = await PacedHouse.build(folder, policy(**routes))
        assert isinstance(house, PacedHouse)
        house.now = virtual_time.now()
        try:
            await scene(house)
        finally:
            await house.demolish()

    with tempfile.TemporaryDirectory() as folder:
        virtual_time.run(live(Path(folder)), start=NOON)


async def sent(house: PacedHouse, count: int) -> None:
    """Until so many were delivered, however many hours that takes."""
    await house.watch.however_long(lambda: len(house.delivered) >= count)


def leases(house: PacedHouse) -> list[int]:
    """How many entries each call of the store leased, from now on."""
    found: list[int] = []
    lease = house.store.lease

    async def counted(route, *, limit, now):  # type: ignore[no-untyped-def]
        taken = await lease(route, limit=limit, now=now)
        found.append(len(taken))
        return taken

    house.store.lease = counted  # type: ignore[method-assign]
    return found


def test_mail_leaves_at_the_pace_and_what_waits_does_so_in_the_store() -> None:
    async def scene(house: PacedHouse) -> None:
        house.pace("own", Limit(10, 60.0))
        for n in range(35):
            await house.put(f"M{n:02}")
        taken = leases(house)
        began = asyncio.get_running_loop().time()
        house.start(runners=3)
        await sent(house, 10)
        assert house.store.ledger == Ledger(accepted=35, delivered=10, pending=25)
        await sent(house, 35)
        assert 3 * 60 <= asyncio.get_running_loop().time() - began <= 3 * 65
        assert house.delivered == [f"M{n:02}" for n in range(35)]
        assert sum(taken) == 35  # none was leased in vain
        assert len(taken) < 35  # and nobody looked for nothing, time and again

    living(scene)


def test_the_door_is_told_to_queue_up_when_no_more_may_leave() -> None:
    async def scene(house: PacedHouse) -> None:
        house.pace("own", Limit(2, 60.0))
        worker = house.start(runners=3)
        await asyncio.sleep(0.1)
        assert [await house.accept(an_entry(name=f"M{n}")) for n in range(4)] == [True, True, False, False]
        await sent(house, 4)
        assert house.delivered == ["M0", "M1", "M2", "M3"]
        await asyncio.sleep(120)
        assert worker.room(1)

    living(scene)


def test_ten_mails_of_one_client_do_not_wait_behind_hundreds_of_another() -> None:
    async def scene(house: PacedHouse) -> None:
        house.pace("own", Limit(4, 60.0))
        for n in range(200):
            await house.store.put(an_entry(name=f"BULK{n}", client="10.0.0.1"), leased=False)
        for n in range(10):
            await house.store.put(an_entry(name=f"JAN{n}", client="10.0.0.2"), leased=False)
        house.start(runners=3)
        await sent(house, 21)
        assert [name for name in house.delivered if name.startswith("JAN")] == [f"JAN{n}" for n in range(10)]
        assert [name for name in house.delivered if name.startswith("BULK")][:10] == [f"BULK{n}" for n in range(10)]

    living(scene)


def test_over_the_pace_mail_waits_for_its_way_and_takes_no_other() -> None:
    async def scene(house: PacedHouse) -> None:
        house.pace("own", Limit(2, 60.0))
        house.pace("spare")
        for n in range(6):
            await house.put(f"M{n}")
        house.start(runners=3)
        await sent(house, 6)
        assert house.ways["spare"].requests == []

    living(scene, default=("own", "spare"))


def test_two_routes_to_one_account_share_its_pace() -> None:
    async def scene(house: PacedHouse) -> None:
        house.pace("own", Limit(4, 60.0))
        for n in range(8):
            await house.put(f"M{n}", route="default" if n % 2 else "other")
        house.start("default", runners=3)
        house.start("other", runners=3)
        await asyncio.sleep(50)
        assert len(house.delivered) == 4
        await sent(house, 8)
        assert house.store.ledger == Ledger(accepted=8, delivered=8)

    living(scene, default=("own",), other=("own",))


def test_a_code_leaves_at_once_while_five_hundred_mails_wait_for_the_pace() -> None:
    async def scene(house: PacedHouse) -> None:
        house.pace("own", Limit(5, 60.0, kept=1), codes=True)
        for n in range(500):
            await house.store.put(an_entry(name=f"M{n}"), leased=False)
        house.start(runners=3)
        house.start("session-codes", runners=3)
        await asyncio.sleep(5)
        assert len(house.delivered) == 4
        began = asyncio.get_running_loop().time()
        code = an_entry(name="CODE", content=CODE, route="session-codes", priority=0, session_code=True)
        assert await house.accept(code)
        await house.watch.until(lambda: "CODE" in house.delivered)
        assert asyncio.get_running_loop().time() <= began + 2 * COMPANY  # it is told of with its commit

    living(scene, default=("own",), session_codes=("own",))


def test_mail_for_more_than_may_leave_in_a_day_goes_part_by_part_and_does_not_spin() -> None:
    async def scene(house: PacedHouse) -> None:
        house.pace("own", Limit(2, DAY, of_recipients=True))
        await house.put("MANY", "a@x.nl", "b@x.nl")
        await house.put("ONE", "c@x.nl")
        await house.put("MORE", "d@x.nl", "e@x.nl")
        taken = leases(house)
        house.start(runners=3)
        await asyncio.sleep(3600)
        assert house.delivered == ["MANY", "MANY"]
        assert sum(taken) < 5
        await sent(house, 5)
        assert house.delivered[2:] == ["ONE", "MORE", "MORE"]

    living(scene)


def test_mail_that_a_throttled_upstream_sent_away_waits_for_its_pause_and_for_nothing_else() -> None:
    async def scene(house: PacedHouse) -> None:
        house.pace("own")
        house.pace("spare")
        said: list[Outcome] = [TOO_MANY]
        house.ways["own"].says = lambda request: said.pop() if said else TAKEN
        await house.put("M")
        began = asyncio.get_running_loop().time()
        house.start(runners=3)
        await sent(house, 1)
        (event,) = house.watch.of(RecipientDeferred)
        assert isinstance(event, RecipientDeferred)
        assert asyncio.get_running_loop().time() - began < 5  # its schedule says an hour
        assert house.upstreams["own"].places.allowed == 2
        assert house.ways["spare"].requests == []

    living(scene, default=("own", "spare"))


def test_a_quota_holds_all_mail_and_then_all_of_it_arrives() -> None:
    async def scene(house: PacedHouse) -> None:
        house.pace("own")
        left = [3]

        def says(request: object) -> Outcome:
            left[0] -= 1
            return TAKEN if left[0] >= 0 else USED_UP

        house.ways["own"].says = says
        for n in range(20):
            await house.put(f"M{n}")
        house.start(runners=3)
        await asyncio.sleep(1800)
        assert (len(house.delivered), house.store.ledger.failed) == (3, 0)
        assert len(house.ways["own"].requests) <= 3 + 3
        await asyncio.sleep(3 * 3600)
        assert len(house.ways["own"].requests) <= 3 + 3 + 3  # one asks an hour
        left[0] = 1000
        await sent(house, 20)
        assert house.store.ledger == Ledger(accepted=20, delivered=20)

    living(scene)


def test_one_message_that_brings_about_words_of_the_account_keeps_no_other_waiting() -> None:
    async def scene(house: PacedHouse) -> None:
        for poison in (USED_UP, LOCKED):
            house.pace("own")
            house.ways["own"].says = lambda request, said=poison: said if request.queue_id.startswith("BAD") else TAKEN  # type: ignore[misc]
            before = len(house.delivered)
            await house.put(f"BAD{before}")
            for number in range(20):
                await house.put(f"GOOD{before}-{number}")
            began = asyncio.get_running_loop().time()
            house.start(runners=3)
            await sent(house, before + 20)
            assert asyncio.get_running_loop().time() - began < 60

    living(scene)


def test_while_the_quota_of_the_first_is_used_up_the_next_takes_the_mail_and_then_the_first_again() -> None:
    async def scene(house: PacedHouse) -> None:
        house.pace("own")
        house.pace("spare")
        house.ways["own"].says = lambda request: USED_UP
        await house.put("M0")
        house.start(runners=3)
        await sent(house, 1)
        assert [request.queue_id for request in house.ways["spare"].requests] == ["M0"]
        house.ways["own"].says = lambda request: TAKEN
        await asyncio.sleep(3600)
        await house.put("M1")
        await house.put("M2")
        await sent(house, 3)
        assert {request.queue_id for request in house.ways["spare"].requests} == {"M0"}

    living(scene, default=("own", "spare"))
