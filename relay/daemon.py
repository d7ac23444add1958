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
from relay.config import advice, compile, load, model, outside
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
from relay.ingress.door import Door
from relay.ingress.limits import AuthTries, Memory, Sessions
from relay.ingress.listener import Listener
from relay.ingress.ports import has_family, open_port, passed_sockets
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

    def __init__(
        self,
        config: model.Config,
        path: Path | None,
        observers: Iterable[Observer] = (),
        log: LogWriter | None = None,
    ) -> None:
        self.config = config
        self.policy: Policy = compile.policy(config)
        self._path = path
        self._log = log
        self.metrics = wiring.metrics(config, self.policy, __version__)
        self.observer = FanOut([self.metrics, *observers, *([log] if log is not None else [])])
        self.upstreams: dict[str, Upstream] = {}
        self._gone: list[Upstream] = []  # by reloads; attempts at them may be under way
        self.listeners: list[Listener] = []
        self.workers: dict[str, Worker] = {}
        self._steady = Steady()
        self._queue_ids = QueueIds()
        self._auth_tries = AuthTries()
        self._memory = Memory()
        self._web: WebServer | None = None
        self._control: ControlSocket | None = None
        self._changing = asyncio.Lock()
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
                stopping=self._stop.is_set,
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
                self._sync_workers((await self.store.view()).messages)
                for listener in self.listeners:
                    await listener.start()
                self.started.set()
                self.observer.observe(RelayStarted(__version__, tuple(self.addresses())))
                self._warn_of(self.config)
                systemd.notify("READY=1")
                background = [
                    group.create_task(lag.measure(self.metrics.observe_lag)),
                    group.create_task(self._watchdog()),
                    group.create_task(self._open_web()),
                ]
                await self._stop.wait()
                async with self._changing:  # a reload under way ends first
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
        for upstream in (*self.upstreams.values(), *self._gone):
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

    def _sync_workers(self, waiting: Iterable[str] = ()) -> None:
        """One worker for each route, and for each that mail is `waiting` under though it is gone.

        A route that is taken away keeps its worker: mail that waits there, or was just decided to, is moved on.
        """
        assert self._group is not None
        wanted = dict.fromkeys((*self.workers, *waiting), 1)
        wanted |= {name: self._runners(name) for name in self.policy.routes}
        for name, runners in wanted.items():
            before = self.workers.get(name)
            if before is None or before.runners != runners:
                worker = self.workers[name] = Worker(name, runners, self._shared)
                self._group.create_task(self._run_worker(worker))
                if before is not None:
                    before.stop()

    async def _run_worker(self, worker: Worker) -> None:
        await worker.run()
        self._ring(worker.route)  # what it gave back is its successor's

    def _runners(self, route: str) -> int:
        ways = self.policy.routes[route].upstreams
        return sum(self.upstreams[name].limits.max_connections for name in ways)

    def _room(self, route: str, size: int) -> bool:
        worker = self.workers.get(route)
        return worker is not None and worker.room(size)

    def _offer(self, lease: Lease, decision: Accept, policy: Policy) -> None:
        self.workers[decision.route.name].offer(lease, decision, policy)

    def _ring(self, route: str) -> None:
        self.workers[route].make_due()

    def _upstream_changed(self) -> None:
        for worker in self.workers.values():
            worker.make_due()

    # Change

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
        if self._path is None:
            raise RelayError("this relay runs without a configuration file")
        if self._stop.is_set():
            raise RelayError("the relay is stopping")
        config = await asyncio.to_thread(load.load, self._path)
        missing = await asyncio.to_thread(outside.problems, config, serving=True)
        if missing:
            raise BadConfig(missing)
        return config

    async def _apply(self, config: model.Config) -> tuple[str, ...]:
        assert self._group is not None
        old = self.config
        policy = compile.policy(config)
        settings = [wiring.listener_settings(index, config) for index in range(len(config.listeners))]
        upstreams = {name: self._kept(name, config) or self._upstream(name, config) for name in config.upstreams}
        sockets = {one.name: _socket_terms(one) for one in old.listeners}
        staying = {one.name for one in config.listeners if sockets.get(one.name) == _socket_terms(one)}
        leaving = [listener for listener in self.listeners if listener.name not in staying]
        new = [index for index, one in enumerate(config.listeners) if one.name not in staying]
        opened = await self._replace(leaving, new, config)
        # From here on nothing can refuse, and up to the end of the swap nobody else has a turn.
        self.listeners = [listener for listener in self.listeners if listener.name in staying] + opened
        for listener in self.listeners:
            listener.change(next(one for one in settings if one.name == listener.name))
        gone = [upstream for name, upstream in self.upstreams.items() if upstreams.get(name) is not upstream]
        self.upstreams.clear()
        self.upstreams.update(upstreams)
        self.config, self.policy = config, policy
        self.store.keep_free(config.queue.min_free)
        self.metrics.configure(wiring.names(config, policy))
        if self._log is not None:
            self._log.configure(level=config.log.level, format=config.log.format)
        self._sync_workers()
        for listener in opened:
            await listener.start()
        for upstream in gone:  # attempts under way hold the object itself; nobody new finds it
            await upstream.close()
        self._gone = [upstream for upstream in (*self._gone, *gone) if upstream.connections != (0, 0)]
        await self._try_everything()
        self._warn_of(config)
        needs_restart = _needs_restart(old, config)
        self.observer.observe(ConfigReloaded(needs_restart))
        return needs_restart

    async def _replace(self, leaving: list[Listener], new: list[int], config: model.Config) -> list[Listener]:
        """Open the `new` listeners and end those that leave; or neither, and raise RelayError."""
        assert self._group is not None
        ports = {address.port for index in new for address in config.listeners[index].listen}
        in_the_way = [one for one in leaving if ports & {port for _, port in one.addresses}]
        for listener in in_the_way:  # they hold what the new ones need
            listener.stop_accepting()
        try:
            opened = self._open_listeners(config, new)
        except RelayError:
            await self._reopen(in_the_way)
            raise
        for listener in leaving:
            self._group.create_task(listener.close())
        return opened

    async def _reopen(self, closed: list[Listener]) -> None:
        """Put others in the place of listeners that had stopped accepting, as the configuration still says."""
        assert self._group is not None
        names = {listener.name for listener in closed}
        for index, one in enumerate(self.config.listeners):
            if one.name in names:
                try:
                    again = self._open_listeners(self.config, [index])
                except RelayError as error:
                    self._warn(f"{one.name} cannot be opened again: {error}")
                    continue
                for listener in again:
                    await listener.start()
                self.listeners += again
        for listener in closed:
            self.listeners.remove(listener)
            self._group.create_task(listener.close())

    def _kept(self, name: str, config: model.Config) -> Upstream | None:
        """The upstream of that name, if its configuration did not change; its files are read anew."""
        same = self.config.upstreams.get(name) == config.upstreams[name] and self.config.hostname == config.hostname
        upstream = self.upstreams.get(name) if same else None
        if upstream is not None:
            upstream.transport.reload()
        return upstream

    async def _try_everything(self) -> None:
        """What made mail wait may be mended."""
        try:
            await self.store.make_due(now=wiring.now())
        except StoreUnavailable:
            pass  # the store has told everybody; mail is tried when it would have been
        for upstream in self.upstreams.values():
            upstream.try_now()
        self._upstream_changed()

    def _warn_of(self, config: model.Config) -> None:
        for warning in advice.warnings(config):
            self._warn(str(warning))

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


def _needs_restart(old: model.Config, new: model.Config) -> tuple[str, ...]:
    """The keys whose change waits for a restart."""
    keys = (
        ("queue.store", old.queue.store, new.queue.store),
        ("admin", old.admin, new.admin),
    )
    return tuple(key for key, before, after in keys if before != after)


def _socket_terms(listener: model.Listener) -> object:
    """What cannot be changed about sockets that are being served."""
    return listener.listen, listener.tls == "implicit"


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
        house = House(config, path, log=log)
        end_listening = foreign.listen(house.observer, loop)
        loop.set_exception_handler(lambda _, context: _unhandled(house, context))
        try:
            await house.open()
            reloads = set[asyncio.Task[None]]()

            def reload() -> None:
                task = loop.create_task(_reload(house))
                reloads.add(task)
                task.add_done_callback(reloads.discard)

            loop.add_signal_handler(signal.SIGHUP, reload)
            loop.add_signal_handler(signal.SIGTERM, house.stop)
            loop.add_signal_handler(signal.SIGINT, house.stop)
            try:
                await house.serve()
            except Exception as error:  # noqa: BLE001  # bulkhead: no traceback on the terminal; it goes to the log
                house.observer.observe(_caught("daemon", error))
                raise RelayError("ended by an unexpected error; the log has it, the queue keeps the mail") from None
        finally:
            end_listening()
    finally:
        log.close()


async def _reload(house: House) -> None:
    systemd.notify("RELOADING=1")
    try:
        await house.reload()
    except RelayError:
        pass  # told as ReloadRefused
    except Exception as error:  # noqa: BLE001  # bulkhead: a reload must not end the relay
        house.observer.observe(_caught("daemon", error))
    finally:
        systemd.notify("READY=1")


def _caught(component: str, error: Exception) -> ExceptionCaught:
    return ExceptionCaught(component, type(error).__name__, "".join(traceback.format_exception(error)))


def _unhandled(house: House, context: dict[str, object]) -> None:
    error = context.get("exception")
    if isinstance(error, ConnectionError | TimeoutError):
        return  # a peer that went away
    text = "".join(traceback.format_exception(error)) if isinstance(error, BaseException) else ""
    house.observer.observe(ExceptionCaught("other", str(context.get("message")), text))
