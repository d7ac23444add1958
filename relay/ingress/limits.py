"""What one client may cost: sessions in all and per client, messages, tries of AUTH, time, memory of content."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from relay.policy.rate import Rate

AUTH_TRIES_A_MINUTE = 20
MEMORY_IN_ALL = 16 * 1024 * 1024  # 32 are promised: much of it is there twice for a moment
SPOOLING_IN_ALL = 2 * 1024 * 1024  # on the way to spool files, while all together hold too much
ENVELOPES_IN_ALL = 16 * 1024 * 1024
ENVELOPE_AT_LEAST = 32 * 1024  # of one transaction, while all together hold too much: a hundred recipients
PAUSE = 10.0  # seconds of silence within content; a longer one does not count for the speed
PAUSES = 4  # times `limits.data`: so long all pauses of a message may be together
FREE_SECONDS = 60.0  # of content, before its average speed counts


class Sessions:
    """Open sessions of one listener, counted by client address."""

    def __init__(self) -> None:
        self.total = 0
        self._by_client: dict[str, int] = {}

    def enter(self, client: str, *, most: int, most_per_client: int) -> bool:
        """Count one more, unless a bound is reached."""
        mine = self._by_client.get(client, 0)
        if self.total >= most or mine >= most_per_client:
            return False
        self.total += 1
        self._by_client[client] = mine + 1
        return True

    def leave(self, client: str) -> None:
        self.total -= 1
        mine = self._by_client[client] - 1
        if mine:
            self._by_client[client] = mine
        else:
            del self._by_client[client]


class ClientRates:
    """Messages of each client address over a sliding window; the addresses silent for longest are forgotten first.

    The window is counted in slots, so that an address costs the same whatever the rate. A message counts
    until its whole slot has left the window: never more than the rate, at times a sixteenth less.
    """

    REMEMBERED = 10_000
    SLOTS = 16

    def __init__(self) -> None:
        self._slots: dict[str, deque[tuple[int, int]]] = {}  # by client: (number of the slot, messages in it)

    def take(self, client: str, rate: Rate, now: float) -> bool:
        """Count one message of `client`, unless that is beyond `rate`."""
        slot = int(now * self.SLOTS / rate.seconds)
        slots = self._slots.pop(client, None) or deque[tuple[int, int]]()
        self._slots[client] = slots
        while slots and not slot - self.SLOTS <= slots[0][0] <= slot:  # a later one: the rate was changed
            slots.popleft()
        if sum([messages for _, messages in slots]) >= rate.count:
            return False
        if slots and slots[-1][0] == slot:
            slots[-1] = slot, slots[-1][1] + 1
        else:
            slots.append((slot, 1))
        if len(self._slots) > self.REMEMBERED:
            del self._slots[next(iter(self._slots))]
        return True


def too_slow(octets: int, seconds: float, *, rate: int) -> bool:
    """True when content of which `octets` came in `seconds` comes slower than `rate`, the first minute being free."""
    return octets < (seconds - FREE_SECONDS) * rate


class AuthTries:
    """Failures of AUTH by client address, over the last minute; the oldest addresses are forgotten first."""

    REMEMBERED = 10_000

    def __init__(self) -> None:
        self._failures: dict[str, deque[float]] = {}

    def refuses(self, client: str, now: float) -> bool:
        """True when this client failed so often that a try is refused before it is made."""
        failures = self._failures.get(client)
        if failures is None:
            return False
        while failures and now - failures[0] > 60:
            failures.popleft()
        if not failures:
            del self._failures[client]
            return False
        return len(failures) >= AUTH_TRIES_A_MINUTE

    def failed(self, client: str, now: float) -> None:
        failures = self._failures.pop(client, None) or deque(maxlen=AUTH_TRIES_A_MINUTE)
        failures.append(now)
        self._failures[client] = failures
        if len(self._failures) > self.REMEMBERED:
            del self._failures[next(iter(self._failures))]


class Memory:
    """Octets of content, and of envelopes, that all sessions together hold in memory while they arrive.

    `used` counts all content, `spooling` what of it is on its way to spool files. Content comes faster than a disk
    takes it: while it is `crowded`, no session reads content, and those that `wait` are told when there is room.
    """

    def __init__(self, most: int = MEMORY_IN_ALL, most_envelopes: int = ENVELOPES_IN_ALL) -> None:
        self._most = most
        self._most_envelopes = most_envelopes
        self._waiting: list[Callable[[], None]] = []
        self.used = 0
        self.spooling = 0
        self.envelopes = 0

    def has_room(self, envelope: int) -> bool:
        """True when the envelope of a transaction, which holds so many octets, may grow."""
        return self.envelopes < self._most_envelopes or envelope < ENVELOPE_AT_LEAST

    @property
    def scarce(self) -> bool:
        """True when content should go to spool files early."""
        return self.used > self._most

    @property
    def crowded(self) -> bool:
        """True when no more content should be read until some of it has gone to spool files."""
        return self.scarce and self.spooling > SPOOLING_IN_ALL

    def wait(self, tell: Callable[[], None]) -> None:
        """`tell` is called once, as soon as there is room."""
        self._waiting.append(tell)

    def spooled(self, octets: int) -> None:
        """So many have gone to a spool file, or are dropped."""
        self.spooling -= octets
        if self._waiting and self.spooling <= SPOOLING_IN_ALL // 2:
            waiting, self._waiting = self._waiting, []
            for tell in waiting:
                tell()
