"""Everybody hears everything; one that raises is set aside and the others hear of it."""

from __future__ import annotations

from relay import events
from relay.observe.fan_out import FanOut, Taking
from tests.observe.samples import ENDED, QUEUED, Recorder


class Clumsy:
    """Raises at every event, and counts how often it was told."""

    def __init__(self) -> None:
        self.told = 0

    def observe(self, event: events.Event) -> None:
        self.told += 1
        raise LookupError("stumbled")


def test_every_observer_hears_every_event_in_order() -> None:
    first, second = Recorder(), Recorder()
    fan_out = FanOut([first, second])
    fan_out.observe(QUEUED)
    fan_out.observe(ENDED)
    assert first.events == second.events == [QUEUED, ENDED]


def test_an_observer_that_raises_is_reported_once_and_hears_nothing_any_more() -> None:
    before, clumsy, after = Recorder(), Clumsy(), Recorder()
    fan_out = FanOut([before, clumsy, after])
    fan_out.observe(QUEUED)
    fan_out.observe(ENDED)
    assert clumsy.told == 1
    assert [event for event in after.events if not isinstance(event, events.ExceptionCaught)] == [QUEUED, ENDED]
    (report,) = (event for event in before.events if isinstance(event, events.ExceptionCaught))
    assert report.component == "observer"
    assert "Clumsy" in report.text
    assert "LookupError: stumbled" in report.traceback


def test_two_clumsy_observers_do_not_keep_each_other_busy() -> None:
    one, two, watcher = Clumsy(), Clumsy(), Recorder()
    fan_out = FanOut([one, two, watcher])
    fan_out.observe(QUEUED)
    fan_out.observe(ENDED)
    assert [type(event) for event in watcher.events].count(events.ExceptionCaught) == 2
    assert one.told == 1
    assert two.told <= 2  # the report about the first, and the event it was about


def test_when_the_last_observer_falls_the_caller_notices_nothing() -> None:
    fan_out = FanOut([Clumsy()])
    fan_out.observe(QUEUED)
    fan_out.observe(ENDED)


def test_an_observer_that_says_what_it_takes_gets_nothing_else() -> None:
    class Picky(Taking):
        def __init__(self) -> None:
            self.events: list[events.Event] = []
            self.takes = {type(ENDED): (self.events.append,)}

    picky, other = Picky(), Recorder()
    fan_out = FanOut([picky, other])
    fan_out.observe(QUEUED)
    fan_out.observe(ENDED)
    assert picky.events == [ENDED]
    assert other.events == [QUEUED, ENDED]
