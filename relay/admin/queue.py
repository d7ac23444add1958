"""What an operator does with the queue, one function each, over any store.

A page, a socket and a command call these as they are: nothing here prints, types or listens.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path

from relay.admin.errors import AmbiguousId, NoSuchEntry, NoSuchRoute, NotPossible, Refused
from relay.config.problems import did_you_mean, quoted
from relay.errors import RelayError, StoreUnavailable
from relay.mail.queue_id import ALPHABET
from relay.queue.listing import MOST_LISTED, PAGE, Acted, Did, Listed, Place, Saved, Shown, Verb, Wanted
from relay.queue.store import QueueStore
from relay.values import frozen

MOST_TOLD = 100  # entries that the report on all of them names


@frozen
class Page:
    """`next` is the `after` of the page that follows, None when nothing does."""

    entries: tuple[Listed, ...]
    next: int | None


@frozen
class Found:
    """`more`: there are more than were asked for."""

    entries: tuple[Listed, ...]
    more: bool


@frozen
class Order:
    """What shall be done; `order` makes one that can be carried out. `route` is for REROUTE only."""

    verb: Verb
    route: str | None = None


@frozen
class Report:
    """What became of an order so far: `counts` of entries, and `results`.

    Of an order for all, `results` are the first `MOST_TOLD` that are not simply done.
    """

    order: Order
    counts: Mapping[Did, int]
    results: tuple[Acted, ...]

    @property
    def of(self) -> int:
        """How many entries were acted on."""
        return sum(self.counts.values())


async def list_(store: QueueStore, wanted: Wanted, *, after: int = 0, limit: int = 100) -> Page:
    """Entries in the queue, oldest first. Raises Refused when finished messages are asked for."""
    _in_queue(wanted)
    _bounded(limit)
    entries = await store.list(wanted, after=after, limit=limit + 1)
    return Page(tuple(entries[:limit]), entries[limit - 1].key if len(entries) > limit else None)


async def find(store: QueueStore, wanted: Wanted, *, limit: int = 100) -> Found:
    """Messages in the queue and in the history, newest first."""
    _bounded(limit)
    entries = await store.find(wanted, limit=limit + 1)
    return Found(tuple(entries[:limit]), len(entries) > limit)


async def show(store: QueueStore, prefix: str) -> Shown:
    """All about the one message whose ID begins with `prefix`. Raises NoSuchEntry and AmbiguousId."""
    shown = await store.show(await resolve(store, prefix))
    if shown is None:  # it went out of the history in between
        raise _unknown(prefix)
    return shown


def prefix_of(text: str) -> str:
    """What was typed, as the beginning of an ID is written. Raises Refused, and NoSuchEntry where no ID can be meant.

    Anything but an ID's own characters goes no further: in a path or a store it might mean something else.
    """
    prefix = text.strip().upper()
    if not prefix:
        raise Refused("an ID cannot be empty: give a queue ID, or the beginning of one")
    if not all(character in ALPHABET for character in prefix):
        raise _unknown(text)
    return prefix


async def resolve(store: QueueStore, prefix: str) -> str:
    """The one queue ID that begins with `prefix`. Raises Refused, NoSuchEntry and AmbiguousId."""
    match tuple(await store.match(prefix_of(prefix))):
        case ():
            raise _unknown(prefix)
        case (queue_id,):
            return queue_id
        case several:
            candidates = ", ".join(several)
            raise AmbiguousId(f"more than one ID begins with {quoted(prefix)} ({candidates}, …): give more of it")


def order(verb: Verb, route: str | None, routes: Iterable[str]) -> Order:
    """An order that can be carried out where there are `routes`. Raises NoSuchRoute and Refused."""
    if verb is not Verb.REROUTE:
        if route is not None:
            raise Refused(f"{verb} takes no route: only reroute does")
        return Order(verb)
    known = tuple(routes)
    if not route:
        raise Refused(f"reroute needs the name of a route ({did_you_mean('', known) or 'see the configuration'})")
    if route not in known:
        hint = did_you_mean(route, known)
        raise NoSuchRoute(f"there is no route named {quoted(route)}" + (f" ({hint})" if hint else ""))
    return Order(verb, route)


async def act(
    store: QueueStore, order: Order, prefixes: Sequence[str], *, now: datetime, wake: Callable[[], None]
) -> Report:
    """Do it to each message that is named by any unique prefix; `wake` is called when mail may have become due.

    Raises NoSuchEntry, AmbiguousId and Refused before anything is done to any of them.
    """
    if not prefixes:
        raise Refused(f"{order.verb} needs an ID")
    if len(prefixes) > PAGE:
        raise Refused(f"{len(prefixes)} IDs are too many at once: at most {PAGE}")
    queue_ids = list(dict.fromkeys([await resolve(store, prefix) for prefix in prefixes]))
    acted = await _act(store, order, queue_ids, now, wake)
    results = [await _finished(store, one) if one.did is Did.UNKNOWN else one for one in acted]
    return Report(order, _counted({}, results), tuple(results))


async def act_on_all(
    store: QueueStore, order: Order, wanted: Wanted, *, now: datetime, wake: Callable[[], None]
) -> AsyncGenerator[Report, None]:
    """Do it to every entry that is wanted, a page at a time; a report after each page, one at least.

    Nothing is acted on twice, and mail that arrives meanwhile is not included. What was reported stays done,
    whatever happens later. Raises Refused when finished messages are wanted.
    """
    _in_queue(wanted)
    newest = await store.find(Wanted(), limit=1)
    last = newest[0].key if newest else 0
    report = Report(order, _counted({}, ()), ())
    after = 0
    while True:
        page = await store.list(wanted, after=after, limit=PAGE)
        queue_ids = [entry.queue_id for entry in page if entry.key <= last]
        if queue_ids:
            results = await _act(store, order, queue_ids, now, wake)
            told = [acted for acted in results if acted.did is not Did.DONE]
            report = Report(order, _counted(report.counts, results), (*report.results, *told)[:MOST_TOLD])
        yield report
        if len(page) < PAGE or len(queue_ids) < len(page):
            return
        after = page[-1].key


async def backup(store: QueueStore, file: Path) -> Saved:
    """A copy of the queue as it is now. Raises Refused, and NotPossible when `file` exists or cannot be written."""
    if not (file.is_absolute() and file.name):
        raise Refused("the file of a backup needs an absolute path, for it is the relay that writes it")
    if not str(file).isprintable():
        raise Refused("the name of a backup may have printable characters only")
    try:
        return await store.backup(file)
    except StoreUnavailable:
        raise
    except RelayError as error:
        raise NotPossible(str(error)) from None


async def _act(
    store: QueueStore, order: Order, queue_ids: Sequence[str], now: datetime, wake: Callable[[], None]
) -> Sequence[Acted]:
    results = await store.act(order.verb, queue_ids, now=now, route=order.route)
    if any(acted.did is Did.DONE for acted in results):
        wake()
    return results


async def _finished(store: QueueStore, acted: Acted) -> Acted:
    """What has left the queue but not the history is known, and cannot be acted on."""
    if not await store.match(acted.queue_id):
        return acted
    return Acted(acted.queue_id, Did.IMPOSSIBLE, "it is finished: `relay queue show` tells what became of it")


def _counted(before: Mapping[Did, int], results: Iterable[Acted]) -> dict[Did, int]:
    counts = {did: before.get(did, 0) for did in Did}
    for acted in results:
        counts[acted.did] += 1
    return counts


def _bounded(limit: int) -> None:
    if not 1 <= limit <= MOST_LISTED:
        raise Refused(f"limit must be a number from 1 to {MOST_LISTED}")


def _in_queue(wanted: Wanted) -> None:
    if wanted.place is Place.FINISHED:
        raise Refused("finished messages are not in the queue any more: `relay queue find` has them")


def _unknown(prefix: str) -> NoSuchEntry:
    return NoSuchEntry(f"no message in the queue or its history has an ID that begins with {quoted(prefix)}")
