"""What `relay.queue.store` promises to operators, as tests that any store has to pass, with those of `conformance`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Protocol

import pytest

from relay.errors import RelayError
from relay.events import EntryChanged, EntryHeld, Event, RecipientCancelled
from relay.mail.address import Address
from relay.mail.content import MemoryContent
from relay.mail.header import Header
from relay.policy.rewriting import Rendered
from relay.queue.listing import Acted, Did, LeftAs, Listed, Place, Saved, Standing, Tried, Verb, Wanted
from relay.queue.model import Entry, Kind, Lease, Ledger, Memory, Reader, Recorded, Result, Settlement, State, Told
from relay.queue.store import QueueStore
from tests.kit.ledger import balanced
from tests.queue.conformance import MINUTE, House
from tests.queue.mail import HEAD, NOON, Noted, an_entry, deferred, ended, ids, memory

HOUR = timedelta(hours=1)
LATER = NOON + HOUR
JAN = Address.of("jan@example.nl")


class NotedHouse(House, Protocol):
    noted: Noted

    async def settle_without_history(self) -> None:
        """From now on nothing is recorded of what is finished."""
        ...

    async def open_copy(self, path: Path) -> QueueStore:
        """A store at a backup; `demolish` closes it."""
        ...


async def act(store: QueueStore, verb: Verb, *entries: Entry | Lease, route: str | None = None) -> list[Did]:
    names = [entry.queue_id if isinstance(entry, Entry) else entry.entry.queue_id for entry in entries]
    return [acted.did for acted in await store.act(verb, names, now=NOON, route=route)]


def names(listed: Sequence[Listed]) -> list[str]:
    return [one.queue_id for one in listed]


async def asleep(store: QueueStore, *to: str, **how: object) -> Entry:
    """An entry that was tried once, and waits for an hour."""
    lease = await store.put(an_entry(*to, **how), leased=True)  # type: ignore[arg-type]
    await store.settle(deferred(lease, LATER))
    return lease.entry


def invoice(number: int) -> MemoryContent:
    head = b"Subject: Factuur\r\n =?utf-8?q?caf=C3=A9?= %d\r\nMessage-ID:\r\n <%d@x>\r\n\r\n" % (number, number)
    return MemoryContent(head + b"body", len(head))


def left(lease: Lease, result: str | None) -> Rendered:
    """As somebody took it: from the office."""
    office, head = Address.of("office@x.nl"), lease.entry.content.head
    message_id = Header.parse(head).first(b"message-id")
    assert message_id is not None
    return Rendered(office, head, 0, False, result, b"", b"", None, author=str(office), message_id=message_id[1])


def acts(house: NotedHouse) -> list[Event]:
    return [event for event in house.noted.events if isinstance(event, EntryHeld | EntryChanged | RecipientCancelled)]


class OperatorPromises:
    # Acts on what waits

    @pytest.mark.asyncio
    async def test_a_waiting_message_is_tried_now_when_an_operator_wants_it(self, house: NotedHouse) -> None:
        entry, other = await asleep(house.store), await asleep(house.store)
        assert await act(house.store, Verb.RETRY, entry) == [Did.DONE]
        assert ids(await house.store.lease("default", limit=9, now=NOON)) == [entry.queue_id]
        assert await house.store.next_due("default") == LATER
        assert acts(house) == [EntryChanged(entry.queue_id, "retry")]
        assert other.queue_id != entry.queue_id

    @pytest.mark.asyncio
    async def test_a_held_message_waits_for_a_person_over_restarts_and_goes_when_released(
        self, house: NotedHouse
    ) -> None:
        entry = an_entry("a@x.nl", "b@x.nl")
        await house.store.put(entry, leased=False)
        assert await act(house.store, Verb.HOLD, entry) == [Did.DONE]
        assert acts(house) == [EntryHeld(entry.queue_id, "", 2)]
        assert house.store.ledger == Ledger(accepted=2, held=2)
        store = await house.crash()
        await store.make_due(now=NOON)
        assert await store.lease("default", limit=9, now=LATER) == []
        assert await store.lease_expired("default", limit=9, now=NOON + 999 * HOUR) == []
        assert await act(store, Verb.RELEASE, entry) == [Did.DONE]
        assert acts(house) == [EntryChanged(entry.queue_id, "release")]
        assert store.ledger == Ledger(found=2, pending=2)
        (lease,) = await store.lease("default", limit=9, now=NOON)
        assert lease.entry == replace(entry, attempts=1, released=True)
        assert [pending.index for pending in lease.pending] == [0, 1]

    @pytest.mark.asyncio
    async def test_what_a_rule_holds_is_kept_held(self, house: NotedHouse) -> None:
        entry = an_entry("a@x.nl", "b@x.nl")
        await house.store.put(entry, leased=False, held=True)
        assert house.store.ledger == Ledger(accepted=2, held=2)
        assert await house.store.lease("default", limit=9, now=LATER) == []
        (listed,) = await house.store.list(Wanted(place=Place.HELD))
        assert [recipient.state for recipient in listed.recipients] == ["held", "held"]
        assert (await house.crash()).ledger == Ledger(found=2, held=2)
        with pytest.raises(ValueError, match="waits for a person"):
            await house.store.put(an_entry(), leased=True, held=True)

    @pytest.mark.asyncio
    async def test_one_held_recipient_among_others_is_released_alone(self, house: NotedHouse) -> None:
        lease = await house.store.put(an_entry("a@x.nl", "b@x.nl"), leased=True)
        results = (Result(0, State.HELD), Result(1, State.PENDING))
        await house.store.settle(Settlement(lease, results, next_attempt_at=LATER))
        assert await act(house.store, Verb.RELEASE, lease) == [Did.DONE]
        assert house.store.ledger == Ledger(accepted=2, deferred=2)
        (again,) = await house.store.lease("default", limit=9, now=NOON)
        assert [pending.index for pending in again.pending] == [0, 1]

    @pytest.mark.asyncio
    async def test_a_cancelled_message_leaves_for_the_history_and_nobody_is_told(self, house: NotedHouse) -> None:
        lease = await house.store.put(an_entry("a@x.nl", "b@x.nl", "c@x.nl"), leased=True)
        results = (
            Result(0, State.DELIVERED, "250 ok", upstream="own"),
            Result(1, State.PENDING, "451 later", upstream="own"),
            Result(2, State.HELD),
        )
        await house.store.settle(Settlement(lease, results, next_attempt_at=LATER, at=NOON))
        assert await act(house.store, Verb.CANCEL, lease) == [Did.DONE]
        name = lease.entry.queue_id
        assert acts(house) == [
            RecipientCancelled(name, "b@x.nl", "default", 1, 0.0, False),
            RecipientCancelled(name, "c@x.nl", "default", 1, 0.0, False),
        ]
        assert house.store.ledger == Ledger(accepted=3, delivered=1, cancelled=2)
        assert (await house.store.view()).bytes == 0
        assert await act(house.store, Verb.CANCEL, lease) == [Did.UNKNOWN]
        store = await house.crash()
        assert store.ledger == Ledger()
        shown = await store.show(name)
        assert shown is not None
        fates = [(one.address, one.state, one.reply, one.upstream) for one in shown.listed.recipients]
        assert fates == [
            ("a@x.nl", "delivered", "250 ok", "own"),
            ("b@x.nl", "cancelled", "451 later", "own"),
            ("c@x.nl", "cancelled", "", ""),
        ]
        assert shown.tries == (Tried(1, NOON, "b@x.nl", "own", "451 later"), Tried(1, NOON, "c@x.nl", "", ""))

    @pytest.mark.asyncio
    @pytest.mark.parametrize("held", [False, True])
    async def test_what_is_to_be_bounced_is_leased_for_that_and_never_tried(
        self, house: NotedHouse, held: bool
    ) -> None:
        entry = an_entry("a@x.nl", "b@x.nl")
        await house.store.put(entry, leased=False, held=held)
        assert await act(house.store, Verb.BOUNCE, entry) == [Did.DONE]
        assert acts(house) == [EntryChanged(entry.queue_id, "bounce")]
        assert house.store.ledger == Ledger(accepted=2, pending=2)
        store = await house.crash()
        await store.make_due(now=NOON)
        assert await store.lease("default", limit=9, now=LATER) == []
        assert await store.next_due("default") is None
        (listed,) = await store.list(Wanted(place=Place.PENDING))
        assert (listed.wish, listed.next_attempt_at) == ("bounce", None)
        assert (await store.view()).messages == {"default": 1}
        (lease,) = await store.lease_expired("default", limit=9, now=NOON, session_codes_only=True)
        assert (lease.bounced, lease.entry.attempts, len(lease.pending)) == (True, 0, 2)
        await store.give_back([lease])
        assert acts(house) == []  # nobody has acted since
        assert store.ledger == Ledger(found=2, pending=2)
        (lease,) = await store.lease_expired("default", limit=9, now=NOON)
        store = await house.crash()
        (lease,) = await store.lease_expired("default", limit=9, now=NOON)
        assert lease.bounced
        await store.settle(ended(lease, State.FAILED))
        assert store.ledger == Ledger(found=2, failed=2)

    @pytest.mark.asyncio
    async def test_a_bounce_that_was_judged_otherwise_is_not_wished_for_ever(self, house: NotedHouse) -> None:
        entry = await asleep(house.store)
        await act(house.store, Verb.BOUNCE, entry)
        (lease,) = await house.store.lease_expired("default", limit=9, now=NOON)
        await house.store.settle(Settlement(lease, (Result(0, State.HELD),)))
        assert await house.store.lease_expired("default", limit=9, now=NOON) == []
        assert house.store.ledger == Ledger(accepted=1, held=1)

    @pytest.mark.asyncio
    async def test_an_operator_may_think_better_of_a_bounce(self, house: NotedHouse) -> None:
        entry = await asleep(house.store)
        assert await act(house.store, Verb.BOUNCE, entry) == [Did.DONE]
        assert await act(house.store, Verb.BOUNCE, entry) == [Did.NOTHING]
        assert await act(house.store, Verb.RETRY, entry) == [Did.DONE]
        assert await house.store.lease_expired("default", limit=9, now=NOON) == []
        (lease,) = await house.store.lease("default", limit=9, now=NOON)
        assert not lease.bounced

    @pytest.mark.asyncio
    async def test_a_rerouted_message_waits_under_its_new_route_and_says_that_a_person_chose_it(
        self, house: NotedHouse
    ) -> None:
        entry = await asleep(house.store)
        assert await act(house.store, Verb.REROUTE, entry, route="vendor") == [Did.DONE]
        assert acts(house) == [EntryChanged(entry.queue_id, "reroute", "vendor")]
        store = await house.crash()
        assert await store.next_due("default") is None
        (lease,) = await store.lease("vendor", limit=9, now=NOON)
        assert lease.entry == replace(entry, attempts=2, route="vendor", rerouted=True)

    @pytest.mark.asyncio
    async def test_a_held_message_stays_held_when_rerouted(self, house: NotedHouse) -> None:
        entry = an_entry()
        await house.store.put(entry, leased=False, held=True)
        assert await act(house.store, Verb.REROUTE, entry, route="vendor") == [Did.DONE]
        assert await house.store.lease("vendor", limit=9, now=LATER) == []
        await act(house.store, Verb.RELEASE, entry)
        assert len(await house.store.lease("vendor", limit=9, now=NOON)) == 1

    @pytest.mark.asyncio
    async def test_each_message_gets_its_own_answer_in_the_order_asked(self, house: NotedHouse) -> None:
        store = house.store
        waits, held = await asleep(store), an_entry()
        await store.put(held, leased=False, held=True)
        busy = await store.put(an_entry(), leased=True)
        code = an_entry(session_code=True)
        await store.put(code, leased=False)
        asked = [held.queue_id, "NOBODY", waits.queue_id, busy.entry.queue_id, waits.queue_id]
        assert await store.act(Verb.RETRY, asked, now=NOON) == [
            Acted(held.queue_id, Did.IMPOSSIBLE, "it is held: release it"),
            Acted("NOBODY", Did.UNKNOWN),
            Acted(waits.queue_id, Did.DONE),
            Acted(busy.entry.queue_id, Did.NOTHING, "it is being tried now"),
            Acted(waits.queue_id, Did.DONE),
        ]
        assert await act(store, Verb.HOLD, held) == [Did.NOTHING]
        assert await act(store, Verb.RELEASE, waits, busy) == [Did.NOTHING, Did.NOTHING]
        (no,) = await store.act(Verb.REROUTE, [code.queue_id], now=NOON, route="vendor")
        assert no == Acted(code.queue_id, Did.IMPOSSIBLE, "a session code goes its own ways")
        with pytest.raises(ValueError, match="route"):
            await store.act(Verb.REROUTE, [waits.queue_id], now=NOON)

    # Wishes about what is active

    @pytest.mark.asyncio
    async def test_a_wish_about_an_active_message_is_done_after_its_attempt(self, house: NotedHouse) -> None:
        store = house.store
        hold, cancel, bounce, reroute = [await store.put(an_entry("a@x.nl", "b@x.nl"), leased=True) for _ in range(4)]
        for verb, lease in ((Verb.HOLD, hold), (Verb.CANCEL, cancel), (Verb.BOUNCE, bounce)):
            assert await act(store, verb, lease) == [Did.AFTER_ATTEMPT]
        assert await act(store, Verb.REROUTE, reroute, route="vendor") == [Did.AFTER_ATTEMPT]
        wishes = [one.wish for one in await store.list(Wanted(place=Place.ACTIVE))]
        assert wishes == ["hold", "cancel", "bounce", "reroute"]
        assert acts(house) == []
        results = (Result(0, State.DELIVERED), Result(1, State.PENDING, "451 later"))
        settlements = [Settlement(lease, results, next_attempt_at=LATER) for lease in (hold, cancel, bounce, reroute)]
        due = [[*await store.settle(settlement)] for settlement in settlements]
        assert due == [[], [], ["default"], ["vendor"]]  # the routes that are to look
        assert acts(house) == [
            EntryHeld(hold.entry.queue_id, "", 1),
            RecipientCancelled(cancel.entry.queue_id, "b@x.nl", "default", 1, 0.0, False),
            EntryChanged(bounce.entry.queue_id, "bounce"),
            EntryChanged(reroute.entry.queue_id, "reroute", "vendor"),
        ]
        assert store.ledger == Ledger(accepted=8, delivered=4, held=1, cancelled=1, deferred=2)
        assert ids(await store.lease("vendor", limit=9, now=NOON)) == [reroute.entry.queue_id]
        (lease,) = await store.lease_expired("default", limit=9, now=NOON)
        assert (lease.bounced, [pending.index for pending in lease.pending]) == (True, [1])
        assert await store.lease("default", limit=9, now=LATER) == []

    @pytest.mark.asyncio
    async def test_an_attempt_that_ends_everything_leaves_nothing_to_wish_for(self, house: NotedHouse) -> None:
        lease = await house.store.put(an_entry(), leased=True)
        await act(house.store, Verb.CANCEL, lease)
        await house.store.settle(ended(lease))
        assert house.store.ledger == Ledger(accepted=1, delivered=1)
        assert acts(house) == []

    @pytest.mark.asyncio
    async def test_a_later_wish_replaces_an_earlier_one(self, house: NotedHouse) -> None:
        lease = await house.store.put(an_entry(), leased=True)
        for verb in (Verb.CANCEL, Verb.HOLD, Verb.RELEASE):
            assert await act(house.store, verb, lease) == [Did.AFTER_ATTEMPT]
        await house.store.settle(deferred(lease, LATER))
        assert house.store.ledger == Ledger(accepted=1, deferred=1)
        assert acts(house) == []
        (listed,) = await house.store.list(Wanted())
        assert listed.wish == ""

    @pytest.mark.asyncio
    async def test_a_wish_is_done_when_the_lease_is_given_back(self, house: NotedHouse) -> None:
        leases = [await house.store.put(an_entry(), leased=True) for _ in range(3)]
        await act(house.store, Verb.HOLD, leases[0])
        await act(house.store, Verb.CANCEL, leases[1])
        await house.store.give_back(leases)
        assert house.store.ledger == Ledger(accepted=3, held=1, cancelled=1, pending=1)
        assert ids(await house.store.lease("default", limit=9, now=NOON)) == [leases[2].entry.queue_id]

    @pytest.mark.asyncio
    async def test_a_wish_survives_a_power_cut(self, house: NotedHouse) -> None:
        hold, cancel = [await house.store.put(an_entry(), leased=True) for _ in range(2)]
        await act(house.store, Verb.HOLD, hold)
        await act(house.store, Verb.CANCEL, cancel)
        store = await house.crash()
        assert acts(house) == [
            EntryHeld(hold.entry.queue_id, "", 1),
            RecipientCancelled(cancel.entry.queue_id, "piet@example.com", "default", 1, 0.0, False),
        ]
        assert store.ledger == Ledger(found=2, held=1, cancelled=1)
        assert (await house.restart()).ledger == Ledger(found=1, held=1)

    @pytest.mark.asyncio
    async def test_an_act_and_the_end_of_the_attempt_in_one_moment_agree(self, house: NotedHouse) -> None:
        store = house.store
        leases = [await store.put(an_entry("a@x.nl", "b@x.nl"), leased=True) for _ in range(30)]
        ends = [deferred(lease, LATER) if n % 3 else ended(lease) for n, lease in enumerate(leases)]
        verbs = [Verb.HOLD, Verb.CANCEL, Verb.BOUNCE]
        work = [store.settle(end) for end in ends[:15]]
        work += [act(store, verbs[n // 10], lease) for n, lease in enumerate(leases)]  # type: ignore[misc]
        work += [store.settle(end) for end in ends[15:]]
        await asyncio.gather(*work)
        assert balanced(store.ledger)
        assert house.counted() == {name: getattr(store.ledger, name) for name in house.counted()}
        assert store.ledger.active == 0

    # Session codes

    @pytest.mark.asyncio
    async def test_a_held_session_code_ends_with_its_lifetime(self, house: NotedHouse) -> None:
        code = an_entry("a@x.nl", session_code=True, expires_at=NOON)
        await house.store.put(code, leased=False, held=True)
        await house.store.put(an_entry(expires_at=NOON), leased=False, held=True)
        assert await house.store.lease_expired("default", limit=9, now=NOON - MINUTE) == []
        (lease,) = await house.store.lease_expired("default", limit=9, now=NOON, session_codes_only=True)
        assert lease.entry.queue_id == code.queue_id
        assert house.store.ledger == Ledger(accepted=2, held=1, active=1)
        await house.store.settle(ended(lease, State.EXPIRED))
        assert house.store.ledger == Ledger(accepted=2, held=1, expired=1)

    # What an operator sees

    @pytest.mark.asyncio
    async def test_a_list_has_all_of_an_entry_but_its_content(self, house: NotedHouse) -> None:
        lease = await house.store.put(an_entry("a@x.nl", "b@x.nl", "postmaster"), leased=True)
        entry = lease.entry
        (listed,) = await house.store.list(Wanted())
        assert (listed.place, listed.attempts, listed.next_attempt_at) == (Place.ACTIVE, 1, None)
        assert [one.state for one in listed.recipients] == ["active"] * 3
        results = (
            Result(0, State.DELIVERED, "250 ok", upstream="own"),
            Result(1, State.PENDING, "451 later", upstream="own"),
            Result(2, State.PENDING, "451 later", upstream="vendor"),
        )
        await house.store.settle(Settlement(lease, results, next_attempt_at=LATER, at=NOON + MINUTE))
        (listed,) = await house.store.list(Wanted())
        assert replace(listed, recipients=(), key=0) == Listed(
            key=0,
            queue_id=entry.queue_id,
            place=Place.DEFERRED,
            kind=Kind.MAIL,
            route="default",
            size=entry.content.size,
            attempts=1,
            received_at=NOON,
            next_attempt_at=LATER,
            expires_at=entry.expires_at,
            ended_at=None,
            listener="legacy",
            client="192.0.2.7",
            user=None,
            reverse_path="jan@example.nl",
            recipients=(),
            session_code=False,
        )
        assert [(one.address, one.state, one.reply, one.upstream, one.ended_at) for one in listed.recipients] == [
            ("a@x.nl", "delivered", "250 ok", "own", NOON + MINUTE),
            ("b@x.nl", "pending", "451 later", "own", None),
            ("postmaster", "pending", "451 later", "vendor", None),
        ]

    @pytest.mark.asyncio
    async def test_a_list_is_read_page_by_page_oldest_first(self, house: NotedHouse) -> None:
        entries = [an_entry() for _ in range(7)]
        for entry in entries:
            await house.store.put(entry, leased=False)
        pages, after = [], 0
        while page := await house.store.list(Wanted(), after=after, limit=3):
            pages.append(names(page))
            after = page[-1].key
        assert [len(page) for page in pages] == [3, 3, 1]
        assert [name for page in pages for name in page] == [entry.queue_id for entry in entries]
        assert names(await house.store.find(Wanted(), limit=2)) == [entries[6].queue_id, entries[5].queue_id]

    @pytest.mark.asyncio
    async def test_a_list_can_be_asked_for_place_route_addresses_and_age(self, house: NotedHouse) -> None:
        store = house.store
        fresh, vendor, held = an_entry("Els@Example.com"), an_entry(route="vendor"), an_entry("x[1]%_@y.nl")
        null = replace(
            fresh.submission, queue_id="NULL0", envelope=replace(fresh.submission.envelope, reverse_path=None)
        )
        bounce = replace(an_entry(kind=Kind.BOUNCE), submission=null)
        late = replace(an_entry(), submission=replace(an_entry().submission, received_at=LATER))
        for entry in (fresh, vendor, bounce, late):
            await store.put(entry, leased=False)
        await store.put(held, leased=False, held=True)
        tried = await asleep(store)
        busy = await store.put(an_entry(), leased=True)
        done = await store.put(an_entry("gone@x.nl"), leased=True)
        await store.settle(ended(done))

        async def found(wanted: Wanted) -> list[str]:
            listed = names(await store.list(wanted))
            assert listed == [name for name in names(await store.find(wanted))[::-1] if name != done.entry.queue_id]
            return listed

        assert await found(Wanted(place=Place.PENDING)) == [
            fresh.queue_id, vendor.queue_id, "NULL0", late.queue_id
        ]  # fmt: skip
        assert await found(Wanted(place=Place.HELD)) == [held.queue_id]
        assert await found(Wanted(place=Place.DEFERRED)) == [tried.queue_id]
        assert await found(Wanted(place=Place.ACTIVE)) == [busy.entry.queue_id]
        assert await found(Wanted(place=Place.DAMAGED)) == []
        assert await found(Wanted(route="vendor")) == [vendor.queue_id]
        assert await found(Wanted(from_="<>")) == ["NULL0"]
        assert len(await found(Wanted(from_="JAN@*"))) == 6
        assert await found(Wanted(to="els@example.c?m")) == [fresh.queue_id, "NULL0"]
        assert await found(Wanted(to="els@example.c")) == []
        assert await found(Wanted(to="x[1]%_@*")) == [held.queue_id]
        assert await found(Wanted(to="x1%_@*")) == await found(Wanted(to="%")) == []
        assert await found(Wanted(since=NOON + MINUTE)) == [late.queue_id]
        assert await found(Wanted(place=Place.PENDING, to="els@*", from_="<>", route="default")) == ["NULL0"]
        assert names(await store.find(Wanted(place=Place.FINISHED))) == [done.entry.queue_id]
        assert await store.list(Wanted(place=Place.FINISHED)) == []

    @pytest.mark.asyncio
    async def test_a_finished_message_is_found_by_whom_it_went_to(self, house: NotedHouse) -> None:
        store = house.store
        to = ('"a\\"b"@x.nl', "Jörg@bücher.example", "x[1]@y.nl", "postmaster", "a_b%c@y.nl")
        leases = [await store.put(an_entry(one, "els@z.nl"), leased=True) for one in to]
        await asyncio.gather(*(store.settle(ended(lease)) for lease in leases[:3]))
        for lease in leases[3:]:  # by way of the queue
            await store.settle(deferred(lease, NOON))
        for lease in await store.lease("default", limit=9, now=NOON):
            await store.settle(ended(lease))

        async def found(to: str) -> list[int]:
            found = names(await store.find(Wanted(to=to)))
            return [n for n, lease in enumerate(leases) if lease.entry.queue_id in found]

        for n, address in enumerate(to):
            assert await found(address) == [n]
            assert await found(address.upper().replace("Ö", "ö").replace("Ü", "ü")) == [n]
        assert await found("*@y.nl") == [2, 4]
        assert await found("?????@y.nl") == [4]
        assert await found('"a\\??"@*') == [0]
        assert await found("x1@y.nl") == await found("axb%c@y.nl") == await found("s@z.nl") == []
        assert await found("els@*") == [0, 1, 2, 3, 4]
        assert names(await store.find(Wanted(to="els@*"), limit=2)) == [lease.entry.queue_id for lease in leases[:2:-1]]
        assert await store.find(Wanted(from_="<>")) == []
        assert len(await store.find(Wanted(from_="jan@*", since=NOON, route="default"))) == 5
        assert await store.find(Wanted(since=LATER)) == []

    @pytest.mark.asyncio
    async def test_all_of_a_message_is_shown_while_it_waits_and_when_it_is_finished(self, house: NotedHouse) -> None:
        plain = an_entry("a@x.nl", "b@x.nl")
        entry = replace(
            plain,
            because=("codes", "default"),
            submission=replace(
                plain.submission,
                peer=replace(plain.submission.peer, tls="TLSv1.3", user="imuis", protocol="ESMTPSA"),
                envelope=replace(plain.submission.envelope, envid="QQ31"),
            ),
        )
        lease = await house.store.put(entry, leased=True)
        results = (Result(0, State.DELIVERED, "250 ok"), Result(1, State.PENDING, "451 later", upstream="own"))
        await house.store.settle(Settlement(lease, results, next_attempt_at=NOON, at=NOON))
        shown = await house.store.show(entry.queue_id)
        assert shown is not None
        assert (shown.head, shown.because) == (HEAD, ("codes", "default"))
        assert (shown.helo, shown.protocol, shown.tls, shown.envid) == ("imuis", "ESMTPSA", "TLSv1.3", "QQ31")
        assert shown.tries == (Tried(1, NOON, "b@x.nl", "own", "451 later"),)
        (again,) = await house.store.lease("default", limit=1, now=NOON)
        end = Settlement(again, (Result(1, State.FAILED, "550 no", upstream="vendor"),), at=LATER)
        await house.store.settle(end)
        store = await house.restart()
        finished = await store.show(entry.queue_id)
        assert finished is not None
        assert finished.head == b""
        assert finished.tries == shown.tries
        assert finished.because == ("codes", "default")
        listed = finished.listed
        assert (listed.place, listed.ended_at, listed.attempts) == (Place.FINISHED, LATER, 2)
        assert (listed.received_at, listed.client, listed.user) == (NOON, "192.0.2.7", "imuis")
        assert [(one.state, one.reply, one.upstream, one.ended_at) for one in listed.recipients] == [
            ("delivered", "250 ok", "", NOON),
            ("failed", "550 no", "vendor", LATER),
        ]
        assert await store.show("NOBODY") is None

    @pytest.mark.asyncio
    async def test_what_was_no_attempt_is_not_among_the_attempts(self, house: NotedHouse) -> None:
        lease = await house.store.put(an_entry(), leased=True)
        await house.store.settle(deferred(lease, NOON))
        shown = await house.store.show(lease.entry.queue_id)
        assert shown is not None
        assert shown.tries == ()

    @pytest.mark.asyncio
    async def test_a_session_code_is_shown_without_its_subject(self, house: NotedHouse) -> None:
        head = b"Subject: Uw code is\r\n 123456\r\nTo: els@x.nl\r\nThread-Topic: Uw code is 123456\r\n\r\n"
        entry = an_entry(content=MemoryContent(head + b"123456", len(head)), session_code=True)
        await house.store.put(entry, leased=False)
        shown = await house.store.show(entry.queue_id)
        assert shown is not None
        assert shown.head == b"To: els@x.nl\r\n\r\n"
        assert b"123456" not in repr(shown).encode()

    @pytest.mark.asyncio
    async def test_a_queue_id_is_known_by_its_beginning(self, house: NotedHouse) -> None:
        for name in ("7QK3A", "7QK3B", "7QK4", "7QK", "8"):
            lease = await house.store.put(an_entry(name=name), leased=True)
            if name in ("7QK3B", "8"):
                await house.store.settle(ended(lease))
        assert await house.store.match("7QK3A") == ["7QK3A"]
        assert await house.store.match("7QK3") == ["7QK3A", "7QK3B"]
        assert await house.store.match("7QK4") == ["7QK4"]
        assert await house.store.match("7QK") == ["7QK"]
        assert len(await house.store.match("7")) == 2
        assert await house.store.match("8") == ["8"]
        assert await house.store.match("9") == await house.store.match("7QK%") == []
        assert len(await house.store.match("")) == 2

    @pytest.mark.asyncio
    async def test_the_queue_is_counted_by_route_and_place(self, house: NotedHouse) -> None:
        store = house.store
        late = replace(an_entry().submission, received_at=LATER)
        for entry in (an_entry(), replace(an_entry(), submission=late), an_entry(route="vendor")):
            await store.put(entry, leased=False)
        await store.put(an_entry(), leased=False, held=True)
        await asleep(store)
        await store.put(an_entry(), leased=True)
        await act(store, Verb.BOUNCE, await asleep(store))
        assert await store.standing() == [
            Standing("default", Place.ACTIVE, 1, NOON),
            Standing("default", Place.DEFERRED, 2, NOON),
            Standing("default", Place.HELD, 1, NOON),
            Standing("default", Place.PENDING, 2, NOON),
            Standing("vendor", Place.PENDING, 1, NOON),
        ]
        lease = await store.put(an_entry("a@x.nl", "b@x.nl"), leased=True)
        results = [Result(0, State.HELD, in_doubt=1, in_doubt_at="own"), Result(1, State.DELIVERED)]
        await store.settle(Settlement(lease, tuple(results)))
        assert (await store.standing())[2] == Standing("default", Place.HELD, 2, NOON, in_doubt=1)
        view = await store.view()
        assert view.messages == {"default": 5, "vendor": 1}
        assert view.held == {"default": 2}

    # Memory and history

    @pytest.mark.asyncio
    async def test_what_readers_were_told_is_kept_in_the_transaction_that_told_it(self, house: NotedHouse) -> None:
        store = house.store
        alone, piet = Address("postmaster", ""), Address.of("piet@example.nl")
        rows = [
            (Told(JAN, "A", NOON), Told(piet, "A", NOON)),
            (Told(JAN, "B", LATER), Told(alone, "B", LATER, "{}")),
            (Told(JAN, "C", LATER, '{"c":1}'),),
            (Told(JAN, "C", LATER + MINUTE, '{"d":1}'),),
        ]
        for told in rows:
            lease = await store.put(an_entry(), leased=True)
            await store.settle(replace(ended(lease, State.FAILED), told=told))
        lease = await store.put(an_entry(), leased=True)
        await store.settle(replace(deferred(lease, LATER), told=(Told(JAN, "D", LATER, '{"e":1}'),)))
        store = await house.crash()
        assert sorted(await store.readers(since=NOON), key=str) == [
            Reader(JAN, (NOON, LATER), 3),
            Reader(piet, (NOON,), 0),
            Reader(alone, (), 1),
        ]
        waiting = await store.collected(JAN, limit=2)
        assert waiting == [rows[2][0], rows[3][0]]
        summary = an_entry("jan@example.nl", kind=Kind.BOUNCE)
        before = store.ledger.pending
        await store.summarise(summary, waiting)
        assert store.ledger.pending == before + 1
        assert await store.collected(JAN, limit=9) == [Told(JAN, "D", LATER, '{"e":1}')]
        assert Reader(JAN, (NOON, NOON, LATER), 1) in await store.readers(since=NOON)  # the summary counts
        await store.forget_told(before=LATER)
        store = await house.crash()
        assert sorted(await store.readers(since=NOON), key=str) == [Reader(JAN, (LATER,), 1), Reader(alone, (), 1)]

    @pytest.mark.asyncio
    async def test_a_moment_is_remembered_over_restarts(self, house: NotedHouse) -> None:
        assert await house.store.recall("alarm", "auth:own") is None
        await house.store.remember("alarm", "auth:own", NOON)
        await house.store.remember("alarm", "auth:own", LATER)
        await house.store.remember("alarm", "disk", NOON)
        store = await house.crash()
        assert await store.recall("alarm", "auth:own") == LATER
        assert await store.recall("alarm", "disk") == NOON
        assert await store.recall("other", "disk") is None

    @pytest.mark.asyncio
    async def test_what_is_remembered_besides_a_moment_can_be_listed_and_forgotten(self, house: NotedHouse) -> None:
        await house.store.remember("verdict", "own b", NOON, "550")
        await house.store.remember("verdict", "own a", NOON)
        await house.store.remember("verdict", "own a", LATER, '{"code": 554}')
        await house.store.remember("alarm", "disk", NOON)
        store = await house.crash()
        assert await store.memories("verdict") == [
            Memory("own a", LATER, '{"code": 554}'),
            Memory("own b", NOON, "550"),
        ]
        await store.forget_memory("verdict", "own a")
        await store.forget_memory("verdict", "nobody")
        assert await store.memories("verdict") == [Memory("own b", NOON, "550")]
        assert await store.memories("other") == []

    @pytest.mark.asyncio
    async def test_history_forgets_what_ended_before_and_nothing_else(self, house: NotedHouse) -> None:
        store = house.store
        leases = [await store.put(an_entry(), leased=True) for _ in range(2500)]
        slow = await store.put(an_entry(), leased=True)
        await store.settle(Settlement(slow, (Result(0, State.PENDING, "451"),), next_attempt_at=NOON, at=NOON))
        ends = [NOON + (HOUR if n % 5 == 0 else MINUTE) for n in range(len(leases))]
        await asyncio.gather(
            *(store.settle(replace(ended(lease), at=at)) for lease, at in zip(leases, ends, strict=True))
        )
        assert await store.forget(before=NOON + MINUTE) == 0
        assert await store.forget(before=LATER) == 2000
        assert await store.forget(before=LATER) == 0
        left = [lease.entry.queue_id for lease in leases[::5]]
        assert names(await store.find(Wanted(place=Place.FINISHED), limit=9999))[::-1] == left
        shown = await store.show(slow.entry.queue_id)
        assert shown is not None
        assert len(shown.tries) == 1
        assert await store.forget(before=LATER + MINUTE) == 500
        assert await store.find(Wanted(place=Place.FINISHED)) == []

    @pytest.mark.asyncio
    async def test_the_history_knows_as_whom_a_message_left_and_its_message_id(self, house: NotedHouse) -> None:
        store = house.store
        whole = await store.put(an_entry("a@x.nl", content=invoice(123)), leased=True)
        await store.settle(replace(ended(whole), left=left(whole, "repaired")))
        parts = await store.put(an_entry("a@x.nl", "b@x.nl", content=invoice(124)), leased=True)
        some = (Result(0, State.DELIVERED), Result(1, State.PENDING))
        await store.settle(Settlement(parts, some, next_attempt_at=LATER, at=NOON, left=left(parts, "rewritten")))
        bounce = await store.put(an_entry(content=invoice(125), kind=Kind.BOUNCE), leased=True)
        await store.settle(replace(ended(bounce), left=replace(left(bounce, None), author="", reverse_path=None)))
        refused = await store.put(an_entry(content=invoice(126)), leased=True)
        await store.settle(ended(refused, State.FAILED))
        waits = await store.show(parts.entry.queue_id)
        assert waits is not None
        assert waits.listed.left_as == LeftAs("office@x.nl", "office@x.nl", "rewritten")
        assert waits.listed.message_id == "<124@x>"
        await act(store, Verb.CANCEL, parts)
        store = await house.crash()
        found = [(one.left_as, one.message_id, one.subject) for one in await store.find(Wanted())][::-1]
        assert found == [
            (LeftAs("office@x.nl", "office@x.nl", "repaired"), "<123@x>", None),
            (LeftAs("office@x.nl", "office@x.nl", "rewritten"), "<124@x>", None),
            (LeftAs("", "", None), "<125@x>", None),
            (None, "<126@x>", None),
        ]

    @pytest.mark.asyncio
    async def test_a_message_is_found_by_words_of_its_subject_while_it_waits_and_where_the_history_keeps_it(
        self, house: NotedHouse
    ) -> None:
        store = house.store
        unkept = await store.put(an_entry(content=invoice(1)), leased=True)
        await store.settle(replace(ended(unkept), left=left(unkept, None)))
        store.keep_history(Recorded.SUBJECT)
        kept = await store.put(an_entry(content=invoice(12)), leased=True)
        await store.settle(replace(ended(kept), left=left(kept, None)))
        parts = await store.put(an_entry("a@x.nl", "b@x.nl", content=invoice(123)), leased=True)
        some = (Result(0, State.DELIVERED), Result(1, State.HELD))
        await store.settle(Settlement(parts, some, at=NOON))
        await act(store, Verb.CANCEL, parts)
        code = await store.put(an_entry(content=invoice(1234), session_code=True), leased=True)
        await store.settle(replace(ended(code), left=left(code, None)))
        await store.put(an_entry(content=invoice(1235), session_code=True), leased=False)
        waits = await store.put(an_entry(content=invoice(12345)), leased=False)

        async def found(words: str, **more: object) -> list[str]:
            asked = replace(Wanted(subject=words), **more)  # type: ignore[arg-type]
            return names(await store.find(asked))[::-1]

        three = [kept.entry.queue_id, parts.entry.queue_id, waits.entry.queue_id]
        assert await found("1") == await found("CAFÉ 1") == await found("e\u0301 1") == three
        assert await found("café 123") == three[1:]
        assert await found("café 123", place=Place.FINISHED) == three[1:2]
        assert await found("c_fé") == await found("c*") == await found("1234", to="nobody@*") == []
        assert [one.subject for one in await store.find(Wanted(subject="café"), limit=2)] == [None, "Factuur café 123"]
        (named,) = await store.named(await store.find(Wanted(subject="café"), limit=1))
        assert (named.subject, named.message_id) == ("Factuur café 12345", "<12345@x>")
        assert {one.subject for one in await store.named(await store.find(Wanted())) if one.session_code} == {None}

    @pytest.mark.asyncio
    async def test_a_search_for_a_subject_that_takes_too_long_says_so(self, house: NotedHouse) -> None:
        for _ in range(3):
            await house.store.put(an_entry(content=invoice(1)), leased=False)
            await house.store.settle(ended(await house.store.put(an_entry(), leased=True)))
        whole = await house.store.search(Wanted(subject="café"), limit=9, patience=60)
        assert (len(whole.entries), whole.whole) == (3, True)
        assert not (await house.store.search(Wanted(subject="café"), limit=9, patience=-1)).whole

    @pytest.mark.asyncio
    async def test_subjects_go_when_none_is_to_be_kept_any_more_and_all_else_stays(self, house: NotedHouse) -> None:
        house.store.keep_history(Recorded.SUBJECT)
        leases = [await house.store.put(an_entry(content=invoice(n)), leased=True) for n in range(3)]
        for lease in leases:
            await house.store.settle(replace(ended(lease), left=left(lease, "rewritten")))
        assert await house.store.forget(before=NOON) == 0
        assert len(await house.store.find(Wanted(subject="factuur"))) == 3
        house.store.keep_history(Recorded.FATE)
        assert await house.store.forget(before=NOON) == 0
        assert await house.store.find(Wanted(subject="factuur")) == []
        assert [one.message_id for one in await house.store.find(Wanted())] == ["<2@x>", "<1@x>", "<0@x>"]

    @pytest.mark.asyncio
    async def test_without_history_nothing_is_kept_of_what_is_finished(self, house: NotedHouse) -> None:
        await house.settle_without_history()
        store = house.store
        first = await store.put(an_entry(), leased=True)
        await store.settle(ended(first))
        second = await store.put(an_entry(), leased=True)
        await store.settle(replace(deferred(second, NOON), at=NOON))
        (second,) = await store.lease("default", limit=1, now=NOON)
        await store.settle(ended(second))
        third = await asleep(store)
        await act(store, Verb.CANCEL, third)
        assert await store.find(Wanted()) == []
        for name in (first.entry.queue_id, second.entry.queue_id, third.queue_id):
            assert await store.show(name) is None
            assert await store.match(name) == []
        assert store.ledger == Ledger(accepted=3, delivered=2, cancelled=1)

    # Backup

    @pytest.mark.asyncio
    async def test_a_backup_is_a_queue_in_which_everything_is_delivered(
        self, house: NotedHouse, tmp_path: Path
    ) -> None:
        store = house.store
        bodies = {}
        for n in range(40):
            content = memory(b"%d\r\n" % n * 1000 * n)
            lease = await store.put(an_entry(content=content), leased=True)
            bodies[lease.entry.queue_id] = content.data
            if n % 3 == 0:
                await store.settle(deferred(lease, LATER))
        held = an_entry("held@x.nl")
        await store.put(held, leased=False, held=True)
        await store.put(an_entry(session_code=True), leased=False)
        done = await store.put(an_entry(), leased=True)
        await store.settle(ended(done))
        await store.remember("alarm", "disk", NOON)
        told = Told(JAN, done.entry.queue_id, NOON, "{}")
        await store.settle(replace(ended(await store.put(an_entry(), leased=True)), told=(told,)))
        before = store.ledger
        saved = await store.backup(tmp_path / "copy.db")
        octets = sum(map(len, bodies.values())) + held.content.size
        assert saved == Saved(entries=41, octets=octets, left_out=1)
        assert store.ledger is before
        copy = await house.open_copy(tmp_path / "copy.db")
        assert copy.ledger == Ledger(found=41, deferred=40, held=1)
        leases = await copy.lease("default", limit=99, now=LATER)
        assert {lease.entry.queue_id: lease.entry.content.read(0, 10**6) for lease in leases} == bodies
        for lease in leases:
            await copy.settle(ended(lease))
        assert copy.ledger == Ledger(found=41, delivered=40, held=1)
        assert names(await copy.list(Wanted(place=Place.HELD))) == [held.queue_id]
        assert await copy.show(done.entry.queue_id) == await store.show(done.entry.queue_id)
        assert await copy.recall("alarm", "disk") == NOON
        assert await copy.collected(JAN, limit=9) == [told]
        fresh = await copy.put(an_entry(), leased=True)
        assert isinstance(fresh.key, int)

    @pytest.mark.asyncio
    async def test_a_backup_never_writes_over_anything(self, house: NotedHouse, tmp_path: Path) -> None:
        await house.store.backup(tmp_path / "copy.db")
        with pytest.raises(RelayError, match="exists: choose another name"):
            await house.store.backup(tmp_path / "copy.db")
        with pytest.raises(RelayError, match="cannot be written: No such file"):
            await house.store.backup(tmp_path / "nowhere" / "copy.db")
        assert sorted(path.name for path in tmp_path.iterdir() if path.name != "house") == ["copy.db"]

    @pytest.mark.asyncio
    async def test_mail_flows_while_a_backup_is_made(self, house: NotedHouse, tmp_path: Path) -> None:
        store = house.store
        for _ in range(300):
            await store.put(an_entry(content=memory(b"x" * 20_000)), leased=False)
        walked = 0
        saving = asyncio.ensure_future(store.backup(tmp_path / "copy.db"))
        while not saving.done():
            for lease in await store.lease("default", limit=5, now=NOON):
                await store.settle(ended(lease))
                walked += 1
            await store.settle(ended(await store.put(an_entry(), leased=True)))
        saved = saving.result()
        assert walked
        copy = await house.open_copy(tmp_path / "copy.db")
        leases = await copy.lease("default", limit=999, now=NOON)
        assert len(leases) == saved.entries >= 300 - walked
        in_history = {one.queue_id for one in await copy.find(Wanted(place=Place.FINISHED), limit=99_999)}
        assert not in_history & set(ids(leases))
