"""The queue while no relay runs: the store is opened here, and mail that was acted on goes on when a relay starts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from relay.admin import documents, queue, senders
from relay.admin.documents import Document
from relay.admin.question import checked
from relay.admin.queue import Report
from relay.queue.listing import Acted, Did, Verb, Wanted
from relay.queue.store import QueueStore

T = TypeVar("T")

_LATER = "it will be returned to its sender when the relay runs"


class DirectDesk:
    """A Desk. The store lives on a loop of its own, which turns while something is asked."""

    running = False

    def __init__(
        self, open_store: Callable[[], Awaitable[QueueStore]], routes: Iterable[str], upstreams: Iterable[str] = ()
    ) -> None:
        """Raises what `open_store` raises: StoreInUse, OtherLayout, StoreUnavailable."""
        self._routes = tuple(routes)
        self._upstreams = tuple(upstreams)
        self._runner = asyncio.Runner()
        try:
            self._store = self._run(_awaited(open_store()))
        except BaseException:
            self._runner.close()
            raise

    def list(self, wanted: Wanted, *, after: int = 0, limit: int = 100) -> Document:
        return documents.page(self._run(queue.list_(self._store, checked(wanted), after=after, limit=limit)))

    def find(self, wanted: Wanted, *, limit: int = 100) -> Document:
        return documents.found(self._run(queue.find(self._store, checked(wanted), limit=limit)))

    def show(self, prefix: str) -> Document:
        return documents.message(self._run(queue.show(self._store, prefix)))

    def act(self, verb: Verb, prefixes: Sequence[str], *, route: str | None = None) -> Document:
        order = queue.order(verb, route, self._routes)
        report = self._run(queue.act(self._store, order, prefixes, now=_now(), wake=_nobody))
        return documents.report(_later(report))

    def act_on_all(self, verb: Verb, wanted: Wanted, *, route: str | None = None) -> Iterator[Document]:
        order = queue.order(verb, route, self._routes)
        reports = queue.act_on_all(self._store, order, checked(wanted), now=_now(), wake=_nobody)
        last: Report | None = None
        while (report := self._run(_awaited(anext(reports, None)))) is not None:
            last = report
            yield documents.progress(report)
        if last is not None:
            yield documents.report(last)

    def backup(self, file: Path) -> Document:
        return documents.backup(file, self._run(queue.backup(self._store, file)))

    def senders(self) -> Document:
        return documents.senders(self._run(senders.list_(self._store, now=_now())))

    def forget_senders(self, names: Sequence[str], *, upstream: str | None = None) -> Document:
        return documents.senders(self._run(senders.forget(self._store, names, now=_now(), upstream=upstream)))

    def pin_sender(self, upstream: str, author: str, *, reverse_path: str | None = None) -> Document:
        pinned = senders.pin(
            self._store, upstream, author, reverse_path=reverse_path, upstreams=self._upstreams, now=_now()
        )
        return documents.senders([self._run(pinned)])

    def close(self) -> None:
        """Let go of the store."""
        try:
            self._run(self._store.close())
        finally:
            self._runner.close()

    def _run(self, asked: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(asked)


async def _awaited(asked: Awaitable[T]) -> T:
    return await asked


def _nobody() -> None:
    """There are no workers to be woken."""


def _now() -> datetime:
    return datetime.now(UTC)


def _later(report: Report) -> Report:
    """A bounce is written by the relay: until it runs, the wish is kept."""
    if report.order.verb is not Verb.BOUNCE:
        return report
    return replace(report, results=tuple(map(_kept, report.results)))


def _kept(acted: Acted) -> Acted:
    return replace(acted, why=_LATER) if acted.did is Did.DONE else acted
