"""AUTH refused: the account is tried once in each pause, the mail waits, the next upstream of the route carries it
meanwhile, and the first has it again when it is well."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from relay.events import (
    ExceptionCaught,
    RecipientDelivered,
    RecipientFailed,
    UpstreamRestored,
    UpstreamSetAside,
)
from relay.mail.outcome import Deferred, Stage, Trouble
from tests.faults.house import SmtpHouse
from tests.kit.upstream import CLOSE, DROP, SILENCE, Fault, ScriptedUpstream
from tests.transport.parts import PATIENT, SOON

GOOD, WRONG = "open sesame", "open barley"
REFUSALS: list[tuple[str, Fault, Trouble, int]] = [
    ("535", "535 5.7.8 wrong name or password", Trouble.PERMANENT, 535),
    ("454", "454 4.7.0 temporary authentication failure", Trouble.TRANSIENT, 454),
    ("334 without end", "334 ", Trouble.TRANSIENT, 334),
    ("reset", DROP, Trouble.DROPPED, 0),
    ("closed", CLOSE, Trouble.DROPPED, 0),
    ("silence", SILENCE, Trouble.TIMEOUT, 0),
]
LOGIN = {"auth": "auto", "username": "relay", "password": lambda: GOOD}


async def waits(house: SmtpHouse, count: int) -> None:
    """That many messages wait to be sent."""
    for number in range(count):
        await house.put(f"M{number:02}")


def asides(house: SmtpHouse, upstream: str = "own") -> list[UpstreamSetAside]:
    return [event for event in house.watch.events if isinstance(event, UpstreamSetAside) and event.upstream == upstream]


def by_way_of(house: SmtpHouse, upstream: str) -> list[str]:
    """The messages that this upstream carried."""
    events = house.watch.events
    return [event.queue_id for event in events if isinstance(event, RecipientDelivered) and event.upstream == upstream]


def is_delivered(house: SmtpHouse, queue_id: str) -> bool:
    return queue_id in (*by_way_of(house, "own"), *by_way_of(house, "spare"))


@pytest.mark.asyncio
@pytest.mark.parametrize(("fault", "trouble", "code"), [row[1:] for row in REFUSALS], ids=[row[0] for row in REFUSALS])
async def test_a_login_that_is_refused_is_tried_once_in_each_pause_however_much_mail_waits(
    tmp_path: Path, fault: Fault, trouble: Trouble, code: int
) -> None:
    greeting = SOON if fault is SILENCE else 20
    async with ScriptedUpstream(users={"relay": GOOD}) as upstream:
        upstream.script("auth", fault, times=None)
        house = await SmtpHouse.of(tmp_path, "own")
        house.lead_to(upstream, connections=3, timeouts=replace(PATIENT, greeting=greeting), **LOGIN)
        try:
            await waits(house, 12)
            house.start(runners=3)
            await house.watch.until(lambda: len(asides(house)) == 4)
            tries = len(upstream.auth_tries)
            upstream.unscript("auth")
            # A fifth may have begun in the moment between the pause and the look at it; and what had no answer says
            # nothing of the two that were begun beside it.
            assert 4 <= tries <= (5 if code else 7)
            assert {(event.stage, event.trouble, event.code) for event in asides(house)} == {
                (Stage.AUTH, trouble, code)
            }
            house.be_patient()
            await house.watch.until(lambda: len(by_way_of(house, "own")) == 12)
            assert len(upstream.messages) == 12
            assert house.watch.of(RecipientFailed) == []
            assert house.watch.of(ExceptionCaught) == []
        finally:
            await house.demolish()


@pytest.mark.asyncio
async def test_connections_that_begin_together_do_not_try_a_wrong_password_each(tmp_path: Path) -> None:
    async with ScriptedUpstream(users={"relay": GOOD}) as upstream:
        house = await SmtpHouse.of(tmp_path, "own")
        transport = house.lead_to(upstream, connections=3, **LOGIN | {"password": lambda: WRONG}).transport
        try:
            outcomes = await asyncio.gather(*(transport.connect() for _ in range(3)))
            assert len(upstream.auth_tries) == 1
            assert len(set(outcomes)) == 1  # all are told the same
            # A later one tries again: the pause is the upstream's affair.
            await transport.connect()
            assert len(upstream.auth_tries) == 2
        finally:
            await house.demolish()


@pytest.mark.asyncio
@pytest.mark.parametrize("fault", [DROP, CLOSE, SILENCE], ids=["reset", "closed", "silence"])
async def test_a_login_that_had_no_answer_is_no_refusal_of_those_that_begin_beside_it(
    tmp_path: Path, fault: Fault
) -> None:
    greeting = 1.0 if fault is SILENCE else 20
    async with ScriptedUpstream(users={"relay": GOOD}) as upstream:
        upstream.script("auth", fault)  # the first one only
        house = await SmtpHouse.of(tmp_path, "own")
        more = LOGIN | {"timeouts": replace(PATIENT, greeting=greeting)}
        transport = house.lead_to(upstream, connections=3, **more).transport
        try:
            outcomes = await asyncio.gather(*(transport.connect() for _ in range(3)))
            failed = [outcome for outcome in outcomes if isinstance(outcome, Deferred)]
            assert [outcome.stage for outcome in failed] == [Stage.AUTH]
            assert len(upstream.auth_tries) == 3
            for connection in outcomes:
                if not isinstance(connection, Deferred):
                    await connection.close()
        finally:
            await house.demolish()


@pytest.mark.asyncio
async def test_connections_that_begin_together_all_come_about_with_the_right_password(tmp_path: Path) -> None:
    async with ScriptedUpstream(users={"relay": GOOD}) as upstream:
        house = await SmtpHouse.of(tmp_path, "own")
        transport = house.lead_to(upstream, connections=3, **LOGIN).transport
        try:
            connections = await asyncio.gather(*(transport.connect() for _ in range(3)))
            assert [tried.accepted for tried in upstream.auth_tries] == [True] * 3
            for connection in connections:
                await connection.close()  # type: ignore[union-attr]
        finally:
            await house.demolish()


@pytest.mark.asyncio
@pytest.mark.parametrize(("fault", "trouble", "code"), [row[1:] for row in REFUSALS], ids=[row[0] for row in REFUSALS])
async def test_the_next_upstream_carries_the_mail_meanwhile_and_the_first_again_when_it_is_well(
    tmp_path: Path, fault: Fault, trouble: Trouble, code: int
) -> None:
    greeting = SOON if fault is SILENCE else 20
    async with ScriptedUpstream(users={"relay": GOOD}) as own, ScriptedUpstream(users={"relay": GOOD}) as spare:
        own.script("auth", fault, times=None)
        house = await SmtpHouse.of(tmp_path, "own", "spare")
        way = house.lead_to(own, "own", timeouts=replace(PATIENT, greeting=greeting), **LOGIN)
        house.lead_to(spare, "spare", **LOGIN)
        try:
            house.start()
            await house.put("FIRST")
            await house.watch.until(lambda: by_way_of(house, "spare") == ["FIRST"])
            assert not way.up
            assert (asides(house)[0].trouble, asides(house)[0].code) == (trouble, code)
            own.unscript("auth")
            house.be_patient()
            number = 0
            while not house.watch.of(UpstreamRestored):
                number += 1
                await house.put(f"M{number}")
                await house.watch.until(partial(is_delivered, house, f"M{number}"))
            await house.put("LAST")
            await house.watch.until(lambda: "LAST" in by_way_of(house, "own"))
            assert len(own.messages) + len(spare.messages) == number + 2
            assert house.watch.of(RecipientFailed) == []
        finally:
            await house.demolish()
