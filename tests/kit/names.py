"""A DNS server of the tests' own: TXT and CNAME over UDP, of what the test says; everything else does not exist.

    async with NameServer({"example.nl": ["v=spf1 -all"]}, aliases={"a.example.nl": "b.example.nl"}) as names:
        ...ask names.address...

`silent`: it answers nothing. `asked` has the names in order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import dns.flags
import dns.message
import dns.rcode
import dns.rrset


class NameServer(asyncio.DatagramProtocol):
    """See the top of the module."""

    def __init__(self, texts: Mapping[str, Sequence[str]], *, aliases: Mapping[str, str] | None = None) -> None:
        self.texts = dict(texts)
        self.aliases = dict(aliases or {})
        self.silent = False
        self.asked: list[str] = []
        self.address = ""
        self._transport: asyncio.DatagramTransport | None = None

    async def __aenter__(self) -> NameServer:
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._transport.get_extra_info('sockname')[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._transport is not None
        self._transport.close()

    def datagram_received(self, data: bytes, client: tuple[str, int]) -> None:
        query = dns.message.from_wire(data)
        name = query.question[0].name.to_text(omit_final_dot=True).lower()
        self.asked.append(name)
        if self.silent:
            return
        answer = dns.message.make_response(query)
        answer.flags |= dns.flags.RA
        while name in self.aliases:
            answer.answer.append(dns.rrset.from_text(f"{name}.", 60, "IN", "CNAME", f"{self.aliases[name]}."))
            name = self.aliases[name]
        if name in self.texts:
            written = [
                " ".join(f'"{text[at : at + 200]}"' for at in range(0, len(text), 200)) for text in self.texts[name]
            ]
            answer.answer.append(dns.rrset.from_text(f"{name}.", 60, "IN", "TXT", *written))
        else:
            answer.set_rcode(dns.rcode.NXDOMAIN)
        assert self._transport is not None
        self._transport.sendto(answer.to_wire(), client)
