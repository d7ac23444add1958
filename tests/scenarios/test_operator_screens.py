"""What the administrator's commands show fits the terminal, has colours only on one, and is one line each in a pipe."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio
from rich.cells import cell_len

from relay import wiring
from relay.events import EntryHeld, RecipientDeferred, RecipientFailed
from tests.kit.house import JAN, PIET, RunningHouse, Site
from tests.scenarios.desk import Answer, at_terminal, reachable, relay

LONG = "jan.van.der.berg-de.groot@accountantskantoor-voorbeeld-en-zonen.nl"
GREYLISTED = (
    "450 4.2.1 <klaas@example.org>: Recipient address rejected: Greylisted, see "
    "http://postgrey.schweikert.ch/help/example.org.html"
)
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
SCREENS = (["status"], ["queue", "list"], ["queue", "find"], ["clients"])


@pytest_asyncio.fixture
async def busy(site: Site, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[RunningHouse, str]]:
    """A relay with mail of three days ago and of today, in several states; and the ID of one that is deferred."""

    def judge(_: object) -> str | None:
        word = own.commands[-1]
        return GREYLISTED if "klaas@" in word else "550 5.1.1 no such user" if "nobody@" in word else None

    async with site.upstream() as own:
        own.script("rcpt", judge, times=None)
        senders = [{"name": "look", "match": {"to": "*@hold.example"}, "hold": True}]
        site.configure(upstreams={"own": site.way_to(own)}, routes={"default": {"retry": "1d"}}, senders=senders)
        with monkeypatch.context() as patched:
            patched.setattr(wiring, "now", lambda: datetime.now(UTC) - timedelta(days=3))
            async with site.house() as house:
                await house.send(JAN, [PIET, "nobody@example.org"])
                await house.event(RecipientFailed)
                waits = await house.send(LONG, ["klaas@example.org", PIET, "nobody@example.org"])
                await house.event(RecipientDeferred, queue_id=waits)
        async with site.house() as house:
            await house.event(RecipientDeferred, queue_id=waits)
            await house.send(JAN, ["anna@hold.example"])
            await house.event(EntryHeld)
            await house.seen.until(lambda: not house.ledger.active)
            await reachable(site)
            yield house, waits


def too_wide(answer: Answer, width: int) -> list[str]:
    return [line for line in answer.plain.splitlines() if cell_len(line) > width]


@pytest.mark.asyncio
@pytest.mark.parametrize("width", [80, 160])
async def test_nothing_is_wider_than_the_terminal(site: Site, busy: tuple[RunningHouse, str], width: int) -> None:
    house, waits = busy
    for words in (*SCREENS, ["queue", "show", waits]):
        answer = await at_terminal(site, width, *words)
        assert too_wide(answer, width) == [], words
        assert COLOUR.search(answer.out), words
        assert answer.code == (1 if words == ["status"] else 0)
    listed = await at_terminal(site, width, "queue", "list")
    assert len(listed.plain.splitlines()) == (4 if width == 80 else 3)  # the reply goes below where it has no room
    assert house.ledger.held == 1


@pytest.mark.asyncio
async def test_without_colours_the_words_are_the_same(site: Site, busy: tuple[RunningHouse, str]) -> None:
    _, waits = busy
    now = datetime.now(UTC)
    for words in (["queue", "show", waits], ["queue", "find"], ["queue", "list", "--state", "held"]):
        coloured = await at_terminal(site, 80, *words, still=now)
        plain = await at_terminal(site, 80, *words, still=now, NO_COLOR="1")
        dumb = await at_terminal(site, 80, *words, still=now, TERM="dumb")
        # Bold stays, as https://no-color.org has it; a dumb terminal gets nothing at all.
        assert not re.search(r"\x1b\[(?:\d+;)*3\d", plain.out)
        assert "\x1b" not in dumb.out
        assert coloured.plain == plain.plain == dumb.out


@pytest.mark.asyncio
async def test_a_pipe_gets_one_whole_line_each_without_escapes(site: Site, busy: tuple[RunningHouse, str]) -> None:
    _, waits = busy
    for words in SCREENS:
        answer = await relay(site, *words, FORCE_COLOR="1")
        assert "\x1b" not in answer.out
        assert "…" not in answer.out
    listed = await relay(site, "queue", "list")
    assert [len(line.split(maxsplit=10)) for line in listed.lines] == [11, 11, 11]
    (line,) = [line for line in listed.lines if line.startswith(waits)]
    assert line.split(maxsplit=10)[8:] == [LONG, f"klaas@example.org,{PIET},nobody@example.org", GREYLISTED]
    found = await relay(site, "queue", "find", "--to", PIET)
    assert {line.split()[2] for line in found.lines[1:]} == {"deferred", "delivered+failed"}


@pytest.mark.asyncio
async def test_the_question_whether_a_mail_went_out_is_answered_after_days_without_its_subject(
    site: Site, busy: tuple[RunningHouse, str]
) -> None:
    found = await relay(site, "queue", "find", "--to", PIET, "--from", JAN, "--since", "4d")
    (line,) = found.lines[1:]
    assert "delivered+failed" in line
    assert line.endswith("550 5.1.1 no such user")
    shown = await relay(site, "queue", "show", line.split()[0])
    assert re.search(rf"{PIET} +delivered +\S+ +own +250 2\.0\.0 queued as 1", shown.out)
    assert "Factuur" not in shown.out
    nothing = await relay(site, "queue", "find", "--to", PIET, "--from", JAN, "--since", "2d")
    assert (nothing.code, nothing.out, nothing.err) == (0, "", "nothing found\n")
