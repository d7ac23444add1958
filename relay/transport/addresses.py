"""The addresses of one host, in the order in which an attempt tries them.

The one that last took mail goes first for ten minutes, those that failed within ten minutes go last, and IPv6 and IPv4
take turns: the first three reach the other family where one has no way at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, zip_longest
from typing import TYPE_CHECKING

from relay.transport.dial import Address

if TYPE_CHECKING:
    from relay.transport.transaction import SmtpConnection

MOST = 3  # in one attempt
REMEMBERED = 600.0  # seconds


class Addresses:
    """What is remembered of them; times are those of the loop's clock."""

    def __init__(self) -> None:
        self._last: tuple[Address, SmtpConnection] | None = None
        self._failed: dict[Address, float] = {}

    def in_order(self, found: Sequence[Address], now: float) -> list[Address]:
        """At most `MOST` of `found`, which are in the resolver's order."""
        self._failed = {one: at for one, at in self._failed.items() if now - at < REMEMBERED}
        good = self._good(now)
        rank = {one: 0 if one == good else 2 if one in self._failed else 1 for one in found}
        return sorted(_in_turns(found), key=rank.__getitem__)[:MOST]

    def took(self, address: Address, connection: SmtpConnection) -> None:
        """`connection` came about, and mail goes over it from now on."""
        self._last = (address, connection)
        self._failed.pop(address, None)

    def failed(self, address: Address, now: float) -> None:
        """No connection came about, as far as AUTH."""
        self._failed[address] = now
        if self._last is not None and self._last[0] == address:
            self._last = None

    def given_up(self, address: Address, now: float) -> None:
        """Somebody had no more patience: that proves nothing against the one that took mail."""
        if address != self._good(now):
            self._failed[address] = now

    def _good(self, now: float) -> Address | None:
        if self._last is None:
            return None
        address, connection = self._last
        return address if connection.well and now - connection.heard_at < REMEMBERED else None


def of_peer(peer: Sequence[object], addresses: Sequence[Address]) -> Address:
    """Which of `addresses` a socket is connected to; `peer` is its getpeername."""
    return next((one for one in addresses if one[4][:2] == tuple(peer[:2])), addresses[0])


def _in_turns(found: Sequence[Address]) -> list[Address]:
    """One of each family in turn, beginning with that of the first."""
    families: dict[int, list[Address]] = {}
    for one in found:
        families.setdefault(one[0], []).append(one)
    return [one for one in chain.from_iterable(zip_longest(*families.values())) if one is not None]
