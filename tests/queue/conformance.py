"""What `relay.queue.store` promises, as tests that any store has to pass: with `operators`, this is its definition.

A store's own test module makes a subclass of `StorePromises` with a fixture `house`, and calls
`laws` with a factory of houses.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Protocol

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from relay.mail.address import Address
from relay.mail.content import MemoryContent
from relay.mail.envelope import Envelope, Recipient
from relay.mail.submission import Peer
from relay.queue.listing import Did, Place, Verb, Wanted
from relay.queue.model import Entry, Kind, Lease, Ledger, Pending, Result, Settlement, State
from relay.queue.store import QueueStore
from tests.kit.extent import examples
from tests.kit.ledger import balanced
from tests.queue.mail import NOON, an_entry, deferred, ended, ids, memory, tried

MINUTE = timedelta(minutes=1)
ROUTES = ["default", "vendor"]


class House(Protocol):
    """Where one store lives; `store` is open. Its clock is at noon."""

    store: QueueStore

    async def restart(self) -> QueueStore:
        """Close and open again."""
        ...

    async def crash(self) -> QueueStore:
        """Open what a power cut would leave of the store, which never got to close."""
        ...

    async def demolish(self) -> None: ...

    def counted(self) -> dict[str, int]:
        """Recipients by where the ledger has them, counted in what the open store has committed."""
        ...


class StorePromises:
    @pytest.mark.asyncio
    async def test_a_fresh_entry_comes_back_as_a_lease_without_being_read(self, house: House) -> None:
        entry = an_entry("piet@example.com", "els@example.com")
        lease = await house.store.put(entry, leased=True)
        assert lease.entry == replace(entry, attempts=1)
        assert lease.entry.content is entry.content
        assert [pending.index for pending in lease.pending] == [0, 1]
        assert house.store.ledger == Ledger(accepted=2, active=2)

    @pytest.mark.asyncio
    async def test_every_word_of_an_entry_survives_a_power_cut(self, house: House) -> None:
        recipients = (
            Recipient(Address('"a@b"', ""), frozenset({"never"})),
            Recipient(Address("jörg", "bücher.example"), frozenset({"success", "delay"}), "rfc822;j+2Bg@example.nl"),
            Recipient(Address("", ""), frozenset()),
        )
        plain = an_entry(content=MemoryContent(b"\x00no field\r\n\xff", 0), route="Übersee", priority=2)
        entry = replace(
            plain,
            submission=replace(
                plain.submission,
                envelope=Envelope(None, recipients, smtputf8=True, ret="hdrs", envid="QQ314159"),
                peer=Peer("2001:db8::7", "[192.0.2.1]", "UTF8SMTPSA", "TLSv1.3 TLS_AES_256_GCM_SHA384", "jan'; --"),
                received_at=datetime.fromisoformat("2026-03-02T13:00:00.123457+01:00"),
            ),
            because=("codes", 'a "rule"\n\'', ""),
            kind=Kind.BOUNCE,
        )
        await house.store.put(entry, leased=False)
        store = await house.crash()
        (lease,) = await store.lease("Übersee", limit=5, now=NOON)
        assert lease.entry == replace(entry, attempts=1)
        assert lease.pending == tuple(Pending(n, recipient) for n, recipient in enumerate(recipients))

    @pytest.mark.asyncio
    async def test_what_was_put_is_there_after_a_restart_and_its_attempt_stays_counted(self, house: House) -> None:
        lease = await house.store.put(an_entry(), leased=True)
        store = await house.crash()
        assert store.ledger == Ledger(found=1, deferred=1)
        (again,) = await store.lease("default", limit=5, now=NOON)
        assert again.entry == replace(lease.entry, attempts=2)

    @pytest.mark.asyncio
    async def test_finished_entries_leave_the_queue_with_their_content(self, house: House) -> None:
        lease = await house.store.put(an_entry(), leased=True)
        await house.store.settle(ended(lease))
        assert house.store.ledger == Ledger(accepted=1, delivered=1)
        assert (await house.store.view()).bytes == 0
        store = await house.crash()
        assert store.ledger == Ledger()
        assert await store.lease("default", limit=5, now=NOON) == []

    @pytest.mark.asyncio
    async def test_each_recipient_has_its_own_fate(self, house: House) -> None:
        lease = await house.store.put(an_entry("a@x.nl", "b@x.nl", "c@x.nl", "d@x.nl"), leased=True)
        results = (
            Result(0, State.DELIVERED, "250 ok"),
            Result(1, State.PENDING, "451 later", in_doubt=1, in_doubt_at="own"),
            Result(2, State.FAILED, "550 no"),
            Result(3, State.HELD, "hold"),
        )
        await house.store.settle(Settlement(lease, results, next_attempt_at=NOON + MINUTE))
        assert house.store.ledger == Ledger(accepted=4, delivered=1, failed=1, deferred=1, held=1)
        assert await house.store.lease("default", limit=5, now=NOON) == []
        store = await house.crash()
        assert store.ledger == Ledger(found=2, deferred=1, held=1)
        (again,) = await store.lease("default", limit=5, now=NOON + MINUTE)
        assert len(again.entry.submission.envelope.recipients) == 4
        assert again.pending == (Pending(1, lease.pending[1].recipient, "451 later", 1, "own"),)
        await store.settle(ended(again))
        assert store.ledger == Ledger(found=2, delivered=1, held=1)
        assert await store.next_due("default") is None  # the held recipient keeps the entry, and waits for a person
        assert (await house.restart()).ledger == Ledger(found=1, held=1)

    @pytest.mark.asyncio
    async def test_the_last_recipient_to_end_takes_the_entry_along(self, house: House) -> None:
        lease = await house.store.put(an_entry("a@x.nl", "b@x.nl"), leased=True)
        results = (Result(0, State.CANCELLED), Result(1, State.PENDING, "451 later"))
        await house.store.settle(Settlement(lease, results, next_attempt_at=NOON))
        (again,) = await house.store.lease("default", limit=5, now=NOON)
        await house.store.settle(ended(again, State.EXPIRED))
        assert house.store.ledger == Ledger(accepted=2, cancelled=1, expired=1)
        assert (await house.store.view()).bytes == 0

    @pytest.mark.asyncio
    async def test_a_settlement_moves_the_rest_to_another_route(self, house: House) -> None:
        lease = await house.store.put(an_entry(), leased=True)
        await house.store.settle(replace(deferred(lease, NOON + MINUTE), route="vendor"))
        assert await house.store.next_due("default") is None
        assert await house.store.next_due("vendor") == NOON + MINUTE
        (again,) = await house.store.lease("vendor", limit=1, now=NOON + MINUTE)
        assert again.entry.route == "vendor"

    @pytest.mark.asyncio
    async def test_a_bounce_is_kept_in_the_transaction_that_made_it(self, house: House) -> None:
        lease = await house.store.put(an_entry("a@x.nl"), leased=True)
        bounce = an_entry("jan@example.nl", kind=Kind.BOUNCE)
        await house.store.settle(replace(ended(lease, State.FAILED), notifications=(bounce,)))
        assert house.store.ledger == Ledger(accepted=2, failed=1, pending=1)
        store = await house.crash()
        (again,) = await store.lease("default", limit=5, now=NOON)
        assert again.entry == replace(bounce, attempts=1)

    @pytest.mark.asyncio
    async def test_a_settlement_whose_bounce_cannot_be_kept_changes_nothing(self, house: House) -> None:
        lease = await house.store.put(an_entry("a@x.nl"), leased=True)
        twin = an_entry("jan@example.nl", name=lease.entry.queue_id)
        with pytest.raises(Exception, match="not storable"):
            await house.store.settle(replace(ended(lease, State.FAILED), notifications=(twin,)))
        assert house.store.ledger == Ledger(accepted=1, active=1)
        await house.store.settle(ended(lease))
        assert house.store.ledger == Ledger(accepted=1, delivered=1)

    @pytest.mark.asyncio
    async def test_one_bad_operation_fails_alone_and_the_rest_of_its_batch_is_kept(self, house: House) -> None:
        first = await house.store.put(an_entry(), leased=True)
        twin = an_entry(name=first.entry.queue_id)
        unspeakable = an_entry("\udcff@example.nl")
        results = await asyncio.gather(
            house.store.put(an_entry(), leased=True),
            house.store.put(twin, leased=True),
            house.store.settle(ended(first)),
            house.store.put(unspeakable, leased=True),
            house.store.put(an_entry(), leased=False),
            return_exceptions=True,
        )
        assert [isinstance(result, Exception) for result in results] == [False, True, False, True, False]
        assert house.store.ledger == Ledger(accepted=3, delivered=1, active=1, pending=1)
        assert (await house.crash()).ledger == Ledger(found=2, deferred=1, pending=1)

    @pytest.mark.asyncio
    async def test_what_was_delivered_before_it_was_kept_is_counted_and_stands_in_the_history_only(
        self, house: House
    ) -> None:
        lease = tried(an_entry("a@x.nl", "b@x.nl"))
        assert list(await house.store.record(ended(lease))) == []
        assert house.store.ledger == Ledger(accepted=2, delivered=2)
        assert (await house.store.view()).bytes == 0
        store = await house.crash()
        assert store.ledger == Ledger()
        (found,) = await store.find(Wanted())
        assert (found.queue_id, found.place, found.attempts) == (lease.entry.queue_id, Place.FINISHED, 1)
        assert [fate.state for fate in found.recipients] == [State.DELIVERED] * 2

    @pytest.mark.asyncio
    async def test_who_was_not_reached_before_it_was_kept_waits_with_what_the_attempt_said(self, house: House) -> None:
        lease = tried(an_entry("a@x.nl", "b@x.nl"))
        results = (
            Result(0, State.FAILED, "550 5.1.1 no"),
            Result(1, State.PENDING, "no answer", in_doubt=1, in_doubt_at="own", upstream="own"),
        )
        bounce = an_entry("jan@example.nl", kind=Kind.BOUNCE)
        settlement = Settlement(lease, results, NOON + MINUTE, "vendor", notifications=(bounce,), at=NOON)
        await house.store.record(settlement)
        assert house.store.ledger == Ledger(accepted=3, failed=1, deferred=1, pending=1)
        store = await house.crash()
        assert store.ledger == Ledger(found=2, deferred=1, pending=1)
        (again,) = await store.lease("vendor", limit=5, now=NOON + MINUTE)
        assert again.entry == replace(lease.entry, attempts=2, route="vendor")
        assert again.pending == (Pending(1, lease.pending[1].recipient, "no answer", 1, "own"),)
        shown = await store.show(lease.entry.queue_id)
        assert shown is not None
        assert [(said.attempt, said.reply) for said in shown.tries] == [(1, "no answer")]
        assert ids(await store.lease("default", limit=5, now=NOON)) == [bounce.queue_id]

    @pytest.mark.asyncio
    async def test_an_attempt_before_the_first_commit_was_for_everybody(self, house: House) -> None:
        lease = tried(an_entry("a@x.nl", "b@x.nl"))
        with pytest.raises(ValueError, match="all recipients"):
            await house.store.record(ended(replace(lease, pending=lease.pending[:1])))
        with pytest.raises(ValueError, match="one result for each"):
            await house.store.record(replace(ended(lease), results=()))
        assert house.store.ledger == Ledger()

    @pytest.mark.asyncio
    async def test_a_lease_ends_once(self, house: House) -> None:
        lease = await house.store.put(an_entry(), leased=True)
        first, second = await asyncio.gather(
            house.store.settle(ended(lease)), house.store.settle(ended(lease)), return_exceptions=True
        )
        assert first == ()
        assert isinstance(second, ValueError)
        with pytest.raises(ValueError, match="has ended"):
            await house.store.give_back([lease])
        assert house.store.ledger == Ledger(accepted=1, delivered=1)

    @pytest.mark.asyncio
    async def test_a_settlement_that_forgets_a_recipient_is_refused(self, house: House) -> None:
        lease = await house.store.put(an_entry("a@x.nl", "b@x.nl"), leased=True)
        with pytest.raises(ValueError, match="one result for each"):
            await house.store.settle(Settlement(lease, (Result(0, State.DELIVERED),)))
        await house.store.settle(ended(lease))

    @pytest.mark.asyncio
    async def test_due_entries_come_by_priority_and_then_by_age_whenever_they_were_due(self, house: House) -> None:
        store = house.store
        old, young = an_entry(priority=1), an_entry(priority=1)
        low, high = an_entry(priority=2), an_entry(priority=0)
        for entry in (low, old, young, high):
            await store.put(entry, leased=False)
        # The oldest of its priority was put off, and so was due last.
        (first, second) = await store.lease("default", limit=2, now=NOON)
        assert ids([first, second]) == [high.queue_id, old.queue_id]
        await store.give_back([first])
        await store.settle(deferred(second, NOON + MINUTE))
        assert ids(await store.lease("default", limit=1, now=NOON)) == [high.queue_id]
        leases = await store.lease("default", limit=9, now=NOON + MINUTE)
        assert ids(leases) == [old.queue_id, young.queue_id, low.queue_id]

    @pytest.mark.asyncio
    async def test_clients_take_turns_within_a_priority_and_each_by_age(self, house: House) -> None:
        store = house.store
        entries = {client: [an_entry(client=client) for _ in range(4)] for client in ("10.0.0.1", "10.0.0.2", "")}
        for waiting in entries.values():
            for entry in waiting:
                await store.put(entry, leased=False)
        urgent = an_entry(client="10.0.0.9", priority=0)
        await store.put(urgent, leased=False)
        leases = await store.lease("default", limit=1, now=NOON)
        assert ids(leases) == [urgent.queue_id]
        taken = []
        for limit in (1, 2, 1, 3, 5):
            taken += await store.lease("default", limit=limit, now=NOON)
        clients = [lease.entry.submission.peer.address for lease in taken]
        assert all(len(set(clients[start : start + 3])) == 3 for start in range(0, 12, 3)), clients
        for client, waiting in entries.items():
            mine = [lease for lease in taken if lease.entry.submission.peer.address == client]
            assert ids(mine) == [entry.queue_id for entry in waiting]
        assert await store.lease("default", limit=5, now=NOON) == []

    @pytest.mark.asyncio
    async def test_ten_of_one_client_leave_before_a_thousand_of_another(self, house: House) -> None:
        store = house.store
        await asyncio.gather(*(store.put(an_entry(client="10.0.0.1"), leased=False) for _ in range(1000)))
        mine = [an_entry(client="10.0.0.2") for _ in range(10)]
        for entry in mine:
            await store.put(entry, leased=False)
        leases = [lease for _ in range(5) for lease in await store.lease("default", limit=4, now=NOON)]
        assert {entry.queue_id for entry in mine} <= set(ids(leases))
        rest = await store.lease("default", limit=500, now=NOON)
        assert len(rest) == 500  # nobody else waits: one client gets all there is

    @pytest.mark.asyncio
    async def test_nothing_is_leased_twice_nor_before_its_time_nor_for_another_route(self, house: House) -> None:
        store = house.store
        await store.put(an_entry(route="vendor"), leased=False)
        lease = await store.put(an_entry(), leased=True)
        assert await store.lease("default", limit=5, now=NOON) == []
        await store.settle(deferred(lease, NOON + MINUTE))
        assert await store.next_due("default") == NOON + MINUTE
        assert await store.lease("default", limit=5, now=NOON + MINUTE / 2) == []
        both = await asyncio.gather(*(store.lease("default", limit=5, now=NOON + MINUTE) for _ in range(2)))
        assert sorted(map(len, both)) == [0, 1]
        assert await store.next_due("default") is None
        assert await store.lease("default", limit=0, now=NOON + MINUTE) == []

    @pytest.mark.asyncio
    async def test_what_is_given_back_is_due_at_once_and_its_attempt_is_not_counted(self, house: House) -> None:
        store = house.store
        fresh = await store.put(an_entry(), leased=True)
        await store.give_back([fresh])
        assert store.ledger == Ledger(accepted=1, pending=1)
        due = await store.next_due("default")
        assert due is not None
        assert due <= NOON
        (lease,) = await store.lease("default", limit=5, now=NOON)
        assert lease.entry.attempts == 1
        await store.settle(deferred(lease, NOON))
        (lease,) = await store.lease("default", limit=5, now=NOON)
        assert lease.entry.attempts == 2
        await store.give_back([lease])
        assert store.ledger == Ledger(accepted=1, deferred=1)
        await store.give_back([])

    @pytest.mark.asyncio
    async def test_nobody_is_rung_where_nothing_slept(self, house: House) -> None:
        store, rung = house.store, list[str]()
        await store.put(an_entry(), leased=False)
        await store.make_due(now=NOON, woken=lambda: rung.append("nothing slept"))
        assert rung == []
        await store.settle(deferred(await store.put(an_entry(), leased=True), NOON + MINUTE))
        await store.make_due(now=NOON, woken=lambda: rung.append("one woke"))
        assert rung == ["one woke"]

    @pytest.mark.asyncio
    async def test_waiting_entries_of_a_route_or_all_can_be_made_due(self, house: House) -> None:
        store = house.store
        for route in ("default", "vendor"):
            lease = await store.put(an_entry(route=route), leased=True)
            await store.settle(deferred(lease, NOON + 60 * MINUTE))
        await store.make_due(now=NOON, route="vendor")
        assert await store.next_due("vendor") == NOON
        assert await store.next_due("default") == NOON + 60 * MINUTE
        await store.make_due(now=NOON)
        assert len(await store.lease("default", limit=5, now=NOON)) == 1
        assert len(await store.lease("vendor", limit=5, now=NOON)) == 1
        await store.make_due(now=NOON)
        assert await store.next_due("default") is None

    @pytest.mark.asyncio
    async def test_entries_past_their_lifetime_are_leased_without_counting_an_attempt(self, house: House) -> None:
        store = house.store
        mortal, other = an_entry(expires_at=NOON), an_entry(expires_at=NOON + MINUTE)
        busy = await store.put(an_entry(expires_at=NOON), leased=True)
        await store.put(mortal, leased=False)
        await store.put(other, leased=False)
        assert await store.lease_expired("vendor", now=NOON, limit=5) == []
        (lease,) = await store.lease_expired("default", now=NOON, limit=5)
        assert lease.entry == mortal
        assert await store.lease_expired("default", now=NOON, limit=5) == []
        await store.give_back([lease])
        assert store.ledger == Ledger(accepted=3, pending=2, active=1)
        (lease,) = await store.lease_expired("default", now=NOON, limit=1)
        await store.settle(ended(lease, State.EXPIRED))
        await store.settle(Settlement(busy, (Result(0, State.HELD),)))
        assert await store.lease_expired("default", now=NOON, limit=5) == []  # a held one waits for a person
        assert store.ledger == Ledger(accepted=3, expired=1, pending=1, held=1)

    @pytest.mark.asyncio
    async def test_a_code_that_a_dead_process_had_in_hand_is_in_doubt_by_its_way_and_by_no_other(
        self, house: House
    ) -> None:
        code = an_entry("a@x.nl", "b@x.nl", session_code=True)
        lease = await house.store.put(code, leased=True, ways=("vendor", "vendor"))
        assert [pending.way for pending in lease.pending] == ["vendor", "vendor"]
        await house.store.change_way(lease, [1], "own")
        for _ in range(2):  # a second crash makes it no worse: nobody has said anything
            store = await house.crash()
            (lease,) = await store.lease("default", limit=9, now=NOON)
            assert [(p.in_doubt, p.in_doubt_at, p.way) for p in lease.pending] == [
                (1, "vendor", "vendor"),
                (1, "own", "own"),
            ]

    @pytest.mark.asyncio
    async def test_a_code_that_nobody_had_in_hand_when_the_process_died_is_in_no_doubt(self, house: House) -> None:
        untried, waiting, bill = an_entry(session_code=True), an_entry(session_code=True), an_entry()
        await house.store.put(untried, leased=False, ways=("vendor",))
        await house.store.settle(deferred(await house.store.put(waiting, leased=True, ways=("vendor",)), NOON))
        await house.store.put(bill, leased=True)
        leases = await (await house.crash()).lease("default", limit=9, now=NOON)
        found = {lease.entry.queue_id: [(p.in_doubt, p.in_doubt_at, p.way) for p in lease.pending] for lease in leases}
        nothing = [(0, "", "vendor")]
        assert found == {untried.queue_id: nothing, waiting.queue_id: nothing, bill.queue_id: [(0, "", "")]}

    @pytest.mark.asyncio
    async def test_session_codes_can_be_asked_alone_for_the_end_of_their_lifetime(self, house: House) -> None:
        store = house.store
        code = an_entry(expires_at=NOON, session_code=True)
        await store.put(an_entry(expires_at=NOON), leased=False)
        await store.put(code, leased=False)
        assert await store.lease_expired("default", now=NOON - MINUTE, limit=5, session_codes_only=True) == []
        leases = await store.lease_expired("default", now=NOON, limit=5, session_codes_only=True)
        assert ids(leases) == [code.queue_id]
        assert len(await store.lease_expired("default", now=NOON, limit=5)) == 1

    @pytest.mark.asyncio
    async def test_a_cancelled_caller_does_not_cancel_the_commit_and_its_lease_comes_back(self, house: House) -> None:
        store = house.store
        entry = an_entry()
        putting = asyncio.ensure_future(store.put(entry, leased=True))
        await asyncio.sleep(0)
        putting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await putting
        async with asyncio.timeout(60):
            while not (leases := await store.lease("default", limit=5, now=NOON)):
                pass
        assert [lease.entry for lease in leases] == [replace(entry, attempts=1)]
        assert store.ledger == Ledger(accepted=1, active=1)

    @pytest.mark.asyncio
    async def test_a_cancelled_look_for_work_leaves_the_work_for_others(self, house: House) -> None:
        store = house.store
        await store.put(an_entry(), leased=False)
        looking = asyncio.ensure_future(store.lease("default", limit=5, now=NOON))
        await asyncio.sleep(0)
        looking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await looking
        async with asyncio.timeout(60):
            while not (leases := await store.lease("default", limit=5, now=NOON)):
                pass
        assert leases[0].entry.attempts == 1

    @pytest.mark.asyncio
    async def test_every_route_that_mail_waits_under_is_seen_whatever_its_name(self, house: House) -> None:
        names = ["", "a", "a!", "ab", "default", "\U0010ffff"]
        for route in names:
            await house.store.put(an_entry(route=route), leased=False)
        assert sorted(await house.store.routes()) == names

    @pytest.mark.asyncio
    async def test_the_view_counts_what_waits_and_what_is_tried(self, house: House) -> None:
        store = house.store
        entries = [an_entry(route=route) for route in ("default", "default", "default", "vendor")]
        held = await store.put(entries[0], leased=True)
        await store.settle(Settlement(held, (Result(0, State.HELD),)))
        await store.put(entries[1], leased=True)
        later = await store.put(entries[2], leased=True)
        await store.settle(deferred(later, NOON + MINUTE))
        await store.put(entries[3], leased=False)
        view = await store.view()
        assert view.messages == {"default": 2, "vendor": 1}
        assert view.oldest == {"default": NOON, "vendor": NOON}
        assert view.bytes == sum(entry.content.size for entry in entries)
        assert (await (await house.restart()).view()).bytes == view.bytes

    @pytest.mark.asyncio
    async def test_check_proves_a_commit(self, house: House) -> None:
        await house.store.check()

    @pytest.mark.asyncio
    async def test_closing_finishes_what_was_begun_and_twice_is_no_matter(self, house: House) -> None:
        putting = [asyncio.ensure_future(house.store.put(an_entry(), leased=True)) for _ in range(50)]
        await asyncio.sleep(0)
        await asyncio.gather(house.store.close(), house.store.close())
        await asyncio.gather(*putting)
        store = await house.restart()
        assert store.ledger == Ledger(found=50, deferred=50)

    @pytest.mark.asyncio
    async def test_hundreds_of_callers_at_once_lose_nothing(self, house: House) -> None:
        async def walk(n: int) -> None:
            lease = await house.store.put(an_entry(*(f"r{m}@x.nl" for m in range(n % 3 + 1))), leased=True)
            await house.store.settle(ended(lease) if n % 2 else deferred(lease, NOON))

        await asyncio.gather(*(walk(n) for n in range(300)))
        ledger = house.store.ledger
        assert ledger == Ledger(accepted=600, delivered=300, deferred=300)
        assert (await house.crash()).ledger == Ledger(found=300, deferred=300)


@dataclass
class _Known:
    """What the model knows of one entry."""

    entry: Entry
    age: int
    at: datetime
    route: str = "default"
    attempts: int = 0
    states: list[State] = field(default_factory=list)
    lease: Lease | None = None
    counted: bool = True
    wish: str = ""
    to_bounce: bool = False

    def open(self) -> list[int]:
        return [n for n, state in enumerate(self.states) if state is State.PENDING]

    def held(self) -> list[int]:
        return [n for n, state in enumerate(self.states) if state is State.HELD]

    def place(self) -> Place:
        if self.lease:
            return Place.ACTIVE
        if not self.open():
            return Place.HELD if self.held() else Place.FINISHED
        return Place.DEFERRED if self.attempts else Place.PENDING

    def set(self, ns: list[int], state: State) -> None:
        for n in ns:
            self.states[n] = state

    def does(self, verb: str, now: datetime, route: str) -> Did:
        """An operator's act while nobody has it leased."""
        held = self.place() is Place.HELD
        match verb:
            case "retry" if held:
                return Did.IMPOSSIBLE
            case "reroute" if self.entry.session_code:
                return Did.IMPOSSIBLE
            case "hold" if held:
                return Did.NOTHING
            case "release" if not self.held():
                return Did.NOTHING
            case "bounce" if self.to_bounce:
                return Did.NOTHING
            case "hold":
                self.set(self.open(), State.HELD)
            case "release":
                self.set(self.held(), State.PENDING)
            case "bounce":
                self.set(self.held(), State.PENDING)
            case "cancel":
                self.set(self.open() + self.held(), State.CANCELLED)
            case "reroute":
                self.route = route
        if verb not in ("hold", "cancel", "bounce"):
            self.at = now
        self.to_bounce = verb == "bounce"
        return Did.DONE

    def wishes(self, verb: str, route: str) -> Did:
        """An operator's act while it is leased."""
        if verb == "retry" or (verb == "release" and not self.held() and not self.wish):
            return Did.NOTHING
        if verb == "reroute" and self.entry.session_code:
            return Did.IMPOSSIBLE
        self.wish = f"{verb}:{route}"
        return Did.AFTER_ATTEMPT


def laws(build: Callable[[], asyncio.Future[House] | object]) -> type[RuleBasedStateMachine]:
    """A machine that puts, leases, settles, gives back, acts and crashes in any order; a model tells what is right.

    `build` returns an awaitable of a new house.
    """

    class Laws(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.loop = asyncio.new_event_loop()
            self.known: dict[str, _Known] = {}
            self.now = NOON
            self.age = 0
            self.total = Ledger()

        @initialize()
        def begin(self) -> None:
            self.house: House = self.loop.run_until_complete(build())  # type: ignore[arg-type]

        def teardown(self) -> None:
            if hasattr(self, "house"):
                self.loop.run_until_complete(self.house.demolish())
            self.loop.run_until_complete(self.loop.shutdown_default_executor())
            self.loop.close()

        def leased(self) -> list[_Known]:
            return sorted((known for known in self.known.values() if known.lease), key=lambda known: known.age)

        def waiting(self, route: str) -> list[_Known]:
            return [known for known in self.known.values() if not known.lease and known.open() and known.route == route]

        @rule(
            recipients=st.integers(1, 3),
            priority=st.integers(0, 2),
            how=st.sampled_from(["leased", "held", "due"]),
            life=st.integers(1, 9),
            session_code=st.booleans(),
        )
        def put(self, recipients: int, priority: int, how: str, life: int, session_code: bool) -> None:
            entry = an_entry(
                *(f"r{n}@x.nl" for n in range(recipients)),
                priority=priority,
                expires_at=self.now + life * MINUTE,
                session_code=session_code,
            )
            putting = self.house.store.put(entry, leased=how == "leased", held=how == "held")
            lease = self.loop.run_until_complete(putting)
            self.age += 1
            self.total.accepted += recipients
            state = State.HELD if how == "held" else State.PENDING
            known = _Known(entry, self.age, self.now, states=[state] * recipients)
            if how == "leased":
                known.lease, known.attempts, known.counted = lease, 1, True
            self.known[entry.queue_id] = known

        @rule(states=st.lists(st.sampled_from(list(State)), min_size=1, max_size=3), session_code=st.booleans())
        def record(self, states: list[State], session_code: bool) -> None:
            entry = an_entry(*(f"r{n}@x.nl" for n in range(len(states))), session_code=session_code)
            results = tuple(Result(n, state) for n, state in enumerate(states))
            recording = self.house.store.record(Settlement(tried(entry), results, next_attempt_at=self.now + MINUTE))
            self.loop.run_until_complete(recording)
            self.age += 1
            self.total.accepted += len(states)
            for state in states:
                if state not in (State.PENDING, State.HELD):
                    setattr(self.total, state, getattr(self.total, state) + 1)
            known = _Known(entry, self.age, self.now + MINUTE, attempts=1, states=list(states))
            self.known[entry.queue_id] = known

        @rule(limit=st.integers(1, 4), route=st.sampled_from(ROUTES))
        def lease(self, limit: int, route: str) -> None:
            due = [known for known in self.waiting(route) if known.at <= self.now and not known.to_bounce]
            due.sort(key=lambda known: (known.entry.priority, known.age))
            leases = self.loop.run_until_complete(self.house.store.lease(route, limit=limit, now=self.now))
            assert ids(leases) == [known.entry.queue_id for known in due[:limit]]
            for lease, known in zip(leases, due, strict=False):
                known.attempts += 1
                known.lease, known.counted = lease, True
                assert lease.entry == replace(
                    known.entry,
                    attempts=known.attempts,
                    route=route,
                    released=lease.entry.released,
                    rerouted=lease.entry.rerouted,
                )
                assert [pending.index for pending in lease.pending] == known.open()
                assert not lease.bounced

        @rule(route=st.sampled_from(ROUTES), codes=st.booleans(), keep=st.booleans())
        def expire(self, route: str, codes: bool, keep: bool) -> None:
            over = {
                known.entry.queue_id
                for known in self.known.values()
                if known.route == route
                and not known.lease
                and (
                    known.to_bounce
                    or (
                        known.entry.expires_at <= self.now
                        and known.place() is not Place.FINISHED
                        and (known.entry.session_code or not (codes or known.place() is Place.HELD))
                    )
                )
            }
            leases = self.loop.run_until_complete(
                self.house.store.lease_expired(route, now=self.now, limit=99, session_codes_only=codes)
            )
            assert set(ids(leases)) == over
            for lease in leases:
                known = self.known[lease.entry.queue_id]
                assert lease.entry.attempts == known.attempts
                assert lease.bounced == known.to_bounce
                if known.entry.session_code:
                    known.set(known.held(), State.PENDING)
                assert [pending.index for pending in lease.pending] == known.open()
                known.lease, known.counted = lease, False
                if known.to_bounce:
                    known.wish, known.to_bounce = "bounce:", False
                if not keep:
                    self.settle_as(known, [State.EXPIRED] * 3)

        @rule(which=st.integers(0, 9), states=st.lists(st.sampled_from(list(State)), min_size=3, max_size=3))
        def settle(self, which: int, states: list[State]) -> None:
            if self.leased():
                self.settle_as(self.leased()[which % len(self.leased())], states)

        def settle_as(self, known: _Known, states: list[State]) -> None:
            assert known.lease is not None
            results = tuple(Result(n, state) for n, state in zip(known.open(), states, strict=False))
            self.loop.run_until_complete(
                self.house.store.settle(Settlement(known.lease, results, next_attempt_at=self.now + MINUTE))
            )
            known.at = self.now + MINUTE
            if known.lease.bounced and known.wish == "bounce:":
                known.wish = ""
            known.lease = None
            for result in results:
                known.states[result.index] = result.state
                if result.state not in (State.PENDING, State.HELD):
                    setattr(self.total, result.state, getattr(self.total, result.state) + 1)
            self.grant(known)

        def grant(self, known: _Known) -> None:
            """The lease has ended: what an operator wished meanwhile is done."""
            verb, _, route = known.wish.partition(":")
            known.wish = ""
            if verb and known.place() is not Place.FINISHED:
                self.does(known, verb, NOON, route)

        def does(self, known: _Known, verb: str, now: datetime, route: str) -> Did:
            before = known.states.count(State.CANCELLED)
            did = known.does(verb, now, route)
            self.total.cancelled += known.states.count(State.CANCELLED) - before
            return did

        @rule(
            which=st.lists(st.integers(0, 9), max_size=3),
            verb=st.sampled_from(list(Verb)),
            route=st.sampled_from(ROUTES),
        )
        def act(self, which: list[int], verb: Verb, route: str) -> None:
            everything = list(self.known.values())
            chosen = [everything[n % len(everything)] for n in which] if everything else []
            acting = self.house.store.act(
                verb,
                [known.entry.queue_id for known in chosen],
                now=self.now,
                route=route if verb is Verb.REROUTE else None,
            )
            for known, acted in zip(chosen, self.loop.run_until_complete(acting), strict=True):
                assert acted.queue_id == known.entry.queue_id
                if known.place() is Place.FINISHED:
                    assert acted.did is Did.UNKNOWN
                elif known.lease:
                    assert acted.did is known.wishes(verb, route)
                else:
                    assert acted.did is self.does(known, verb, self.now, route)
                assert bool(acted.why) == (acted.did in (Did.NOTHING, Did.IMPOSSIBLE))

        @rule(which=st.integers(0, 9))
        def give_back(self, which: int) -> None:
            if not self.leased():
                return
            known = self.leased()[which % len(self.leased())]
            assert known.lease is not None
            self.loop.run_until_complete(self.house.store.give_back([known.lease]))
            known.attempts -= known.counted
            known.lease, known.at = None, min(known.at, self.now)
            self.grant(known)

        @rule(minutes=st.integers(1, 3))
        def time_passes(self, minutes: int) -> None:
            self.now += minutes * MINUTE

        @rule()
        def make_due(self) -> None:
            self.loop.run_until_complete(self.house.store.make_due(now=self.now))
            for route in ROUTES:
                for known in self.waiting(route):
                    known.at = min(known.at, self.now)

        @rule(kindly=st.booleans())
        def start_again(self, kindly: bool) -> None:
            found = sum(self.counts().values())
            self.loop.run_until_complete(self.house.restart() if kindly else self.house.crash())
            self.total = Ledger(found=found)
            for known in self.leased():
                known.lease, known.at = None, min(known.at, self.now)
                self.grant(known)

        def counts(self) -> dict[str, int]:
            counts = {"pending": 0, "deferred": 0, "active": 0, "held": 0}
            for known in self.known.values():
                where = "active" if known.lease else "deferred" if known.attempts else "pending"
                counts[where] += len(known.open())
                counts["held"] += len(known.held())
            return counts

        @invariant()
        def the_ledger_is_right_and_says_what_the_rows_say(self) -> None:
            if hasattr(self, "house"):
                assert balanced(self.house.store.ledger)
                assert self.house.store.ledger == replace(self.total, **self.counts())
                assert self.house.counted() == self.counts()

        @invariant()
        def every_message_is_in_the_queue_or_in_the_history(self) -> None:
            if not hasattr(self, "house"):
                return
            entries = self.loop.run_until_complete(self.house.store.list(Wanted(), limit=999))
            known = [known for known in self.known.values() if known.place() is not Place.FINISHED]
            assert [(one.queue_id, one.place, one.route, one.attempts, one.wish) for one in entries] == [
                (
                    one.entry.queue_id,
                    one.place(),
                    one.route,
                    one.attempts,
                    "bounce" if one.to_bounce else one.wish.partition(":")[0],
                )
                for one in known
            ]
            finished = self.loop.run_until_complete(self.house.store.find(Wanted(place=Place.FINISHED), limit=999))
            ended = [known for known in self.known.values() if known.place() is Place.FINISHED]
            assert [(one.queue_id, [fate.state for fate in one.recipients]) for one in reversed(finished)] == [
                (one.entry.queue_id, one.states) for one in ended
            ]

    Laws.TestCase.settings = examples(50, stateful_step_count=30)
    return Laws


__all__ = ["House", "StorePromises", "laws", "memory"]
