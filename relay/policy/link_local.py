"""Addresses that no endpoint in its right mind has: those of the link, and of the metadata services of clouds.

Whoever can say what a host name leads to could have the relay ask there, with its credentials, on behalf of others.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

_NETWORKS = tuple(
    map(
        ip_network,
        (
            "169.254.0.0/16",  # RFC 3927; the metadata of most clouds
            "fe80::/10",
            "fd00:ec2::/32",  # Amazon
            "fd20:ce::254/128",  # Google
            "168.63.129.16/32",  # Azure
            "100.100.100.200/32",  # Alibaba
            "192.0.0.192/32",  # Oracle
        ),
    )
)
_NAT64 = IPv6Network("64:ff9b::/96")


def is_link_local(address: str) -> bool:
    """Whether the IP address `address` is one of those, also in the IPv6 clothes of an IPv4 address."""
    plain = ip_address(address.partition("%")[0])
    meant: IPv4Address | IPv6Address = plain
    if isinstance(plain, IPv6Address):
        mapped = plain.ipv4_mapped or plain.sixtofour
        meant = IPv4Address(int(plain) & 0xFFFFFFFF) if plain in _NAT64 else mapped or plain
    return any(meant.version == network.version and meant in network for network in _NETWORKS)
