"""What other libraries log, as events: one line each, from WARNING on."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Callable

from relay.events import Event, ExceptionCaught, Observer, Warned

_COMPONENTS = {"web": "web"}  # by the first part of a logger's name


class _Listener(logging.Handler):
    """A handler in the sense of `logging`, for records of any thread."""

    def __init__(self, observer: Observer, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(logging.WARNING)
        self._observer = observer
        self._loop = loop

    def emit(self, record: logging.LogRecord) -> None:
        # Observers live on the loop; a record may come from any thread, or after the loop has gone.
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._observer.observe, _event(record))


def _event(record: logging.LogRecord) -> Event:
    try:
        text = f"{record.name}: {record.getMessage()}"
    except (TypeError, ValueError):
        text = f"{record.name}: {record.msg}"  # the arguments do not fit the format
    if record.levelno < logging.ERROR or record.exc_info is None or record.exc_info[1] is None:
        return Warned(text)
    error = record.exc_info[1]
    component = _COMPONENTS.get(record.name.partition(".")[0], "other")
    trace = "".join(traceback.format_exception(error))
    return ExceptionCaught(component, f"{text}: {type(error).__name__}: {error}", trace)


def listen(observer: Observer, loop: asyncio.AbstractEventLoop) -> Callable[[], None]:
    """Tell `observer`, on `loop`, what other libraries log; the returned function ends it."""
    root = logging.getLogger()
    listener = _Listener(observer, loop)
    root.addHandler(listener)
    return lambda: root.removeHandler(listener)
