from __future__ import annotations

import pytest

from relay.policy.link_local import is_link_local


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254",
        "169.254.0.1",
        "fe80::1",
        "fe80::1%eth0",
        "fd00:ec2::254",
        "fd00:ec2::23",
        "fd20:ce::254",
        "168.63.129.16",
        "100.100.100.200",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "2002:a9fe:a9fe::1",
    ],
)
def test_the_link_and_the_metadata_of_clouds_are_known_in_all_their_clothes(address: str) -> None:
    assert is_link_local(address)


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "::1", "10.0.0.1", "192.0.2.1", "2001:db8::1", "fd00::1", "64:ff9b::1"]
)
def test_all_other_addresses_are_nobodys_business(address: str) -> None:
    assert not is_link_local(address)
