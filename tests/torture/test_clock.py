"""The wall clock leaps by thirty days, forward and back: no mail expires for it, and none is stuck."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta

import pytest

from tests.kit.house import JAN, PATIENCE, PIET, Client, Site, mail
from tests.torture.faults import Faults
from tests.torture.machine import Machine

pytestmark = pytest.mark.asyncio

MONTH = timedelta(days=30)
PARTS = {
    "routes": {"default": {"retry": "2s", "lifetime": "5d"}},
    "session_codes": {
        "enabled": True,
        "via_own_smtp": True,
        "own": "own",
        "fallback": False,
        "lifetime": "10m",
        "match": [{"subject": "*sessiecode*"}],
    },
}


async def waiting(machine: Machine, recipients: int) -> None:
    """Until so many recipients have been tried, and wait for their next attempt."""
    async with asyncio.timeout(PATIENCE):
        while await machine.metric('relay_queue_recipients{state="deferred"}') < recipients:
            await asyncio.sleep(0.05)


LEAPS = pytest.mark.parametrize(
    "leap", [pytest.param(MONTH, marks=pytest.mark.repetition), -MONTH], ids=["forward", "back"]
)


@LEAPS
@pytest.mark.promise("A clock that leaps by thirty days, forward or back, makes no mail expire and leaves none stuck.")
async def test_mail_that_waits_survives_a_leap_of_the_clock(
    site: Site, faults: Faults, figures: Callable[[str], None], leap: timedelta
) -> None:
    async with (
        site.upstream(tls="none", users=None) as own,  # the certificates of the tests do not last a month
        Machine.running(site, own, parts=PARTS, environment=faults.environment) as machine,
    ):
        own.script("rcpt", "450 4.2.0 later", times=None)
        await machine.offer_many(5)
        await waiting(machine, 5)
        faults.shift(leap)
        assert (await machine.offer()).startswith("250 ")
        assert await machine.healthy()
        await waiting(machine, 6)
        # Long enough for a look at what is past its lifetime, which comes every five seconds.
        await machine.relay.line("deferred", number=6, attempt=4)
        own.unscript("rcpt")
        await machine.everything_acknowledged_arrives()
        assert machine.relay.all("expired") == []
        assert await machine.metric('relay_recipients_total{event="expired"}') == 0
        faults.shift(timedelta())  # somebody puts it right
        assert (await machine.offer()).startswith("250 ")
        await machine.everything_acknowledged_arrives()
        assert set(machine.arrived.values()) == {1}
    figures(f"{len(machine.ledger.acknowledged)} arrived, none expired, none twice")


@pytest.mark.promise("Session codes follow the wall clock: after a leap forward those that waited expire, loudly.")
async def test_a_session_code_expires_by_the_wall_clock(
    site: Site, faults: Faults, figures: Callable[[str], None]
) -> None:
    async with (
        site.upstream(tls="none", users=None) as own,
        Machine.running(site, own, parts=PARTS, environment=faults.environment) as machine,
        Client.to(machine.port) as client,
    ):
        own.script("rcpt", "450 4.2.0 later", times=None)
        await client.send(JAN, [PIET], mail("0 uw sessiecode"))
        await waiting(machine, 1)
        assert machine.relay.all("expired") == []
        faults.shift(MONTH)
        await machine.relay.line("expired")
        own.unscript("rcpt")
        await client.send(JAN, [PIET], mail("0 uw sessiecode"))  # a fresh one goes, by the clock as it is
        await own.message()
    figures("the one that waited expired at once, the next was delivered")


@LEAPS
@pytest.mark.promise("A relay that starts with a clock that is thirty days off delivers what lay in the queue.")
async def test_mail_that_lay_in_the_queue_is_delivered_by_a_relay_whose_clock_is_off(
    site: Site, faults: Faults, figures: Callable[[str], None], leap: timedelta
) -> None:
    async with site.upstream(tls="none", users=None) as own:
        own.script("rcpt", "450 4.2.0 later", times=None)
        async with Machine.running(site, own, parts=PARTS, environment=faults.environment) as machine:
            ledger = machine.ledger
            await machine.offer_many(3)
            await waiting(machine, 3)
        own.unscript("rcpt")
        faults.shift(leap)
        async with Machine.running(site, own, ledger=ledger, parts=PARTS, environment=faults.environment) as machine:
            await machine.everything_acknowledged_arrives()
            assert machine.relay.all("expired") == []
    figures(f"{len(ledger.acknowledged)} arrived, none expired")
