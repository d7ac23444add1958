"""The running house: doors in front, workers behind, and everything between start and stop.

Start: the store is opened (which proves that nobody else holds it), the ports are opened, then sessions
are served; what mail does not need (the metrics page) is imported afterwards. Stop: no new connections,
content in progress finishes, attempts past the dot get their answer, the store is closed last.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from relay import __version__, wiring
from relay.admin.snapshot import Snapshot, WayTried
from relay.config import advice, compile, load, model, outside
from relay.daemon import look
from relay.daemon.doors import Doors
from relay.daemon.folders import Folders
from relay.daemon.pages import Pages
from relay.daemon.workers import Workers
from relay.delivery.account import Accounts
from relay.delivery.alarm import Alarms
from relay.delivery.direct import Direct
from relay.delivery.lend import lent
from relay.delivery.recipients import MostRecipients
from relay.delivery.steady import Steady, WentBack
from relay.delivery.summaries import Summaries
from relay.delivery.upstream import Upstream
from relay.delivery.verdicts import Verdicts
from relay.delivery.window import HOUR, Window
from relay.delivery.worker import House as Shared
from relay.errors import BadConfig, RelayError, StoreUnavailable
from relay.events import ConfigReloaded, Observer, RelayStarted, RelayStopped, RelayStopping, ReloadRefused, Warned
from relay.ingress.accept import Acceptor, QueueIds
from relay.ingress.door import Door
from relay.ingress.limits import AuthTries, Memory, Sessions
from relay.ingress.pickup import Pickup, PickupSettings
from relay.ingress.settings import ListenerSettings
from relay.observe import lag, systemd
from relay.observe.clients import Clients, ClientSeen
from relay.observe.fan_out import FanOut
from relay.observe.log import LogWriter
from relay.observe.metrics import Gauges
from relay.observe.needs_a_person import Finding
from relay.observe.recent import Recent
from relay.policy.decide import SESSION_CODES, Policy, Route
from relay.policy.size import largest
from relay.queue.listing import Standing

if TYPE_CHECKING:
    from relay.transport.tokens import TokenSource

ATTEMPTS_END = 60.0  # seconds that attempts past the dot get when the relay stops
TOKENS_EVERY = 30.0  # seconds between two looks whether a token is to be fetched
CLOCK_EVERY = 5.0  # seconds between two looks whether the clock went back
TIDY_EVERY = 3600.0  # seconds between two looks for what is too old for the history


class House:
    """The relay, running between `open` and the end of `serve` (`admin.house.House`)."""

    running = True

    def __init__(
        self,
        config: model.Config,
        path: Path | None,
        observers: Iterable[Observer] = (),
        log: LogWriter | None = None,
    ) -> None:
        self.config = config
        self.policy: Policy = compile.policy(config)
        self.path = path
        self.started_at = self.reloaded_at = wiring.now()
        self.credentials = outside.credentials(config)
        self._log = log
        self.metrics = wiring.metrics(config, self.policy, __version__)
        self.recent = Recent(language=config.language)
        self._clients = Clients()
        watching: list[Observer] = [self.metrics, self.recent, self._clients, *observers]
        self.observer = FanOut(watching if log is None else [*watching, log])
        self.upstreams: dict[str, Upstream] = {}
        self._gone: list[Upstream] = []  # by reloads; attempts at them may be under way
        self._steady = Steady()
        self._queue_ids = QueueIds()
        self._auth_tries = AuthTries()
        self._memory = Memory()
        self.pages = Pages(self)
        self._standing: Sequence[Standing] = ()
        self._changing = asyncio.Lock()
        self._stop = asyncio.Event()
        self.started = asyncio.Event()
        self._group: asyncio.TaskGroup | None = None
        self._waking: asyncio.Task[bool] | None = None

    # Start

    async def open(self) -> None:
        """Open store and ports; nothing is served yet. Raises RelayError with a sentence."""
        config = self.config
        self.store = await wiring.open_store(config, self.observer)
        self.verdicts = Verdicts(self.store, observer=self.observer, now=wiring.now)
        self.recipients = MostRecipients(self.store, observer=self.observer, now=wiring.now)
        try:
            await self.verdicts.load()
            await self.recipients.load()
            self.accounts = Accounts(self.store, now=wiring.now, changed=self.wake)
            await self.accounts.load(wiring.terms(config, self.policy))
            for name in config.upstreams:
                self.upstreams[name] = self._upstream(name, config)
            self._window = Window(await self.store.readers(since=wiring.now() - HOUR))
            self.workers = Workers(
                Shared(
                    store=self.store,
                    policy=lambda: self.policy,
                    upstreams=self.upstreams,
                    verdicts=self.verdicts,
                    observer=self.observer,
                    now=wiring.now,
                    steady=self._steady,
                    new_queue_id=self._new_queue_id,
                    ring=self._ring,
                    stopping=self._stop.is_set,
                    window=self._window,
                ),
                self._runners,
            )
            self.alarms = self._alarms()
            self._direct = Direct(self.workers.shared, self.workers.of, self._spawn)
            self._acceptor = Acceptor(
                store=self.store,
                policy=lambda: self.policy,
                room=self.workers.room,
                offer=self.workers.offer,
                ring=self.workers.ring,
                direct=self._direct,
                observer=self.observer,
                size_limit=lambda route: self._size_limit([route]),
            )
            self.folders = Folders(self._pickup)
            await self.folders.open(config)
            self.doors = Doors(self._door, self.observer)
            self.doors.open(config)
        except BaseException:
            await self.store.close()
            raise
        self.metrics.gauges = Gauges(
            ledger=lambda: asdict(self.store.ledger),
            sessions=lambda: {listener.name: listener.door.sessions.total for listener in self.doors.listeners},
            connections=lambda: {name: upstream.connections for name, upstream in self.upstreams.items()},
            up=lambda: {name: upstream.up for name, upstream in self.upstreams.items()},
            disk_free=self.store.disk_free,
            verdicts=self.verdicts.counts,
            tokens=self._token_ends,
            credentials=lambda: outside.oauth2_ends(self.config, self.credentials),
        )

    def _upstream(self, name: str, config: model.Config) -> Upstream:
        return wiring.upstream(
            name,
            config,
            store=self.store,
            shared=self.accounts,
            recipients=self.recipients,
            observer=self.observer,
            changed=self.wake,
        )

    def _keep_warm(self) -> None:
        """The way that session codes go first has a connection ready."""
        codes = self.policy.routes.get(SESSION_CODES)
        for name, upstream in self.upstreams.items():
            upstream.keep_warm(codes is not None and name == codes.upstreams[0])

    def _door(self, settings: ListenerSettings) -> Door:
        return Door(
            settings=settings,
            sessions=Sessions(),
            auth_tries=self._auth_tries,
            memory=self._memory,
            acceptor=self._acceptor,
            queue_ids=self._queue_ids,
            spool=self.store.spool,
            space=self._has_space,
            observer=self.observer,
            now=wiring.now,
            replies=self.metrics.replies,
            live=set(),
            size_limit=lambda: self._size_limit(self.policy.routes.values()),
        )

    def _pickup(self, settings: PickupSettings) -> Pickup:
        return Pickup(
            settings,
            acceptor=self._acceptor,
            store=self.store,
            queue_ids=self._queue_ids,
            spool=self.store.spool,
            space=self._has_space,
            observer=self.observer,
            now=wiring.now,
        )

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        assert self._group is not None
        return self._group.create_task(work)

    def _ring(self, route: str) -> None:
        self.workers.ring(route)

    def _size_limit(self, routes: Iterable[Route]) -> int | None:
        """What the largest upstream of these routes takes, as far as that is known now."""
        return largest(
            [
                self.upstreams[name].transport.size_limit
                for route in routes
                for name in route.upstreams
                if name in self.upstreams
            ]
        )

    def _has_space(self) -> bool:
        return not self.store.low_on_space

    def _new_queue_id(self) -> str:
        return self._queue_ids.next(wiring.now())

    def _runners(self, route: str) -> int:
        ways = self.policy.routes[route].upstreams
        return sum(self.upstreams[name].limits.max_connections for name in ways)

    # Run

    async def serve(self) -> None:
        """Serve until `stop`; then drain and close."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                self.workers.sync(group, await self.store.routes())
                self._wake_all()
                await self.doors.start()
                self.folders.start(group)
                self.started.set()
                self.observer.observe(RelayStarted(__version__, self._shown()))
                self._warn_of(self.config)
                systemd.notify("READY=1")
                for upstream in self.upstreams.values():
                    upstream.remember()
                self._keep_warm()
                background = [
                    group.create_task(lag.measure(self.metrics.observe_lag)),
                    group.create_task(self.pages.watchdog()),
                    group.create_task(self.pages.open()),
                    group.create_task(self.alarms.run(self._stop)),
                    group.create_task(self._summaries().run(self._stop)),
                    group.create_task(self._tidy()),
                    group.create_task(self._keep_tokens()),
                    group.create_task(self._heed_the_clock()),
                ]
                await self._stop.wait()
                async with self._changing:  # a reload under way ends first
                    if self._waking is not None:
                        self._waking.cancel()
                    await self._drain()
                for task in background:
                    task.cancel()
        finally:
            await self._close()

    def _shown(self) -> tuple[str, ...]:
        """Where mail is taken: "legacy=127.0.0.1:25"."""
        doors = [(one.name, one.shown) for one in self.doors.listeners]
        folders = [(one.name, one.shown) for one in self.folders.pickups]
        return tuple(f"{name}={where}" for name, shown in (*doors, *folders) for where in shown)

    def stop(self) -> None:
        """Begin to stop; `serve` returns when everything has ended."""
        self._stop.set()

    @property
    def ready(self) -> bool:
        return self.started.is_set() and not self._stop.is_set()

    def _alarms(self) -> Alarms:
        return Alarms(
            findings=self._findings,
            ways=lambda: wiring.alarm_ways(self.config, self.workers.shared),
            store=self.store,
            policy=lambda: self.policy,
            language=lambda: self.config.language,
            observer=self.observer,
            now=wiring.now,
        )

    def _summaries(self) -> Summaries:
        return Summaries(
            window=self._window,
            store=self.store,
            policy=lambda: self.policy,
            observer=self.observer,
            now=wiring.now,
            new_queue_id=self._new_queue_id,
            ring=self.workers.ring,
        )

    async def standing(self) -> Sequence[Standing]:
        """That of the queue, as it could be read last."""
        with suppress(StoreUnavailable):
            self._standing = await self.store.standing()
        return self._standing

    async def _findings(self) -> Sequence[Finding]:
        return self.recent.findings(await look.situation(self), wiring.now())

    async def _tidy(self) -> None:
        """Forget of the history what is too old; all of it where none is kept."""
        while True:
            try:
                await self.store.forget(before=wiring.now() - self.config.queue.remembered)
            except StoreUnavailable:
                pass  # the store has told everybody
            await asyncio.sleep(TIDY_EVERY)

    async def _heed_the_clock(self) -> None:
        """Mail that waits for a time which a clock that was wrong has put far away is tried now, as at the start."""
        went_back, late = WentBack(), False
        while True:
            late = went_back() or late
            if late:
                late = not await self._make_due()
            await asyncio.sleep(CLOCK_EVERY)

    def _tokens(self) -> Iterable[TokenSource]:
        sources = [upstream.transport.tokens for upstream in self.upstreams.values()]
        return [source for source in sources if source is not None]

    def _token_ends(self) -> dict[str, datetime]:
        return {source.name: source.expires_at for source in self._tokens() if source.expires_at is not None}

    async def _keep_tokens(self) -> None:
        """Have the next token before the last one ends, whether mail goes or not."""
        while True:
            for source in self._tokens():
                source.look()
            await asyncio.sleep(TOKENS_EVERY)

    async def _drain(self) -> None:
        systemd.notify("STOPPING=1")
        self.observer.observe(RelayStopping())
        self._direct.stop()
        await asyncio.gather(self.doors.close(), self.folders.close())
        self.workers.stop()
        for upstream in (*self.upstreams.values(), *self._gone):
            upstream.end(ATTEMPTS_END)

    async def _close(self) -> None:
        await self.pages.close()
        for upstream in self.upstreams.values():
            await upstream.close()
        await self.accounts.close()
        self.doors.close_sockets()
        await self.store.close()
        self.observer.observe(RelayStopped())

    # For the operator (`admin.house.House`)

    @property
    def routes(self) -> Iterable[str]:
        return self.policy.routes

    async def snapshot(self) -> Snapshot:
        return await look.snapshot(self)

    async def try_alarms(self) -> Sequence[WayTried]:
        return await self.alarms.trial()

    def clients(self) -> Sequence[ClientSeen]:
        return self._clients.seen()

    def lend(self, upstream: str) -> AbstractAsyncContextManager[bool]:
        return lent(self.upstreams[upstream])

    def opens_at(self, route: str) -> datetime | None:
        worker = self.workers.of(route)
        return None if worker is None else worker.opens_at()

    async def senders_changed(self) -> None:
        await self.verdicts.reload()

    def wake(self) -> None:
        self.workers.ring_all()

    def try_now(self) -> None:
        for upstream in self.upstreams.values():
            upstream.try_now()
        self.wake()

    async def reload(self) -> tuple[str, ...]:
        """Read the configuration anew, check it whole, then swap; returns the keys that need a restart."""
        await self.started.wait()
        async with self._changing:
            try:
                return await self._apply(await self._read())
            except BadConfig as error:
                self.observer.observe(ReloadRefused(tuple(str(problem) for problem in error.problems)))
                raise
            except RelayError as error:
                self.observer.observe(ReloadRefused((str(error),)))
                raise

    async def _read(self) -> model.Config:
        if self.path is None:
            raise RelayError("this relay runs without a configuration file")
        if self._stop.is_set():
            raise RelayError("the relay is stopping")
        config = await asyncio.to_thread(load.load, self.path)
        missing = await asyncio.to_thread(outside.problems, config, serving=True)
        if missing:
            raise BadConfig(missing)
        return config

    async def _apply(self, config: model.Config) -> tuple[str, ...]:
        assert self._group is not None
        old = self.config
        policy = await asyncio.to_thread(compile.policy, config)
        credentials = await asyncio.to_thread(outside.credentials, config)
        terms = wiring.terms(config, policy)
        self.accounts.add(terms)
        upstreams = {name: self._kept(name, config) or self._upstream(name, config) for name in config.upstreams}
        swap_folders = await self.folders.change(config, self._group)
        swap_doors = await self.doors.change(old, config, self._group)
        # From here on nothing can refuse, and up to the end of the swap nobody else has a turn.
        opened = swap_doors()
        swap_folders()
        gone = [upstream for name, upstream in self.upstreams.items() if upstreams.get(name) is not upstream]
        self.upstreams.clear()
        self.upstreams.update(upstreams)
        self.config, self.policy, self.reloaded_at = config, policy, wiring.now()
        self.credentials = credentials
        self.accounts.configure(terms)
        self.store.keep_free(config.queue.min_free)
        self.store.keep_history(wiring.recorded(config.queue))
        self.metrics.configure(wiring.names(config, policy))
        places = {name: settings.where for name, settings in config.upstreams.items()}
        moved = [name for name, settings in old.upstreams.items() if places.get(name) != settings.where]
        self.recent.configure(language=config.language, moved=moved)
        if self._log is not None:
            self._log.configure(level=config.log.level, format=config.log.format)
        self.workers.sync(self._group)
        for listener in opened:
            await listener.start()
        for upstream in gone:  # attempts under way hold the object itself; nobody new finds it
            await upstream.close()
        self._gone = [upstream for upstream in (*self._gone, *gone) if upstream.connections != (0, 0)]
        # What made mail wait may be mended.
        self.try_now()
        self._wake_all()
        self._keep_warm()
        self._warn_of(config)
        needs_restart = _needs_restart(old, config)
        self.observer.observe(ConfigReloaded(needs_restart))
        return needs_restart

    def _kept(self, name: str, config: model.Config) -> Upstream | None:
        """The upstream of that name, if its configuration did not change; its files are read anew."""
        same = self.config.upstreams.get(name) == config.upstreams[name] and self.config.hostname == config.hostname
        upstream = self.upstreams.get(name) if same else None
        if upstream is not None:
            upstream.transport.reload()
        return upstream

    def _wake_all(self) -> None:
        """Whatever waits for its time is tried now. Where that is very much it takes a while; nobody waits for it."""
        assert self._group is not None
        if self._waking is not None:
            self._waking.cancel()
        self._waking = self._group.create_task(self._make_due())

    async def _make_due(self) -> bool:
        try:
            await self.store.make_due(now=wiring.now(), woken=self.wake)
        except StoreUnavailable:
            return False  # the store has told everybody; mail is tried when it would have been
        return True

    def _warn_of(self, config: model.Config) -> None:
        for warning in advice.warnings(config):
            self.observer.observe(Warned(str(warning)))


def _needs_restart(old: model.Config, new: model.Config) -> tuple[str, ...]:
    """The keys whose change waits for a restart."""
    keys = (
        ("queue.store", old.queue.store, new.queue.store),
        ("admin", old.admin, new.admin),
    )
    return tuple(key for key, before, after in keys if before != after)
