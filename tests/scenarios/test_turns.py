"""No message stops the loop: an ordinary one is judged and rendered on it, what is made to be hard on a thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from relay.delivery import attempt, call, worker
from relay.events import RecipientFailed
from relay.ingress import accept
from relay.policy.decide import LARGE_HEAD
from relay.policy.refusal import Table
from relay.transport import transaction
from tests.kit.house import JAN, PIET, Site, mail

EVERYBODY = [f"klant.nummer.{n}@example.org" for n in range(1000)]
COMMAS = b"From: " + (b"," * 900 + b"\r\n ") * 270 + b",\r\nSubject: x\r\n\r\nhi\r\n"
HEAVY = [{"match": {"to": f"/klant.*{n}.*q/"}, "address": "a@example.nl"} for n in range(1000)]


class Watched:
    """What was done on the thread that this was made on, and what on others."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._loop = threading.get_ident()
        self.here: set[str] = set()
        self.aside: set[str] = set()
        for where, name in ((accept, "judge"), (attempt, "judge"), (call, "render"), (worker, "settle")):
            patch.setattr(where, name, self._watching(getattr(where, name)))

    def _watching(self, work: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*arguments: Any, **more: Any) -> Any:
            (self.here if threading.get_ident() == self._loop else self.aside).add(work.__name__)
            return work(*arguments, **more)

        return watched


@pytest.mark.asyncio
async def test_an_ordinary_message_is_judged_and_rendered_on_the_loop(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with site.upstream() as own:
        site.configure(upstreams={"own": site.way_to(own)}, senders=[*HEAVY[:999], {"address": "a@example.nl"}])
        async with site.house() as house:
            watched = Watched(monkeypatch)
            await house.send(JAN, [PIET])
            await house.empty()
            assert (watched.here, watched.aside) == ({"judge", "render", "settle"}, set())


@pytest.mark.asyncio
async def test_a_from_of_commas_is_judged_and_rendered_on_a_thread_at_the_door_and_at_the_attempt(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with site.upstream() as own:
        own.script("dot", "450 4.7.1 later")
        site.configure(upstreams={"own": site.way_to(own)}, senders=[{"address": "a@example.nl"}])
        async with site.house() as house:
            watched = Watched(monkeypatch)
            assert len(COMMAS) > LARGE_HEAD
            await house.send(JAN, [PIET], COMMAS)
            await house.empty()  # after two attempts
            assert watched.here == {"settle"}  # of what was delivered there is nothing to write
            assert watched.aside == {"judge", "render", "settle"}


@pytest.mark.asyncio
async def test_many_recipients_are_held_against_many_expressions_on_a_thread(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with site.upstream() as own:
        site.configure(upstreams={"own": site.way_to(own)}, senders=HEAVY)
        async with site.house() as house:
            watched = Watched(monkeypatch)
            await house.send(JAN, EVERYBODY, mail())
            await house.empty()
            assert "judge" in watched.aside
            assert "judge" not in watched.here


@pytest.mark.asyncio
async def test_the_report_about_a_thousand_recipients_is_written_on_a_thread(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with site.upstream() as own:
        own.script("rcpt", "550 5.1.1 no such user", times=len(EVERYBODY))
        site.configure(upstreams={"own": site.way_to(own, max_recipients=1000)})
        async with site.house() as house:
            watched = Watched(monkeypatch)
            await house.send(JAN, EVERYBODY, mail())
            await house.event(RecipientFailed, len(EVERYBODY))
            assert watched.aside == {"settle"}
            await house.empty()
            report = await own.message(1)
            assert report.content.count(b"Final-Recipient:") == len(EVERYBODY)


@pytest.mark.asyncio
async def test_what_is_said_about_a_thousand_recipients_is_read_in_turns_and_told_apart_on_a_thread(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, turns = asyncio.get_running_loop(), [0]
    read, told_apart = transaction.reply_of, Table.judge
    threads: set[int] = set()

    def reading(raw: bytes) -> Any:
        if not turns[-1]:
            loop.call_soon(turns.append, 0)
        turns[-1] += 1
        return read(raw)

    def telling_apart(*arguments: Any, **named: Any) -> Any:
        threads.add(threading.get_ident())
        return told_apart(*arguments, **named)

    async with site.upstream() as own:
        own.script("rcpt", "550 5.1.1 " + "no such user " * 100, times=len(EVERYBODY))
        site.configure(upstreams={"own": site.way_to(own, max_recipients=1000)})
        async with site.house() as house:
            monkeypatch.setattr(transaction, "reply_of", reading)
            monkeypatch.setattr(Table, "judge", telling_apart)
            await house.send(JAN, EVERYBODY, mail())
            await house.event(RecipientFailed, len(EVERYBODY))
            assert sum(turns) >= len(EVERYBODY)
            assert max(turns) <= transaction.AT_ONCE
            assert threading.get_ident() not in threads
            await house.empty()
