"""`relay queue`: what it shows, and what an operator can do with it; with a desk of values, and with a real queue."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from rich.cells import cell_len

from relay.admin import desk as real_desk
from relay.admin import documents
from relay.cli import entries, screen
from relay.cli.table import text
from relay.queue.listing import Acted, Did, Listed, Place, Tried, Verb, Wanted
from relay.queue.model import Kind
from tests.admin.house import answering, ask, open_store
from tests.cli.desk import EVIL, NOW, FakeDesk, a_message, all_about, configuration, run, terminal, to, unescaped
from tests.queue.mail import an_entry

FINISHED = a_message(
    9,
    Place.FINISHED,
    recipients=(
        to("piet@example.org", "delivered", "250 2.0.0 OK", "own"),
        to("weg@example.org", "failed", "550 5.1.1"),
    ),
)
EVERYTHING = (
    a_message(1),
    a_message(2, Place.ACTIVE, wish="cancel", reverse_path=""),
    a_message(3, Place.HELD, recipients=(to("a@x.nl"), to("b@x.nl"), to("c@x.nl"))),
    a_message(4, Place.PENDING, session_code=True, route="session-codes", attempts=0),
    a_message(5, kind=Kind.BOUNCE, reverse_path="", recipients=(to(EVIL, reply=EVIL),)),
    a_message(6, Place.DAMAGED, damage="its content cannot be read", recipients=()),
)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return configuration(tmp_path)


def at_the_desk(monkeypatch: pytest.MonkeyPatch, *listed: Listed) -> FakeDesk:
    desk = FakeDesk(*listed)

    class Opened:
        def __enter__(self) -> FakeDesk:
            return desk

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(real_desk, "open_desk", lambda *_: Opened())
    return desk


def drawn(listed: tuple[Listed, ...], width: int | None) -> list[str]:
    return [text(line) for line in entries.listed(map(documents.entry, listed), NOW, width)]


# What is shown


def test_a_line_fits_eighty_columns_with_its_id_state_and_age_whole() -> None:
    lines = drawn(EVERYTHING, 80)
    assert all(cell_len(line) <= 80 for line in lines)
    first = next(line for line in lines if line.startswith("0XK3M7PQ0001"))
    assert first.split()[:3] == ["0XK3M7PQ0001", "deferred", "3h"]
    assert "…" in first
    assert "  451 4.7.1 Greylisted, please try again in 5 minutes" in lines


def test_a_wide_terminal_shows_every_column() -> None:
    title = drawn(EVERYTHING, 160)[0]
    assert title.split() == [
        "ID",
        "STATE",
        "KIND",
        "AGE",
        "SIZE",
        "ROUTE",
        "TRIES",
        "NEXT",
        "FROM",
        "TO",
        "LAST",
        "REPLY",
    ]


def test_a_session_code_a_bounce_and_a_wish_that_waits_are_marked() -> None:
    rows = {line.split()[0]: line.split() for line in drawn(EVERYTHING, None)}
    assert rows["0XK3M7PQ0004"][1:3] == ["pending", "code"]
    assert rows["0XK3M7PQ0005"][1:3] == ["deferred", "bounce"]
    assert rows["0XK3M7PQ0002"][1] == "active,cancel"
    assert rows["0XK3M7PQ0002"][8] == "<>"
    assert rows["0XK3M7PQ0003"][9] == "a@x.nl,b@x.nl,c@x.nl"
    assert rows["0XK3M7PQ0006"][10:] == ["its", "content", "cannot", "be", "read"]


def test_in_a_pipe_every_entry_is_one_line_with_the_same_number_of_words() -> None:
    lines = drawn(EVERYTHING, None)
    assert len(lines) == len(EVERYTHING) + 1
    assert {len(line.split(maxsplit=10)) for line in lines} == {11}


@pytest.mark.parametrize("width", [80, 160, None])
def test_what_a_stranger_wrote_commands_no_terminal(width: int | None) -> None:
    listed = replace(EVERYTHING[4], route=EVIL, client=EVIL, user=EVIL, reverse_path=EVIL)
    entry = unescaped(documents.entry(listed))
    tried = (Tried(1, NOW, EVIL, EVIL, EVIL),)
    message = all_about(listed, helo=EVIL, head=f"Subject: {EVIL}\r\n".encode(), tries=tried)
    told = [
        *entries.listed([entry], NOW, width),
        *entries.found([entry], NOW, width),
        *entries.shown(unescaped(documents.message(message))["message"], NOW, width),
    ]
    assert [text(line) for line in told if not text(line).isprintable()] == []


def test_find_tells_of_a_finished_message_how_it_ended() -> None:
    lines = [text(line) for line in entries.found([documents.entry(FINISHED)], NOW, None)]
    row = lines[1].split()
    assert row[2] == "delivered+failed"
    assert row[1].startswith("2026-11-2")
    assert row[-2:] == ["550", "5.1.1"]


def test_show_cuts_no_reply_and_has_the_header() -> None:
    told = [text(line) for line in entries.shown(documents.message(all_about(EVERYTHING[0]))["message"], NOW, 80)]
    whole = "".join([line.strip() for line in told])
    assert "x" * 200 in whole
    assert "  Subject: Factuur [bold]117[/bold]" in told
    assert told[0] == "0XK3M7PQ0001  deferred"
    assert any("3, the next in 4m" in line for line in told)


def test_show_marks_a_session_code() -> None:
    told = [text(line) for line in entries.shown(documents.message(all_about(EVERYTHING[3]))["message"], NOW, 80)]
    assert told[0] == "0XK3M7PQ0004  pending  session code"
    assert "Subject" not in "\n".join(told)


def test_a_terminal_gets_colours_and_no_colours_where_they_are_not_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    def written(**environment: str) -> str:
        with monkeypatch.context() as patch, terminal() as tty:
            for name in ("NO_COLOR", "FORCE_COLOR", "COLORTERM"):
                patch.delenv(name, raising=False)
            for name, value in {"TERM": "xterm", "COLUMNS": "80", "LINES": "50", **environment}.items():
                patch.setenv(name, value)
            patch.setattr(sys, "stdout", tty.stream)
            screen.show(entries.listed([documents.entry(EVERYTHING[0])], NOW, 80))
        return tty.written

    assert "\x1b[33mdeferred" in written()
    assert "\x1b[33m" not in written(NO_COLOR="1")
    assert "\x1b" not in written(TERM="dumb")


def test_long_output_goes_through_the_pager_on_a_terminal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    paged = tmp_path / "paged"
    pager = tmp_path / "pager"
    pager.write_text(f"#!/bin/sh\ncat > {paged}\n")
    pager.chmod(0o755)
    monkeypatch.setenv("PAGER", str(pager))
    monkeypatch.setenv("LINES", "24")
    with terminal() as tty, open(os.ttyname(tty.stream.fileno())) as keyboard:
        monkeypatch.setattr(sys, "stdin", keyboard)
        monkeypatch.setattr(sys, "stdout", tty.stream)
        screen.show(entries.listed(map(documents.entry, EVERYTHING), NOW, 80))
        assert not paged.exists()
        screen.show(entries.listed(map(documents.entry, EVERYTHING * 5), NOW, 80))
    assert paged.read_text().count("0XK3M7PQ0001") == 5


# What is asked


def test_list_pages_until_it_has_what_was_asked_for(monkeypatch: pytest.MonkeyPatch, config: Path) -> None:
    at_the_desk(monkeypatch, *[a_message(number) for number in range(1, 1_202)])
    told = json.loads(run("queue", "list", "--limit", "1200", "--json", "-c", str(config)).stdout)
    assert len(told["entries"]) == len({entry["queue_id"] for entry in told["entries"]}) == 1_200
    assert told["version"] == 1
    assert told["next"] == 1_200
    result = run("queue", "list", "-c", str(config))
    assert len(result.stdout.splitlines()) == 101
    assert result.stderr == "these are the 100 oldest; there are more (--limit)\n"


def test_conditions_reach_the_desk(monkeypatch: pytest.MonkeyPatch, config: Path) -> None:
    desk = at_the_desk(monkeypatch, *EVERYTHING)
    words = [
        "--state",
        "held",
        "--route",
        "default",
        "--to",
        "*@x.nl",
        "--from",
        "<>",
        "--since",
        "2024-11-01T08:00+01:00",
    ]
    assert run("queue", "list", *words, "--since", "2024-11-01T08:00+01:00", "-c", str(config)).exit_code == 0
    [wanted] = desk.wanted
    assert (wanted.place, wanted.route, wanted.to, wanted.from_) == (Place.HELD, "default", "*@x.nl", "<>")
    assert wanted.since is not None
    assert wanted.since.isoformat().startswith("2024-11-01")


@pytest.mark.parametrize(
    "words",
    [
        ("list", "--state", "kwijt"),
        ("list", "--state", "finished"),
        ("list", "--since", "gisteren"),
        ("list", "--limit", "0"),
        ("retry",),
        ("retry", "0XK3", "--all"),
        ("retry", "0XK3", "--yes"),
        ("retry", "0XK3", "--state", "held"),
        ("reroute", "0XK3"),
    ],
)
def test_what_makes_no_sense_is_exit_code_2(monkeypatch: pytest.MonkeyPatch, config: Path, words: tuple[str]) -> None:
    desk = at_the_desk(monkeypatch, *EVERYTHING)
    result = run("queue", *words, "-c", str(config))
    assert result.exit_code == 2
    assert desk.orders == []
    assert "Traceback" not in result.output


# What is done


def test_a_verb_says_what_became_of_each(monkeypatch: pytest.MonkeyPatch, config: Path) -> None:
    desk = at_the_desk(monkeypatch, *EVERYTHING)
    desk.did["0XK3M7PQ0002"] = Acted("0XK3M7PQ0002", Did.AFTER_ATTEMPT)
    result = run("queue", "hold", "0xk3m7pq0001", "0XK3M7PQ0002", "-c", str(config))
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "0XK3M7PQ0001: held",
        "0XK3M7PQ0002: active: hold follows when its attempt has ended, unless that ends it",
    ]
    assert desk.orders == [(Verb.HOLD, ["0XK3M7PQ0001", "0XK3M7PQ0002"], None)]


def test_what_is_not_possible_is_a_sentence_on_stderr_and_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, config: Path
) -> None:
    desk = at_the_desk(monkeypatch, *EVERYTHING)
    desk.did["0XK3M7PQ0006"] = Acted("0XK3M7PQ0006", Did.IMPOSSIBLE, "it is damaged: only cancel can end it")
    result = run("queue", "retry", "0XK3M7PQ0001", "0XK3M7PQ0006", "-c", str(config))
    assert result.exit_code == 1
    assert result.stdout == "0XK3M7PQ0001: due now\n"
    assert result.stderr == "0XK3M7PQ0006: it is damaged: only cancel can end it\n"


def test_an_id_that_is_not_there_is_exit_code_4_and_the_others_are_done(
    monkeypatch: pytest.MonkeyPatch, config: Path
) -> None:
    desk = at_the_desk(monkeypatch, *EVERYTHING)
    result = run("queue", "cancel", "ZZZ", "0XK3M7PQ0001", "-c", str(config))
    assert result.exit_code == 4
    assert result.stdout == "0XK3M7PQ0001: cancelled\n"
    assert "ZZZ" in result.stderr
    assert desk.orders == [(Verb.CANCEL, ["0XK3M7PQ0001"], None)]
    assert run("queue", "show", "ZZZ", "-c", str(config)).exit_code == 4


def test_an_ambiguous_id_is_exit_code_1_with_its_candidates(monkeypatch: pytest.MonkeyPatch, config: Path) -> None:
    desk = at_the_desk(monkeypatch, *EVERYTHING)
    result = run("queue", "cancel", "0XK3", "-c", str(config))
    assert result.exit_code == 1
    assert "0XK3M7PQ0001, 0XK3M7PQ0002" in result.stderr
    assert desk.orders == []


def test_a_thousand_ids_are_given_in_parts(monkeypatch: pytest.MonkeyPatch, config: Path) -> None:
    messages = [a_message(number) for number in range(1, 1_101)]
    desk = at_the_desk(monkeypatch, *messages)
    told = run("queue", "retry", *[m.queue_id for m in messages], "--json", "-c", str(config))
    document = json.loads(told.stdout)
    assert (document["of"], document["counts"]["done"], len(document["results"])) == (1_100, 1_100, 1_100)
    assert [len(ids) for _, ids, _ in desk.orders] == [500, 500, 100]


def test_all_without_yes_says_how_many_and_does_nothing(monkeypatch: pytest.MonkeyPatch, config: Path) -> None:
    desk = at_the_desk(monkeypatch, *[a_message(number) for number in range(1, 702)])
    result = run("queue", "cancel", "--all", "-c", str(config))
    assert result.exit_code == 1
    assert result.stderr == "cancel: 701 entries; nothing was done (to do it: --all --yes)\n"
    assert desk.orders == []


def test_all_with_yes_is_one_sentence(monkeypatch: pytest.MonkeyPatch, config: Path) -> None:
    desk = at_the_desk(monkeypatch, *EVERYTHING)
    desk.did["0XK3M7PQ0002"] = Acted("0XK3M7PQ0002", Did.AFTER_ATTEMPT)
    result = run("queue", "reroute", "--all", "--yes", "--from-route", "old", "--route", "new", "-c", str(config))
    assert result.exit_code == 0
    assert result.stdout == "reroute: 6 entries, 5 done, 1 after the attempt under way\n"
    assert desk.wanted == [Wanted(route="old")]
    assert desk.orders[0][2] == "new"


def test_a_backup_says_what_it_holds(monkeypatch: pytest.MonkeyPatch, config: Path, tmp_path: Path) -> None:
    at_the_desk(monkeypatch)
    result = run("queue", "backup", str(tmp_path / "copy.db"), "-c", str(config))
    assert result.stdout == f"{tmp_path}/copy.db: 2 entries, 1.2 MiB; 1 session code left out\n"


# With a real queue


@pytest.mark.asyncio
async def test_a_held_message_is_seen_released_and_cancelled_while_no_relay_runs(config: Path, tmp_path: Path) -> None:
    store = await open_store(tmp_path)
    entry = an_entry()
    await store.put(entry, leased=False, held=True)
    await store.close()
    line = (await ask(run, "queue", "list", "-c", str(config))).stdout.splitlines()[1]
    assert line.split()[:2] == [entry.queue_id, "held"]
    released = await ask(run, "queue", "release", entry.queue_id[:-1].lower(), "-c", str(config))
    assert (released.exit_code, released.stdout) == (0, f"{entry.queue_id}: released\n")
    cancelled = await ask(run, "queue", "cancel", "--all", "--yes", "-c", str(config))
    assert (cancelled.exit_code, cancelled.stdout) == (0, "cancel: 1 entry, 1 done\n")
    assert (await ask(run, "queue", "list", "-c", str(config))).stderr == "nothing waits\n"
    found = await ask(run, "queue", "find", "--json", "-c", str(config))
    assert [one["recipients"][0]["state"] for one in json.loads(found.stdout)["entries"]] == ["cancelled"]


@pytest.mark.asyncio
async def test_the_same_commands_ask_a_relay_that_runs(config: Path, tmp_path: Path) -> None:
    store = await open_store(tmp_path)
    entry = an_entry()
    await store.put(entry, leased=False)
    try:
        async with answering(tmp_path / "admin.sock", store):
            shown = await ask(run, "queue", "show", entry.queue_id, "-c", str(config))
            assert shown.stdout.startswith(f"{entry.queue_id}  pending\n")
            held = await ask(run, "queue", "hold", entry.queue_id, "-c", str(config))
            assert held.stdout == f"{entry.queue_id}: held\n"
            saved = await ask(run, "queue", "backup", str(tmp_path / "copy.db"), "-c", str(config))
            assert saved.exit_code == 0, saved.stderr
            again = await ask(run, "queue", "backup", str(tmp_path / "copy.db"), "-c", str(config))
            assert again.exit_code == 1
            nowhere = await ask(run, "queue", "reroute", entry.queue_id, "--route", "x", "-c", str(config))
            assert nowhere.exit_code == 1
            assert "no route named" in nowhere.stderr
    finally:
        await store.close()


@pytest.mark.asyncio
async def test_what_is_to_be_bounced_waits_for_a_relay_and_the_command_says_so(config: Path, tmp_path: Path) -> None:
    store = await open_store(tmp_path)
    one, other = an_entry(), an_entry()
    await store.put(one, leased=False)
    await store.put(other, leased=False)
    await store.close()
    alone = await ask(run, "queue", "bounce", one.queue_id, "-c", str(config))
    assert alone.stdout == f"{one.queue_id}: it will be returned to its sender when the relay runs\n"
    every = await ask(run, "queue", "bounce", "--all", "--yes", "-c", str(config))
    assert every.exit_code == 0
    assert every.stderr == "no relay runs: they are returned to their senders when it does\n"


def test_a_queue_that_does_not_exist_is_not_made_by_looking(config: Path, tmp_path: Path) -> None:
    result = run("queue", "list", "-c", str(config))
    assert result.exit_code == 1
    assert result.stderr == f"relay: there is no queue at {tmp_path}/queue.db: a relay makes it when it starts\n"
    assert not (tmp_path / "queue.db").exists()
