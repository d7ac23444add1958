"""Upstreams in memory that fall ill and recover by a plan, in virtual time (`tests.kit.virtual_time`)."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

from relay.mail.outcome import Deferred, Outcome, Stage, Trouble
from relay.mail.reply import Reply
from relay.transport.port import CALLED_OFF, Delivery, DeliveryRequest
from tests.delivery.ways import CLOSING, DOWN, IN_DOUBT, STALE, TAKEN

FOREVER = 3600.0
THROTTLED = Deferred(Stage.MAIL, Trouble.TRANSIENT, "later", Reply(450, "4.7.1", "too many messages"))


@dataclass(frozen=True)
class Weather:
    """How an upstream is: seconds until a connection stands (DNS to AUTH) and until MAIL and RCPT are answered, from
    and to; and how often, of one, it refuses to connect, throttles, says 421, or drops the line after the dot."""

    connect: tuple[float, float] = (0.15, 0.5)
    envelope: tuple[float, float] = (0.02, 0.08)
    refuses: bool = False
    throttles: float = 0.0
    closes: float = 0.0
    drops: float = 0.0


WELL = Weather()
REFUSING = Weather(refuses=True)
BLACK_HOLE = Weather(connect=(FOREVER, FOREVER), envelope=(FOREVER, FOREVER))
SLOW = Weather(connect=(2.0, 8.0), envelope=(0.5, 4.0))
THROTTLING = Weather(throttles=0.8)
CLOSING_DOWN = Weather(closes=0.7)
LOSING_ANSWERS = Weather(drops=0.5)


@dataclass(frozen=True)
class Sent:
    """The content of `queue_id` went to `way`, `at` so many seconds; `answered`: the way said so."""

    queue_id: str
    way: str
    at: float
    answered: bool


@dataclass
class Records:
    sent: list[Sent] = field(default_factory=list)
    told: Counter[str] = field(default_factory=Counter)


class Climate:
    """An upstream (`port.Transport`) that has the weather of `plan`: from so many seconds on, such a weather."""

    size_limit: int | None = None

    def __init__(self, name: str, plan: Sequence[tuple[float, Weather]], records: Records, chance: Random) -> None:
        self.name = name
        self.records = records
        self.chance = chance
        self._plan = plan

    @property
    def weather(self) -> Weather:
        now = asyncio.get_running_loop().time()
        return [weather for since, weather in self._plan if since <= now][-1]

    def reload(self) -> None:
        pass

    async def connect(self) -> Call | Deferred:
        weather = self.weather
        if weather.refuses:
            await asyncio.sleep(0.02)
            return DOWN
        try:
            async with asyncio.timeout(15):
                await asyncio.sleep(self.chance.uniform(*weather.connect))
        except TimeoutError:
            return Deferred(Stage.CONNECT, Trouble.TIMEOUT, "no connection", upstream_sick=True)
        return Call(self)


class Call:
    """A connection to it (`port.Connection`)."""

    past_dot = False

    def __init__(self, to: Climate) -> None:
        self._to = to
        self.usable = True

    async def deliver(self, request: DeliveryRequest) -> Delivery:
        try:
            async with asyncio.timeout(request.patience):
                refusal = await self._envelope()
        except TimeoutError:
            refusal = Deferred(Stage.MAIL, Trouble.TIMEOUT, "no answer", upstream_sick=True)
        self._to.records.told["no" if refusal else "354"] += 1
        if refusal is None and request.gate is not None and not await request.gate():
            refusal = CALLED_OFF
            self._to.records.told["called off"] += 1
        return self._ended(request, refusal or await self._content(request))

    async def _envelope(self) -> Deferred | None:
        weather, chance = self._to.weather, self._to.chance
        if weather.refuses:
            return STALE  # it fell down while the connection lay idle
        await asyncio.sleep(chance.uniform(*weather.envelope))
        if chance.random() < weather.closes:
            return CLOSING
        return THROTTLED if chance.random() < weather.throttles else None

    async def _content(self, request: DeliveryRequest) -> Outcome:
        answered = self._to.chance.random() >= self._to.weather.drops
        loop = asyncio.get_running_loop()
        self._to.records.sent.append(Sent(request.queue_id, self._to.name, loop.time(), answered))
        await asyncio.sleep(0.05)
        return TAKEN if answered else IN_DOUBT

    def _ended(self, request: DeliveryRequest, outcome: Outcome) -> Delivery:
        sick = outcome if isinstance(outcome, Deferred) and outcome.upstream_sick else None
        self.usable = self.usable and sick is None
        return Delivery((outcome,) * len(request.recipients), sick)

    async def refresh(self) -> bool:
        return self.usable and not self._to.weather.refuses

    def when_lost(self, tell: Callable[[], None]) -> None:
        """It falls down unseen."""

    async def close(self) -> None:
        self.usable = False

    def abort(self) -> None:
        self.usable = False
