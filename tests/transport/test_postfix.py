"""A real Postfix as the next hop: a message in one write with its envelope is what it would be by DATA."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from relay.mail.address import Address
from relay.mail.outcome import Deferred, Delivered, Failed, Stage
from relay.transport.transaction import SmtpConnection
from tests.kit.house import free_port
from tests.kit.postfix import MISSING, postfix
from tests.kit.upstream import ScriptedUpstream
from tests.transport.parts import connected, request
from tests.transport.test_transaction import PIET, _Recording, words

BODIES = {
    "empty": b"",
    "a dot": b".",
    "dots": b"..\r\n.\r\n...\r\n.a\r\n",
    "an end of data": b"hello\r\n.\r\nRSET\r\n",
    "no line end": b"hello",
    "a CR at the end": b"hello\r",
    "8-bit": "één\r\n".encode() + b"\xff\xfe\x80\r\n",
    "NUL": b"a\0b\r\n",
    "large": b"".join(b"%d %b\r\n" % (number, b"." * 60) for number in range(3000)),
}


class ToPostfix:
    """A connection that keeps what was written to it."""

    def __init__(self, connection: SmtpConnection) -> None:
        self.connection = connection
        self.writes: list[bytes] = []
        connection._transport = _Recording(connection._transport, self.writes)  # type: ignore[assignment]

    async def send(self, *recipients: str, subject: str = "factuur", body: bytes = b"", **more: Any) -> tuple[Any, ...]:
        head = b"From: jan@example.nl\r\nSubject: %b\r\n\r\n" % subject.encode()
        self.writes.clear()
        delivery = await self.connection.deliver(request(*recipients, message=head + body, **more))
        assert delivery.sick is None
        return delivery.outcomes

    @property
    def at_once(self) -> bool:
        """The last message left in one write."""
        return len(self.writes) == 1 and b" LAST\r\n" in self.writes[0]


async def to(port: int) -> ToPostfix:
    next_hop = ScriptedUpstream()  # never started: only to say where
    next_hop.port = port
    return ToPostfix(await connected(next_hop))


@pytest.mark.skipif(MISSING != "", reason=MISSING)
def test_postfix_takes_a_message_in_one_write_as_it_would_by_data() -> None:
    async def main() -> None:
        async with sink() as beyond:
            line = await to(port)
            for name, body in BODIES.items():
                for at_once in (False, True):
                    subject = f"{name} {at_once}"
                    outcomes = await line.send(subject=subject, body=body, at_once=at_once)
                    assert words(outcomes) == ["Delivered"], outcomes
                    assert line.at_once is at_once
            async with asyncio.timeout(60):
                await beyond.until(lambda: len(beyond.messages) == 2 * len(BODIES))
            arrived = {subject_of(one.content): body_of(one.content) for one in beyond.messages}
            for name, body in BODIES.items():
                assert arrived[f"{name} True"] == arrived[f"{name} False"], name
                if name not in ("empty", "a CR at the end"):  # Postfix has its own line ends
                    assert arrived[f"{name} True"] == body + b"\r\n" * (not body.endswith(b"\r\n")), name
            await refusals(line, beyond)
            await line.connection.close()

    def sink() -> ScriptedUpstream:
        upstream = ScriptedUpstream()
        upstream.port = sink_port
        return upstream

    sink_port = free_port()
    with postfix(sink_port) as port:
        asyncio.run(main())


async def refusals(line: ToPostfix, beyond: ScriptedUpstream) -> None:
    """Whatever it refuses of such a message, it goes on with the next one on the same connection."""
    unknown, grey = "unknown@example.org", "grey@example.org"
    blocked = Address.of("blocked@example.nl")
    before = len(beyond.messages)

    async def and_goes_on(*outcomes: object) -> None:
        assert line.at_once
        nonlocal before
        (taken,) = await line.send(at_once=True)  # RSET goes ahead, and this one step by step
        assert isinstance(taken, Delivered)
        assert line.writes[0].startswith(b"RSET\r\nMAIL")
        before += 1

    (no_sender,) = await line.send(reverse_path=blocked, at_once=True)
    assert isinstance(no_sender, Failed)
    assert (no_sender.stage, no_sender.reply.status) == (Stage.MAIL, "5.7.1")
    await and_goes_on()
    nobody, later = await line.send(unknown, grey, at_once=True)
    assert isinstance(nobody, Failed)
    assert (nobody.stage, nobody.reply.status) == (Stage.RCPT, "5.1.1")
    assert isinstance(later, Deferred)
    assert (later.stage, later.in_doubt, later.upstream_sick) == (Stage.RCPT, False, False)
    await and_goes_on()
    (content,) = await line.send(subject="spam!", at_once=True)
    assert isinstance(content, Failed)
    assert (content.stage, content.reply.status) == (Stage.DOT, "5.7.1")
    await and_goes_on()
    nobody, taken, later = await line.send(unknown, PIET, grey, at_once=True)
    assert words((nobody, taken, later)) == ["Failed", "Delivered", "Deferred"]
    assert line.at_once
    async with asyncio.timeout(60):
        await beyond.until(lambda: len(beyond.messages) == before + 1)
    assert all(one.recipients == (PIET,) for one in beyond.messages)


def subject_of(content: bytes) -> str:
    found = re.search(rb"(?m)^Subject: (.*)\r$", content)
    assert found is not None
    return found[1].decode()


def body_of(content: bytes) -> bytes:
    return content.partition(b"\r\n\r\n")[2]
