"""Passing events on to everybody who watches, in turn.

An observer that raises is reported once, through the others, and set aside: it gets no event any more, and the rest go
on. Those who watch never disturb mail.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from relay.events import Event, ExceptionCaught, Observer

_Take = Callable[[Any], object]


class Taking:
    """An observer of a few kinds of events: `takes` has what it does with each, and stays as it is."""

    takes: Mapping[type[Event], tuple[_Take, ...]]

    def observe(self, event: Event) -> None:
        for take in self.takes.get(type(event), ()):
            take(event)


class FanOut:
    """An observer that passes each event on to others. To be used on the event loop only.

    One that takes few kinds of events (`Taking`) is asked about nothing else.
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
        return tuple(
            (observer, take)
            for observer in self._observers
            for take in (observer.takes.get(kind, ()) if isinstance(observer, Taking) else (observer.observe,))
        )

    def _set_aside(self, observer: Observer, error: Exception) -> None:
        # The loop in `observe` goes on over the old tuple, so an observer can come here a second time.
        rest = tuple(other for other in self._observers if other is not observer)
        if len(rest) == len(self._observers):
            return
        self._observers = rest
        self._takers.clear()
        text = f"{type(observer).__name__} is set aside: {type(error).__name__}: {error}"
        self.observe(ExceptionCaught("observer", text, "".join(traceback.format_exception(error))))
