"""Passing events on to everybody who watches, in turn.

An observer that raises is reported once, through the others, and set aside: it gets no event any more, and the rest go
on. Those who watch never disturb mail.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable
from typing import Any

from relay.events import Event, ExceptionCaught, Observer

_Take = Callable[[Any], object]


class FanOut:
    """An observer that passes each event on to others. To be used on the event loop only.

    An observer that takes few kinds of events says which: it has `takes`, a mapping from the class of an event to what
    it does with one, which stays as it is. The others are asked about nothing else.
    """

    __slots__ = ("_observers", "_takers")

    def __init__(self, observers: Iterable[Observer]) -> None:
        self._observers = tuple(observers)
        self._takers: dict[type[Event], tuple[tuple[Observer, _Take], ...]] = {}

    def observe(self, event: Event) -> None:
        kind = type(event)
        takers = self._takers.get(kind)
        if takers is None:
            takers = self._takers[kind] = self._takers_of(kind)
        for observer, take in takers:
            try:
                take(event)
            except Exception as error:  # noqa: BLE001  # bulkhead: who watches never disturbs mail
                self._set_aside(observer, error)

    def _takers_of(self, kind: type[Event]) -> tuple[tuple[Observer, _Take], ...]:
        found = []
        for observer in self._observers:
            takes = getattr(observer, "takes", None)
            take = observer.observe if takes is None else takes.get(kind)
            if take is not None:
                found.append((observer, take))
        return tuple(found)

    def _set_aside(self, observer: Observer, error: Exception) -> None:
        # The loop in `observe` goes on over the old tuple, so an observer can come here a second time.
        rest = tuple(other for other in self._observers if other is not observer)
        if len(rest) == len(self._observers):
            return
        self._observers = rest
        self._takers.clear()
        text = f"{type(observer).__name__} is set aside: {type(error).__name__}: {error}"
        self.observe(ExceptionCaught("observer", text, "".join(traceback.format_exception(error))))
