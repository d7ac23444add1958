"""The relay tried by hand: it makes its own folders, and where it may not it says which key to change."""

from __future__ import annotations

import pytest

from relay.errors import StoreUnavailable
from relay.events import Warned
from tests.kit.house import Site
from tests.scenarios.desk import reachable, relay


@pytest.mark.asyncio
async def test_the_folder_of_the_admin_socket_is_made_where_it_is_missing(site: Site) -> None:
    site.control_path = site.folder / "run" / "relay" / "admin.sock"
    async with site.upstream() as own:
        site.configure(upstreams={"own": site.way_to(own)})
        async with site.house():
            await reachable(site)
            assert (await relay(site, "status")).code == 0
    assert site.control_path.parent.stat().st_mode & 0o777 == 0o755


@pytest.mark.asyncio
async def test_a_socket_that_cannot_be_made_is_one_sentence_that_names_the_key(site: Site) -> None:
    (site.folder / "run").touch()
    site.control_path = site.folder / "run" / "relay" / "admin.sock"
    async with site.upstream() as own:
        site.configure(upstreams={"own": site.way_to(own)})
        async with site.house() as house:
            warned = await house.event(Warned)
    assert warned.text == (
        f"admin.socket: {site.control_path.parent}: Not a directory; mail goes on, but the commands do not reach the "
        "relay: name a path in a folder of its own user"
    )


@pytest.mark.asyncio
async def test_a_queue_that_cannot_be_made_is_one_sentence_that_names_the_key(site: Site) -> None:
    (site.folder / "state").touch()
    site.queue_path = site.folder / "state" / "relay" / "queue.db"
    async with site.upstream() as own:
        site.configure(upstreams={"own": site.way_to(own)})
        with pytest.raises(StoreUnavailable, match=r"^queue\.store: .*: Not a directory$"):
            async with site.house():
                raise AssertionError
