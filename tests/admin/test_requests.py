"""The table of requests: each row fits its function, and a house that is not there answers as well."""

from __future__ import annotations

import inspect
import threading
from pathlib import Path
from typing import Any

import pytest

from relay.admin import documents
from relay.admin.desk import open_desk
from relay.admin.errors import NotPossible
from relay.admin.requests import REQUESTS, Request
from tests.admin.house import ROUTES, answering, ask, get, open_store
from tests.queue.mail import an_entry


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: f"{request.method} {request.path}")
def test_a_function_takes_the_parameters_of_its_row(request_: Request) -> None:
    inspect.signature(request_.function).bind("a house", **request_.parameters)


def test_no_two_rows_are_asked_for_in_the_same_way() -> None:
    assert len({(request.method, request.path) for request in REQUESTS}) == len(REQUESTS)


@pytest.mark.asyncio
async def test_what_only_a_running_relay_knows_is_refused_where_none_runs(folder: Path) -> None:
    await (await open_store(folder)).close()

    def refused() -> None:
        with open_desk(folder / "admin.sock", lambda: open_store(folder), ROUTES, ()) as desk:
            for path in ("/v1/status", "/v1/clients"):
                with pytest.raises(NotPossible, match="no relay is running"):
                    desk.get(path)
            assert desk.post("/v1/reload")["problems"] == ["no relay is running"]

    await ask(refused)


@pytest.mark.asyncio
@pytest.mark.parametrize(("document", "path"), [("message", "/v1/queue/M"), ("senders", "/v1/senders")])
async def test_what_may_be_long_is_made_on_a_thread(
    folder: Path, monkeypatch: pytest.MonkeyPatch, document: str, path: str
) -> None:
    make, threads = getattr(documents, document), set()

    def watched(*arguments: Any) -> documents.Document:
        threads.add(threading.get_ident())
        made: documents.Document = make(*arguments)
        return made

    monkeypatch.setattr(documents, document, watched)
    store = await open_store(folder)
    await store.put(an_entry(name="M"), leased=False)
    async with answering(folder / "admin.sock", store):
        status, told = await ask(get, folder / "admin.sock", path)
    await store.close()
    assert (status, document in told) == (200, True)
    assert threads
    assert threading.get_ident() not in threads
