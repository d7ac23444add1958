"""What the application hears when the relay cannot keep its mail."""

from __future__ import annotations

import pytest

from relay.events import MessageQueued
from tests.kit.house import JAN, Client, Site


@pytest.mark.asyncio
async def test_with_too_little_free_space_the_application_hears_452_at_mail_and_nothing_is_kept(site: Site) -> None:
    async with site.upstream() as own:
        site.configure(
            upstreams={"own": site.way_to(own)}, queue={"store": f"sqlite:{site.queue_path}", "min_free": "1000000GiB"}
        )
        async with site.house() as house, Client.to(house.port()) as client:
            assert (await client.say(f"MAIL FROM:<{JAN}>")).startswith("452 4.3.1 ")
            assert (await client.say("NOOP")).startswith("250")
            assert house.seen.all(MessageQueued) == []
            assert house.ledger.accepted == 0
