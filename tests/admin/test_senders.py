"""Senders that are known to be refused: listed, forgotten and pinned, whether a relay runs or not."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from relay.admin.desk import Desk, open_desk
from relay.admin.errors import NoSuchEntry, Refused
from relay.policy.verdict import TOPIC, Sender, Verdict, key_of, value_of
from relay.queue.sqlite.start import SqliteStore
from tests.admin.house import ROUTES, answering, ask, open_store

Asked = Callable[[Desk], Any]
NOW = datetime.now(UTC)
LATER, BEFORE = NOW + timedelta(hours=5), NOW - timedelta(hours=1)
JAN, ELS = Sender("jan@example.nl", "jan@example.nl"), Sender("<>", "els@example.nl")


async def keep(store: SqliteStore, upstream: str, sender: Sender, until: datetime) -> None:
    verdict = Verdict(upstream, sender, BEFORE, until, 550, "5.7.60")
    await store.remember(TOPIC, key_of(upstream, sender), until, value_of(verdict))


async def filled(folder: Path) -> SqliteStore:
    store = await open_store(folder)
    await keep(store, "vendor", JAN, LATER)
    await keep(store, "own", JAN, LATER)
    await keep(store, "own", ELS, LATER)
    await keep(store, "own", Sender("oud@example.nl", "oud@example.nl"), BEFORE)
    return store


async def both_ways(tmp_path: Path, asked: Asked) -> tuple[Any, Any]:
    """What the desk says with a relay and without one."""

    def told(folder: Path, upstreams: tuple[str, ...]) -> Any:
        with open_desk(folder / "admin.sock", lambda: open_store(folder), ROUTES, upstreams) as desk:
            try:
                return asked(desk)
            except (NoSuchEntry, Refused) as error:
                return type(error), str(error)

    running, offline = tmp_path / "running", tmp_path / "offline"
    for folder in (running, offline):
        folder.mkdir()
    store = await filled(running)
    async with answering(running / "admin.sock", store) as house:
        with_relay = await ask(told, running, ())
        with_relay_told = house.senders_told
    await store.close()
    await (await filled(offline)).close()
    without = await ask(told, offline, ("own", "vendor"))
    assert (with_relay_told > 0) == (isinstance(with_relay, dict) and asked is not LIST)
    return with_relay, without


def LIST(desk: Desk) -> Any:
    return desk.get("/v1/senders")


def who(document: dict[str, Any]) -> list[tuple[str, str]]:
    return [(one["upstream"], one["author"]) for one in document["senders"]]


@pytest.mark.asyncio
async def test_the_senders_whose_time_is_not_over_are_listed_by_upstream(tmp_path: Path) -> None:
    running, offline = await both_ways(tmp_path, LIST)
    assert running == offline
    assert who(running) == [("own", "els@example.nl"), ("own", "jan@example.nl"), ("vendor", "jan@example.nl")]
    assert running["senders"][0] == {
        "upstream": "own",
        "reverse_path": "<>",
        "author": "els@example.nl",
        "since": BEFORE.isoformat(),
        "until": LATER.isoformat(),
        "code": 550,
        "status": "5.7.60",
    }


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("asked", "forgotten"),
    [
        (
            lambda desk: desk.post("/v1/senders/forget", senders=["JAN@example.nl"]),
            [("own", "jan@example.nl"), ("vendor", "jan@example.nl")],
        ),
        (
            lambda desk: desk.post("/v1/senders/forget", senders=["jan@example.nl"], upstream="own"),
            [("own", "jan@example.nl")],
        ),
        (lambda desk: desk.post("/v1/senders/forget", senders=["<>"]), [("own", "els@example.nl")]),
        (lambda desk: desk.post("/v1/senders/forget", senders=[], upstream="vendor"), [("vendor", "jan@example.nl")]),
    ],
    ids=["everywhere", "at one", "by reverse-path", "all of one"],
)
async def test_senders_are_forgotten(tmp_path: Path, asked: Asked, forgotten: list[tuple[str, str]]) -> None:
    left: list[Any] = []

    def forget_and_list(desk: Desk) -> Any:
        document = asked(desk)
        left.append(who(desk.get("/v1/senders")))
        return document

    for document in await both_ways(tmp_path, forget_and_list):
        assert who(document) == forgotten
    everybody = {("own", "els@example.nl"), ("own", "jan@example.nl"), ("vendor", "jan@example.nl")}
    assert [set(names) for names in left] == [everybody - set(forgotten)] * 2


@pytest.mark.asyncio
async def test_who_is_not_known_cannot_be_forgotten_and_then_nobody_is(tmp_path: Path) -> None:
    answers = await both_ways(
        tmp_path, lambda desk: desk.post("/v1/senders/forget", senders=["jan@example.nl", "piet@example.nl"])
    )
    assert set(answers) == {(NoSuchEntry, '"piet@example.nl" is not known to be refused at any upstream')}


@pytest.mark.asyncio
async def test_a_sender_is_pinned_with_its_own_reverse_path_or_another(tmp_path: Path) -> None:
    for document in await both_ways(
        tmp_path, lambda desk: desk.post("/v1/senders/pin", upstream="own", author="kees@EXAMPLE.nl")
    ):
        (pinned,) = document["senders"]
        assert (pinned["author"], pinned["reverse_path"]) == ("kees@example.nl", "kees@example.nl")
        assert pinned["until"] is None
    (tmp_path / "again").mkdir()
    for document in await both_ways(
        tmp_path / "again", lambda d: d.post("/v1/senders/pin", upstream="own", author="k@x.nl", reverse_path="<>")
    ):
        assert document["senders"][0]["reverse_path"] == "<>"


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        (
            lambda desk: desk.post("/v1/senders/pin", upstream="owm", author="k@x.nl"),
            'there is no upstream "owm" (did you mean "own"?)',
        ),
        (lambda desk: desk.post("/v1/senders/pin", upstream="own", author="kees"), '"kees": not an address'),
    ],
)
async def test_what_cannot_be_pinned_is_a_sentence(tmp_path: Path, asked: Asked, sentence: str) -> None:
    for kind, told in await both_ways(tmp_path, asked):
        assert kind is Refused
        assert told.startswith(sentence)
