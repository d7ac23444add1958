"""Which upstreams carry an alarm, and which of them are another way than what it is about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from relay.mail.address import Address
from relay.values import frozen


@frozen
class AlarmMail:
    """`ways` are the upstreams that may carry it, in the order in which they are asked; `accounts` has the account at
    its provider for every upstream that there is."""

    readers: tuple[Address, ...]
    ways: tuple[str, ...]
    accounts: Mapping[str, str]

    def apart(self, about: Sequence[str]) -> tuple[str, ...]:
        """The ways that share no account with those upstreams."""
        accounts = {self.accounts[name] for name in about if name in self.accounts}
        return tuple([name for name in self.ways if self.accounts[name] not in accounts])
