"""What other libraries log arrives as events, and what they chat about does not."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from relay import events
from relay.observe import foreign
from tests.observe.samples import Recorder


@pytest_asyncio.fixture
async def heard() -> AsyncIterator[Recorder]:
    recorder = Recorder()
    end = foreign.listen(recorder, asyncio.get_running_loop())
    yield recorder
    end()


async def turn() -> None:
    """Let what was called on the loop from elsewhere happen."""
    done = asyncio.Event()
    asyncio.get_running_loop().call_soon(done.set)
    await done.wait()


@pytest.mark.asyncio
async def test_a_warning_of_a_library_becomes_an_event_on_the_loop_from_any_thread() -> None:
    told: list[tuple[events.Event, int]] = []

    class Watcher:
        def observe(self, event: events.Event) -> None:
            told.append((event, threading.get_ident()))

    end = foreign.listen(Watcher(), asyncio.get_running_loop())
    await asyncio.to_thread(logging.getLogger("some.library").warning, "careful with %s", "that")
    await turn()
    end()
    assert told == [(events.Warned("some.library: careful with that"), threading.get_ident())]


@pytest.mark.asyncio
async def test_an_exception_that_a_library_caught_is_counted_as_a_bug(heard: Recorder) -> None:
    try:
        raise ValueError("no")
    except ValueError:
        logging.getLogger("web").exception("request failed")
    await turn()
    (event,) = heard.events
    assert isinstance(event, events.ExceptionCaught)
    assert event.component == "web"
    assert event.text == "web: request failed: ValueError: no"
    assert "test_foreign.py" in event.traceback


@pytest.mark.asyncio
async def test_below_a_warning_nothing_is_heard_even_when_somebody_turns_the_root_to_debug(heard: Recorder) -> None:
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.DEBUG)
    try:
        logging.getLogger("mail.log").info("AUTH PLAIN c2VjcmV0")
        logging.getLogger("asyncio").debug("Using selector")
    finally:
        root.setLevel(level)
    await turn()
    assert heard.events == []


@pytest.mark.asyncio
async def test_a_record_whose_arguments_do_not_fit_is_heard_all_the_same(heard: Recorder) -> None:
    record = logging.LogRecord("some.library", logging.ERROR, __file__, 1, "%d files", ("three",), None)
    (ours,) = (at for at in logging.getLogger().handlers if type(at).__module__ == foreign.__name__)
    ours.handle(record)
    await turn()
    assert heard.events == [events.Warned("some.library: %d files")]


@pytest.mark.asyncio
async def test_after_the_end_nothing_is_heard() -> None:
    recorder = Recorder()
    foreign.listen(recorder, asyncio.get_running_loop())()
    logging.getLogger("some.library").warning("unheard")
    await turn()
    assert recorder.events == []
