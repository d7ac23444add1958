"""The running house: listeners in front, workers behind, and everything between start and stop.

Start: the store is opened (which proves that nobody else holds it), the ports are opened, then sessions
are served; what mail does not need (the metrics page) is imported afterwards. Stop: no new connections,
content in progress finishes, attempts past the dot get their answer, the store is closed last.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import traceback
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from relay import __version__, wiring
from relay.config import advice, compile, load, model
from relay.delivery.steady import Steady
from relay.delivery.upstream import Upstream
from relay.delivery.worker import House as Shared
from relay.delivery.worker import Worker
from relay.errors import BadConfig, RelayError, StoreUnavailable
from relay.events import (
    ConfigReloaded,
    ExceptionCaught,
    Observer,
    RelayStarted,
    RelayStopped,
    RelayStopping,
    ReloadRefused,
    Warned,
)
from relay.ingress.accept import Acceptor, QueueIds
from relay.ingress.limits import AuthTries, Memory, Sessions
from relay.ingress.listener import Listener
from relay.ingress.ports import has_family, open_port, passed_sockets
from relay.ingress.smtp import Door
from relay.observe import foreign, lag, systemd
from relay.observe.fan_out import FanOut
from relay.observe.log import LogWriter
from relay.observe.metrics import Gauges
from relay.policy.decide import Accept, Policy
from relay.queue.model import Lease

if TYPE_CHECKING:
    import socket

    from relay.web.app import Health, WebServer
    from relay.web.control import ControlSocket

ATTEMPTS_END = 60.0  # seconds that attempts past the dot get when the relay stops
STORE_ANSWERS = 10.0  # seconds a commit may take before the house counts as sick


class House:
    """The relay, running between `open` and the end of `serve`."""

    def __init__(self, config: model.Config, path: Path | None, observers: Iterable[Observer] = ()) -> None:
        self.config = config
        self.policy: Policy = compile.policy(config)
        self._path = path
        self._loop = asyncio.get_running_loop()
        self.metrics = wiring.metrics(config, self.policy, __version__)
        self.observer = FanOut([self.metrics, *observers])
        self.upstreams: dict[str, Upstream] = {}
        self.listeners: list[Listener] = []
        self.workers: dict[str, Worker] = {}
        self._steady = Steady()
        self._queue_ids = QueueIds()
        self._auth_tries = AuthTries()
        self._memory = Memory()
        self._web: WebServer | None = None
        self._control: ControlSocket | None = None
        self._stop = asyncio.Event()
        self.started = asyncio.Event()
        self._group: asyncio.TaskGroup | None = None

    # Start

    async def open(self) -> None:
        """Open store and ports; nothing is served yet. Raises RelayError with a sentence."""
        config = self.config
        self.store = await wiring.open_store(config, self.observer)
        try:
            for name in config.upstreams:
                self.upstreams[name] = self._upstream(name, config)
            self._shared = Shared(
                store=self.store,
                policy=lambda: self.policy,
                upstreams=self.upstreams,
                observer=self.observer,
                now=wiring.now,
                steady=self._steady,
                new_queue_id=lambda: self._queue_ids.next(wiring.now()),
                ring=self._ring,
            )
            self._acceptor = Acceptor(
                store=self.store,
                policy=lambda: self.policy,
                room=self._room,
                offer=self._offer,
                ring=self._ring,
                observer=self.observer,
            )
            await self.store.make_due(now=wiring.now())
            self.listeners = self._open_listeners(config, range(len(config.listeners)))
        except BaseException:
            await self.store.close()
            raise
        self.metrics.gauges = Gauges(
            ledger=lambda: self.store.ledger,
            sessions=lambda: {listener.name: listener.door.sessions.total for listener in self.listeners},
            connections=lambda: {name: upstream.connections for name, upstream in self.upstreams.items()},
            up=lambda: {name: upstream.up for name, upstream in self.upstreams.items()},
            disk_free=self.store.disk_free,
        )

    def _upstream(self, name: str, config: model.Config) -> Upstream:
        return wiring.upstream(name, config, observer=self.observer, changed=self._upstream_changed)

    def _open_listeners(self, config: model.Config, indexes: Iterable[int]) -> list[Listener]:
        opened: list[Listener] = []
        try:
            for index in indexes:
                settings = wiring.listener_settings(index, config)
                sockets = _sockets(config.listeners[index])
                door = Door(
                    settings=settings,
                    sessions=Sessions(),
                    auth_tries=self._auth_tries,
                    memory=self._memory,
                    acceptor=self._acceptor,
                    queue_ids=self._queue_ids,
                    spool=self.store.spool,
                    space=lambda: not self.store.low_on_space,
                    observer=self.observer,
                    now=wiring.now,
                    replies=self.metrics.replies,
                    live=set(),
                )
                opened.append(Listener(door, sockets))
        except BaseException:
            for listener in opened:
                listener.close_sockets()
            raise
        return opened

    # Run

    async def serve(self) -> None:
        """Serve until `stop`; then drain and close."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                await self._sync_workers()
                for listener in self.listeners:
                    await listener.start()
                self.started.set()
                self.observer.observe(RelayStarted(__version__, tuple(self.addresses())))
                systemd.notify("READY=1")
                background = [
                    group.create_task(lag.measure(self.metrics.observe_lag)),
                    group.create_task(self._watchdog()),
                    group.create_task(self._open_web()),
                ]
                await self._stop.wait()
                await self._drain()
                for task in background:
                    task.cancel()
        finally:
            await self._close()

    def stop(self) -> None:
        """Begin to stop; `serve` returns when everything has ended."""
        self._stop.set()

    @property
    def ready(self) -> bool:
        return self.started.is_set() and not self._stop.is_set()

    def addresses(self) -> list[str]:
        return [
            f"{listener.name}=[{host}]:{port}" if ":" in host else f"{listener.name}={host}:{port}"
            for listener in self.listeners
            for host, port in listener.addresses
        ]

    async def _drain(self) -> None:
        systemd.notify("STOPPING=1")
        self.observer.observe(RelayStopping())
        await asyncio.gather(*(listener.close() for listener in self.listeners))
        for worker in self.workers.values():
            worker.stop()
        for upstream in self.upstreams.values():
            upstream.end(ATTEMPTS_END)

    async def _close(self) -> None:
        for pages in (self._web, self._control):
            if pages is not None:
                await pages.close()
        for upstream in self.upstreams.values():
            await upstream.close()
        for listener in self.listeners:
            listener.close_sockets()
        await self.store.close()
        self.observer.observe(RelayStopped())

    # Workers

    async def _sync_workers(self) -> None:
        """One worker for each route, and one for each route that mail still waits under."""
        assert self._group is not None
        wanted = {name: self._runners(name) for name in self.policy.routes}
        for name in (await self.store.view()).messages:
            wanted.setdefault(name, 1)
        for name, worker in list(self.workers.items()):
            if wanted.get(name) != worker.runners:
                worker.stop()
                del self.workers[name]
        for name, runners in wanted.items():
            if name not in self.workers:
                worker = self.workers[name] = Worker(name, runners, self._shared)
                self._group.create_task(worker.run())

    def _runners(self, route: str) -> int:
        ways = self.policy.routes[route].upstreams
        return sum(self.upstreams[name].limits.max_connections for name in ways)

    def _room(self, route: str, size: int) -> bool:
        worker = self.workers.get(route)
        return worker is not None and worker.room(size)

    def _offer(self, lease: Lease, decision: Accept, policy: Policy) -> None:
        self.workers[decision.route.name].offer(lease, decision, policy)

    def _ring(self, route: str) -> None:
        worker = self.workers.get(route)
        if worker is not None:
            worker.make_due()

    def _upstream_changed(self) -> None:
        for worker in self.workers.values():
            worker.make_due()

    # Change

    async def reload(self) -> tuple[str, ...]:
        """Read the configuration anew, check it whole, then swap; returns the keys that need a restart."""
        if self._path is None:
            raise RelayError("this relay runs without a configuration file")
        try:
            config = await asyncio.to_thread(load.load, self._path)
            return await self._apply(config)
        except BadConfig as error:
            self.observer.observe(ReloadRefused(tuple(str(problem) for problem in error.problems)))
            raise

    async def _apply(self, config: model.Config) -> tuple[str, ...]:
        old = self.config
        policy = compile.policy(config)
        settings = [wiring.listener_settings(index, config) for index in range(len(config.listeners))]
        kept = {listener.name: listener for listener in self.listeners}
        where = {listener.name: listener.listen for listener in old.listeners}
        new = [i for i, listener in enumerate(config.listeners) if where.get(listener.name) != listener.listen]
        leaving = [kept[name] for name in where if name not in {config.listeners[i].name for i in _same(config, new)}]
        for listener in leaving:  # before the new ones open: they may want the same port
            listener.stop_accepting()
        try:
            opened = self._open_listeners(config, new)
        except RelayError as error:
            reopened = [i for i, listener in enumerate(old.listeners) if kept[listener.name] in leaving]
            self.listeners = [x for x in self.listeners if x not in leaving] + self._open_listeners(old, reopened)
            await asyncio.gather(*(x.start() for x in self.listeners if not x.started))
            self.observer.observe(ReloadRefused((str(error),)))
            raise
        # From here on nothing can refuse.
        staying = [kept[config.listeners[i].name] for i in _same(config, new)]
        for listener in staying:
            listener.change(next(s for s in settings if s.name == listener.name))
        self.listeners = staying + opened
        await self._swap_upstreams(old, config)
        self.config, self.policy = config, policy
        self.metrics.configure(wiring.names(config, policy))
        await self._sync_workers()
        for listener in opened:
            await listener.start()
        for listener in leaving:
            assert self._group is not None
            self._group.create_task(listener.close())
        await self.store.make_due(now=wiring.now())
        for upstream in self.upstreams.values():
            upstream.try_now()
        self._upstream_changed()
        needs_restart = tuple(
            key
            for key, before, after in (
                ("queue.store", old.queue.store, config.queue.store),
                ("queue.min_free", old.queue.min_free, config.queue.min_free),
                ("admin", old.admin, config.admin),
            )
            if before != after
        )
        self.observer.observe(ConfigReloaded(needs_restart))
        return needs_restart

    async def _swap_upstreams(self, old: model.Config, new: model.Config) -> None:
        for name in new.upstreams:
            same = old.upstreams.get(name) == new.upstreams[name] and old.hostname == new.hostname
            if same and name in self.upstreams:
                self.upstreams[name].transport.reload()
            else:
                before = self.upstreams.get(name)
                self.upstreams[name] = self._upstream(name, new)
                if before is not None:
                    await before.close()
        for name in set(self.upstreams) - set(new.upstreams):
            # Attempts under way hold the object itself; nobody new finds it.
            await self.upstreams.pop(name).close()

    # Those who watch

    async def _open_web(self) -> None:
        from relay.web import app, control  # aiohttp takes longer to import than everything else together

        admin = self.config.admin
        if admin.listen is not None:
            where = (admin.listen.host, admin.listen.port)
            try:
                self._web = await app.start(where, admin.allow, metrics=self._exposition, health=self._health)
            except OSError as error:
                self._warn(f"admin.listen: {admin.listen}: {error.strerror}; mail goes on, but without /metrics")
        try:
            self._control = await control.start(admin.socket, self)
        except OSError as error:
            self._warn(
                f"admin.socket: {admin.socket}: {error.strerror}; mail goes on, but `relay reload` does not work"
            )

    def _warn(self, text: str) -> None:
        self.observer.observe(Warned(text))

    async def _exposition(self, accept: str) -> tuple[bytes, str]:
        try:
            view = await self.store.view()
        except StoreUnavailable:
            view = None
        return self.metrics.exposition(accept, view)

    async def _health(self) -> Health:
        from relay.web.app import Health

        reasons = [] if await self._store_answers() else ["the store cannot commit"]
        ready = self.ready and not reasons
        return Health(ok=not reasons, ready=ready, reasons=tuple(reasons if self.ready else [*reasons, "stopping"]))

    async def _store_answers(self) -> bool:
        try:
            async with asyncio.timeout(STORE_ANSWERS):
                await self.store.check()
        except (StoreUnavailable, TimeoutError):
            return False
        return True

    async def _watchdog(self) -> None:
        """A sign of life is given only when the loop runs and the store commits, or says why not."""
        period = systemd.watchdog_period()
        while period is not None:
            with contextlib.suppress(StoreUnavailable):
                await self.store.check()
            systemd.notify("WATCHDOG=1")
            await asyncio.sleep(period)


def _same(config: model.Config, new: list[int]) -> list[int]:
    return [index for index in range(len(config.listeners)) if index not in new]


def _sockets(listener: model.Listener) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    try:
        for address in listener.listen:
            if address.kind == "systemd":
                sockets += passed_sockets(address.host)
            elif not listener.listen_is_default or has_family(address.host):
                sockets.append(open_port(address.host, address.port))
    except BaseException:
        for opened in sockets:
            opened.close()
        raise
    return sockets


@asynccontextmanager
async def running(
    config: model.Config, *, path: Path | None = None, observers: Iterable[Observer] = ()
) -> AsyncIterator[House]:
    """The house, serving; it is drained and closed at the end of the block."""
    house = House(config, path, observers)
    await house.open()
    serving = asyncio.create_task(house.serve())
    started = asyncio.create_task(house.started.wait())
    try:
        await asyncio.wait((serving, started), return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            serving.result()
        yield house
    finally:
        started.cancel()
        house.stop()
        await serving


async def serve(config: model.Config, path: Path) -> None:
    """`relay serve`: run until SIGTERM or SIGINT; SIGHUP reloads."""
    loop = asyncio.get_running_loop()
    log = LogWriter(sys.stderr, level=config.log.level, format=config.log.format, loop=loop)
    try:
        house = House(config, path, [log])
        end_listening = foreign.listen(house.observer, loop)
        loop.set_exception_handler(lambda _, context: _unhandled(house, context))
        try:
            await house.open()
            for warning in advice.warnings(config):
                house.observer.observe(Warned(str(warning)))
            reloads = set[asyncio.Task[None]]()

            def reload() -> None:
                task = loop.create_task(_reload(house, log))
                reloads.add(task)
                task.add_done_callback(reloads.discard)

            loop.add_signal_handler(signal.SIGHUP, reload)
            loop.add_signal_handler(signal.SIGTERM, house.stop)
            loop.add_signal_handler(signal.SIGINT, house.stop)
            await house.serve()
        finally:
            end_listening()
    finally:
        log.close()


async def _reload(house: House, log: LogWriter) -> None:
    systemd.notify("RELOADING=1")
    try:
        await house.reload()
        log.configure(level=house.config.log.level, format=house.config.log.format)
    except RelayError:
        pass  # told as ReloadRefused
    except Exception as error:  # noqa: BLE001  # bulkhead: a reload must not end the relay
        text = "".join(traceback.format_exception(error))
        house.observer.observe(ExceptionCaught("daemon", type(error).__name__, text))
    finally:
        systemd.notify("READY=1")


def _unhandled(house: House, context: dict[str, object]) -> None:
    error = context.get("exception")
    if isinstance(error, ConnectionError | TimeoutError):
        return  # a peer that went away
    text = "".join(traceback.format_exception(error)) if isinstance(error, BaseException) else ""
    house.observer.observe(ExceptionCaught("other", str(context.get("message")), text))
