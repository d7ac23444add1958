"""The house as its operator sees it at one moment: values for `relay status`, and for the alarms."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING

from relay import __version__, wiring
from relay.admin.snapshot import CodesNow, ListenerNow, PaceNow, RouteNow, Snapshot, UpstreamNow
from relay.errors import StoreUnavailable
from relay.observe.situation import Situation
from relay.policy.decide import SESSION_CODES
from relay.queue.listing import Place, Standing

if TYPE_CHECKING:
    from relay.daemon.house import House
    from relay.delivery.upstream import Upstream

_WAITING = (Place.PENDING, Place.DEFERRED, Place.ACTIVE)


async def situation(house: House) -> Situation:
    """What the alarms have to know besides what happened; the queue is as it could be read last."""
    return _situation(house, await house.standing())


async def snapshot(house: House) -> Snapshot:
    """All of `relay status`; when the queue cannot be read, no routes, and the trouble says so."""
    now = wiring.now()
    standing: Sequence[Standing] | None
    try:
        standing = await house.store.standing()
    except StoreUnavailable:
        standing = None
    terms = _situation(house, standing or ())
    recent, config = house.recent, house.config
    codes = recent.session_codes
    return Snapshot(
        version=__version__,
        pid=os.getpid(),
        at=now,
        started_at=house.started_at,
        config=str(house.path or ""),
        reloaded_at=house.reloaded_at,
        hostname=config.hostname,
        ready=house.ready,
        listeners=_listeners(house),
        upstreams=tuple(_upstream(name, upstream, house) for name, upstream in house.upstreams.items()),
        routes=_routes(house, standing) if standing is not None else (),
        codes=CodesNow(
            enabled=config.session_codes.enabled,
            delivered=codes.delivered,
            failed=codes.failed,
            expired=codes.expired,
            waiting=_count(standing or (), SESSION_CODES, *_WAITING),
        ),
        recipients=asdict(house.store.ledger),
        queue_bytes=house.store.octets,
        disk_free=terms.disk_free,
        min_free=terms.min_free,
        damaged=terms.damaged,
        troubles=recent.troubles(terms, now),
        errors=recent.noted(),
    )


def _situation(house: House, standing: Sequence[Standing]) -> Situation:
    oldest: dict[str, datetime] = {}
    in_doubt = sum(group.in_doubt for group in standing)
    for group in standing:
        if group.place in _WAITING and group.oldest is not None:
            oldest[group.route] = min(oldest.get(group.route, group.oldest), group.oldest)
    return Situation(
        disk_free=house.store.disk_free(),
        min_free=house.config.queue.min_free,
        certificates=house.recent.certificates | house.doors.certificates(),
        held=_count(standing, None, Place.HELD) - in_doubt,
        damaged=_count(standing, None, Place.DAMAGED),
        oldest=oldest,
        up={name: upstream.up for name, upstream in house.upstreams.items()},
        routes={name: route.upstreams for name, route in house.policy.routes.items()},
        in_doubt=in_doubt,
        credentials=house.credentials,
        lying={one.name: one.lying for one in house.folders.pickups},
        folders={one.name: one.problem for one in house.folders.pickups if one.problem},
        trying=frozenset([name for name, upstream in house.upstreams.items() if upstream.health.tried_now]),
    )


def _count(standing: Sequence[Standing], route: str | None, *places: Place) -> int:
    return sum(group.messages for group in standing if route in (None, group.route) and group.place in places)


def _listeners(house: House) -> tuple[ListenerNow, ...]:
    accepted = house.recent.accepted
    doors = [
        ListenerNow(one.name, "smtp", tuple(one.shown), one.door.sessions.total, accepted.get(one.name, 0))
        for one in house.doors.listeners
    ]
    folders = [ListenerNow(one.name, "pickup", tuple(one.shown), 0, one.taken) for one in house.folders.pickups]
    return (*doors, *folders)


def _upstream(name: str, upstream: Upstream, house: House) -> UpstreamNow:
    settings = house.config.upstreams[name]
    idle, busy = upstream.connections
    return UpstreamNow(
        name=name,
        type=settings.type,
        where=settings.where,
        up=upstream.up,
        opens_in=0.0 if upstream.health.tried_now else upstream.opens_in,
        idle=idle,
        busy=busy,
        most=upstream.places.allowed,
        answer=house.recent.answer(name),
        pace=tuple(
            [PaceNow(used, limit.count, limit.seconds, limit.of_recipients) for limit, used in upstream.pace.used()]
        ),
        held_until=upstream.pace.held.until if upstream.pace.held is not None and not upstream.up else None,
        max_recipients=upstream.limits.max_recipients,
        max_recipients_until=upstream.learnt.until if upstream.learnt is not None else None,
        tried_now=upstream.health.tried_now,
    )


def _routes(house: House, standing: Sequence[Standing]) -> tuple[RouteNow, ...]:
    """The routes of the configuration, and those that mail still waits under."""
    names = dict.fromkeys((*house.policy.routes, *(group.route for group in standing)))
    routes = []
    for name in names:
        route = house.policy.routes.get(name)
        mine = [group for group in standing if group.route == name]
        waiting = [group.oldest for group in mine if group.place in _WAITING and group.oldest is not None]
        routes.append(
            RouteNow(
                name=name,
                upstreams=route.upstreams if route is not None else (),
                pending=_count(mine, name, Place.PENDING),
                deferred=_count(mine, name, Place.DEFERRED),
                active=_count(mine, name, Place.ACTIVE),
                held=_count(mine, name, Place.HELD),
                oldest=min(waiting, default=None),
            )
        )
    return tuple(routes)
