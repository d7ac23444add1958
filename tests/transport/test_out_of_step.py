"""Replies that come too early, too many or late: what each does to the message under way, by each way that it leaves.

The upstream here follows the protocol, and says one thing more: where, and what, is a row of the table. It keeps its
own books of what it took. In no cell is a message delivered that it refused, and whatever it took is delivered or in
doubt.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.mail.outcome import Deferred, Delivered, Outcome, Trouble
from relay.transport.port import Delivery
from relay.transport.transaction import SmtpConnection
from tests.kit.certificates import Certificates
from tests.kit.extent import examples
from tests.kit.upstream import KEYWORDS, ScriptedUpstream
from tests.transport.conftest import Run
from tests.transport.parts import MESSAGE, connected, request
from tests.transport.test_transaction import BIG, KEES, PIET

OFFERS = {
    "one by one": tuple(word for word in KEYWORDS if word != "PIPELINING"),
    "pipelined": KEYWORDS,
    "one write": (*KEYWORDS, "CHUNKING"),
}

# Where more is said: behind the reply to MAIL, RCPT, DATA ("data") or the content ("dot"); while the content comes
# ("body"); between two transactions ("idle"); ahead of the reply to the next MAIL ("late").
# What becomes of the message: ok, later (deferred), doubt, fails, gone (it has not begun: the connection is of no use).
# Two words: where the upstream took the message, and where it refused it. A dash: there is no such place.
_GRID = """
              one by one    pipelined     one write
idle 250      gone          gone          gone
idle 354      gone          gone          gone
idle 451      gone          gone          gone
idle 554      gone          gone          gone
idle 421      gone          gone          gone
idle 25       gone          gone          gone
late 250      later         later         doubt
late 354      later         later         doubt/later
late 451      later         later         doubt
late 554      later         later         doubt
mail 250      later         later         doubt
mail 354      later         later         doubt/later
mail 451      later         later         doubt
mail 554      later         later         doubt
mail 421      later         later         later
mail 25       later         later         doubt
rcpt 250      later         later         doubt
rcpt 354      later         later         doubt/later
rcpt 451      later         later         doubt/later
rcpt 554      later         later         doubt/fails
rcpt 421      later         later         later
rcpt 25       later         later         doubt
data 250      later         later         -
data 354      later         later         -
data 451      later         later         -
data 554      later         later         -
data 421      later         later         -
data 25       later         later         -
body 250      later         later         -
body 354      later         later         -
body 451      later         later         -
body 554      fails         fails         -
body 421      later         later         -
body 25       later         later         -
dot 250       ok/doubt      ok/doubt      doubt
dot 354       doubt/fails   doubt/fails   doubt
dot 451       doubt/fails   doubt/fails   doubt/fails
dot 554       doubt/fails   doubt/fails   doubt/fails
dot 421       ok/fails      ok/fails      doubt/fails
dot 25        ok/fails      ok/fails      ok/fails
"""
SAID = {
    "250": b"250 2.0.0 well\r\n",
    "354": b"354 go ahead\r\n",
    "451": b"451 4.3.0 later\r\n",
    "554": b"554 5.3.0 never\r\n",
    "421": b"421 4.3.2 bye\r\n",
    "25": b"25",
}


@dataclass(frozen=True)
class Cell:
    where: str
    said: str
    way: str
    takes: bool
    end: str

    @property
    def id(self) -> str:
        return f"{self.where} {self.said} {self.way} {'took' if self.takes else 'refused'}"


def table() -> list[Cell]:
    cells = []
    head, *rows = _GRID.strip("\n").splitlines()
    starts = [head.index(way) for way in OFFERS]
    for row in rows:
        where, said = row[: starts[0]].split()
        for way, start in zip(OFFERS, starts, strict=True):
            took, _, refused = row[start : start + 14].strip().partition("/")
            if took != "-":
                cells += [Cell(where, said, way, True, took), Cell(where, said, way, False, refused or took)]
    return cells


@dataclass
class Talker:
    """An upstream that says `more` at some places of the conversation (`where`, and the number of the transaction), in
    pieces of `cut` octets."""

    way: str
    takes: bool = True
    more: dict[tuple[str, int], bytes] = field(default_factory=dict)
    cut: int = 0
    taken: list[bytes] = field(default_factory=list)
    read: list[bytes] = field(default_factory=list)  # whole contents
    commands: list[str] = field(default_factory=list)
    transaction: int = 0
    writer: asyncio.StreamWriter | None = None

    async def speak(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        try:
            await self._say(b"220 upstream.example\r\n")
            while line := await reader.readline():
                verb = line.split()[0].upper().decode()
                self.commands.append(verb)
                if verb == "QUIT":
                    break
                await self._answer(verb, line, reader)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _answer(self, verb: str, line: bytes, reader: asyncio.StreamReader) -> None:
        match verb:
            case "EHLO":
                words = ["upstream.example", *OFFERS[self.way]]
                await self._say("".join(f"250{'- '[word is words[-1]]}{word}\r\n" for word in words).encode())
            case "MAIL":
                self.transaction += 1
                await self._say(self._more("late") + b"250 2.1.0 sender\r\n" + self._more("mail"))
            case "RCPT":
                await self._say(b"250 2.1.5 recipient\r\n" + self._more("rcpt"))
            case "DATA":
                await self._say(b"354 go ahead\r\n" + self._more("data"))
                await self._end(await self._content(reader))
            case "BDAT":
                await self._end(await reader.readexactly(int(line.split()[1])))
            case _:
                await self._say(b"250 2.0.0 well\r\n")

    async def _content(self, reader: asyncio.StreamReader) -> bytes:
        first = await reader.readline()
        await self._say(self._more("body"))
        return first + (await reader.readuntil(b"\r\n.\r\n"))[:-3]

    async def _end(self, content: bytes) -> None:
        self.read.append(content)
        for _ in range(10):  # the other end has time to believe what came so far
            await asyncio.sleep(0)
        good = self.takes or self.transaction < self.last
        if good:
            self.taken.append(content)
        await self._say((b"250 2.0.0 taken\r\n" if good else b"554 5.6.0 refused\r\n") + self._more("dot"))

    @property
    def last(self) -> int:
        """The number of the transaction that it may refuse."""
        return max((number for _, number in self.more), default=1)

    def _more(self, where: str) -> bytes:
        return self.more.pop((where, self.transaction), b"")

    async def _say(self, text: bytes) -> None:
        assert self.writer is not None
        for start in range(0, len(text), self.cut or len(text) or 1):
            self.writer.write(text[start : start + (self.cut or len(text))])
            if self.cut:
                await asyncio.sleep(0)
        if b"421 " in text:  # who says so goes
            self.writer.close()
            raise ConnectionError


Play = Callable[[SmtpConnection], Awaitable[None]]


async def talk(talker: Talker, play: Play, certificates: Certificates | None = None) -> None:
    context: ssl.SSLContext | None = None if certificates is None else certificates.good.server()
    server = await asyncio.start_server(talker.speak, "127.0.0.1", limit=2**26, ssl=context)
    async with server:
        at = ScriptedUpstream(tls="none" if certificates is None else "implicit")  # never started: only to say where
        at.port = server.sockets[0].getsockname()[1]
        connection = await connected(at, tls_ca=certificates.ca_path if certificates else None)
        try:
            await play(connection)
        finally:
            connection.abort()
            while talker.writer is not None and not talker.writer.is_closing():
                await asyncio.sleep(0)


def word(outcome: Outcome) -> str:
    if isinstance(outcome, Deferred):
        return "doubt" if outcome.in_doubt else "later"
    return "ok" if isinstance(outcome, Delivered) else "fails"


async def nothing_more(talker: Talker, connection: SmtpConnection) -> None:
    """The connection is of no use: what is tried over it has not begun, and the upstream gets nothing of it."""
    while connection.usable:
        await asyncio.sleep(0)
    before = list(talker.commands)
    (outcome,) = (await connection.deliver(request(KEES))).outcomes
    assert isinstance(outcome, Deferred)
    assert (outcome.trouble, outcome.in_doubt) == (Trouble.DROPPED, False)
    assert talker.commands == before


async def meet(cell: Cell, certificates: Certificates | None = None) -> None:
    number = 2 if cell.where == "late" else 1
    more = {} if cell.where == "idle" else {(cell.where, number): SAID[cell.said]}
    talker = Talker(cell.way, cell.takes, more)

    async def play(connection: SmtpConnection) -> None:
        if cell.where in ("idle", "late"):
            delivery = await connection.deliver(request(PIET, at_once=True))
            assert isinstance(delivery.outcomes[0], Delivered) is (cell.takes or cell.where == "late")
        if cell.where == "idle":
            assert talker.writer is not None
            assert connection.usable
            talker.writer.write(SAID[cell.said])
        if cell.end != "gone":
            sent = BIG if cell.where == "body" else MESSAGE
            before = len(talker.taken)
            (outcome,) = (await connection.deliver(request(PIET, at_once=True, message=sent))).outcomes
            assert word(outcome) == cell.end
            took = len(talker.taken) > before
            assert not (isinstance(outcome, Delivered) and not took)
            assert not took or cell.end in ("ok", "doubt")
            assert cell.end != "doubt" or talker.read
        await nothing_more(talker, connection)

    await talk(talker, play, certificates)


@pytest.mark.parametrize("cell", table(), ids=lambda cell: cell.id)
def test_a_reply_that_nobody_asked_for_delivers_nothing_and_ends_the_connection(run: Run, cell: Cell) -> None:
    run(meet(cell))


@pytest.mark.parametrize(
    "cell",
    [
        cell
        for cell in table()
        if f"{cell.where} {cell.said}" in ("idle 250", "late 250", "rcpt 250", "data 250", "dot 554")
    ],
    ids=lambda cell: cell.id,
)
def test_it_is_the_same_over_tls(run: Run, certificates: Certificates, cell: Cell) -> None:
    run(meet(cell, certificates))


@pytest.mark.parametrize("way", OFFERS)
def test_replies_that_come_octet_by_octet_count_as_they_are(run: Run, way: str) -> None:
    talker = Talker(way, cut=1)

    async def play(connection: SmtpConnection) -> None:
        for _ in range(3):
            delivery = await connection.deliver(request(PIET, KEES, at_once=True))
            assert [word(outcome) for outcome in delivery.outcomes] == ["ok", "ok"]
        assert connection.usable

    run(talk(talker, play))
    assert talker.taken == [MESSAGE] * 3


@pytest.mark.parametrize("takes", [True, False])
@pytest.mark.parametrize("way", OFFERS)
def test_an_upstream_that_says_everything_twice_delivers_nothing(run: Run, way: str, takes: bool) -> None:
    said = {"mail": b"250 2.1.0 sender\r\n", "rcpt": b"250 2.1.5 recipient\r\n", "data": b"354 go ahead\r\n"}
    talker = Talker(way, takes, {(where, 1): again for where, again in said.items()})

    async def play(connection: SmtpConnection) -> None:
        delivery = await connection.deliver(request(PIET, KEES, at_once=True))
        assert [word(outcome) for outcome in delivery.outcomes] == ["doubt" if way == "one write" else "later"] * 2
        await nothing_more(talker, connection)

    run(talk(talker, play))


@pytest.mark.parametrize("way", ["one by one", "pipelined"])
def test_a_yes_that_was_there_before_the_message_left_is_no_answer_to_it(run: Run, way: str) -> None:
    """It comes in a packet of its own behind the 354, before the message is written."""
    talker = Talker(way, takes=False)

    async def play(connection: SmtpConnection) -> None:
        lies_here = connection._something_lies_here

        def late() -> bool:
            if connection._stages[-1].value == "data" and connection._replies[-1:] == [b"354 go ahead"]:
                assert talker.writer is not None
                talker.writer.write(b"250 2.0.0 well\r\n")
            return lies_here()

        connection._something_lies_here = late  # type: ignore[method-assign]
        (outcome,) = (await connection.deliver(request(PIET))).outcomes
        assert word(outcome) == "later"
        await nothing_more(talker, connection)

    run(talk(talker, play))
    assert talker.read == []


def test_a_yes_that_cannot_have_seen_the_end_of_the_message_leaves_it_in_doubt(run: Run) -> None:
    """The last of it has left this process, and not arrived over there: a window that is closed holds it back."""
    messages: list[Delivery] = []

    async def scene() -> None:
        async with ScriptedUpstream(receive_buffer=2048) as upstream:
            read = asyncio.Event()

            def answer(session: Any) -> Any:
                session.wire.pause_reading()
                session.writer.write(b"250 2.0.0 well\r\n")
                read.set()
                return b""

            upstream.script("body", answer)
            connection = await connected(upstream)
            message = b"A: b\r\n\r\n" + b"x" * 200_000
            messages.append(await connection.deliver(request(message=message)))
            assert read.is_set()
            assert not connection.usable
            assert upstream.messages == []

    run(scene())
    (outcome,) = messages[0].outcomes
    assert isinstance(outcome, Deferred)
    assert (outcome.text, outcome.in_doubt) == ("the upstream answered before the content was complete", True)


MORE = st.dictionaries(
    st.tuples(st.sampled_from(["late", "mail", "rcpt", "data", "dot"]), st.integers(1, 3)),
    st.lists(st.sampled_from(sorted(SAID)), min_size=1, max_size=2).map(
        lambda said: b"".join(SAID[one] for one in said)
    ),
    max_size=2,
)


@examples(150)
@given(
    way=st.sampled_from(sorted(OFFERS)),
    takes=st.lists(st.booleans(), min_size=3, max_size=3),
    more=MORE,
    cut=st.integers(0, 9),
    recipients=st.integers(1, 3),
)
def test_whatever_is_said_where_nothing_is_delivered_that_was_not_taken(
    way: str, takes: list[bool], more: dict[tuple[str, int], bytes], cut: int, recipients: int
) -> None:
    talker = Law(way, more=more, cut=cut, will=takes)

    async def play(connection: SmtpConnection) -> None:
        for number in range(3):
            message = MESSAGE + b"%d\r\n" % number
            names = [f"r{one}@example.org" for one in range(recipients)]
            outcomes = (await connection.deliver(request(*names, message=message, at_once=True))).outcomes
            if any(isinstance(outcome, Delivered) for outcome in outcomes):
                assert message in talker.taken
            if any(isinstance(outcome, Deferred) and outcome.in_doubt for outcome in outcomes):
                assert way == "one write" or talker.read

    asyncio.run(talk(talker, play))


@dataclass
class Law(Talker):
    """Takes what it `will`, message by message."""

    will: list[bool] = field(default_factory=list)

    async def _end(self, content: bytes) -> None:
        self.takes = self.will[self.transaction - 1]
        await super()._end(content)

    @property
    def last(self) -> int:
        return 0
