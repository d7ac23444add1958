"""Ways out that live in memory: each connect and each transaction waits for the test, or is answered by it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from relay.events import Event
from relay.mail.outcome import Deferred, Delivered, Failed, Outcome, Stage, Trouble
from relay.mail.reply import Reply
from relay.transport.port import CALLED_OFF, Delivery, DeliveryRequest

TAKEN = Delivered(Reply(250, "2.0.0", "taken"))
REFUSED = Failed(Stage.RCPT, Reply(550, "5.1.1", "no such user"))
GREYLISTED = Deferred(Stage.RCPT, Trouble.TRANSIENT, "later", Reply(450, "4.7.1", "later"))
DOWN = Deferred(Stage.CONNECT, Trouble.TRANSIENT, "connection refused", upstream_sick=True)
LOCKED_OUT = Deferred(Stage.AUTH, Trouble.PERMANENT, "no", Reply(535, "5.7.8", "no"), upstream_sick=True)
CLOSING = Deferred(Stage.MAIL, Trouble.TRANSIENT, "bye", Reply(421, "4.3.2", "bye"), upstream_sick=True)
STALE = Deferred(Stage.MAIL, Trouble.DROPPED, "the upstream closed the connection", upstream_sick=True)
BROKEN = Deferred(Stage.BODY, Trouble.DROPPED, "the connection broke", upstream_sick=True)
UNABLE = Deferred(Stage.HTTP, Trouble.TRANSIENT, "no", Reply(450, "4.0.503", "no"), upstream_sick=True, retry_after=7.0)
HUNG_UP = Deferred(Stage.HTTP, Trouble.DROPPED, "no answer", in_doubt=True, upstream_sick=True)
NOT_HERE = Failed(Stage.HTTP, Reply(550, "5.0.422", "no"), unasked=True)
IN_DOUBT = Deferred(Stage.DOT, Trouble.DROPPED, "no answer", in_doubt=True, upstream_sick=True)


class Watch:
    """An observer that remembers; `until` waits for whatever a test can see."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._stirred = asyncio.Event()

    def observe(self, event: Event) -> None:
        self.events.append(event)
        self.stir()

    def stir(self) -> None:
        self._stirred.set()

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(60):
            await self.however_long(condition)

    async def however_long(self, condition: Callable[[], object]) -> None:
        """For virtual time, where that may be days."""
        while not condition():
            self._stirred.clear()
            await self._stirred.wait()

    def of(self, kind: type[Event]) -> list[Event]:
        return [event for event in self.events if type(event) is kind]


async def turns(count: int = 20) -> None:
    """Let everything that can go on do so."""
    for _ in range(count):
        await asyncio.sleep(0)


def all_of(request: DeliveryRequest, outcome: Outcome) -> Delivery:
    sick = outcome if isinstance(outcome, Deferred) and outcome.upstream_sick else None
    return Delivery((outcome,) * len(request.recipients), sick)


def _takes_content(answer: Outcome | Delivery) -> bool:
    outcomes = answer.outcomes if isinstance(answer, Delivery) else (answer,)
    return any(isinstance(one, Delivered) or one.stage in (Stage.BODY, Stage.DOT) for one in outcomes)


@dataclass(eq=False)
class Line:
    """A connection (`port.Connection`) of `way`."""

    way: Way
    usable: bool = True
    past_dot: bool = False
    request: DeliveryRequest | None = None
    answer: asyncio.Future[Outcome | Delivery | Exception] | None = None
    told: list[str] = field(default_factory=list)
    refreshed: int = 0
    tell_of_loss: Callable[[], None] = lambda: None

    async def deliver(self, request: DeliveryRequest) -> Delivery:
        assert self.request is None, "one transaction at a time"
        self.request = request
        self.told.append(request.queue_id)
        self.way.requests.append(request)
        self.answer = asyncio.get_running_loop().create_future()
        said = self.way.says(request) if self.usable else STALE
        if said is not None:
            self.answer.set_result(said)
        self.way.watch.stir()
        try:
            outcome = await self.answer
        finally:
            self.request = None
            self.past_dot = False
            self.way.watch.stir()
        if isinstance(outcome, Exception):
            raise outcome
        if _takes_content(outcome) and request.gate is not None and not await request.gate():
            outcome = CALLED_OFF
        delivery = outcome if isinstance(outcome, Delivery) else all_of(request, outcome)
        if delivery.sick is not None:
            self.abort()
        return delivery

    async def ready(self) -> bool:
        """Ready for the message: True when it may be sent this way."""
        assert self.request is not None
        assert self.request.gate is not None
        if await self.request.gate():
            return True
        self.tell(CALLED_OFF)
        return False

    def tell(self, outcome: Outcome | Delivery | Exception) -> None:
        assert self.answer is not None
        self.answer.set_result(outcome)

    async def refresh(self) -> bool:
        self.refreshed += 1
        self.way.watch.stir()
        return self.usable

    def when_lost(self, tell: Callable[[], None]) -> None:
        self.tell_of_loss = tell

    def lose(self) -> None:
        """The other end closes it while it lies idle."""
        self.abort()
        self.tell_of_loss()

    async def close(self) -> None:
        if self.way.goodbye is not None:
            await self.way.goodbye.wait()
        self.abort()

    def abort(self) -> None:
        if self.usable:
            self.usable = False
            self.way.lines.remove(self)
            self.way.watch.stir()
        if self.request is not None and self.answer is not None and not self.answer.done():
            self.answer.set_result(IN_DOUBT if self.past_dot else BROKEN)


class Way:
    """A transport (`port.Transport`). `connects` None: a connect waits in `dials` for the test; else its result,
    or True. `says` answers a transaction, or leaves it to the test with None."""

    size_limit: int | None = None

    def __init__(self, name: str, watch: Watch) -> None:
        self.name = name
        self.watch = watch
        self.connects: Deferred | bool | None = True
        self.says: Callable[[DeliveryRequest], Outcome | Delivery | Exception | None] = lambda request: TAKEN
        self.dials: list[asyncio.Future[Deferred | bool]] = []
        self.dialled = 0
        self.lines: list[Line] = []
        self.most = 0
        self.requests: list[DeliveryRequest] = []
        self.goodbye: asyncio.Event | None = None

    @property
    def busy(self) -> list[Line]:
        return [line for line in self.lines if line.request is not None]

    def line_of(self, queue_id: str) -> Line:
        (line,) = [line for line in self.busy if line.request and line.request.queue_id == queue_id]
        return line

    async def connect(self) -> Line | Deferred:
        self.dialled += 1
        answer = self.connects
        if answer is None:
            waiting: asyncio.Future[Deferred | bool] = asyncio.get_running_loop().create_future()
            self.dials.append(waiting)
            self.watch.stir()
            answer = await waiting
        if isinstance(answer, Deferred):
            return answer
        line = Line(self)
        self.lines.append(line)
        self.most = max(self.most, len(self.lines))
        self.watch.stir()
        return line

    def reload(self) -> None:
        pass
