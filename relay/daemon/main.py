"""How the house is run: by `relay serve` with its signals, or for the length of a block."""

from __future__ import annotations

import asyncio
import errno
import signal
import sys
import traceback
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

from relay.config import model
from relay.daemon.house import House
from relay.errors import RelayError
from relay.events import ExceptionCaught, Observer
from relay.observe import foreign, systemd
from relay.observe.log import LogWriter


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
            _heed_signals(house, loop)
            try:
                await house.serve()
            except Exception as error:  # noqa: BLE001  # bulkhead: no traceback on the terminal; it goes to the log
                house.observer.observe(_caught("daemon", error))
                raise RelayError("ended by an unexpected error; the log has it, the queue keeps the mail") from None
        finally:
            end_listening()
    finally:
        log.close()


def _heed_signals(house: House, loop: asyncio.AbstractEventLoop) -> None:
    reloads = set[asyncio.Task[None]]()

    def reload() -> None:
        task = loop.create_task(_reload(house))
        reloads.add(task)
        task.add_done_callback(reloads.discard)

    loop.add_signal_handler(signal.SIGHUP, reload)
    loop.add_signal_handler(signal.SIGTERM, house.stop)
    loop.add_signal_handler(signal.SIGINT, house.stop)


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
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return  # peers wait to be accepted; the metrics have the descriptors in use
    text = "".join(traceback.format_exception(error)) if isinstance(error, BaseException) else ""
    house.observer.observe(ExceptionCaught("other", str(context.get("message")), text))
