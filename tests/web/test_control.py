"""The admin socket as HTTP: who asks for what cannot be hears it in one sentence, and never in a traceback."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import stat
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from relay.admin.client import NoRunningRelay, answers
from relay.errors import BadConfig, ConfigError, RelayError, StoreUnavailable
from relay.events import ExceptionCaught
from relay.observe import foreign
from relay.queue.sqlite.start import SqliteStore
from relay.web import control
from tests.admin.house import FakeHouse, answering, ask, get, open_store, post
from tests.queue.mail import Noted


@pytest.fixture
def path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="relay-") as folder:  # a socket needs a short path
        yield Path(folder) / "admin.sock"


@pytest_asyncio.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    store = await open_store(path.parent)
    yield store
    await store.close()


@pytest_asyncio.fixture
async def house(path: Path, store: SqliteStore) -> AsyncIterator[FakeHouse]:
    async with answering(path, store) as house:
        yield house


async def say(path: Path, octets: bytes) -> tuple[int, dict[str, str], Any]:
    """Status, fields and document of the answer to `octets`."""
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(octets)
    async with asyncio.timeout(60):
        answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    fields = dict(line.split(": ", 1) for line in lines)
    return int(first.split()[1]), fields, json.loads(body)


def posting(target: str, body: bytes) -> bytes:
    head = f"POST {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


@pytest.mark.asyncio
async def test_only_owner_and_group_may_use_the_socket(path: Path, house: FakeHouse) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o660


@pytest.mark.asyncio
async def test_status_and_clients_are_told_as_documents(path: Path, house: FakeHouse) -> None:
    status, document = await ask(get, path, "/v1/status")
    assert (status, document["version"], document["status"]["pid"]) == (200, 1, 4711)
    status, document = await ask(get, path, "/v1/clients")
    assert (status, [client["address"] for client in document["clients"]]) == (200, ["192.0.2.7"])


@pytest.mark.asyncio
async def test_a_reload_says_what_needs_a_restart_or_what_is_bad(path: Path, house: FakeHouse) -> None:
    assert await ask(post, path, "/v1/reload") == (200, {"version": 1, "needs_restart": ["queue.store"]})
    house.error = BadConfig([ConfigError("config.yaml:3: routes", "is no mapping")])
    refused = {"version": 1, "problems": ["config.yaml:3: routes: is no mapping"]}
    assert await ask(post, path, "/v1/reload") == (422, refused)
    house.error = RelayError("the relay is stopping")
    assert await ask(post, path, "/v1/reload") == (422, {"version": 1, "problems": ["the relay is stopping"]})


ACT = "/v1/queue/act"


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("target", "body", "sentence"),
    [
        (ACT, {}, "there is no verb that is no word"),
        (ACT, {"verb": "delete", "ids": ["A"]}, 'there is no verb "delete"'),
        (ACT, {"verb": "retry"}, "say which entries: either ids or all"),
        (ACT, {"verb": "retry", "ids": ["A"], "all": {}}, "say which entries: either ids or all"),
        (ACT, {"verb": "retry", "ids": []}, "retry needs an ID"),
        (ACT, {"verb": "retry", "ids": "A"}, "ids must be a list of texts"),
        (ACT, {"verb": "retry", "ids": [7]}, "ids must be a list of texts"),
        (ACT, {"verb": "retry", "ids": ["A"] * 501}, "501 IDs are too many at once: at most 500"),
        (ACT, {"verb": "retry", "ids": [" "]}, "an ID cannot be empty"),
        (ACT, {"verb": "retry", "ids": ["A"], "rout": "x"}, 'there is no "rout" here: only verb, route, ids, all'),
        (ACT, {"verb": "retry", "ids": ["A"], "route": "x"}, "retry takes no route: only reroute does"),
        (ACT, {"verb": "reroute", "ids": ["A"]}, "reroute needs the name of a route (known: archive, default"),
        (ACT, {"verb": "reroute", "ids": ["A"], "route": 7}, "route must be text"),
        (
            ACT,
            {"verb": "reroute", "ids": ["A"], "route": "arcive"},
            'there is no route named "arcive" (did you mean "archive"?)',
        ),
        (ACT, {"verb": "retry", "all": []}, "all must be an object of conditions"),
        (ACT, {"verb": "retry", "all": {"state": "finished"}}, "finished messages are not in the queue any more"),
        (ACT, {"verb": "retry", "all": {"state": "hold"}}, 'there is no state "hold" (did you mean "held"?)'),
        (ACT, ["retry"], "the request must be an object"),
        ("/v1/senders/forget", {"senders": None}, "senders must be a list of texts; an empty one is all of them"),
        ("/v1/senders/forget", {"senders": [], "upstream": 7}, "upstream must be text"),
        ("/v1/senders/pin", {"upstream": "own"}, "author must be text"),
        ("/v1/queue/backup", {}, "file must be text"),
        ("/v1/queue/backup", {"file": "queue.db"}, "the file of a backup needs an absolute path"),
        ("/v1/queue/backup", {"file": "/tmp/a\0b"}, "the name of a backup may have printable characters only"),
    ],
)
async def test_what_cannot_be_done_gets_one_sentence(
    path: Path, house: FakeHouse, target: str, body: Any, sentence: str
) -> None:
    status, document = await ask(post, path, target, body)
    assert status == 422
    assert sentence in document["error"]
    assert set(document) == {"version", "error", "problem"}
    assert house.woken == 0


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("?limit=0", "limit must be a number from 1 to 10000"),
        ("?limit=10001", "limit must be a number from 1 to 10000"),
        ("?limit=many", "limit must be a number"),
        ("?state=stuck", 'there is no state "stuck"'),
        ("?since=2026-03-02", "since must be a time with its offset"),
        ("?sinds=2026-03-02", 'there is no condition "sinds" (did you mean "since"?)'),
        ("?to=a&to=b", "each condition may be given once"),
        ("?to=%00", "to has characters that cannot be printed"),
    ],
)
async def test_what_cannot_be_asked_for_gets_one_sentence(
    path: Path, house: FakeHouse, query: str, sentence: str
) -> None:
    for page in ("/v1/queue", "/v1/queue/find"):
        status, document = await ask(get, path, page + query)
        assert status == 422
        assert sentence in document["error"]
    status, document = await ask(get, path, "/v1/queue?state=finished")
    assert (status, "`relay queue find` has them" in document["error"]) == (422, True)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "body",
    [b"", b"retry", b'{"verb": ', b"\xff\xfe", b"[" * 60_000, b"7", b"null"],
    ids=["nothing", "a word", "half", "no text", "deep", "a number", "null"],
)
async def test_a_request_that_is_no_json_object_is_refused(path: Path, house: FakeHouse, body: bytes) -> None:
    status, _, document = await say(path, posting(ACT, body))
    assert status == 422
    assert document["error"].startswith("the request ")


@pytest.mark.asyncio
async def test_a_request_that_is_too_long_is_refused(path: Path, house: FakeHouse) -> None:
    status, document = await ask(post, path, ACT, {"verb": "retry", "ids": ["A" * 70_000]})
    assert (status, document["error"]) == (422, "the request is too long: at most 65536 octets")


@pytest.mark.asyncio
async def test_there_are_no_other_pages_and_no_other_ways(path: Path, house: FakeHouse) -> None:
    for method, target, expected in (
        ("GET", "/", 404),
        ("GET", "/v2/status", 404),
        ("GET", "/v1/queue/A/B", 404),
        ("POST", "/v1/queue/A", 404),
        ("GET", "/v1/queue/later", 404),
        ("GET", "/v1/queue/act", 405),
        ("POST", "/v1/status", 405),
        ("DELETE", "/v1/queue", 405),
        ("GET", "/v1/reload", 405),
    ):
        status, fields, document = await say(
            path, f"{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
        )
        assert (method, target, status) == (method, target, expected)
        assert document["problem"] == "no-such-page"
        assert fields["Server"] == "relay"


@pytest.mark.asyncio
async def test_what_is_not_http_is_refused_without_noise(
    path: Path, house: FakeHouse, caplog: pytest.LogCaptureFixture
) -> None:
    status, fields, document = await say(path, b"EHLO localhost\r\n\r\n")
    assert (status, document["error"]) == (400, "this is not a request we understand")
    assert fields["Server"] == "relay"
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.asyncio
@pytest.mark.parametrize("target", ["/v1/status", "/v1/queue", "/v1/queue/find", "/v1/queue/7QK3"])
async def test_a_store_that_cannot_answer_is_503(path: Path, house: FakeHouse, target: str) -> None:
    house.error = StoreUnavailable("io", "queue.db: disk I/O error")
    status, document = await ask(get, path, target)
    assert status == 503
    assert document == {"version": 1, "error": "queue.db: disk I/O error", "problem": "store-unavailable"}


@pytest.mark.asyncio
async def test_a_bug_is_500_without_details_and_an_event_and_the_relay_goes_on(path: Path, house: FakeHouse) -> None:
    noted = Noted()
    seen = asyncio.Event()
    noted.follow = lambda _: seen.set()
    end = foreign.listen(noted, asyncio.get_running_loop())
    try:
        house.error = LookupError("secret detail")
        status, document = await ask(get, path, "/v1/status")
        async with asyncio.timeout(60):
            await seen.wait()
    finally:
        end()
    assert status == 500
    sentence = "an unexpected error; the log of the relay has it"
    assert document == {"version": 1, "error": sentence, "problem": "bug"}
    (caught,) = noted.of(ExceptionCaught)
    assert isinstance(caught, ExceptionCaught)
    assert caught.component == "web"
    assert "LookupError" in caught.traceback
    house.error = None
    assert (await ask(get, path, "/v1/status"))[0] == 200


@pytest.mark.asyncio
async def test_closing_ends_what_is_under_way_and_removes_the_socket(path: Path, store: SqliteStore) -> None:
    house = FakeHouse(store)
    server = await control.start(path, house)
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(posting(ACT, b"{}")[:-1])  # the rest never comes
    assert (await ask(get, path, "/v1/status"))[0] == 200
    async with asyncio.timeout(60):
        await server.close()
        assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()
    assert not path.exists()
    assert not await ask(answers, path)
    with pytest.raises(NoRunningRelay, match="no relay is running behind"):
        await ask(get, path, "/v1/status")


@pytest.mark.asyncio
async def test_silent_peers_keep_no_command_from_the_relay(path: Path, house: FakeHouse) -> None:
    silent = [await asyncio.open_unix_connection(str(path)) for _ in range(100)]
    assert (await ask(get, path, "/v1/status"))[0] == 200
    for _, writer in silent:
        writer.transport.abort()
    await asyncio.gather(*(writer.wait_closed() for _, writer in silent), return_exceptions=True)


@pytest.mark.asyncio
async def test_the_socket_of_a_dead_relay_is_replaced_and_that_of_a_living_one_stays(
    path: Path, store: SqliteStore
) -> None:
    async with answering(path, store):
        with pytest.raises(OSError, match="in use"):
            await control.start(path, FakeHouse(store))
        assert (await ask(get, path, "/v1/status"))[0] == 200
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert not await ask(answers, path)
    async with answering(path, store):
        assert (await ask(get, path, "/v1/status"))[0] == 200


@pytest.mark.asyncio
async def test_a_file_that_is_no_socket_is_left_alone(path: Path, store: SqliteStore) -> None:
    path.write_text("precious")
    with pytest.raises(OSError, match="in use"):
        await control.start(path, FakeHouse(store))
    assert path.read_text() == "precious"
