"""An upstream goes away and comes back: nothing is lost, the door stays open, and one connection tries first."""

from __future__ import annotations

import pytest

from relay.events import MessageQueued, RecipientDeferred, RecipientDelivered, UpstreamRestored, UpstreamSetAside
from relay.mail.outcome import Stage, Trouble
from tests.kit.house import JAN, PIET, Site, mail
from tests.kit.upstream import ScriptedUpstream, Session, then_drop


def numbers(upstream: ScriptedUpstream) -> list[int]:
    """The messages that arrived, by the number in their subject."""
    return [int(one.content.partition(b"Subject: ")[2].partition(b"\r\n")[0]) for one in upstream.messages]


def remember_connections(upstream: ScriptedUpstream) -> list[int]:
    """How many connections there had been in all at each final dot."""
    seen: list[int] = []

    def remember(_: Session) -> None:
        seen.append(upstream.connections)

    upstream.script("dot", remember, times=None)
    return seen


@pytest.mark.asyncio
async def test_after_an_outage_one_connection_probes_and_then_everything_arrives_oldest_first(site: Site) -> None:
    count = 60
    async with site.upstream() as own:
        await own.go_down()
        # A day between attempts: only the upstream's return can bring the mail out in time.
        site.configure(upstreams={"own": site.way_to(own)}, routes={"default": {"retry": "1s*30, 1d"}})
        async with site.house() as house:
            await house.send_many([str(number) for number in range(count)])
            aside = await house.event(UpstreamSetAside, upstream="own")
            assert (aside.stage, aside.trouble) == (Stage.CONNECT, Trouble.TRANSIENT)
            connections = remember_connections(own)
            await own.come_back()
            await house.event(RecipientDelivered, count)
            assert len(house.seen.all(UpstreamRestored)) == 1
            assert house.ledger.delivered == count

    arrived = numbers(own)
    assert sorted(arrived) == list(range(count))
    assert connections[0] == 1
    assert connections[-1] == 3
    assert arrived[0] < 7  # those that were under way when it went down are the oldest
    at_most = 12  # three connections and what is leased ahead
    assert all(abs(number - place) <= at_most for place, number in enumerate(arrived))


@pytest.mark.asyncio
async def test_an_upstream_that_says_421_is_asked_by_one_connection_at_a_time_until_it_is_well(site: Site) -> None:
    count = 20
    async with site.upstream() as own:
        own.script("banner", then_drop("421 4.3.2 down for maintenance"), times=None)
        site.configure(upstreams={"own": site.way_to(own)}, routes={"default": {"retry": "1s"}})
        async with site.house() as house:
            await house.send_many([str(number) for number in range(count)])
            await house.event(UpstreamSetAside)
            at_first = own.connections
            assert at_first <= 3
            await house.event(UpstreamSetAside, 2)
            assert own.connections == at_first + 1
            own.unscript("banner")
            connections = remember_connections(own)
            await house.event(RecipientDelivered, count)
            asides = house.seen.all(UpstreamSetAside)
    assert connections[0] == at_first + len(asides)
    assert {(aside.stage, aside.code, aside.text) for aside in asides} == {
        (Stage.BANNER, 421, "down for maintenance"),
    }


@pytest.mark.asyncio
async def test_routes_that_share_an_upstream_share_its_probe(site: Site) -> None:
    async with site.upstream() as own:
        await own.go_down()
        site.configure(
            upstreams={"own": site.way_to(own)},
            routes={"default": {"retry": "1s"}, "mass": {"retry": "1s"}},
            senders=[{"name": "mass mail", "match": {"subject": "*mass*"}, "keep": True, "route": "mass"}],
        )
        async with site.house() as house:
            await house.send_many(["1", "2 mass", "3", "4 mass"])
            await house.event(UpstreamSetAside)
            connections = remember_connections(own)
            await own.come_back()
            await house.event(RecipientDelivered, 2, route="default")
            await house.event(RecipientDelivered, 2, route="mass")
    assert connections[0] == 1


@pytest.mark.asyncio
async def test_the_door_accepts_while_the_upstream_is_down_and_tells_that_mail_waits(site: Site) -> None:
    async with site.upstream() as own:
        await own.go_down()
        site.configure(upstreams={"own": site.way_to(own)}, routes={"default": {"retry": "1h"}})
        async with site.house() as house:
            first = await house.send(JAN, [PIET])
            deferred = await house.event(RecipientDeferred, queue_id=first)
            assert deferred.code == 0
            assert "Connection refused" in deferred.text
            second = await house.send(JAN, [PIET])
            await house.event(MessageQueued, queue_id=second)
            assert (house.ledger.deferred, house.ledger.pending) == (1, 1)


@pytest.mark.asyncio
async def test_what_waited_when_the_relay_stopped_is_tried_at_once_when_it_starts(site: Site) -> None:
    async with site.upstream() as own:
        own.script("rcpt", "450 4.7.1 greylisted")
        site.configure(upstreams={"own": site.way_to(own)}, routes={"default": {"retry": "1d"}})
        async with site.house() as house:
            queue_id = await house.send(JAN, [PIET])
            await house.event(RecipientDeferred, queue_id=queue_id)
        async with site.house() as house:
            delivered = await house.event(RecipientDelivered, queue_id=queue_id)
            assert delivered.attempt == 2
            assert (house.ledger.found, house.ledger.accepted) == (1, 0)


@pytest.mark.asyncio
async def test_a_greylisted_message_holds_up_nothing_else(site: Site) -> None:
    async with site.upstream() as own:
        own.script("rcpt", "450 4.7.1 greylisted")
        site.configure(upstreams={"own": site.way_to(own)})
        async with site.house() as house:
            greylisted = await house.send(JAN, [PIET], mail("1"))
            await house.event(RecipientDeferred, queue_id=greylisted)
            other = await house.send(JAN, [PIET], mail("2"))
            await house.event(RecipientDelivered, queue_id=other)
            await house.event(RecipientDelivered, queue_id=greylisted)
            assert house.seen.all(UpstreamSetAside) == []
    assert numbers(own) == [2, 1]


@pytest.mark.asyncio
async def test_the_second_upstream_takes_over_and_the_first_has_the_mail_again_when_it_is_well(site: Site) -> None:
    async with site.upstream() as own, site.upstream() as spare:
        await own.go_down()
        site.configure(
            upstreams={"own": site.way_to(own), "spare": site.way_to(spare)},
            routes={"default": {"upstreams": ["own", "spare"], "retry": "1s"}},
        )
        async with site.house() as house:
            first = await house.send(JAN, [PIET])
            delivered = await house.event(RecipientDelivered, queue_id=first)
            assert (delivered.upstream, delivered.attempt) == ("spare", 1)
            assert house.seen.all(RecipientDeferred) == []
            await own.come_back()
            while not house.seen.all(UpstreamRestored, upstream="own"):
                queue_id = await house.send(JAN, [PIET])
                await house.event(RecipientDelivered, queue_id=queue_id)
            last = await house.send(JAN, [PIET])
            assert (await house.event(RecipientDelivered, queue_id=last)).upstream == "own"
    assert len(own.messages) + len(spare.messages) == len(house.seen.all(RecipientDelivered))


@pytest.mark.asyncio
async def test_what_both_upstreams_refuse_to_take_now_waits_for_the_first_that_returns(site: Site) -> None:
    async with site.upstream() as own, site.upstream() as spare:
        await own.go_down()
        await spare.go_down()
        site.configure(
            upstreams={"own": site.way_to(own), "spare": site.way_to(spare)},
            routes={"default": {"upstreams": ["own", "spare"], "retry": "1s"}},
        )
        async with site.house() as house:
            await house.send_many([str(number) for number in range(10)])
            await house.event(UpstreamSetAside, upstream="own")
            await house.event(UpstreamSetAside, upstream="spare")
            await spare.come_back()
            await house.event(RecipientDelivered, 10, upstream="spare")
    assert sorted(numbers(spare)) == list(range(10))
