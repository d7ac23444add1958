"""Alarms by mail leave by another upstream than what they are about, and without the queue."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from email import message_from_bytes, policy
from pathlib import Path

import pytest
import pytest_asyncio

from relay.delivery.alarm_mail import ByMail
from relay.delivery.alarm_way import Alarm, NotSent
from relay.mail.address import Address
from relay.mail.outcome import Deferred, Failed, Stage, Trouble
from relay.mail.reply import Reply
from relay.observe.situation import Severity
from relay.policy.alarms import AlarmMail
from relay.transport.port import Delivery
from tests.delivery import house
from tests.delivery.house import DeliveryHouse
from tests.delivery.ways import TAKEN
from tests.queue.mail import NOON

ADMIN, BOSS = Address.of("admin@example.nl"), Address.of("chef@example.nl")
ALARM = Alarm(
    cause="auth-refused:own",
    severity=Severity.ERROR,
    since=NOON,
    hostname="relay.example.nl",
    title="[relay relay.example.nl] Login refused by own",
    text="The login was refused.\n",
    subject="[relay relay.example.nl] Aanmelding geweigerd door own / Login refused by own",
    letter="De aanmelding is geweigerd.\n\n----\n\nThe login was refused.\n",
    about=("own",),
    blocked=True,
)
REFUSED = Failed(Stage.RCPT, Reply(550, "5.1.1", "no such user"))
SILENT = Deferred(Stage.DOT, Trouble.TIMEOUT, "no answer", in_doubt=True)
DOWN = Deferred(Stage.CONNECT, Trouble.TRANSIENT, "no connection to smtp.example.nl port 25", upstream_sick=True)


@pytest_asyncio.fixture
async def site(tmp_path: Path) -> AsyncIterator[DeliveryHouse]:
    made = await DeliveryHouse.build(tmp_path, house.policy(default=("own", "graph"), other=("vendor",)))
    yield made
    await made.demolish()


def by_mail(site: DeliveryHouse, *ways: str, readers: tuple[Address, ...] = (ADMIN,)) -> ByMail:
    """`own` and `graph` are one account."""
    accounts = {"own": "relay@example.nl", "graph": "relay@example.nl", "vendor": "vendor"}
    return ByMail(AlarmMail(readers, ways or ("own", "graph", "vendor"), accounts), site.shared)


@pytest.mark.asyncio
async def test_an_alarm_leaves_by_an_upstream_with_another_account_and_is_nowhere_in_the_queue(
    site: DeliveryHouse,
) -> None:
    assert await by_mail(site, readers=(ADMIN, BOSS)).send(ALARM) == "admin@example.nl, chef@example.nl by vendor"
    (request,) = site.ways["vendor"].requests
    assert [str(one.address) for one in request.recipients] == ["admin@example.nl", "chef@example.nl"]
    assert {one.notify for one in request.recipients} == {frozenset({"never"})}
    assert request.reverse_path is None
    message = message_from_bytes(b"".join(request.pieces()), policy=policy.default)
    assert message["From"] == "Mail relay <postmaster@relay.example.nl>"
    assert message["Subject"] == ALARM.subject
    assert message["Auto-Submitted"] == "auto-generated"
    assert message.get_content().replace("\r\n", "\n") == ALARM.letter
    assert (await site.store.view()).messages == {}
    assert site.ways["own"].requests == site.ways["graph"].requests == []


@pytest.mark.asyncio
async def test_a_store_that_is_out_of_order_keeps_no_alarm_back(site: DeliveryHouse) -> None:
    site.store.broken = True
    assert await by_mail(site).send(ALARM) == "admin@example.nl by vendor"


@pytest.mark.asyncio
async def test_the_next_is_asked_where_one_does_not_take_it(site: DeliveryHouse) -> None:
    site.ways["own"].says = lambda _: REFUSED
    site.ways["graph"].connects = DOWN
    alarm = replace(ALARM, about=(), blocked=False)
    assert await by_mail(site).send(alarm) == "admin@example.nl by vendor"
    site.ways["vendor"].says = lambda _: REFUSED
    with pytest.raises(NotSent) as failed:
        await by_mail(site).send(alarm)
    assert str(failed.value) == (
        "own: 550 5.1.1 no such user; graph: no way takes it for now; vendor: 550 5.1.1 no such user"
    )


@pytest.mark.asyncio
async def test_without_another_account_an_alarm_does_not_leave_by_what_it_is_about(site: DeliveryHouse) -> None:
    with pytest.raises(NotSent, match="no other upstream than what it is about"):
        await by_mail(site, "own", "graph").send(ALARM)
    assert site.ways["own"].requests == []


@pytest.mark.asyncio
async def test_what_an_alarm_is_about_carries_it_last_while_it_works(site: DeliveryHouse) -> None:
    ends_soon = replace(ALARM, cause="secret-ends:own:30", blocked=False)
    assert await by_mail(site).send(ends_soon) == "admin@example.nl by vendor"
    assert await by_mail(site, "own").send(ends_soon) == "admin@example.nl by own"


@pytest.mark.asyncio
async def test_an_upstream_that_is_set_aside_is_not_asked(site: DeliveryHouse) -> None:
    site.ways["own"].connects = DOWN
    alarm = replace(ALARM, about=(), blocked=False)
    assert await by_mail(site, "own", "vendor").send(alarm) == "admin@example.nl by vendor"
    assert await by_mail(site, "own", "vendor").send(alarm) == "admin@example.nl by vendor"
    assert site.ways["own"].dialled == 1


@pytest.mark.asyncio
async def test_what_may_have_been_taken_and_what_one_reader_got_counts_as_sent(site: DeliveryHouse) -> None:
    site.ways["vendor"].says = lambda _: SILENT
    assert await by_mail(site).send(ALARM) == "admin@example.nl by vendor"
    site.ways["vendor"].says = lambda _: Delivery((REFUSED, TAKEN))
    assert await by_mail(site, readers=(ADMIN, BOSS)).send(ALARM) == "chef@example.nl by vendor"


@pytest.mark.asyncio
async def test_its_parts_are_the_upstreams(site: DeliveryHouse) -> None:
    alarm = replace(ALARM, about=(), blocked=False)
    sent = [await part.send(alarm) for part in by_mail(site).parts()]
    assert sent == [f"admin@example.nl by {name}" for name in ("own", "graph", "vendor")]
