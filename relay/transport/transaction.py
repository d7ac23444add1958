"""One mail transaction after another over an open connection: MAIL, RCPT, DATA, content, dot.

The connection was opened, secured and authenticated elsewhere (`smtp`); this protocol takes over
its transport. What it promises:

- One outcome for each recipient, whatever the upstream or the network does.
- The stage is known at every moment. A connection that ends before the whole content, dot included,
  has left this process leaves nothing in doubt; one that ends later, without a complete reply, does.
- A reply counts for the command that it answers. What was there before that command left, or before its last octet had
  arrived over there, answers something else; so does one too many. Then nothing that was said in the transaction holds,
  and the connection is given up. A goodbye (421) may come at any time, and takes back nothing.
- A connection given up is reset (`abort`): what lies in our buffers or the kernel's never arrives.
- A 421, a broken line and whatever is not SMTP leave no connection to go on with (`Delivery.sick`).

Where PIPELINING is offered, the envelope and DATA go out in one write (RFC 2920), and a message of up to
256 KiB in memory (16 KiB over TLS) in another; else one command at a time. Longer ones go in pieces, at the upstream's
pace. Where CHUNKING is offered as well, such a message goes in one write with its envelope (`chunking`), if whoever
sends it bears that (`DeliveryRequest.at_once`): any reply that is missing then leaves it in doubt, unless one that came
rules out that it was taken. That is so for MAIL refused, all recipients refused, and a 421 instead of a yes.
Where the message may go by another way instead (`port.Gate`), that is asked right before the content, and before
DATA as well if the other way is under way already: what was called off before DATA costs no connection.
Content is sent as it is, unless the upstream cannot take it so (`reencode`).
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from functools import lru_cache
from typing import cast

from relay.mail.outcome import Deferred, Delivered, Failed, Outcome, Stage, Trouble
from relay.mail.reply import Reply
from relay.transport.chunking import FRESH, Chunking, answers_hello, in_one_write
from relay.transport.commands import WHOLE, commands, reports
from relay.transport.kernel import unacknowledged, unread
from relay.transport.offers import Offers
from relay.transport.port import CALLED_OFF, PIECE, Delivery, DeliveryRequest
from relay.transport.reencode import acceptable, goes_as_it_is
from relay.transport.replies import ReplyReader, code_of, reply_of
from relay.transport.stuffing import START, end_of_data, stuff
from relay.values import frozen

# Over TLS the layer below may hold a whole write unseen; content beyond this goes piece by piece,
# so that it stays known whether the dot has left.
WHOLE_OVER_TLS = 16 * 1024
LOOKS = 4
AT_ONCE = 50  # replies that are read in one turn
GOODBYE = 1.0  # seconds for the answer to QUIT
REFRESH = 5.0  # seconds for the answer to NOOP
_RSET = b"RSET\r\n"
_DATA = b"DATA\r\n"
_TOO_EARLY = "the upstream answered before the content was complete"
_TOO_MANY = "the upstream sent more replies than it got commands"
_RESET = struct.pack("ii", 1, 0)


@frozen
class SmtpTimeouts:
    """Seconds. `greeting` is for banner, EHLO, STARTTLS, TLS and AUTH each; `progress`: no octet could be sent."""

    connect: float
    greeting: float
    command: float
    data: float
    progress: float
    final: float


class SmtpConnection(asyncio.Protocol):
    """An open connection (`port.Connection`).

    `transport` is what to write to; `wire` the transport next to the socket (the same without TLS). `offers` is what
    was answered to the line `hello`.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        wire: asyncio.Transport,
        sock: socket.socket,
        offers: Offers,
        hello: bytes,
        timeouts: SmtpTimeouts,
        chunking: Chunking,
    ) -> None:
        self._transport = transport
        self._wire = wire
        self._sock = sock
        self._offers = offers
        self._hello = hello
        self._timeouts = timeouts
        self._chunking = chunking
        self._loop = asyncio.get_running_loop()
        self._whole = WHOLE if transport is wire else WHOLE_OVER_TLS
        # Paused is to mean: something has not left this process. (TLS transports pause at "not less than".)
        wire.set_write_buffer_limits(0)
        if transport is not wire:
            transport.set_write_buffer_limits(1, 0)
        self._usable = True
        self._lost = self._loop.create_future()
        self._tell_of_loss: Callable[[], None] = lambda: None
        self._reader = ReplyReader()
        self._clock = _Clock(self._loop, self._look)
        self._paused = False
        self._drained: asyncio.Future[None] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._replies: list[bytes] = []
        self._stages: tuple[Stage, ...] = ()
        self._heard = self._loop.time()
        self._early = False  # the answer to the message came before the message can have been there
        self._astray = False  # what the upstream said cannot be told apart: none of it holds
        self._unfinished = False  # the upstream holds an envelope of ours: RSET goes ahead of the next
        self._patience: float | None = None
        self._in_content = False
        self._dot_written = False
        self._unsent = 0
        self._still = 0  # looks in a row that saw nothing move
        self._sick: Deferred | None = None

    @property
    def usable(self) -> bool:
        """False once closed, broken, told 421, or after anything came unasked."""
        return self._usable

    @property
    def well(self) -> bool:
        """False once the upstream broke off a transaction."""
        return self._sick is None

    @property
    def heard_at(self) -> float:
        """When the upstream last said something, by the loop's clock."""
        return self._heard

    @property
    def past_dot(self) -> bool:
        """True while a message is out and its answer is not in."""
        return self._waiter is not None and self._in_content and self._dot_written

    async def deliver(self, request: DeliveryRequest) -> Delivery:
        """One transaction. Raises only OSError, where the content cannot be read; the connection is aborted then."""
        assert self._waiter is None, "one transaction at a time"
        if goes_as_it_is(request, self._offers):
            return await self._transact(request)
        try:
            fitting = await acceptable(request, self._offers)
        except BaseException:
            self.abort()
            raise
        if isinstance(fitting, Reply):
            return _unable(request, fitting)
        return fitting.whole(await self._transact(fitting.request))

    async def _transact(self, request: DeliveryRequest) -> Delivery:
        lines = commands(request, self._offers)
        if isinstance(lines, Reply):
            return _unable(request, lines)
        self._sick = None
        self._early = self._astray = False
        self._stages = (Stage.MAIL,)
        self._replies = []
        if not self._usable:
            self._break(Trouble.DROPPED, "the connection was closed before the transaction")
        self._patience = None if request.patience is None else self._loop.time() + request.patience
        try:
            if self._offers.pipelining:
                if self._may_go_at_once(request):
                    data = in_one_write(lines, request, self._hello)
                    if data is not None and len(data) <= self._whole:
                        return await self._at_once(request, data)
                return await self._pipelined(request, lines)
            return await self._step_by_step(request, lines)
        except BaseException:
            self.abort()
            raise
        finally:
            self._rest()

    async def refresh(self) -> bool:
        """NOOP. Whatever answers is there, also who does not know it; what does not answer in 5 s is aborted."""
        assert self._waiter is None, "one command at a time"
        self._sick = None
        self._patience = self._loop.time() + REFRESH
        try:
            return bool(await self._ask(b"NOOP\r\n", (Stage.MAIL,)))
        except BaseException:
            self.abort()
            raise
        finally:
            self._rest()

    async def ask_sender(self, address: str) -> Reply:
        """What the upstream says to MAIL from `address`; RSET is behind it. Raises ConnectionError."""
        assert self._waiter is None, "one transaction at a time"
        self._sick = self._patience = None
        try:
            replies = await self._ask(b"MAIL FROM:<%b>\r\n" % address.encode(), (Stage.MAIL,))
            if self._sick is not None:
                if self._sick.reply is not None:
                    return self._sick.reply
                raise ConnectionError(self._sick.text)
            said = reply_of(replies[0])
            await self._ask(_RSET, (Stage.MAIL,))
            return said
        except BaseException:
            self.abort()
            raise
        finally:
            self._rest()

    def when_lost(self, tell: Callable[[], None]) -> None:
        """`tell` is called once the connection has gone."""
        self._tell_of_loss = tell

    async def close(self) -> None:
        """QUIT, a second at most for the answer, then the connection is gone. Never raises."""
        if self._usable and self._waiter is None:
            waiter = self._expect((Stage.MAIL,))
            self._usable = False
            self._transport.write(b"QUIT\r\n")
            try:
                await asyncio.wait((waiter, self._lost), timeout=GOODBYE, return_when=asyncio.FIRST_COMPLETED)
            finally:
                self._transport.abort()
        else:
            self.abort()
        await asyncio.wait((self._lost,), timeout=GOODBYE)

    def abort(self) -> None:
        """Reset the connection: nothing that lies in a buffer arrives. Never raises."""
        self._usable = False
        if not self._lost.done():
            try:
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            except OSError:
                pass  # closed already
            self._transport.abort()
            self._wire.abort()

    # The transaction

    async def _pipelined(self, request: DeliveryRequest, lines: list[bytes]) -> Delivery:
        rset, self._unfinished = self._unfinished, False
        if rset:
            lines.insert(0, _RSET)
        apart = request.gate is not None and request.gate.contested
        stages = _stages(len(request.recipients), rset)
        if apart:
            replies = await self._ask(b"".join(lines), stages[:-1])
        else:
            lines.append(_DATA)
            replies = await self._ask(b"".join(lines), stages)
        if rset and replies and not self._reset_is_good(replies.pop(0)):
            replies = []
        elif apart:
            replies += await self._ask_for_data(request, replies)
        return await self._judge(request, replies)

    async def _step_by_step(self, request: DeliveryRequest, lines: list[bytes]) -> Delivery:
        rset, self._unfinished = self._unfinished, False
        if rset:
            answer = await self._ask(_RSET, (Stage.MAIL,))
            if not answer or not self._reset_is_good(answer[0]):
                return await self._judge(request, [])
        replies = await self._ask(lines[0], (Stage.MAIL,))
        if replies and _positive(replies[0]):
            for line in lines[1:]:
                replies += await self._ask(line, (Stage.RCPT,))
            replies += await self._ask_for_data(request, replies)
        return await self._judge(request, replies)

    def _may_go_at_once(self, request: DeliveryRequest) -> bool:
        """A gate, patience and RSET all want an answer before the content; so does an upstream that may have gone."""
        return (
            request.at_once
            and self._offers.chunking
            and self._chunking.in_use
            and request.size <= self._whole
            and request.content.in_memory
            and request.gate is None
            and request.patience is None
            and not self._unfinished
            and self._loop.time() - self._heard < FRESH
            and self._sick is None
        )

    async def _at_once(self, request: DeliveryRequest, data: bytes) -> Delivery:
        """Envelope, content and EHLO in one write, then the replies; `data` is all of it."""
        await self._take_in()
        waiter = self._expect(_at_once(len(request.recipients)))
        if self._sick is None:
            self._in_content = True
            self._write_end(data)
            self._restart_clock()
            await waiter
        envelope = len(request.recipients) + 1
        outcomes = await self._of_envelope(request, self._replies[:envelope])
        if len(self._replies) > envelope:
            self._judge_chunk(request, outcomes, *self._replies[envelope:])
        elif self._sick is not None and self._sick.reply is None and self._dot_written and not self._chunking.proven:
            self._chunking.give_up("a message that was sent by BDAT was not answered, and none was taken before")
        return self._delivery(outcomes, self._replies)

    def _judge_chunk(
        self, request: DeliveryRequest, outcomes: list[Outcome | None], answer: bytes, hello: bytes | None = None
    ) -> None:
        """What the reply to BDAT means for those recipients that were taken; others have their outcome.

        `hello` is the reply to EHLO; None where it was not waited for, or did not come (`_sick`).
        """
        yes, wanted = _positive(answer), None in outcomes
        astray = hello is not None and not answers_hello(hello)
        if astray or self._early:
            self.abort()
        if self._astray:
            return
        self._unfinished = not (yes and wanted)  # until RSET (RFC 3030, section 2)
        if why := self._distrust(answer, hello):
            self._chunking.give_up(f"a message that was sent by BDAT {why}")
            self._lose_step(_TOO_MANY)
        elif yes and wanted and self._sick is None:
            self._chunking.proven = True
            taken = Delivered(reply_of(answer), reports(request, self._offers))
            outcomes[:] = [outcome or taken for outcome in outcomes]
        elif not yes and wanted:
            final = self._refused(Stage.DOT, answer)
            if answer.startswith(b"50"):
                # It speaks of the command, and never of a message: MAIL and a recipient were taken.
                text = f"answered BDAT with {code_of(answer)}"
                self._chunking.give_up(f"it offered CHUNKING, and {text}")
                self.abort()
                final = Deferred(Stage.DOT, Trouble.TRANSIENT, f"the upstream {text}")
            outcomes[:] = [outcome or final for outcome in outcomes]
        if astray:
            self._chunking.give_up("it read a message that it had refused as commands")

    def _distrust(self, answer: bytes, hello: bytes | None) -> str:
        """Why the reply to BDAT cannot be believed; "" where it can."""
        yes = _positive(answer)
        if yes and self._early:
            return "was answered before it had left whole"
        if hello is None and yes and self._sick is not None:
            gone = self._sick.reply is not None or not self._chunking.proven
            return "was answered, and EHLO behind it was not" if gone else ""
        if hello is None or answers_hello(hello):
            return ""
        if _negative(hello):
            # Behind a refusal, it is the message that is refused line by line.
            return "was answered, with a refusal behind that" if yes else ""
        return "had more answers than commands"

    async def _ask_for_data(self, request: DeliveryRequest, replies: list[bytes]) -> list[bytes]:
        """The reply to DATA; none where nobody would receive it, or it was called off."""
        if self._sick is not None or not replies or not _positive(replies[0]) or not any(map(_positive, replies[1:])):
            return []
        if request.gate is not None and request.gate.contested and not await request.gate():
            return []
        return await self._ask(_DATA, (Stage.DATA,))

    async def _judge(self, request: DeliveryRequest, replies: list[bytes]) -> Delivery:
        """The outcomes that follow from the replies to the envelope; sends the content if it is wanted.

            Fewer replies than recipients + 2: the line broke (`_sick`), there was no sense in going on, or it was
        called off.
        """
        count = len(request.recipients)
        outcomes = await self._of_envelope(request, replies)
        if not replies:
            return self._delivery(outcomes, replies)
        answer = replies[count + 1] if len(replies) == count + 2 else None
        wanted = None in outcomes
        if self._sick is not None or answer is None:
            self._unfinished = _positive(replies[0])
            if self._sick is None:
                outcomes = [outcome or CALLED_OFF for outcome in outcomes]
        elif not answer.startswith(b"3"):
            self._unfinished = _positive(replies[0])
            refusal = self._refused(Stage.DATA, answer)
            if wanted:
                outcomes = [outcome or refusal for outcome in outcomes]
        elif not wanted:
            # DATA was taken with nobody to receive: a lone dot, and a refusal for it (RFC 2920, section 3.1).
            await self._ask(b".\r\n", (Stage.DOT,))
        elif request.gate is not None and not await request.gate():
            self.abort()  # there is no other way back from here
            outcomes = [outcome or CALLED_OFF for outcome in outcomes]
        else:
            await self._send(request)
            if self._sick is None:
                final = self._after_content(request, self._replies[0])
                outcomes = [outcome or final for outcome in outcomes]
        return self._delivery(outcomes, replies)

    async def _of_envelope(self, request: DeliveryRequest, replies: list[bytes]) -> list[Outcome | None]:
        """What the replies to MAIL and RCPT made of each recipient so far; None: nothing yet."""
        count = len(request.recipients)
        if replies and not _positive(replies[0]):
            return [self._refused(Stage.MAIL, replies[0])] * count
        outcomes: list[Outcome | None] = []
        for raw in replies[1 : count + 1]:
            outcomes.append(None if _positive(raw) else self._refused(Stage.RCPT, raw))
            if len(outcomes) % AT_ONCE == 0:
                await asyncio.sleep(0)  # other connections have their turn
        return outcomes + [None] * (count - len(outcomes))

    def _after_content(self, request: DeliveryRequest, raw: bytes) -> Outcome | None:
        if self._taken_back(raw):
            self._lose_step(_TOO_MANY)
            return None
        if self._early:
            # Refused in mid-content: there is no way back to commands but a new connection.
            if not _negative(raw):
                self._lose_step(_TOO_EARLY)
                return None
            self.abort()
            return self._refused(self._stage_of_content(), raw)
        if _positive(raw):
            return Delivered(reply_of(raw), reports(request, self._offers))
        return self._refused(Stage.DOT, raw)

    def _taken_back(self, raw: bytes) -> bool:
        """Whether what came behind the answer to a message says otherwise: which of them is meant, nobody knows."""
        surplus = self._reader.surplus
        return bool(surplus) and any(_positive(more) is not _positive(raw) and not _goodbye(more) for more in surplus)

    def _refused(self, stage: Stage, raw: bytes) -> Outcome | None:
        """What a reply other than the one hoped for means; None, and `_sick`, where it means nothing."""
        if raw.startswith(b"5"):
            return Failed(stage, reply_of(raw))
        if raw.startswith(b"4"):
            reply = reply_of(raw)
            return Deferred(stage, Trouble.TRANSIENT, reply.text, reply)
        self._break(Trouble.TRANSIENT, f"the upstream answered {stage} with a code that makes no sense", at=stage)
        self._astray = True
        return None

    def _reset_is_good(self, raw: bytes) -> bool:
        if not _positive(raw):
            self._break(Trouble.TRANSIENT, "the upstream refused RSET", at=Stage.MAIL)
        return _positive(raw)

    def _delivery(self, outcomes: list[Outcome | None], replies: list[bytes]) -> Delivery:
        """`replies` are those to the envelope."""
        sick = self._sick
        if sick is None:
            return Delivery(cast("tuple[Outcome, ...]", tuple(outcomes)))
        if self._astray and self._stages[0] is not Stage.DOT:  # once there was a 354, all before it was in step
            return Delivery((sick,) * len(outcomes), sick)
        taken = sum(map(_positive, replies[1 : len(outcomes) + 1]))
        return Delivery(tuple(outcome or sick for outcome in outcomes), sick, taken=taken)

    # The content

    async def _send(self, request: DeliveryRequest) -> None:
        """Send the content, then wait for the reply: `_replies[0]`, unless `_sick`."""
        if self._something_lies_here():
            await self._take_in()
        self._in_content = True
        waiter = self._expect(_DOT)
        if self._sick is not None:
            return
        content = request.content
        if content.in_memory and request.size <= self._whole:
            data = request.head + content.read(request.body_offset, content.size)
            self._write_end(stuff(data, START) + end_of_data(data[-2:] if data else START))
        else:
            before = await self._send_pieces(request, waiter)
            await self._take_in()
            if not self._reader.clean:
                self._lose_step(_TOO_EARLY)
            if waiter.done():
                return
            self._write_end(end_of_data(before))
        self._begin_clock(Stage.DOT)
        await waiter

    async def _send_pieces(self, request: DeliveryRequest, waiter: asyncio.Future[None]) -> bytes:
        """Send all but the end, at most a piece ahead of the upstream; returns the last two octets.

        Stops early when `waiter` is done: a reply came, or the line broke.
        """
        content = request.content
        before, offset, piece = START, request.body_offset, request.head
        while True:
            if piece:
                self._transport.write(stuff(piece, before))
                before = (before + piece)[-2:]
                self._restart_clock()
            if offset >= content.size:
                break
            if content.in_memory:
                piece = content.read(offset, PIECE)
                await asyncio.sleep(0)  # other connections have their turn
            else:
                piece = await asyncio.to_thread(content.read, offset, PIECE)
            if not piece:
                raise OSError(f"the content of {request.queue_id} ends before its size")
            offset += len(piece)
            if waiter.done():
                return before
            await self._drain()
            if waiter.done():
                return before
        return before

    async def _drain(self) -> None:
        """Until all that was written has left this process, or there is no sense in waiting."""
        if self._paused:
            self._drained = self._loop.create_future()
            try:
                await self._drained
            finally:
                self._drained = None

    def _write_end(self, data: bytes) -> None:
        self._transport.write(data)
        # A write that fails at once closes the transport: then the dot has not left.
        self._dot_written = not self._wire.is_closing()

    # Round trips

    async def _ask(self, data: bytes, stages: tuple[Stage, ...]) -> list[bytes]:
        """Write, and wait for one reply for each stage. Fewer come back when the line broke (`_sick`)."""
        if self._sick is None and self._something_lies_here():
            await self._take_in()
        if self._sick is None:
            waiter = self._expect(stages)
            if self._sick is None:
                self._transport.write(data)
                self._begin_clock(stages[0])
                await waiter
        else:
            self._replies = []
        return self._replies

    def _expect(self, stages: tuple[Stage, ...]) -> asyncio.Future[None]:
        self._stages = stages
        self._replies = []
        self._waiter = self._loop.create_future()
        if self._usable:
            self._reader.owed += len(stages)
        else:
            self._break(Trouble.DROPPED, "the upstream closed the connection")
        return self._waiter

    def _something_lies_here(self) -> bool:
        """Whether something came and was not read: it cannot be the answer to what is to be written next."""
        return self._usable and unread(self._sock) > 0

    async def _take_in(self) -> None:
        """Read what lies here."""
        while self._something_lies_here():  # noqa: ASYNC110  # the loop reads
            await asyncio.sleep(0)

    def _rest(self) -> None:
        """Nothing is under way."""
        self._waiter = None
        self._clock.deadline = None
        self._in_content = self._dot_written = False

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    def _stage(self) -> Stage:
        if self._in_content and (self._paused or not self._dot_written):
            return self._stage_of_content()
        return self._stages[min(len(self._replies), len(self._stages) - 1)]

    def _stage_of_content(self) -> Stage:
        if self._dot_written and not self._paused:
            return Stage.DOT
        # A write that failed at once sent nothing: with its envelope, a message has not begun then.
        return Stage.BODY if self._paused or self._stages[0] is Stage.DOT else Stage.MAIL

    def _lose_step(self, text: str) -> None:
        """What was said cannot be told apart: nobody knows what became of the message, if it has left."""
        self._astray = True
        self._break(Trouble.TRANSIENT, text)

    def _break(self, trouble: Trouble, text: str, *, at: Stage | None = None, reply: Reply | None = None) -> None:
        """The connection is of no more use; whoever has no outcome yet is deferred."""
        if self._sick is None:
            stage = at or self._stage()
            in_doubt = (reply is None or self._answered) and self._may_have_been_taken()
            self._sick = Deferred(stage, trouble, text, reply, in_doubt=in_doubt, upstream_sick=True)
        self.abort()
        self._wake()

    def _may_have_been_taken(self) -> bool:
        """Whether the end of the message has left, and no reply rules out that it was taken."""
        if not (self._in_content and self._dot_written) or self._paused:
            return False
        if self._astray:
            return True
        said = list(zip(self._stages, self._replies, strict=False))
        if any(_negative(raw) for stage, raw in said if stage is not Stage.RCPT):
            return False
        refused = [raw for stage, raw in said if stage is Stage.RCPT and _negative(raw)]
        return not refused or len(refused) < self._stages.count(Stage.RCPT)

    # What the network does

    def data_received(self, data: bytes) -> None:
        self._heard = self._loop.time()
        reader = self._reader
        placed = reader.answers(data)
        if self._waiter is None:  # between transactions: a goodbye, or out of step
            self.abort()
            return
        for raw in placed:
            if raw[:3] == b"421":
                reply = reply_of(raw)
                self._break(Trouble.TRANSIENT, reply.text, reply=reply)
                return
            self._replies.append(raw)
            if self._in_content and not self._early and self._answered:
                self._early = self._is_early()
        if not reader.in_step:
            self._too_much()
        elif reader.owed == 0 or self._early:
            self._wake()
        elif reader.broken is not None and self._answered:
            self._too_much()
        elif reader.broken is not None:
            self._break(Trouble.TRANSIENT, f"the upstream does not speak SMTP: {reader.broken}")
        elif placed:
            self._restart_clock()

    @property
    def _answered(self) -> bool:
        """Whether the answer to the message is here."""
        return self._in_content and len(self._replies) > self._stages.index(Stage.DOT)

    def _is_early(self) -> bool:
        """Whether something of the message is not yet over there. The segment that brings an answer acknowledges what
        was read before it, so that nothing is left then; what leaves behind the message is EHLO at most."""
        behind = len(self._hello) if len(self._stages) > 1 else 0
        return not self._dot_written or self._octets_unsent() > behind

    def _too_much(self) -> None:
        """More came than was asked for. With the answer to a message it is seen what it means for that; nothing else
        can be relied on."""
        surplus = self._reader.surplus
        if self._in_content:
            self.abort()
            self._wake()
        elif surplus and _goodbye(surplus[0]):
            reply = reply_of(surplus[0])
            self._break(Trouble.TRANSIENT, reply.text, reply=reply)
        else:
            self._lose_step(_TOO_MANY)

    def eof_received(self) -> bool:
        self._gone("the upstream closed the connection")
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone("the connection to the upstream broke" if exc else "the upstream closed the connection")
        self._clock.stop()
        if not self._lost.done():
            self._lost.set_result(None)
            self._tell_of_loss()

    def _gone(self, text: str) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._break(Trouble.DROPPED, text)
        self.abort()

    def pause_writing(self) -> None:
        self._paused = True
        self._restart_clock()

    def resume_writing(self) -> None:
        self._paused = False
        self._restart_clock()
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    # Time

    def _begin_clock(self, stage: Stage) -> None:
        """All was written for that stage: the time for it begins."""
        if self._paused or not self._usable:
            self._restart_clock()
        else:
            self._still = 0
            self._set_clock(stage)

    def _restart_clock(self) -> None:
        """Something moved: the time for the next step begins."""
        if self._waiter is None or self._waiter.done():
            return
        self._still = 0
        self._unsent = self._octets_unsent() if self._paused else 0
        self._set_clock(self._stage())

    def _set_clock(self, stage: Stage) -> None:
        allowed = self._time_allowed(stage)
        # Octets leave without anybody telling: while they should, look more often than once.
        deadline = self._loop.time() + (allowed / LOOKS if stage is Stage.BODY else allowed)
        if self._patience is not None and not self._in_content:
            deadline = min(deadline, self._patience)
        self._clock.set(deadline)

    def _time_allowed(self, stage: Stage) -> float:
        if stage is Stage.DOT:
            return self._timeouts.final
        if stage is Stage.BODY:
            return self._timeouts.progress
        return self._timeouts.data if stage is Stage.DATA else self._timeouts.command

    def _octets_unsent(self) -> int:
        # The kernel asks for more only when a good part of its buffer is free: a slow reader takes long to bring that
        # about.
        unsent = self._wire.get_write_buffer_size() + unacknowledged(self._sock)
        return unsent if self._transport is self._wire else unsent + self._transport.get_write_buffer_size()

    def _look(self) -> None:
        """The deadline is there."""
        if self._waiter is None or self._waiter.done():
            return
        stage = self._stage()
        if stage is Stage.BODY:
            if not self._paused or self._octets_unsent() < self._unsent:
                self._restart_clock()
                return
            self._still += 1
            if self._still < LOOKS:
                self._set_clock(stage)
                return
            text = f"the upstream took nothing for {self._timeouts.progress:g} s"
        elif self._patience is not None and not self._in_content and self._loop.time() + 0.002 >= self._patience:
            text = f"the upstream was not ready for the message in time (it was at {stage})"
        else:
            text = f"the upstream did not answer {stage} within {self._time_allowed(stage):g} s"
        self._break(Trouble.TIMEOUT, text)


class _Clock:
    """One deadline that moves often and is met seldom: the timer behind it is set anew only when it must be."""

    __slots__ = ("_at", "_loop", "_ring", "_timer", "deadline")

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> None:
        self._loop = loop
        self._ring = ring
        self._timer: asyncio.TimerHandle | None = None
        self._at = 0.0
        self.deadline: float | None = None

    def set(self, deadline: float) -> None:
        self.deadline = deadline
        if self._timer is None:
            self._arm(deadline)
        elif self._at > deadline:
            self._timer.cancel()
            self._arm(deadline)

    def stop(self) -> None:
        self.deadline = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self, at: float) -> None:
        self._at = at
        self._timer = self._loop.call_at(at, self._rang)

    def _rang(self) -> None:
        self._timer = None
        if self.deadline is not None:
            if self._loop.time() + 0.002 < self.deadline:  # a loop's clock may be that coarse
                self._arm(self.deadline)
            else:
                self._ring()


def _unable(request: DeliveryRequest, reply: Reply) -> Delivery:
    return Delivery((Failed(Stage.MAIL, reply, unasked=True),) * len(request.recipients))


_DOT = (Stage.DOT,)


@lru_cache(maxsize=256)
def _stages(recipients: int, rset: bool) -> tuple[Stage, ...]:
    start = (Stage.MAIL, Stage.MAIL) if rset else (Stage.MAIL,)
    return (*start, *[Stage.RCPT] * recipients, Stage.DATA)


@lru_cache(maxsize=256)
def _at_once(recipients: int) -> tuple[Stage, ...]:
    return (Stage.MAIL, *[Stage.RCPT] * recipients, Stage.DOT, Stage.DOT)


def _goodbye(raw: bytes) -> bool:
    return raw.startswith(b"421")


def _negative(raw: bytes) -> bool:
    return raw[0] in b"45"


def _positive(raw: bytes) -> bool:
    return raw[0] == 0x32  # "2": any 2xx (RFC 5321, section 4.3.2)
