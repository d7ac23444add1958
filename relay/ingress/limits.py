"""What one client may cost: sessions in all and per client, tries of AUTH, memory of arriving content."""

from __future__ import annotations

from collections import deque

AUTH_TRIES_A_MINUTE = 20
MEMORY_IN_ALL = 32 * 1024 * 1024


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
    """Octets of content that all sessions together hold in memory while it arrives."""

    def __init__(self, most: int = MEMORY_IN_ALL) -> None:
        self._most = most
        self.used = 0

    @property
    def scarce(self) -> bool:
        """True when content should go to spool files early."""
        return self.used > self._most
