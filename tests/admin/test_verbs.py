"""Every verb in every place, by every way to the queue: functions, a running relay's socket, and with no relay."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from relay.admin import documents, queue
from relay.admin.desk import Desk, at_socket, open_desk
from relay.queue.listing import Did, Place, Verb
from relay.queue.sqlite.start import SqliteStore
from tests.admin.house import ROUTES, answering, ask, open_store
from tests.admin.places import put
from tests.queue.mail import NOON, an_entry

Asked = Callable[[Desk], Any]
ACT = "/v1/queue/act"


async def by_functions(folder: Path, store: SqliteStore, verb: Verb, ids: list[str], route: str | None) -> Any:
    order = queue.order(verb, route, ROUTES)
    report = documents.report(await queue.act(store, order, ids, now=NOON, wake=lambda: None))
    await store.close()
    return report


async def by_socket(folder: Path, store: SqliteStore, verb: Verb, ids: list[str], route: str | None) -> Any:
    path = folder / "admin.sock"
    async with answering(path, store) as house:
        document = await ask(at_socket(path).post, ACT, verb=verb, ids=ids, route=route)
        assert house.woken == (document["counts"]["done"] > 0)
    await store.close()
    return document


async def offline(folder: Path, store: SqliteStore, verb: Verb, ids: list[str], route: str | None) -> Any:
    await store.close()
    return await ask(at_desk, folder, lambda desk: desk.post(ACT, verb=verb, ids=ids, route=route))


def at_desk(folder: Path, asked: Asked) -> Any:
    """What is asked at the desk while no relay runs."""
    with open_desk(folder / "admin.sock", lambda: open_store(folder), ROUTES, ()) as desk:
        assert not desk.running
        return asked(desk)


PLACES = (Place.PENDING, Place.DEFERRED, Place.ACTIVE, Place.HELD, Place.DAMAGED, Place.FINISHED)
DONE, AFTER, NOTHING, NEVER = Did.DONE, Did.AFTER_ATTEMPT, Did.NOTHING, Did.IMPOSSIBLE
FATES: dict[Verb, Iterable[Did]] = {
    # pending, deferred, active, held, damaged, finished
    Verb.RETRY: (DONE, DONE, NOTHING, NEVER, DONE, NEVER),
    Verb.HOLD: (DONE, DONE, AFTER, NOTHING, NOTHING, NEVER),
    Verb.RELEASE: (NOTHING, NOTHING, NOTHING, DONE, DONE, NEVER),
    Verb.CANCEL: (DONE, DONE, AFTER, DONE, DONE, NEVER),
    Verb.BOUNCE: (DONE, DONE, AFTER, DONE, NEVER, NEVER),
    Verb.REROUTE: (DONE, DONE, AFTER, DONE, DONE, NEVER),
}
EVERY = [(verb, place, did) for verb, dids in FATES.items() for place, did in zip(PLACES, dids, strict=True)]


@pytest.mark.asyncio
@pytest.mark.parametrize("way", [by_functions, by_socket, offline])
@pytest.mark.parametrize(("verb", "place", "did"), EVERY, ids=[f"{verb} {place}" for verb, place, _ in EVERY])
async def test_a_verb_does_what_it_says_or_says_why_not(
    folder: Path, way: Callable[..., Any], verb: Verb, place: Place, did: Did
) -> None:
    if way is offline and place is Place.ACTIVE:
        # Nobody is trying it any more: its lease is taken back, and it waits.
        did = dict(zip(PLACES, FATES[verb], strict=True))[Place.DEFERRED]
    entry = an_entry()
    store = await put(folder, await open_store(folder), entry, place)
    route = "archive" if verb is Verb.REROUTE else None
    document = await way(folder, store, verb, [entry.queue_id], route)
    (result,) = document["results"]
    assert (result["queue_id"], result["did"]) == (entry.queue_id, did.value)
    assert document["counts"] == {one.value: int(one is did) for one in Did}
    assert (document["version"], document["verb"], document["route"], document["of"]) == (1, verb.value, route, 1)
    later = way is offline and verb is Verb.BOUNCE
    assert bool(result["why"]) == (did in (NOTHING, NEVER) or later)
    assert "\n" not in result["why"]


WHERE = {
    (Verb.HOLD, Place.PENDING): Place.HELD,
    (Verb.HOLD, Place.ACTIVE): Place.ACTIVE,
    (Verb.RELEASE, Place.HELD): Place.PENDING,
    (Verb.RETRY, Place.DEFERRED): Place.DEFERRED,
    (Verb.CANCEL, Place.HELD): Place.FINISHED,
    (Verb.CANCEL, Place.DAMAGED): Place.FINISHED,
    (Verb.REROUTE, Place.PENDING): Place.PENDING,
}


@pytest.mark.asyncio
@pytest.mark.parametrize(("verb", "place"), WHERE, ids=[f"{verb} {place}" for verb, place in WHERE])
async def test_what_was_done_is_seen_where_one_looks(folder: Path, verb: Verb, place: Place) -> None:
    entry = an_entry()
    store = await put(folder, await open_store(folder), entry, place)
    route = "archive" if verb is Verb.REROUTE else None
    path = folder / "admin.sock"
    async with answering(path, store):
        desk = at_socket(path)
        await ask(desk.post, ACT, verb=verb, ids=[entry.queue_id], route=route)
        listed = (await ask(desk.get, f"/v1/queue/{entry.queue_id}"))["message"]["listed"]
    await store.close()
    assert listed["place"] == WHERE[verb, place]
    assert listed["route"] == (route or "default")
    assert listed["wish"] == ("hold" if place is Place.ACTIVE else "")
    if verb is Verb.CANCEL:
        assert [one["state"] for one in listed["recipients"]] == ["cancelled"]


@pytest.mark.asyncio
async def test_without_a_relay_a_bounce_is_kept_until_one_runs(folder: Path) -> None:
    entry = an_entry()
    store = await put(folder, await open_store(folder), entry, Place.HELD)
    document = await offline(folder, store, Verb.BOUNCE, [entry.queue_id], None)
    assert document["results"][0]["why"] == "it will be returned to its sender when the relay runs"
    store = await open_store(folder)
    (lease,) = await store.lease_expired("default", limit=9, now=NOON)
    assert (lease.entry.queue_id, lease.bounced) == (entry.queue_id, True)
    await store.close()


@pytest.mark.asyncio
@pytest.mark.parametrize("way", [by_socket, offline])
async def test_what_waits_everywhere_can_be_acted_on_at_once(folder: Path, way: Callable[..., Any]) -> None:
    store = await open_store(folder)
    for place in (Place.DAMAGED, Place.PENDING, Place.DEFERRED, Place.ACTIVE, Place.HELD, Place.FINISHED):
        store = await put(folder, store, an_entry(), place)

    def everything(desk: Desk) -> list[dict[str, Any]]:
        return [*desk.stream(ACT, verb=Verb.HOLD, all={})]

    if way is offline:
        await store.close()
        told = await ask(at_desk, folder, everything)
    else:
        path = folder / "admin.sock"
        async with answering(path, store) as house:
            told = await ask(everything, at_socket(path))
            assert house.woken == 1
        await store.close()
    after = 0 if way is offline else 1
    counts = {"done": 3 - after, "after-attempt": after, "nothing": 2, "impossible": 0, "unknown": 0}
    assert told[0] == {"version": 1, "progress": {"of": 5, "counts": counts}}
    assert told[1]["counts"] == counts
    assert sorted(result["did"] for result in told[1]["results"]) == sorted(["nothing"] * 2 + ["after-attempt"] * after)
    assert len(told) == 2
