"""What an operator does, over a real store."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
import pytest_asyncio

from relay.admin import queue
from relay.admin.errors import AmbiguousId, NoSuchEntry, NoSuchRoute, NotPossible, Refused
from relay.errors import StoreUnavailable
from relay.queue.listing import Did, Place, Verb, Wanted
from relay.queue.sqlite.start import SqliteStore
from tests.admin.house import ROUTES, open_store
from tests.admin.places import damage, put
from tests.kit.store import usual
from tests.queue.mail import NOON, an_entry, deferred

HOLD, RETRY = queue.Order(Verb.HOLD), queue.Order(Verb.RETRY)


@pytest_asyncio.fixture
async def store(folder: Path) -> AsyncIterator[SqliteStore]:
    store = await open_store(folder)
    yield store
    await store.close()


def nobody() -> None: ...


async def waiting(store: SqliteStore, *names: str) -> None:
    for name in names:
        await store.put(an_entry(name=name), leased=False)


@pytest.mark.asyncio
async def test_an_id_is_any_prefix_that_only_one_has(store: SqliteStore) -> None:
    await waiting(store, "7QK3AAAAAAAA", "7QK4AAAAAAAA")
    assert await queue.resolve(store, "7QK3") == "7QK3AAAAAAAA"
    assert await queue.resolve(store, " 7qk4 ") == "7QK4AAAAAAAA"
    with pytest.raises(AmbiguousId) as ambiguous:
        await queue.resolve(store, "7QK")
    assert str(ambiguous.value) == (
        'more than one ID begins with "7QK" (7QK3AAAAAAAA, 7QK4AAAAAAAA, …): give more of it'
    )


@pytest.mark.asyncio
@pytest.mark.parametrize("prefix", ["8", "7QK3AAAAAAAAA", "%", "*", "7QK_", "U", "é", "7QK3\n8", "\udcff"])
async def test_an_id_that_nobody_has_is_named_in_the_sentence(store: SqliteStore, prefix: str) -> None:
    await waiting(store, "7QK3AAAAAAAA")
    with pytest.raises(NoSuchEntry, match="no message in the queue or its history has an ID that begins with") as error:
        await queue.show(store, prefix)
    assert str(error.value).isprintable()


@pytest.mark.asyncio
async def test_an_empty_id_is_not_any_id(store: SqliteStore) -> None:
    await waiting(store, "7QK3AAAAAAAA")
    for empty in ("", "  "):
        with pytest.raises(Refused, match="an ID cannot be empty"):
            await queue.show(store, empty)


@pytest.mark.asyncio
async def test_finished_messages_are_found_by_prefix_as_well(folder: Path, store: SqliteStore) -> None:
    await put(folder, store, an_entry(name="7QK3AAAAAAAA"), Place.FINISHED)
    assert (await queue.show(store, "7QK3")).listed.place is Place.FINISHED


@pytest.mark.asyncio
async def test_pages_follow_each_other_without_gap_or_overlap(store: SqliteStore) -> None:
    names = [f"7QK{n}AAAAAAAA" for n in range(5)]
    await waiting(store, *names)
    first = await queue.list_(store, Wanted(), limit=2)
    assert first.next is not None
    second = await queue.list_(store, Wanted(), after=first.next, limit=2)
    assert second.next is not None
    third = await queue.list_(store, Wanted(), after=second.next, limit=2)
    assert third.next is None
    assert [one.queue_id for page in (first, second, third) for one in page.entries] == names
    assert (await queue.list_(store, Wanted(), limit=5)).next is None


@pytest.mark.asyncio
async def test_what_is_found_comes_newest_first_and_says_whether_there_is_more(
    folder: Path, store: SqliteStore
) -> None:
    await put(folder, store, an_entry(name="7QK1AAAAAAAA"), Place.FINISHED)
    await waiting(store, "7QK2AAAAAAAA", "7QK3AAAAAAAA")
    found = await queue.find(store, Wanted(), limit=2)
    assert ([one.queue_id[:4] for one in found.entries], found.more) == (["7QK3", "7QK2"], True)
    found = await queue.find(store, Wanted(), limit=3)
    assert ([one.queue_id[:4] for one in found.entries], found.more) == (["7QK3", "7QK2", "7QK1"], False)
    assert [one.queue_id[:4] for one in (await queue.list_(store, Wanted())).entries] == ["7QK2", "7QK3"]


@pytest.mark.asyncio
async def test_one_id_that_cannot_be_leaves_all_of_them_alone(store: SqliteStore) -> None:
    await waiting(store, "7QK3AAAAAAAA", "7QK4AAAAAAAA")
    for wrong, error in (("8", NoSuchEntry), ("7QK", AmbiguousId), ("", Refused)):
        with pytest.raises(error):
            await queue.act(store, HOLD, ["7QK3", wrong], now=NOON, wake=nobody)
    page = await queue.list_(store, Wanted())
    assert [one.place for one in page.entries] == [Place.PENDING, Place.PENDING]


@pytest.mark.asyncio
async def test_an_entry_named_twice_is_acted_on_once(store: SqliteStore) -> None:
    await waiting(store, "7QK3AAAAAAAA", "7QK4AAAAAAAA")
    report = await queue.act(store, HOLD, ["7QK4", "7QK3", "7QK4AAAAAAAA"], now=NOON, wake=nobody)
    assert [(one.queue_id[:4], one.did) for one in report.results] == [("7QK4", Did.DONE), ("7QK3", Did.DONE)]
    assert report.of == 2


def test_reroute_knows_the_routes_there_are() -> None:
    assert queue.order(Verb.REROUTE, "archive", ROUTES) == queue.Order(Verb.REROUTE, "archive")
    with pytest.raises(NoSuchRoute) as wrong:
        queue.order(Verb.REROUTE, "arcive", ROUTES)
    assert str(wrong.value) == 'there is no route named "arcive" (did you mean "archive"?)'
    with pytest.raises(Refused, match=r"needs the name of a route \(known: archive, default, session-codes\)"):
        queue.order(Verb.REROUTE, "", ROUTES)
    for verb in set(Verb) - {Verb.REROUTE}:
        assert queue.order(verb, None, ROUTES) == queue.Order(verb)
        with pytest.raises(Refused, match=f"{verb} takes no route"):
            queue.order(verb, "archive", ROUTES)


# All of them


@pytest.mark.asyncio
async def test_all_are_acted_on_page_by_page_and_none_twice(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "PAGE", 2)
    await waiting(store, *[f"7QK{n}AAAAAAAA" for n in range(5)])
    woken: list[None] = []
    reports = [
        report
        async for report in queue.act_on_all(
            store, queue.Order(Verb.RETRY), Wanted(), now=NOON, wake=lambda: woken.append(None)
        )
    ]
    assert [report.of for report in reports] == [2, 4, 5]
    assert reports[-1].counts[Did.DONE] == 5
    assert reports[-1].results == ()
    assert len(woken) == 3


@pytest.mark.asyncio
async def test_mail_that_arrives_meanwhile_is_not_included(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "PAGE", 2)
    await waiting(store, *[f"7QK{n}AAAAAAAA" for n in range(4)])
    async for _ in queue.act_on_all(store, HOLD, Wanted(), now=NOON, wake=nobody):
        await store.put(an_entry(), leased=False)
    assert len((await queue.list_(store, Wanted(place=Place.HELD))).entries) == 4
    assert len((await queue.list_(store, Wanted(place=Place.PENDING))).entries) >= 2


@pytest.mark.asyncio
async def test_a_damaged_newest_entry_is_one_of_all(folder: Path) -> None:
    store = await open_store(folder)
    await waiting(store, "7QK3AAAAAAAA")
    last = an_entry(name="7QK4AAAAAAAA", route="archive")
    await store.put(last, leased=False)
    store = await damage(folder, store, last)
    cancelled = queue.act_on_all(store, queue.Order(Verb.CANCEL), Wanted(), now=NOON, wake=nobody)
    assert [report.counts[Did.DONE] async for report in cancelled] == [2]
    await store.close()


@pytest.mark.asyncio
async def test_only_what_is_wanted_is_acted_on(store: SqliteStore) -> None:
    await store.put(an_entry("a@example.com", route="archive"), leased=False)
    await store.put(an_entry("b@example.com"), leased=False)
    lease = await store.put(an_entry("b@example.com"), leased=True)
    await store.settle(deferred(lease, NOON + timedelta(hours=1)))
    for wanted in (
        Wanted(route="archive"),
        Wanted(to="B@example.*", place=Place.PENDING),
        Wanted(place=Place.DEFERRED, from_="jan@*", since=NOON),
    ):
        (report,) = [one async for one in queue.act_on_all(store, HOLD, wanted, now=NOON, wake=nobody)]
        assert report.of == 1
    nothing = Wanted(since=NOON + timedelta(seconds=1))
    (report,) = [one async for one in queue.act_on_all(store, HOLD, nothing, now=NOON, wake=nobody)]
    assert (report.of, report.results) == (0, ())


@pytest.mark.asyncio
async def test_an_empty_queue_has_one_report_as_well(store: SqliteStore) -> None:
    (report,) = [one async for one in queue.act_on_all(store, HOLD, Wanted(), now=NOON, wake=nobody)]
    assert (report.of, report.counts) == (0, dict.fromkeys(Did, 0))


@pytest.mark.asyncio
async def test_of_all_only_some_that_were_not_done_are_named(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "MOST_TOLD", 2)
    for _ in range(3):
        await store.put(an_entry(), leased=False, held=True)
    (report,) = [one async for one in queue.act_on_all(store, RETRY, Wanted(), now=NOON, wake=nobody)]
    assert report.counts[Did.IMPOSSIBLE] == 3
    assert [one.why for one in report.results] == ["it is held: release it"] * 2


@pytest.mark.asyncio
async def test_finished_mail_is_no_part_of_the_queue(store: SqliteStore) -> None:
    with pytest.raises(Refused, match="finished messages are not in the queue any more"):
        await queue.list_(store, Wanted(place=Place.FINISHED))
    with pytest.raises(Refused, match="finished messages are not in the queue any more"):
        await anext(queue.act_on_all(store, HOLD, Wanted(place=Place.FINISHED), now=NOON, wake=nobody))
    assert (await queue.find(store, Wanted(place=Place.FINISHED))).entries == ()


# Backups


@pytest.mark.asyncio
async def test_a_backup_is_a_queue_of_its_own(folder: Path, store: SqliteStore) -> None:
    await waiting(store, "7QK3AAAAAAAA")
    await store.put(an_entry(session_code=True), leased=False)
    saved = await queue.backup(store, folder / "copy.db")
    assert (saved.entries, saved.left_out) == (1, 1)
    assert (folder / "copy.db").stat().st_mode & 0o777 == 0o600
    again = await SqliteStore.open(folder / "copy.db", observer=store._observer, **usual())
    assert [one.queue_id for one in (await queue.list_(again, Wanted())).entries] == ["7QK3AAAAAAAA"]
    await again.close()


@pytest.mark.asyncio
async def test_a_backup_that_cannot_be_is_refused_in_one_sentence(folder: Path, store: SqliteStore) -> None:
    (folder / "copy.db").write_text("precious")
    (folder / "link").symlink_to(folder / "made")
    os.mkfifo(folder / "fifo")
    too_long = [folder / ("x" * length) for length in (300, 255, 250)]
    there = ["copy.db", "nowhere/copy.db", "copy.db/copy.db", "link", "fifo"]
    for file in (*(folder / name for name in there), folder, Path("/proc/copy.db"), *too_long):
        with pytest.raises(NotPossible) as wrong:
            await queue.backup(store, file)
        assert str(file) in str(wrong.value)
    assert (folder / "copy.db").read_text() == "precious"
    assert not (folder / "made").exists()
    with pytest.raises(Refused, match="absolute path"):
        await queue.backup(store, Path("copy.db"))


@pytest.mark.asyncio
async def test_a_store_that_cannot_answer_stays_what_it_is(folder: Path, store: SqliteStore) -> None:
    await store.close()
    with pytest.raises(StoreUnavailable):
        await queue.backup(store, folder / "copy.db")
    with pytest.raises(StoreUnavailable):
        await queue.show(store, "7")
