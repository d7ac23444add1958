"""Every verb on entries in every state, as commands: with a relay running, and on the queue alone."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from relay.delivery import worker
from relay.events import (
    EntryHeld,
    NotificationQueued,
    RecipientCancelled,
    RecipientDeferred,
    RecipientDelivered,
    RecipientFailed,
    UpstreamSetAside,
)
from tests.kit.house import JAN, PIET, RunningHouse, Site, free_port, mail
from tests.kit.house import send as hand_in
from tests.kit.ledger import balanced
from tests.kit.process import Process
from tests.kit.upstream import STOP_READING, ScriptedUpstream
from tests.scenarios.desk import Answer, reachable, relay

VERBS = ("retry", "hold", "release", "cancel", "bounce", "reroute")
STATES = ("pending", "deferred", "active", "held")
GREYLISTED = "450 4.2.0 greylisted"
AFTER = "active: {} follows when its attempt has ended, unless that ends it"
FINISHED = "it is finished: `relay queue show` tells what became of it"

EXPECTED = {
    "pending": {
        "retry": "due now",
        "hold": "held",
        "release": "it is not held",
        "cancel": "cancelled",
        "bounce": "will be returned to its sender",
        "reroute": "rerouted",
    },
    "deferred": {
        "retry": "due now",
        "hold": "held",
        "release": "it is not held",
        "cancel": "cancelled",
        "bounce": "will be returned to its sender",
        "reroute": "rerouted",
    },
    "active": {
        "retry": "it is being tried now",
        "hold": AFTER.format("hold"),
        "release": "it is not held",
        "cancel": AFTER.format("cancel"),
        "bounce": AFTER.format("bounce"),
        "reroute": AFTER.format("reroute"),
    },
    "held": {
        "retry": "it is held: release it",
        "hold": "it is held already",
        "release": "released",
        "cancel": "cancelled",
        "bounce": "will be returned to its sender",
        "reroute": "rerouted",
    },
}
LATER = "it will be returned to its sender when the relay runs"


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    """What ends without an attempt is looked for all the time."""
    monkeypatch.setattr(worker, "SWEEP", 0.02)


def configure(site: Site, own: ScriptedUpstream, slow: ScriptedUpstream, **parts: object) -> None:
    """Routes by recipient: `own` greylists, `slow` never answers, `dead` is not there, `spare` takes all."""

    def rule(name: str, **effect: object) -> dict[str, object]:
        return {"name": name, "match": {"to": f"*@{name}.example"}, **effect}

    site.configure(
        **{
            "upstreams": {
                "own": site.way_to(own),
                "slow": site.way_to(slow, max_connections=6),
                "dead": {"host": "127.0.0.1", "port": free_port(), "tls": "none"},
            },
            "routes": {
                "default": {"retry": "1d", "upstreams": ["own"]},
                "slow": {"retry": "1d", "upstreams": ["slow"]},
                "dead": {"retry": "1d", "upstreams": ["dead"]},
                "spare": {"retry": "1d", "upstreams": ["own"]},
            },
            "senders": [
                rule("active", keep=True, route="slow"),
                rule("pending", keep=True, route="dead"),
                rule("held", hold=True),
            ],
        }
        | parts
    )
    own.script("rcpt", lambda _: GREYLISTED if "deferred" in own.commands[-1] else None, times=None)
    slow.script("data", STOP_READING, times=None)


async def fill(port: int) -> dict[tuple[str, str], str]:
    """For each state, an entry for each verb."""
    await hand_in(port, JAN, ["first@pending.example"])  # its upstream is set aside, so that the others wait
    ids = {}
    for state in ("deferred", "active", "held"):
        for verb in VERBS:
            ids[state, verb] = await hand_in(port, JAN, [f"{verb}@{state}.example"])
    return ids


async def pend(port: int, ids: dict[tuple[str, str], str]) -> None:
    for verb in VERBS:
        ids["pending", verb] = await hand_in(port, JAN, [f"{verb}@pending.example"])


async def act(site: Site, verb: str, *ids: str) -> Answer:
    route = ["--route", "spare"] if verb == "reroute" else []
    return await relay(site, "queue", verb, *route, *ids)


def by_id(answer: Answer) -> dict[str, str]:
    """The sentence of each entry."""
    return dict([line.split(": ", 1) for line in (answer.out + answer.err).splitlines()])


async def states(site: Site) -> dict[str, str]:
    """Of each entry in the queue."""
    document = (await relay(site, "queue", "list", "--json")).document
    return {entry["queue_id"]: entry["place"] for entry in document["entries"]}


@pytest.mark.asyncio
async def test_every_verb_on_every_state_with_a_relay_running(site: Site) -> None:
    async with site.upstream() as own, site.upstream() as slow:
        configure(site, own, slow)
        async with site.house() as house:
            done = await house.send(JAN, [PIET])
            ids = await fill(house.port())
            await house.event(UpstreamSetAside, upstream="dead")
            await house.event(RecipientDeferred, 7)
            await house.event(EntryHeld, 6)
            await slow.until(lambda: slow.commands.count("DATA") == 6)
            await house.event(RecipientDelivered, queue_id=done)
            await pend(house.port(), ids)
            await reachable(site)
            there = await states(site)
            assert {key: there[queue_id] for key, queue_id in ids.items()} == {key: key[0] for key in ids}

            for verb in VERBS:
                mine = {state: ids[state, verb] for state in STATES}
                answer = await act(site, verb, *mine.values())
                told = by_id(answer)
                assert {state: told[mine[state]] for state in STATES} == {s: EXPECTED[s][verb] for s in STATES}, verb
                assert answer.code == (1 if verb == "retry" else 0)  # what is held cannot be retried
                over = await act(site, verb, done)
                assert (over.code, over.out, over.err) == (1, "", f"{done}: {FINISHED}\n")
                nobody = await act(site, verb, "9ZZZZZZZZZZZ")
                assert (nobody.code, nobody.out) == (4, "")
                assert nobody.err.endswith('has an ID that begins with "9ZZZZZZZZZZZ"\n')

            await _what_was_wished_came_about(house, ids)
            there = await states(site)
            slow.unscript("data")
            slow.read_on()
            for verb in VERBS:  # delivered by the attempt that was under way: then there is nothing left to do
                await house.event(RecipientDelivered, queue_id=ids["active", verb])
            assert balanced(house.ledger)
    assert {state: there.get(ids[state, "hold"]) for state in STATES} == {
        "pending": "held",
        "deferred": "held",
        "active": "active",
        "held": "held",
    }
    assert there[ids["pending", "release"]] == "pending"
    assert there[ids["deferred", "release"]] == "deferred"
    gone = [ids[state, verb] for state in ("pending", "deferred", "held") for verb in ("cancel", "bounce")]
    assert not there.keys() & set(gone)


async def _what_was_wished_came_about(house: RunningHouse, ids: dict[tuple[str, str], str]) -> None:
    for state in ("pending", "deferred", "held"):
        await house.event(RecipientCancelled, queue_id=ids[state, "cancel"])
        assert (await house.event(RecipientFailed, queue_id=ids[state, "bounce"])).upstream == ""
        await house.event(NotificationQueued, about=ids[state, "bounce"], reader=JAN)
    # The other route has a way that works; the greylisted one is greylisted there, too.
    await house.event(RecipientDelivered, queue_id=ids["pending", "reroute"])
    await house.event(RecipientDeferred, queue_id=ids["deferred", "reroute"], route="spare")
    await house.event(RecipientDeferred, 2, queue_id=ids["deferred", "retry"])
    await house.event(RecipientDelivered, queue_id=ids["held", "release"])


@pytest.mark.asyncio
async def test_every_verb_on_every_state_after_a_crash_with_no_relay_running(site: Site) -> None:
    port = free_port()
    async with site.upstream() as own, site.upstream() as slow:
        configure(
            site,
            own,
            slow,
            listeners=[{"name": "legacy", "listen": f"127.0.0.1:{port}"}],
            log={"format": "json"},
        )
        async with Process.serving(site) as process:
            done = await hand_in(port, JAN, [PIET])
            ids = await fill(port)
            await process.line("upstream_set_aside", upstream="dead")
            await process.line("deferred", 7)
            await process.line("held", 6)
            await process.line("delivered", queue_id=done)
            await slow.until(lambda: slow.commands.count("DATA") == 6)
            await pend(port, ids)
            process.signal(signal.SIGKILL)
            await process.ended()

        there = await states(site)
        # What was under way is waiting, and counts as tried.
        before = {key: "deferred" if key[0] == "active" else key[0] for key in ids}
        assert {key: there[queue_id] for key, queue_id in ids.items()} == before
        for verb in VERBS:
            mine = {state: ids[state, verb] for state in STATES}
            answer = await act(site, verb, *mine.values())
            told = by_id(answer)
            expected = {s: EXPECTED["deferred" if s == "active" else s][verb] for s in STATES}
            if verb == "bounce":
                expected = dict.fromkeys(STATES, LATER)
            assert {state: told[mine[state]] for state in STATES} == expected, verb
            assert answer.code == (1 if verb == "retry" else 0)
            over = await act(site, verb, done)
            assert (over.code, over.out, over.err) == (1, "", f"{done}: {FINISHED}\n")
            assert (await act(site, verb, "9ZZZZZZZZZZZ")).code == 4
        there = await states(site)
        assert {there.get(ids[state, "hold"]) for state in STATES} == {"held"}
        assert {there.get(ids[state, "cancel"]) for state in STATES} == {None}
        shown = await relay(site, "queue", "show", ids["deferred", "cancel"])
        assert (shown.code, shown.lines[0]) == (0, f"{ids['deferred', 'cancel']}  cancelled")

        slow.unscript("data")
        async with site.house() as house:  # and the next relay does what was wished for
            for state in STATES:
                await house.event(NotificationQueued, about=ids[state, "bounce"], reader=JAN)
            await house.event(RecipientDelivered, queue_id=ids["held", "release"])
            await house.event(RecipientDelivered, queue_id=ids["pending", "reroute"], route="spare")
            await house.event(RecipientDelivered, queue_id=ids["active", "reroute"], upstream="own")
            assert house.ledger.held == len(STATES) + 2  # and those that were retried in vain, or moved as they are


@pytest.mark.asyncio
async def test_all_of_a_choice_is_counted_before_it_is_done(site: Site) -> None:
    async with site.upstream() as own, site.upstream() as slow:
        configure(site, own, slow)
        async with site.house() as house:
            for number in range(3):
                await house.send(JAN, [f"{number}@deferred.example"])
                await house.send("els@example.nl", [f"{number}@deferred.example"])
            await house.event(RecipientDeferred, 6)
            await reachable(site)
            asked = await relay(site, "queue", "hold", "--all", "--from", "els@*")
            assert (asked.code, asked.out) == (1, "")
            assert asked.err == "hold: 3 entries; nothing was done (to do it: --all --yes)\n"
            done = await relay(site, "queue", "hold", "--all", "--yes", "--from", "els@*")
            assert (done.code, done.out, done.err) == (0, "hold: 3 entries, 3 done\n", "")
            left = await relay(site, "queue", "retry", "--all", "--yes", "--state", "held")
            assert left.code == 1
            assert left.out == "retry: 3 entries, 3 not possible\n"
            assert left.err.splitlines()[0].endswith(": it is held: release it")
            assert house.ledger.held == 3


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["cancel"], "give either IDs or --all"),
        (["cancel", "--all", "1ABC"], "give either IDs or --all"),
        (["cancel", "1ABC", "--yes"], "go with --all, not with IDs"),
        (["list", "--state", "stuck"], "there is no such state"),
        (["find", "--since", "yesterday"], "neither a duration nor a time"),
        (["reroute", "1ABC"], "Missing option '--route'"),
        (["cancel", "--force", "1ABC"], "No such option"),
    ],
)
async def test_what_is_asked_wrongly_is_exit_code_2_and_does_nothing(site: Site, words: list[str], said: str) -> None:
    async with site.upstream() as own:
        site.configure(upstreams={"own": site.way_to(own)})
        answer = await relay(site, "queue", *words)
    assert (answer.code, answer.out) == (2, "")
    assert said in " ".join(answer.err.split())
    assert not site.queue_path.exists()


@pytest.mark.asyncio
async def test_a_route_that_does_not_exist_is_one_sentence_with_a_suggestion(site: Site) -> None:
    async with site.upstream() as own, site.upstream() as slow:
        configure(site, own, slow)
        async with site.house() as house:
            queue_id = await house.send(JAN, ["x@held.example"])
            await reachable(site)
            with_relay = await relay(site, "queue", "reroute", "--route", "spar", queue_id)
        without = await relay(site, "queue", "reroute", "--route", "spar", queue_id)
    assert (with_relay.code, with_relay.out) == (1, "")
    assert with_relay.err == 'relay: there is no route named "spar" (did you mean "spare"?)\n'
    assert without == with_relay


@pytest.mark.asyncio
async def test_a_wish_about_active_mail_is_shown_and_done_after_an_attempt_that_leaves_it(site: Site) -> None:
    async with site.upstream() as own, site.upstream() as slow:
        configure(site, own, slow)
        slow.script("dot", "450 4.2.0 later", times=None)
        async with site.house() as house:
            held = await house.send(JAN, ["a@active.example"])
            moved = await house.send(JAN, ["b@active.example"])
            ended = await house.send(JAN, ["c@active.example"])
            returned = await house.send(JAN, ["d@active.example"])
            await slow.until(lambda: slow.commands.count("DATA") == 4)
            await reachable(site)
            for verb, queue_id in (("hold", held), ("reroute", moved), ("cancel", ended), ("bounce", returned)):
                answer = await act(site, verb, queue_id)
                assert (answer.code, answer.out) == (0, f"{queue_id}: {AFTER.format(verb)}\n")
            listed = await relay(site, "queue", "list", "--state", "active")
            assert "active,cancel" in listed.out
            shown = await relay(site, "queue", "show", held)
            assert "hold, as soon as the attempt under way has ended" in shown.out
            slow.read_on()
            await house.event(EntryHeld, queue_id=held)
            await house.event(RecipientCancelled, queue_id=ended)
            await house.event(RecipientDelivered, queue_id=moved, route="spare")
            await house.event(NotificationQueued, about=returned, reader=JAN)
            assert [entry for entry in (await states(site)).items() if entry[1] == "held"] == [(held, "held")]


@pytest.mark.asyncio
async def test_mail_that_is_retried_goes_at_once_although_its_upstream_was_set_aside(site: Site) -> None:
    async with site.upstream() as own:
        site.configure(upstreams={"own": site.way_to(own)}, routes={"default": {"retry": "1h"}})
        await own.go_down()
        async with site.house() as house:
            queue_id = await house.send(JAN, [PIET])
            await house.event(UpstreamSetAside)
            await own.come_back()
            await reachable(site)
            answer = await relay(site, "queue", "retry", queue_id)
            assert answer.code == 0
            await house.event(RecipientDelivered, queue_id=queue_id)


@pytest.mark.asyncio
async def test_a_backup_while_mail_flows_is_put_back_and_sends_what_waited(site: Site) -> None:
    copy = site.folder / "backup.db"
    async with site.upstream() as own, site.upstream() as slow:
        configure(site, own, slow)
        async with site.house() as house:
            waits = await house.send(JAN, ["a@deferred.example"], mail("Groot", body=b"x" * 76 + b"\r\n" * 9000))
            held = await house.send(JAN, ["b@held.example"])
            under_way = await house.send(JAN, ["c@active.example"])
            await house.event(RecipientDeferred)
            await slow.until(lambda: slow.commands.count("DATA") == 1)
            await reachable(site)
            flow = [asyncio.create_task(house.send(JAN, [PIET])) for _ in range(20)]
            saved = await relay(site, "queue", "backup", str(copy))
            again = await relay(site, "queue", "backup", str(copy))
            await asyncio.gather(*flow)
            slow.unscript("data")
            slow.read_on()
            await house.event(RecipientDelivered, queue_id=under_way)
        assert saved.code == 0
        assert saved.out.startswith(f"{copy}: ")
        assert (again.code, again.out) == (1, "")
        assert again.err == f"relay: {copy} exists: choose another name for the backup, or remove it\n"
        assert copy.stat().st_mode & 0o777 == 0o600

        # The disk is lost; the copy takes its place.
        for file in site.folder.glob("queue.db*"):
            (os.rmdir if file.is_dir() else os.unlink)(file)
        os.rename(copy, site.queue_path)
        assert {waits: "deferred", held: "held", under_way: "deferred"}.items() <= (await states(site)).items()
        own.unscript("rcpt")
        before = len(own.messages)
        async with site.house() as house:
            await house.event(RecipientDelivered, queue_id=waits)
            await house.event(RecipientDelivered, queue_id=under_way)
            assert house.ledger.held == 1
    assert len(own.messages) > before


@pytest.mark.asyncio
async def test_a_backup_without_a_relay_is_made_by_the_command(site: Site) -> None:
    async with site.upstream() as own, site.upstream() as slow:
        configure(site, own, slow)
        async with site.house() as house:
            await house.send(JAN, ["b@held.example"])
            await house.event(EntryHeld)
        saved = await relay(site, "queue", "backup", str(site.folder / "copy.db"))
        assert saved.code == 0
        assert saved.out.startswith(f"{site.folder}/copy.db: 1 entry, ")
        elsewhere = await relay(site, "queue", "backup", str(site.folder / "nowhere" / "copy.db"))
    assert (elsewhere.code, elsewhere.out) == (1, "")
    assert elsewhere.err == (
        f"relay: {site.folder}/nowhere/copy.db: the backup cannot be written: No such file or directory\n"
    )
