"""A queue that a newer or an older relay wrote is left alone."""

from __future__ import annotations

import hashlib
import sqlite3

import pytest

from tests.kit.house import Site
from tests.scenarios.desk import relay as run


def digest(site: Site) -> str:
    return hashlib.sha256(site.queue_path.read_bytes()).hexdigest()


@pytest.mark.asyncio
@pytest.mark.parametrize(("layout", "age"), [(99, "a newer"), (5, "an older")])
async def test_a_queue_of_another_layout_is_refused_with_a_sentence_and_left_as_it_is(
    site: Site, layout: int, age: str
) -> None:
    async with site.upstream() as own:
        site.configure(upstreams={"own": site.way_to(own)})
        async with site.house():
            pass
        connection = sqlite3.connect(site.queue_path)
        connection.execute(f"PRAGMA user_version = {layout}")
        connection.close()
        before = digest(site)
        serve = await run(site, "serve")
        listed = await run(site, "queue", "list")
        status = await run(site, "status")
    assert (serve.code, serve.out) == (1, "")
    (sentence,) = serve.err.splitlines()
    assert sentence.startswith(f"relay: {site.queue_path} was written by {age} relay (layout {layout}, this one knows ")
    assert (listed.code, listed.out, listed.err) == (1, "", serve.err)
    assert status.code == 3
    assert f"was written by {age} relay" in status.out
    assert digest(site) == before
