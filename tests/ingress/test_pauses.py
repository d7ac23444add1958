"""Case silence-within-data, and others: `limits.data` is what a client is promised; `data_rate` counts no pause."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from relay.events import MessageRefused, SessionEnded
from relay.ingress import replies
from relay.observe.log_lines import details
from tests.ingress.house import Client, House, HouseOf
from tests.kit import configured, virtual_time

ENVELOPE = (b"EHLO scanner", b"MAIL FROM:<scan@example.nl>", b"RCPT TO:<piet@example.org>", b"DATA")
HEADER = b"From: scan@example.nl\r\nSubject: scan\r\n\r\n"
PART = b"x" * 2998 + b"\r\n"


async def begun(house: House) -> Client:
    client = await house.connect()
    await client.reply()
    for command in ENVELOPE:
        await client.say(command)
    client.send(HEADER)
    return client


async def nothing(seconds: float) -> None:
    await asyncio.sleep(seconds)


@pytest.mark.parametrize("pauses", [[240], [120] * 9, [290, 290, 290], [11] * 30])
def test_a_pause_within_the_time_that_is_promised_ends_nothing(house_of: HouseOf, pauses: list[int]) -> None:
    async def scene() -> None:
        async with house_of() as house:
            client = await begun(house)
            for pause in pauses:
                await nothing(pause)
                client.send(PART)
            client.send(b".\r\n")
            assert (await client.reply())[:3] == b"250"

    virtual_time.run(scene())


@pytest.mark.parametrize(
    ("step", "octets", "limits", "key"),
    [
        (310, PART, {}, "limits.data"),
        (290, PART, {}, "limits.data"),  # nothing wrong with each of them; together they are too long
        (1, b"x", {}, "limits.data_rate"),
        (9, b"x" * 100, {}, "limits.data_rate"),
        (9, b"x" * 100, {"data_rate": 0, "data": 5.0}, "limits.data"),
    ],
)
def test_what_ends_content_is_named_by_its_key(
    house_of: HouseOf, step: float, octets: bytes, limits: dict[str, float], key: str
) -> None:
    async def scene() -> None:
        async with house_of(limits=configured.limits(**limits)) as house:
            client = await begun(house)
            while not house.observed.of(SessionEnded):
                await nothing(step)
                client.send(octets)
            (refused,) = house.observed.of(MessageRefused)
            (ended,) = house.observed.of(SessionEnded)
            assert key in details(refused).split('text="')[1].replace(")", " ").split()
            assert (ended.why, ended.limit) == ("timeout", key)
            assert f"timeout ({key})" in details(ended)

    virtual_time.run(scene())


def test_all_pauses_of_a_message_are_four_times_the_longest_at_most(house_of: HouseOf) -> None:
    async def scene() -> None:
        async with house_of() as house:
            client = await begun(house)
            began = asyncio.get_running_loop().time()
            while not house.observed.of(SessionEnded):
                await nothing(240)
                client.send(PART)
            lasted = timedelta(seconds=asyncio.get_running_loop().time() - began)
            assert timedelta(minutes=20) < lasted <= timedelta(minutes=24)

    virtual_time.run(scene())


def test_a_client_that_is_idle_ends_by_limits_command(house_of: HouseOf) -> None:
    async def scene() -> None:
        async with house_of() as house:
            client = await house.connect()
            await client.reply()
            assert await client.reader.readline() == replies.TOO_SLOW
            (ended,) = await house.observed.until(SessionEnded)
            assert (ended.why, ended.limit) == ("timeout", "limits.command")

    virtual_time.run(scene())
