"""A worker on a real store with real SMTP ways: what the table and the tests of AUTH stand on."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from relay.config import preset
from relay.delivery.upstream import Upstream
from relay.policy.retry import Schedule
from relay.transport.smtp import SmtpTransport
from relay.transport.transaction import SmtpTimeouts
from tests.delivery.house import DeliveryHouse, policy
from tests.kit import configured
from tests.kit.upstream import ScriptedUpstream
from tests.transport.parts import PATIENT

# An upstream is set aside for the interval, in real time; mail waits for it by the clock of the house, which stands.
QUICK = Schedule((timedelta(milliseconds=20),), timedelta(days=5))


class SmtpHouse(DeliveryHouse):
    """`lead_to` makes the ways; by `default`, all of them in turn."""

    transports: dict[str, SmtpTransport]

    @classmethod
    async def of(cls, folder: Path, *ways: str, schedule: Schedule = QUICK) -> SmtpHouse:
        made = policy(default=ways)
        routes = {name: replace(route, schedule=schedule) for name, route in made.routes.items()}
        house = await cls.build(folder, replace(made, routes=routes))
        assert isinstance(house, SmtpHouse)
        return house

    def build_way(self, name: str, connections: int = 1, most: int = 100) -> None:  # type: ignore[override]
        self.transports = {}

    def lead_to(
        self, upstream: ScriptedUpstream, name: str = "own", *, connections: int = 1, **settings: Any
    ) -> Upstream:
        """The way `name`, made as `wiring` does."""
        terms: dict[str, Any] = {"tls": upstream.tls, "timeouts": PATIENT, **settings}
        made = configured.smtp(name=name, host=upstream.host, port=upstream.port, **terms)
        transport = self.transports[name] = SmtpTransport(made, observer=self.watch)
        way = self.upstreams[name] = Upstream(
            transport,
            configured.upstream_limits(max_connections=connections),
            refusals=preset.table(None),
            observer=self.watch,
            changed=self.changed,
        )
        return way

    def be_patient(self, name: str = "own", timeouts: SmtpTimeouts = PATIENT) -> None:
        """From the next connection on."""
        transport = self.transports[name]
        transport.settings = replace(transport.settings, timeouts=timeouts)

    def time_passes(self, by: timedelta = timedelta(hours=1)) -> None:
        """All that waits for the clock is due."""
        self.now += by
        for worker in self.workers.values():
            worker.make_due()
