"""Telling everybody who watches: each event goes to each observer in turn.

An observer that raises is reported once, through the others, and set aside: it hears nothing any
more, and the rest go on. Those who watch never disturb mail.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterable

from relay.events import Event, ExceptionCaught, Observer


class FanOut:
    """An observer that tells others. To be used on the event loop only."""

    __slots__ = ("_observers",)

    def __init__(self, observers: Iterable[Observer]) -> None:
        self._observers = tuple(observers)

    def observe(self, event: Event) -> None:
        for observer in self._observers:
            try:
                observer.observe(event)
            except Exception as error:  # noqa: BLE001  # bulkhead: who watches never disturbs mail
                self._set_aside(observer, error)

    def _set_aside(self, observer: Observer, error: Exception) -> None:
        # The loop in `observe` goes on over the old tuple, so an observer can come here a second time.
        rest = tuple(other for other in self._observers if other is not observer)
        if len(rest) == len(self._observers):
            return
        self._observers = rest
        text = f"{type(observer).__name__} is set aside: {type(error).__name__}: {error}"
        self.observe(ExceptionCaught("observer", text, "".join(traceback.format_exception(error))))
