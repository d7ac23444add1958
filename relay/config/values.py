"""The values of the configuration as people write them: durations, sizes, retry lists, addresses, networks.

Each function takes the text and returns the value, or raises BadValue: a sentence and a hint, neither of
which repeats the text.
"""

from __future__ import annotations

import re
from datetime import timedelta
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path
from urllib.parse import urlsplit

from relay.mail.address import Address
from relay.mail.domain import a_labels
from relay.policy.client import Network
from relay.policy.rate import Rate
from relay.values import frozen

_SECONDS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
_DURATION = re.compile(r"(?:([0-9]{1,9})d)?(?:([0-9]{1,9})h)?(?:([0-9]{1,9})m)?(?:([0-9]{1,9})s)?")
_LONGEST_DURATION = 10 * 365 * 86_400
_OCTETS = {
    "B": 1,
    **dict.fromkeys(("kB", "KB"), 10**3),
    **{"MB": 10**6, "GB": 10**9, "TB": 10**12},
    **{"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40},
}
_SIZE = re.compile(rf"([0-9]{{1,12}})({'|'.join(_OCTETS)})")
_MOST_INTERVALS = 1_000
_RATE = re.compile(r"([0-9]{1,7})/(s|min|h|d)")
_RATE_SECONDS = {"s": 1.0, "min": 60.0, "h": 3_600.0, "d": 86_400.0}
_LOCAL = re.compile(r'[^\s\x00-\x20\x7f<>()\[\]\\,;:"@]{1,64}|"[^\r\n\x00-\x1f\x7f"\\]{1,62}"')
_DOMAIN = re.compile(r"(?=.{1,255}\Z)[^\W_](?:[\w-]*[^\W_])?(?:\.[^\W_](?:[\w-]*[^\W_])?)*|\[[0-9A-Za-z.:]+\]")
_HOST_NAME = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,62})(?:\.[A-Za-z0-9_][A-Za-z0-9_-]{0,62})*\.?")
_V4_MAPPED = IPv6Network("::ffff:0:0/96")


class BadValue(ValueError):
    """What is wrong with a value, and what to do; never the value itself."""

    def __init__(self, problem: str, hint: str = "") -> None:
        self.problem = problem
        self.hint = hint
        super().__init__(problem)


@frozen
class ListenAddress:
    """Where a listener listens: kind "tcp" with `host` and `port`, kind "unix" with the socket's path in `host`, or
    kind "systemd" with the sockets' name in `host`.

    Port 0 asks the system for a free one.
    """

    kind: str
    host: str
    port: int = 0

    @property
    def ip(self) -> IPv4Address | IPv6Address | None:
        """The IP address, or None for a name, a Unix socket or sockets of systemd."""
        try:
            return ip_address(self.host) if self.kind == "tcp" else None
        except ValueError:
            return None

    @property
    def from_here(self) -> str:
        """The host under which this machine reaches it."""
        return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104

    def __str__(self) -> str:
        if self.kind != "tcp":
            return f"{self.kind}:{self.host}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@frozen
class Url:
    """An https URL as it is written, and where it leads."""

    text: str
    host: str
    port: int

    @property
    def where(self) -> str:
        """Host and port, for people; what stands behind them may be nobody else's business."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == 443 else f"{host}:{self.port}"


@frozen
class SqliteUrl:
    """`sqlite:PATH`: the queue is kept in that file, and in files beside it."""

    path: Path

    @property
    def folder(self) -> Path:
        """Where the files of the store lie, its side files (spool, tokens) as well."""
        return self.path.parent

    @property
    def exists(self) -> bool:
        """Whether a relay has made it: to open it makes it, as whoever does that."""
        return self.path.exists()

    def beside(self, what: str) -> Path:
        """The side file or folder for `what`."""
        return self.path.with_name(f"{self.path.name}.{what}")

    def __str__(self) -> str:
        """As people are told of it."""
        return str(self.path)


def duration(text: str) -> timedelta:
    """ "90s", "5m", "1h30m", "5d": longer than nothing, at most ten years."""
    if text.isdecimal():
        raise BadValue("a duration needs a unit", "give a unit: s, m, h or d, as in 90s, 5m, 1h30m, 5d")
    found = _DURATION.fullmatch(text)
    if found is None or not text:
        raise BadValue("not a duration", "write it like 90s, 5m, 1h30m or 5d")
    seconds = sum(int(number or 0) * unit for number, unit in zip(found.groups(), _SECONDS.values(), strict=True))
    if not 0 < seconds <= _LONGEST_DURATION:
        raise BadValue("a duration must be longer than nothing and at most ten years")
    return timedelta(seconds=seconds)


def size(text: str) -> int:
    """ "50MiB" is 50 * 2^20 octets, "10MB" is 10 * 10^6."""
    if text.isdecimal():
        raise BadValue("a size needs a unit", "give a unit: KiB, MiB or GiB (or KB, MB, GB), as in 50MiB")
    found = _SIZE.fullmatch(text)
    if found is None:
        raise BadValue("not a size", "write it like 256KiB, 50MiB or 10MB")
    return int(found[1]) * _OCTETS[found[2]]


def positive_size(text: str) -> int:
    """A size of at least one octet."""
    octets = size(text)
    if octets == 0:
        raise BadValue("the size must be more than nothing")
    return octets


def rate(text: str) -> Rate:
    """ "30/min" is at most 30 within any minute; s, min, h and d."""
    found = _RATE.fullmatch(text)
    if found is None:
        raise BadValue("not a rate", "write it like 30/min: a number, and s, min, h or d")
    if int(found[1]) == 0:
        raise BadValue("the rate must be more than nothing")
    return Rate(int(found[1]), _RATE_SECONDS[found[2]])


def retry(text: str) -> tuple[timedelta, ...]:
    """ "1m, 5m*2, 15m": the pauses between attempts, the repeated ones written out."""
    intervals: list[timedelta] = []
    for number, part in enumerate(text.split(","), 1):
        interval, star, times = part.partition("*")
        try:
            pause = duration(interval.strip())
        except BadValue as bad:
            hint = bad.hint or "write it like 1m, 5m*2, 15m, 1h"
            raise BadValue(f"interval {number} of the retry list: {bad.problem}", hint) from None
        count = times.strip()
        if star and not (count.isdecimal() and int(count[:9]) > 0 and len(count) < 5):
            raise BadValue(f"interval {number} of the retry list: not a number behind *", "write it like 5m*2")
        intervals += [pause] * (int(count) if star else 1)
        if len(intervals) > _MOST_INTERVALS:
            raise BadValue(f"a retry list has at most {_MOST_INTERVALS} intervals", "the last one repeats by itself")
    return tuple(intervals)


def listen_address(text: str) -> ListenAddress:
    """ "127.0.0.1:25", "[::1]:25", "unix:/path", "systemd:NAME"; the path as it is written."""
    how = 'write "127.0.0.1:25", "[::1]:25", "unix:/path" or "systemd:NAME"'
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not path or "\0" in path:
            raise BadValue("not the path of a Unix socket", how)
        return ListenAddress("unix", path)
    if text.startswith("systemd:"):
        name = text.removeprefix("systemd:")
        if not re.fullmatch(r"[!-9;-~]{1,255}", name):  # sd_listen_fds_with_names(3): ASCII, no colon
            raise BadValue("not a name of systemd sockets", how)
        return ListenAddress("systemd", name)
    host, colon, port = text.rpartition(":")
    if host in ("", "*") and re.fullmatch("[0-9]{1,5}", port):
        hint = f'write "127.0.0.1:{port}"; for other machines as well "0.0.0.0:{port}", with allow'
        raise BadValue("a port without an address", hint)
    if not colon:
        raise BadValue("an address without a port", how)
    if not (colon and host and port.isdecimal() and port.isascii() and len(port) <= 5 and int(port) <= 65_535):
        raise BadValue("not an address to listen on", how)
    if host.startswith("[") and host.endswith("]"):
        try:
            return ListenAddress("tcp", str(IPv6Address(host[1:-1])), int(port))
        except ValueError:
            raise BadValue("not an IPv6 address in the brackets", how) from None
    if ":" in host:
        raise BadValue("an IPv6 address stands in brackets", how)
    if re.fullmatch(r"[0-9.]+", host):
        try:
            IPv4Address(host)
        except ValueError:
            raise BadValue("not an IPv4 address", how) from None
    elif not _HOST_NAME.fullmatch(host):
        raise BadValue("not an address to listen on", 'all addresses are "0.0.0.0:25" and "[::]:25"')
    return ListenAddress("tcp", host.lower(), int(port))


def network(text: str) -> Network:
    """An address or a network, IPv4-mapped ones as the IPv4 network they mean."""
    try:
        found = ip_network(text)
    except ValueError:
        try:
            meant = ip_network(text, strict=False)
        except ValueError:
            raise BadValue("not an address or a network", "write it like 192.168.1.20, 192.168.1.0/24 or ::1") from None
        raise BadValue("bits are set behind the prefix", f"the network is {meant}") from None
    if isinstance(found, IPv6Network) and found.subnet_of(_V4_MAPPED):
        mapped = found.network_address.ipv4_mapped
        assert mapped is not None
        return IPv4Network((mapped, found.prefixlen - 96))
    return found


def address(text: str) -> Address:
    """A bare address, "jan@example.nl"."""
    if "<" in text or ">" in text:
        raise BadValue("not a bare address", "write only local-part@domain, without a name and angle brackets")
    local, at, domain = text.rpartition("@")
    if not at:
        raise BadValue("not an address", "write it like local-part@domain")
    if (
        not (_LOCAL.fullmatch(local) and _DOMAIN.fullmatch(domain))
        or ".." in local
        or local[0] == "."
        or local[-1] == "."
    ):
        raise BadValue("not a valid address", "write it like local-part@domain")
    return Address.of(text)


def plain_address(text: str) -> Address:
    """A bare address as every provider takes it: a domain beyond ASCII becomes its A-labels."""
    domain = text.rpartition("@")[2]
    if not domain.isascii() and ">" not in domain:
        plain = a_labels(domain)
        if plain is None:
            raise BadValue("letters in the domain that no domain has", "write its xn--… form")
        text = text.removesuffix(domain) + plain
    found = address(text)
    if not found.is_ascii:
        raise BadValue("letters beyond ASCII before the @, which few providers take", "name a mailbox without them")
    return found


def host_name(text: str) -> str:
    """A host name in ASCII, without a dot at its end."""
    if not text.isascii():
        raise BadValue("a host name is written in ASCII here", "write the xn--… form")
    if not _HOST_NAME.fullmatch(text):
        raise BadValue("not a host name", "letters, digits, hyphens and dots")
    return text.rstrip(".")


def upstream_host(text: str) -> str:
    """The name or the IP address of an upstream."""
    try:
        return str(ip_address(text[1:-1] if text[:1] == "[" and text[-1:] == "]" else text))
    except ValueError:
        pass
    if ":" in text:
        hint = "write the host alone, as in host: smtp.example.nl; the port has a key of its own: port"
        raise BadValue("more than a host", hint)
    return host_name(text)


def url(text: str) -> Url:
    """The https URL of an endpoint, without an account in it and without a fragment."""
    how = "write it like https://codes.vendor.example/v1/messages"
    if not re.fullmatch(r"[!-~]{1,2000}", text):
        raise BadValue("not a URL in ASCII", how)
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise BadValue("not a URL", how) from None
    if parts.scheme != "https":
        raise BadValue("not an https URL", how)
    if "@" in parts.netloc:
        raise BadValue("an account in a URL is seen by too many", "write auth: basic, with username and password")
    if "#" in text:
        raise BadValue("a URL without a fragment stands here", how)
    if not parts.hostname or port == 0:
        raise BadValue("not a URL", how)
    return Url(text, upstream_host(f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname), port or 443)


def pin(text: str) -> str:
    """The SHA-256 of a public key in base64."""
    if not re.fullmatch(r"[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=", text):
        raise BadValue("not a SHA-256 in base64", "docs/vendor-endpoint.md has the command that makes it")
    return text


def is_loopback(host: str) -> bool:
    """True for addresses that never leave this machine, and for "localhost"."""
    try:
        ip = ip_address(host)
    except ValueError:
        return host.lower() in ("localhost", "localhost.localdomain", "ip6-localhost")
    mapped = ip.ipv4_mapped if isinstance(ip, IPv6Address) else None
    return (mapped or ip).is_loopback
