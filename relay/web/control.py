"""The admin socket: what changes anything goes through here, a Unix socket that only its group may use.

`POST /v1/reload` reads the configuration anew: 200 with {"version": 1, "needs_restart": […]}, or 422 with
{"version": 1, "problems": […]} when the file is bad and nothing was changed.
"""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

from aiohttp import web

from relay.admin.port import House
from relay.errors import BadConfig, RelayError


class ControlSocket:
    """The open socket, until `close`."""

    def __init__(self, runner: web.AppRunner, path: Path) -> None:
        self._runner = runner
        self._path = path

    async def close(self) -> None:
        await self._runner.cleanup()
        self._path.unlink(missing_ok=True)


async def start(path: Path, house: House) -> ControlSocket:
    """Serve `house` on a Unix socket at `path`, mode 0660. Raises OSError when that cannot be."""
    _clear(path)
    application = web.Application(client_max_size=64 * 1024)
    application.router.add_post("/v1/reload", _Reload(house).answer)
    runner = web.AppRunner(application, access_log=None, handle_signals=False)
    await runner.setup()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        mask = os.umask(0o117)
        try:
            listener.bind(str(path))
        finally:
            os.umask(mask)
        await web.SockSite(runner, listener).start()
    except BaseException:
        listener.close()
        await runner.cleanup()
        raise
    return ControlSocket(runner, path)


def _clear(path: Path) -> None:
    """Remove the socket of a process that is gone; one that somebody listens on stays, and `bind` refuses."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            return
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)


class _Reload:
    def __init__(self, house: House) -> None:
        self._house = house

    async def answer(self, _: web.Request) -> web.Response:
        try:
            needs_restart = await self._house.reload()
        except BadConfig as error:
            return web.json_response({"version": 1, "problems": [str(p) for p in error.problems]}, status=422)
        except RelayError as error:
            return web.json_response({"version": 1, "problems": [str(error)]}, status=422)
        return web.json_response({"version": 1, "needs_restart": list(needs_restart)})
