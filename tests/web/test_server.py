"""What the HTTP server answers, and what strange, slow and silent peers may cost it. Over real sockets."""

from __future__ import annotations

import asyncio
import logging
import socket
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import ClassVar

import pytest
import pytest_asyncio

from relay.web.server import Limits, Request, Response, Server, TooLong, _Connection, serve
from tests.ingress.house import on_both_loops

CLOSE = b"Connection: close\r\n"
LARGE = bytes(16 * 1024 * 1024)  # more than the kernel keeps for a peer that does not read


def plainly(status: int, sentence: str) -> Response:
    return Response(status, "text/plain", sentence.encode())


SOON = 0.3  # seconds for what will not come; on a busy machine all that comes before it takes some of them


async def echo(request: Request) -> Response:
    """What was asked, or what the path says."""
    match request.path:
        case "/body":
            try:
                return plainly(200, f"<{(await request.body()).decode()}>")
            except TooLong as error:
                return plainly(413, str(error))
        case "/large":
            return Response(200, "text/plain", LARGE)
        case "/lines":
            return Response(200, "text/plain", lines())
        case "/broken":
            return Response(200, "text/plain", broken())
        case "/later":
            for _ in range(5):
                await asyncio.sleep(0)
            return plainly(200, "later")
        case "/never":
            return plainly(405, "never")
        case "/bug":
            raise LookupError("secret detail")
        case _:
            return plainly(200, f"<{request.method} {request.path} {dict(request.query)}>")


async def lines() -> AsyncGenerator[bytes, None]:
    for number in range(3):
        yield b"%d\n" % number


async def broken() -> AsyncGenerator[bytes, None]:
    yield b"0\n"
    raise LookupError("secret detail")


class Peer:
    """A client that says octets, and reads until it sees them or the end."""

    all: ClassVar[list[Peer]] = []

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.all.append(self)

    @classmethod
    async def at(cls, server: Server, host: str = "127.0.0.1") -> Peer:
        return cls(*await asyncio.open_connection("127.0.0.1", server.port, local_addr=(host, 0)))

    def say(self, octets: bytes) -> Peer:
        self.writer.write(octets)
        return self

    async def until(self, octets: bytes) -> bytes:
        async with asyncio.timeout(60):
            return await self.reader.readuntil(octets)

    async def end(self) -> bytes:
        """All until the server closes, or the connection breaks."""
        received = bytearray()
        try:
            async with asyncio.timeout(60):
                while octets := await self.reader.read(65536):
                    received += octets
        except ConnectionError:
            pass
        self.writer.transport.abort()
        return bytes(received)


@pytest_asyncio.fixture(autouse=True)
async def _nobody_stays() -> AsyncIterator[None]:
    yield
    for peer in Peer.all:
        peer.writer.transport.abort()
    await asyncio.gather(*(peer.writer.wait_closed() for peer in Peer.all), return_exceptions=True)
    Peer.all.clear()


@asynccontextmanager
async def serving(
    answer=echo, *, known: Callable[[str], bool] = lambda _: True, **limits: float
) -> AsyncIterator[Server]:  # type: ignore[no-untyped-def]
    server = await serve(("127.0.0.1", 0), answer, plainly, known=known, limits=Limits(**limits))  # type: ignore[arg-type]
    try:
        yield server
    finally:
        await server.close()


async def said(octets: bytes, **limits: float) -> bytes:
    """All that a server answers to `octets` until it closes."""
    async with serving(**limits) as server:
        return await (await Peer.at(server)).say(octets).end()


def asking(target: str, *, method: str = "GET", version: str = "1.1", fields: bytes = b"") -> bytes:
    return f"{method} {target} HTTP/{version}\r\nHost: x\r\n".encode() + fields + b"\r\n"


def status(answer: bytes) -> int:
    return int(answer.split()[1])


def body(answer: bytes) -> bytes:
    return answer.partition(b"\r\n\r\n")[2]


# What is asked


@pytest.mark.asyncio
async def test_path_and_query_are_decoded() -> None:
    answer = await said(asking("/a%20b?to=a%2Bb&since=&to=c", fields=CLOSE))
    assert body(answer) == b"<GET /a b {'to': 'c', 'since': ''}>"


@pytest.mark.asyncio
@pytest.mark.parametrize("target", ["http://x/a?b=c", "HTTP://x:80/a?b=c"])
async def test_a_target_may_be_a_whole_url(target: str) -> None:
    assert body(await said(asking(target, fields=CLOSE))) == b"<GET /a {'b': 'c'}>"


@pytest.mark.asyncio
@pytest.mark.parametrize("method", ["CONNECT", "OPTIONS", "TRACE"])
async def test_other_methods_are_requests_as_well(method: str) -> None:
    assert status(await said(asking("/never", method=method, fields=CLOSE))) == 405


@pytest.mark.asyncio
async def test_who_wants_another_protocol_gets_http() -> None:
    fields = b"Connection: Upgrade\r\nUpgrade: h2c\r\n"
    assert status(await said(asking("/a", fields=fields))) == 200


@pytest.mark.asyncio
async def test_a_body_comes_as_it_was_sent_in_one_piece_or_in_chunks() -> None:
    whole = asking("/body", method="POST", fields=CLOSE + b"Content-Length: 5\r\n") + b"12345"
    assert body(await said(whole)) == b"<12345>"
    chunks = asking("/body", method="POST", fields=CLOSE + b"Transfer-Encoding: chunked\r\n")
    assert body(await said(chunks + b"2\r\n12\r\n3;x=y\r\n345\r\n0\r\nTrailer: x\r\n\r\n")) == b"<12345>"
    assert body(await said(asking("/body", method="POST", fields=CLOSE))) == b"<>"


@pytest.mark.asyncio
async def test_who_waits_for_it_is_told_to_go_on_before_the_body() -> None:
    async with serving() as server:
        peer = await Peer.at(server)
        peer.say(asking("/body", method="POST", fields=b"Expect: 100-continue\r\nContent-Length: 5\r\n" + CLOSE))
        assert (await peer.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
        assert body(await peer.say(b"12345").end()) == b"<12345>"


@pytest.mark.asyncio
async def test_who_waits_with_a_body_that_nobody_wants_or_that_is_too_long_is_not_told_to_go_on() -> None:
    fields = b"Expect: 100-continue\r\nContent-Length: 70000\r\n"
    assert status(await said(asking("/body", method="POST", fields=fields))) == 413
    assert status(await said(asking("/a", method="POST", fields=fields))) == 200


# What is answered


@pytest.mark.asyncio
async def test_a_connection_serves_one_request_after_another() -> None:
    async with serving() as server:
        peer = await Peer.at(server)
        for number in range(20):
            await peer.say(asking(f"/{number}")).until(f"<GET /{number} {{}}>".encode())
        await peer.say(asking("/body", method="POST", fields=b"Content-Length: 1\r\n") + b"x").until(b"<x>")
        assert b"Connection: close" in await peer.say(asking("/a", fields=CLOSE)).end()


@pytest.mark.asyncio
async def test_requests_that_come_at_once_are_answered_in_order() -> None:
    octets = b"".join(asking(f"/{number}") for number in range(1000)) + asking("/last", fields=CLOSE)
    answer = await said(octets)
    assert [line.split()[1] for line in answer.split(b"<")[1:1001]] == [b"/%d" % number for number in range(1000)]
    assert answer.endswith(b"<GET /last {}>")


@pytest.mark.asyncio
async def test_each_of_requests_that_come_at_once_leaves_a_turn_to_others() -> None:
    turn, answered_at = 0, []

    async def count() -> None:
        nonlocal turn
        while True:
            turn += 1
            await asyncio.sleep(0)

    async def answer(_: Request) -> Response:
        answered_at.append(turn)
        return plainly(200, "")

    counting = asyncio.create_task(count())
    async with serving(answer) as server:
        await (await Peer.at(server)).say(asking("/") * 99 + asking("/", fields=CLOSE)).end()
    counting.cancel()
    assert len(set(answered_at)) == 100


@pytest.mark.asyncio
async def test_who_sends_a_body_that_nobody_wants_can_send_all_of_it_and_read_the_answer() -> None:
    def sends_all(port: int) -> bytes:
        with socket.create_connection(("127.0.0.1", port)) as peer:
            peer.sendall(asking("/body", method="POST", fields=b"Content-Length: 80000\r\n"))
            answer = peer.recv(65536)
            for _ in range(20):
                peer.sendall(bytes(4000))
            return answer

    async with serving(lingering=30.0) as server:
        assert status(await asyncio.to_thread(sends_all, server.port)) == 413


@pytest.mark.asyncio
async def test_after_a_body_that_nobody_wanted_the_connection_ends_unless_it_was_there_already() -> None:
    post = asking("/a", method="POST", fields=b"Content-Length: 5\r\n")
    assert b"Connection: close" in await said(post + b"1234")
    answer = await said(post + b"12345" + asking("/b", fields=CLOSE))
    assert answer.endswith(b"<GET /b {}>")


@pytest.mark.asyncio
async def test_head_is_answered_as_get_without_a_body() -> None:
    get, head = [(await said(asking("/large", method=method, fields=CLOSE))) for method in ("GET", "HEAD")]
    assert (body(get), body(head)) == (LARGE, b"")
    assert [line for line in head.splitlines() if not line.startswith(b"Date")] == [
        line for line in get.partition(LARGE)[0].splitlines() if not line.startswith(b"Date")
    ]
    answer = await said(asking("/lines", method="HEAD", fields=CLOSE))
    assert (status(answer), body(answer)) == (200, b"")


@pytest.mark.asyncio
async def test_an_answer_in_pieces_leaves_piece_by_piece() -> None:
    gate = asyncio.Semaphore(0)

    async def gated() -> AsyncGenerator[bytes, None]:
        for number in range(3):
            yield b"%d\n" % number
            await gate.acquire()

    async def answer(_: Request) -> Response:
        return Response(200, "text/plain", gated())

    async with serving(answer) as server:
        peer = (await Peer.at(server)).say(asking("/"))
        assert b"Transfer-Encoding: chunked\r\n" in await peer.until(b"\r\n\r\n")
        for number in range(3):
            assert await peer.until(b"\n\r\n") == b"2\r\n%d\n\r\n" % number
            gate.release()
        assert await peer.until(b"\r\n\r\n") == b"0\r\n\r\n"


@pytest.mark.asyncio
async def test_a_peer_of_http_1_0_gets_plain_octets_and_the_end() -> None:
    answer = await said(asking("/lines", version="1.0"))
    assert body(answer) == b"0\n1\n2\n"
    assert b"chunked" not in answer
    assert body(await said(b"GET /a HTTP/1.0\r\n\r\n")) == b"<GET /a {}>"


@pytest.mark.asyncio
async def test_an_answer_that_breaks_off_is_seen_to_be_broken_off(caplog: pytest.LogCaptureFixture) -> None:
    answer = await said(asking("/broken"))
    assert body(answer) == b"2\r\n0\n\r\n"
    assert "Error handling request" in caplog.text


@pytest.mark.asyncio
async def test_a_bug_is_500_and_the_end_of_the_connection(caplog: pytest.LogCaptureFixture) -> None:
    answer = await said(asking("/bug"))
    assert (status(answer), b"secret" in answer) == (500, False)
    assert "Error handling request" in caplog.text


# What is no request


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "octets",
    [
        b"x" * 10_000,
        bytes.fromhex("16030102000100") + bytes(600),
        b"\r\n\r\n",
        b"GET /\r\n\r\n",
        asking("/", fields=b"A b: c\r\n"),
        asking("/", fields=b"Content-Length: -1\r\n"),
        asking("/", fields=b"Content-Length: 1\r\nContent-Length: 2\r\n"),
        asking("/", fields=b"Content-Length: " + b"9" * 30 + b"\r\n"),
        asking("/body", fields=b"Transfer-Encoding: chunked\r\n") + b"no number\r\n",
        asking("/body", fields=b"Transfer-Encoding: chunked\r\n") + b"1" * 10_000,
        asking("/", fields=b"A: " + b"b" * 8200 + b"\r\n"),
        asking("/", fields=b"A: b\r\n" * 32),
        b"GET / HTTP/1.1\r\nA: " + b"b" * 20_000,
        b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 5000,
    ],
    ids=str,
)
async def test_what_is_no_request_gets_400_and_the_end_without_noise(
    octets: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    answer = await said(octets)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"Connection: close" in answer
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.asyncio
@pytest.mark.parametrize("octets", [b"", b"G", asking("/body", fields=b"Content-Length: 5\r\n") + b"12"])
async def test_a_peer_that_goes_away_leaves_nothing_behind(octets: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as server:
        peer = (await Peer.at(server)).say(octets)
        peer.writer.write_eof()
        await peer.end()
        await (await Peer.at(server)).say(octets).writer.drain()
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@on_both_loops
async def test_a_peer_may_go_away_at_any_moment_of_its_answers(caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as server:
        for moment in range(100):
            with socket.create_connection(("127.0.0.1", server.port)) as peer:
                peer.sendall(asking("/later") * 40)
                for _ in range(moment):
                    await asyncio.sleep(0)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


# What peers may cost


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "fields", [b"Content-Length: 99999999999999999999\r\n", b"Transfer-Encoding: chunked\r\n"], ids=["length", "chunks"]
)
async def test_no_more_of_a_body_is_read_than_it_may_have(fields: bytes) -> None:
    octets = asking("/body", method="POST", fields=fields) + (b"1000\r\n" + bytes(4096) + b"\r\n") * 100
    answer = await said(octets)
    assert (status(answer), body(answer)) == (413, b"at most 65536 octets")


@pytest.mark.asyncio
async def test_a_body_that_never_ends_is_waited_for_only_so_long() -> None:
    told = asyncio.Event()

    async def answer(request: Request) -> Response:
        with pytest.raises(TimeoutError):
            await request.body()
        told.set()
        return plainly(422, "never ended")

    async with serving(answer, sending=SOON) as server:
        peer = await Peer.at(server)
        peer.say(asking("/", method="POST", fields=b"Content-Length: 5\r\n") + b"1234")
        assert status(await peer.end()) == 422
    assert told.is_set()


@pytest.mark.asyncio
async def test_a_request_that_never_ends_gets_408_and_a_silent_peer_nothing() -> None:
    assert status(await said(b"GET / HTTP/1.1\r\nHost", silence=SOON)) == 408
    assert await said(b"", silence=SOON) == b""
    answer = await said(asking("/a"), silence=SOON)
    assert (answer.count(b"HTTP/1.1"), answer.endswith(b"<GET /a {}>")) == (1, True)


@pytest.mark.asyncio
async def test_octets_that_trickle_do_not_buy_time() -> None:
    async with serving(silence=SOON, head=1 << 30) as server:
        peer = (await Peer.at(server)).say(b"GET / HTTP/1.1\r\nA: ")

        async def trickle() -> None:
            while True:
                peer.say(b"b")
                await asyncio.sleep(0)

        trickling = asyncio.create_task(trickle())
        assert status(await peer.until(b"\r\n")) == 408
        trickling.cancel()


@pytest.mark.asyncio
async def test_who_does_not_take_an_answer_loses_the_connection() -> None:
    async with serving(taking=SOON) as server:
        peer = (await Peer.at(server)).say(asking("/a"))
        await peer.until(b"<GET /a {}>")
        (connection,) = opened(server)
        peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
        peer.say(asking("/large"))
        await gone(connection)
        peer.writer.transport.resume_reading()  # type: ignore[attr-defined]
        assert len(await peer.end()) < len(LARGE)


@pytest.mark.asyncio
async def test_who_keeps_the_connection_open_after_the_last_answer_loses_it() -> None:
    async with serving(lingering=0.01) as server:
        peer = (await Peer.at(server)).say(asking("/a"))
        await peer.until(b"<GET /a {}>")
        (connection,) = opened(server)
        await peer.say(b"no request\r\n\r\n").until(b"Connection: close")
        await gone(connection)
        await peer.end()


SILENT = b""
HALF = b"GET / HTTP/1.1\r\nHost"
NO_BODY = asking("/body", method="POST", fields=b"Content-Length: 5\r\n")
NEVER_READS = asking("/large")


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "octets", [SILENT, HALF, NO_BODY, NEVER_READS], ids=["silent", "half", "no body", "never reads"]
)
async def test_whoever_waits_makes_room_and_who_asks_gets_through(octets: bytes) -> None:
    async with serving(connections=4) as server:
        peers = []
        for _ in range(4 * 5):
            peers.append((await Peer.at(server)).say(octets))
            peers[-1].writer.transport.pause_reading()  # type: ignore[attr-defined]
            assert await answered(server)
            assert len(opened(server)) <= 4


@pytest.mark.asyncio
async def test_the_one_that_has_asked_for_nothing_for_the_longest_time_makes_room() -> None:
    async with serving(connections=3) as server:
        first, second, third = [await Peer.at(server) for _ in range(3)]
        for peer in (first, second, third, first):
            await peer.say(asking("/a")).until(b"<GET /a {}>")
        assert await answered(server)
        assert await second.end() == b""
        for peer in (first, third):
            await peer.say(asking("/a")).until(b"<GET /a {}>")


@pytest.mark.asyncio
async def test_who_is_being_answered_is_not_put_out_for_a_newcomer() -> None:
    inside, gate = asyncio.Semaphore(0), asyncio.Event()

    async def answer(_: Request) -> Response:
        inside.release()
        await gate.wait()
        return plainly(200, "done")

    async with serving(answer, connections=2) as server:
        peers = [(await Peer.at(server)).say(asking("/", fields=CLOSE)) for _ in range(2)]
        for _ in peers:
            await inside.acquire()
        assert await (await Peer.at(server)).end() == b""
        gate.set()
        assert [body(await peer.end()) for peer in peers] == [b"done", b"done"]


@pytest.mark.asyncio
async def test_a_flood_of_strangers_keeps_nobody_else_away_and_costs_a_few_descriptors() -> None:
    def known(peer: str) -> bool:
        return peer != STRANGER

    async with serving(known=known, connections=2, strangers=3) as server:
        keeps = (await Peer.at(server)).say(asking("/a"))
        await keeps.until(b"<GET /a {}>")
        strangers = []
        for octets in (SILENT, HALF, NO_BODY, NEVER_READS) * 50:
            strangers.append((await Peer.at(server, STRANGER)).say(octets))
            assert len(opened(server)) <= 2 + 3
            if len(strangers) % 20 == 0:
                assert await answered(server)
        await keeps.say(asking("/a")).until(b"<GET /a {}>")  # on the connection that it has had all the time


@pytest.mark.asyncio
async def test_of_peers_that_all_come_at_one_turn_of_the_loop_those_without_a_place_are_closed() -> None:
    async with serving(connections=3) as server:
        peers = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(50)]
        for peer in peers:
            peer.setblocking(False)
        async with asyncio.timeout(60):
            for peer in peers[:-3]:
                assert await asyncio.get_running_loop().sock_recv(peer, 1) == b""
        assert len(opened(server)) == 3
        for peer in peers:
            peer.close()


STRANGER = "127.0.0.2"


def opened(server: Server) -> list[_Connection]:
    return [connection for places in server._open.values() for connection in places]


async def gone(connection: _Connection) -> None:
    async with asyncio.timeout(60):
        await asyncio.wait([connection.task])


async def answered(server: Server) -> bool:
    """Whether a newcomer that asks gets its answer."""
    return body(await (await Peer.at(server)).say(asking("/a", fields=CLOSE)).end()) == b"<GET /a {}>"


# The end


@pytest.mark.asyncio
async def test_a_request_under_way_is_answered_when_the_server_closes() -> None:
    inside, gate = asyncio.Event(), asyncio.Event()

    async def answer(_: Request) -> Response:
        inside.set()
        await gate.wait()
        return plainly(200, "done")

    server = await serve(("127.0.0.1", 0), answer, plainly)
    peer = (await Peer.at(server)).say(asking("/") + asking("/again"))
    await inside.wait()
    closing = asyncio.create_task(server.close())
    await asyncio.sleep(0)
    gate.set()
    answered = await peer.end()
    assert (answered.count(b"HTTP/1.1"), body(answered)) == (1, b"done")
    await closing
    with pytest.raises(ConnectionRefusedError):
        await Peer.at(server)


@pytest.mark.asyncio
async def test_what_makes_pieces_is_closed_when_nobody_reads_any_more() -> None:
    closed = asyncio.Event()

    async def endless() -> AsyncGenerator[bytes, None]:
        try:
            while True:
                yield b"0\n"
        finally:
            closed.set()

    pieces = endless()

    async def answer(_: Request) -> Response:
        return Response(200, "text/plain", pieces)

    async with serving(answer) as server:
        peer = (await Peer.at(server)).say(asking("/"))
        await peer.until(b"0\n")
        peer.writer.transport.abort()
        async with asyncio.timeout(60):
            await closed.wait()


@pytest.mark.asyncio
async def test_a_unix_socket_that_is_bound_is_served_as_well() -> None:
    with tempfile.TemporaryDirectory(prefix="relay-") as folder:  # a socket needs a short path
        path = f"{folder}/socket"
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(path)
        server = await serve(listener, echo, plainly)
        peer = Peer(*await asyncio.open_unix_connection(path))
        assert body(await peer.say(asking("/a", fields=CLOSE)).end()) == b"<GET /a {}>"
        await server.close()
