"""An upstream that shares its account with no other."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, cast

from relay.delivery.account import Account
from relay.delivery.long_lines import LongLines
from relay.delivery.pace import Pace
from relay.delivery.places import Places
from relay.delivery.recipients import MostRecipients
from relay.delivery.upstream import Upstream, UpstreamLimits
from relay.events import Observer
from relay.policy.refusal import Table
from relay.queue.store import QueueStore
from relay.transport.port import Transport


class _Nowhere:
    """A store for what need not last."""

    async def remember(self, *_: Any) -> None:
        pass


def forgetful(observer: Observer) -> MostRecipients:
    """What is learnt of recipients lasts as long as this object."""
    return MostRecipients(cast(QueueStore, _Nowhere()), observer=observer, now=lambda: datetime.now(UTC))


def alone(
    way: Transport,
    limits: UpstreamLimits,
    *,
    refusals: Table | None = None,
    observer: Observer,
    changed: Callable[[], None],
    long_lines: LongLines | None = None,
) -> Upstream:
    """Its account has no pace and is remembered nowhere; `refusals` None: what replies speak of is told by the code."""
    account = Account(Pace(now=lambda: datetime.now(UTC)), Places(limits.max_connections))
    return Upstream(
        way,
        limits,
        refusals=refusals or Table(),
        account=account,
        recipients=forgetful(observer),
        observer=observer,
        changed=changed,
        long_lines=long_lines,
    )
