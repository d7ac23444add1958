"""The operator's desk: the same documents and the same errors, whether a relay runs or not."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from relay.admin import queue
from relay.admin.desk import Desk, at_socket, open_desk
from relay.admin.errors import AmbiguousId, NoSuchEntry, NoSuchRoute, NotPossible, Refused
from relay.errors import RelayError, StoreUnavailable
from relay.queue.listing import Acted, Place, Wanted
from relay.queue.sqlite.start import SqliteStore
from tests.admin.house import ROUTES, answering, ask, get, open_store
from tests.admin.places import put
from tests.queue.mail import NOON, an_entry

Asked = Callable[[Desk], Any]
LIST, FIND, ACT, BACKUP = "/v1/queue", "/v1/queue/find", "/v1/queue/act", "/v1/queue/backup"


def show(desk: Desk, prefix: str) -> Any:
    return desk.get(f"/v1/queue/{queue.prefix_of(prefix)}")


def backup(desk: Desk, file: Path) -> Any:
    [document] = desk.stream(BACKUP, file=str(file))
    return document


def offline(folder: Path, asked: Asked) -> Any:
    with open_desk(folder / "admin.sock", lambda: open_store(folder), ROUTES, ()) as desk:
        assert not desk.running
        return asked(desk)


def running(folder: Path, asked: Asked) -> Any:
    def never() -> Any:
        raise AssertionError("a relay runs: the store is its own")

    with open_desk(folder / "admin.sock", never, (), ()) as desk:
        assert desk.running
        return asked(desk)


async def filled(folder: Path) -> None:
    store = await open_store(folder)
    for number, place in enumerate((Place.PENDING, Place.DEFERRED, Place.HELD, Place.FINISHED)):
        store = await put(folder, store, an_entry("piet@example.com", "büro@example.com", name=f"7QK{number}"), place)
    await store.close()


QUESTIONS: dict[str, Asked] = {
    "list": lambda desk: desk.get(LIST),
    "a page": lambda desk: desk.get(LIST, after=1, limit=1),
    "held": lambda desk: desk.get(LIST, state="held", route="default", to="*@example.com", **{"from": "jan@*"}),
    "since": lambda desk: desk.get(LIST, since=NOON.isoformat()),
    "beyond ascii": lambda desk: desk.get(LIST, to="büro@*"),
    "find": lambda desk: desk.get(FIND, limit=2),
    "find finished": lambda desk: desk.get(FIND, state="finished"),
    "show": lambda desk: show(desk, "7qk1"),
    "show finished": lambda desk: show(desk, "7QK3"),
}


@pytest.mark.asyncio
@pytest.mark.parametrize("question", QUESTIONS.values(), ids=QUESTIONS)
async def test_the_answer_is_the_same_with_and_without_a_relay(folder: Path, question: Asked) -> None:
    await filled(folder)
    without = await ask(offline, folder, question)
    store = await open_store(folder)
    async with answering(folder / "admin.sock", store):
        assert await ask(running, folder, question) == without
    await store.close()
    assert without["version"] == 1
    assert without.get("entries") != []


ERRORS: dict[str, tuple[Asked, type[RelayError], str]] = {
    "unknown": (lambda desk: show(desk, "9"), NoSuchEntry, 'has an ID that begins with "9"'),
    "a word": (lambda desk: show(desk, "find"), NoSuchEntry, 'begins with "find"'),
    "empty": (lambda desk: show(desk, " "), Refused, "an ID cannot be empty"),
    "no id": (lambda desk: show(desk, "a/b é%"), NoSuchEntry, "has an ID that begins with"),
    "ambiguous": (lambda desk: show(desk, "7QK"), AmbiguousId, "7QK0, 7QK1"),
    "acting on nothing": (lambda desk: desk.post(ACT, verb="hold", ids=[]), Refused, "hold needs an ID"),
    "acting on the unknown": (lambda desk: desk.post(ACT, verb="hold", ids=["7QK0", "9"]), NoSuchEntry, "begins with"),
    "acting on several": (lambda desk: desk.post(ACT, verb="hold", ids=["7QK"]), AmbiguousId, "more than one"),
    "no such route": (lambda desk: desk.post(ACT, verb="reroute", ids=["7QK0"], route="arc"), NoSuchRoute, '"archive"'),
    "no route": (lambda desk: desk.post(ACT, verb="reroute", ids=["7QK0"]), Refused, "needs the name of a route"),
    "no route for all": (
        lambda desk: [*desk.stream(ACT, verb="reroute", all={}, route="x")],
        NoSuchRoute,
        "known: archive, default, session-codes",
    ),
    "finished": (lambda desk: [*desk.stream(ACT, verb="hold", all={"state": "finished"})], Refused, "finished"),
    "unprintable": (lambda desk: desk.get(LIST, to="\x00"), Refused, "cannot be printed"),
    "too long": (lambda desk: desk.get(FIND, to="a" * 400), Refused, "to is too long"),
    "too many": (lambda desk: desk.get(LIST, limit=10_001), Refused, "from 1 to 10000"),
    "a relative path": (lambda desk: [*desk.stream(BACKUP, file="copy.db")], Refused, "absolute path"),
    "a file that exists": (lambda desk: [*desk.stream(BACKUP, file="/dev/null")], NotPossible, "/dev/null"),
}


@pytest.mark.asyncio
@pytest.mark.parametrize(("question", "kind", "text"), ERRORS.values(), ids=ERRORS)
async def test_what_cannot_be_is_the_same_with_and_without_a_relay(
    folder: Path, question: Asked, kind: type[RelayError], text: str
) -> None:
    await filled(folder)
    with pytest.raises(kind) as without:
        await ask(offline, folder, question)
    store = await open_store(folder)
    async with answering(folder / "admin.sock", store):
        with pytest.raises(kind) as with_one:
            await ask(running, folder, question)
        page = await queue.list_(store, Wanted())
    await store.close()
    assert type(without.value) is type(with_one.value) is kind
    assert str(without.value) == str(with_one.value)
    assert text in str(with_one.value)
    assert [one.place for one in page.entries] == [Place.PENDING, Place.DEFERRED, Place.HELD]


@pytest.mark.asyncio
async def test_a_backup_can_be_made_with_and_without_a_relay(folder: Path) -> None:
    await filled(folder)
    offline_file, running_file = folder / "offline.db", folder / "running.db"
    without = await ask(offline, folder, lambda desk: backup(desk, offline_file))
    store = await open_store(folder)
    async with answering(folder / "admin.sock", store):
        with_one = await ask(running, folder, lambda desk: backup(desk, running_file))
    await store.close()
    assert (without["backup"]["entries"], without["backup"]["file"]) == (3, str(offline_file))
    assert (with_one["backup"]["entries"], with_one["backup"]["file"]) == (3, str(running_file))
    assert offline_file.exists()
    assert running_file.exists()


@pytest.mark.asyncio
async def test_a_queue_that_another_process_holds_is_named_with_that_process(folder: Path) -> None:
    store = await open_store(folder)
    with pytest.raises(RelayError) as wrong:
        await ask(offline, folder, lambda desk: desk.get(LIST))
    await store.close()
    assert f"nobody answers on {folder}/admin.sock" in str(wrong.value)
    assert "is held by process " in str(wrong.value)


@pytest.mark.asyncio
async def test_the_queue_is_free_again_when_the_desk_is_closed(folder: Path) -> None:
    class Interrupted(Exception):
        pass

    def interrupted(desk: Desk) -> None:
        desk.get(LIST)
        raise Interrupted

    with pytest.raises(Interrupted):
        await ask(offline, folder, interrupted)
    store = await open_store(folder)
    await store.close()


@pytest.mark.asyncio
async def test_a_socket_that_is_not_ours_to_use_is_no_reason_to_open_the_queue(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(self: socket.socket, address: object) -> None:
        raise PermissionError

    monkeypatch.setattr(socket.socket, "connect", denied)  # the tests may run as root, whom nothing is denied
    with pytest.raises(RelayError, match="permission denied"):
        running(folder, lambda desk: None)


# A relay that fails in the middle


class Failing:
    """A store that acts once, and then not any more."""

    def __init__(self, store: SqliteStore, then: Callable[[], None]) -> None:
        self._store = store
        self._then = then
        self._acts = 0
        self.list, self.find, self.match = store.list, store.find, store.match

    async def act(self, *arguments: Any, **named: Any) -> Sequence[Acted]:
        self._acts += 1
        if self._acts > 1:
            self._then()
        return await self._store.act(*arguments, **named)


async def half_done(folder: Path, monkeypatch: pytest.MonkeyPatch, then: Callable[[], None]) -> RelayError:
    """All of four are held, two at once, and `then` comes in between: what the desk says after the first two."""
    monkeypatch.setattr(queue, "PAGE", 2)
    store = await open_store(folder)
    for _ in range(4):
        await store.put(an_entry(), leased=False)
    told: list[Any] = []

    def everything() -> None:
        for document in at_socket(folder / "admin.sock").stream(ACT, verb="hold", all={}):
            told.append(document)

    async with answering(folder / "admin.sock", Failing(store, then)):  # type: ignore[arg-type]
        with pytest.raises(RelayError) as wrong:
            await ask(everything)
    assert [document["progress"]["of"] for document in told] == [2]
    assert len(await store.list(Wanted(place=Place.HELD))) == 2
    await store.close()
    return wrong.value


@pytest.mark.asyncio
async def test_a_store_that_fails_in_the_middle_is_told_after_what_was_done(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full() -> None:
        raise StoreUnavailable("full", "queue.db: the disk is full")

    error = await half_done(folder, monkeypatch, full)
    assert isinstance(error, StoreUnavailable)
    assert str(error) == "queue.db: the disk is full"


@pytest.mark.asyncio
async def test_a_bug_in_the_middle_ends_the_answer_without_a_traceback(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def bug() -> None:
        raise LookupError("secret detail")

    error = await half_done(folder, monkeypatch, bug)
    assert "secret detail" not in str(error)
    assert "Error handling request" in caplog.text


@pytest.mark.asyncio
async def test_a_command_that_is_interrupted_leaves_done_what_is_done_and_no_noise(
    folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "PAGE", 1)
    store = await open_store(folder)
    for _ in range(50):
        await store.put(an_entry(), leased=False)
    path = folder / "admin.sock"

    def first() -> Any:
        documents = at_socket(path).stream(ACT, verb="hold", all={})
        document = next(documents)
        documents.close()  # type: ignore[attr-defined]
        return document

    async with answering(path, store):
        assert (await ask(first))["progress"]["of"] == 1
        assert (await ask(get, path, "/v1/queue?limit=1"))[0] == 200
    await store.close()
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


# Somebody else behind the socket


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (b"", "no answer"),
        (b"220 relay.example.nl ESMTP\r\n", "no answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "the relay's answer is no document of ours"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]", "the relay's answer is no document of ours"),
        (b'HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"version": 1', "no answer"),
        (b'HTTP/1.1 500 -\r\nContent-Length: 27\r\n\r\n{"version":1,"error":"what"}', "no document of ours"),
    ],
    ids=["silence", "smtp", "text", "a list", "half", "cut"],
)
async def test_an_answer_that_is_none_is_told_in_a_sentence(folder: Path, answer: bytes, sentence: str) -> None:
    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()
        await writer.wait_closed()

    path = folder / "admin.sock"
    server = await asyncio.start_unix_server(respond, str(path))
    with pytest.raises(RelayError, match=sentence) as wrong:
        await ask(at_socket(path).get, LIST)
    server.close()
    await server.wait_closed()
    assert "\n" not in str(wrong.value)


@pytest.mark.asyncio
async def test_a_relay_that_goes_away_between_two_pages_is_told(folder: Path) -> None:
    line = json.dumps({"version": 1, "progress": {"of": 1, "counts": {}}}).encode() + b"\n"

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await reader.readuntil(b'"hold"')  # the body comes after the head
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + line)
        writer.close()
        await writer.wait_closed()

    path = folder / "admin.sock"
    server = await asyncio.start_unix_server(respond, str(path))
    with pytest.raises(RelayError, match="the relay went away in the middle: what was reported is done"):
        await ask(lambda: [*at_socket(path).stream(ACT, verb="hold", all={})])
    server.close()
    await server.wait_closed()
