"""Client addresses: folded to one form, and judged against an allow-list (of a listener, or of the admin page)."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address

Network = IPv4Network | IPv6Network

LOCAL = "local"  # who came through a Unix socket: this machine, and no address; no network holds it


def plain(address: str) -> str:
    """An IP address as text without a scope; an IPv4-mapped IPv6 address becomes IPv4."""
    address = address.partition("%")[0]
    return address[7:] if address.startswith("::ffff:") and "." in address else address


@lru_cache(maxsize=4096)
def allowed(client: str, networks: tuple[Network, ...]) -> bool:
    """True when `client` (in plain form) lies in one of the networks."""
    try:
        address = ip_address(client)
    except ValueError:
        return False
    return any(address.version == network.version and address in network for network in networks)


@lru_cache(maxsize=4096)
def is_loopback(client: str) -> bool:
    """True for clients on this machine."""
    if client == LOCAL:
        return True
    try:
        return ip_address(client).is_loopback
    except ValueError:
        return False
