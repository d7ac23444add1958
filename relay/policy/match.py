"""Whether a match holds for a submission: all of its conditions, any pattern of each.

A `View` holds what conditions ask about, worked out when first asked, once for a submission.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property, lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple

from relay.mail import encoding
from relay.mail.author import Author, authors_of, unambiguous
from relay.mail.header import Header, value
from relay.mail.submission import Submission
from relay.policy.rules import Match, Pattern


class View:
    """A submission as conditions see it. `session_code` is set once that is decided, before sender rules are asked."""

    def __init__(self, submission: Submission, header: Header | None = None) -> None:
        self.submission = submission
        self.session_code = False
        if header is not None:
            self.__dict__["header"] = header

    @cached_property
    def header(self) -> Header:
        return Header.parse(self.submission.head)

    @cached_property
    def authors(self) -> tuple[Author, ...]:
        """Of all From fields, in order; none where From is larger than `authors_of` reads."""
        return authors_of([value(field) for field in self.header.all(b"from")])

    @cached_property
    def from_(self) -> tuple[str, ...]:
        """The bare addresses of the authors, with the domain in lower case."""
        return tuple([_folded(author.address) for author in self.authors if author.address])

    @cached_property
    def is_plain(self) -> bool:
        """Whether nobody could find other authors in From than those of `from_`."""
        fields = self.header.all(b"from")
        return bool(fields) and all(unambiguous(value(field)) for field in fields)

    @cached_property
    def subject(self) -> str:
        """Unfolded and decoded (RFC 2047); "" if there is none."""
        field = self.header.first(b"subject")
        return encoding.decode(value(field)) if field else ""

    @cached_property
    def envelope_from(self) -> str:
        path = self.submission.envelope.reverse_path
        return "<>" if path is None else str(path)

    @cached_property
    def to(self) -> tuple[str, ...]:
        return tuple([str(recipient.address) for recipient in self.submission.envelope.recipients])

    @cached_property
    def client(self) -> IPv4Address | IPv6Address | None:
        return _ip(self.submission.peer.address)

    def values(self, name: str) -> tuple[str, ...]:
        """The raw unfolded values of all fields called `name` (in lower case)."""
        return tuple([encoding.text(value(field)) for field in self.header.all(name.encode())])


def _folded(address: str) -> str:
    local, _, domain = address.rpartition("@")
    return f"{local}@{domain.lower()}"


@lru_cache(maxsize=1024)
def _ip(address: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(address)
    except ValueError:
        return None  # a Unix socket


def matches(match: Match, view: View) -> bool:
    """Whether all conditions of `match` hold; one without conditions always does."""
    submission = view.submission
    # What costs least is asked first; the header is read only if nothing else says no.
    return (
        (match.session_code is None or match.session_code is view.session_code)
        and (match.max_size is None or submission.size <= match.max_size)
        and (match.recipients is None or len(submission.envelope.recipients) <= match.recipients)
        and (match.listener is None or _any(match.listener, (submission.listener,)))
        and (match.user is None or (submission.peer.user is not None and _any(match.user, (submission.peer.user,))))
        and (match.client is None or (view.client is not None and any(view.client in net for net in match.client)))
        and (match.envelope_from is None or _any(match.envelope_from, (view.envelope_from,)))
        and (match.to is None or _any(match.to, view.to))
        and (match.from_ is None or _from(match, match.from_, view))
        and (match.subject is None or _any(match.subject, (view.subject,)))
        and (not match.header or all(_any(patterns, view.values(name)) for name, patterns in match.header))
    )


def _from(match: Match, patterns: tuple[Pattern, ...], view: View) -> bool:
    """Whether the authors are those that `match` asks for: any of them, or all and nobody else."""
    if not match.all_authors:
        return _any(patterns, view.from_)
    return view.is_plain and bool(view.from_) and all(_any(patterns, (address,)) for address in view.from_)


def _any(patterns: Iterable[Pattern], values: tuple[str, ...]) -> bool:
    for pattern in patterns:
        for found in values:
            if pattern.matches(found):
                return True
    return False


class Condition(NamedTuple):
    """One condition, tried: its name as in the configuration, what it asks for, what was there, whether it held."""

    name: str
    expected: tuple[str, ...]
    found: tuple[str, ...]
    held: bool


def tried(match: Match, view: View) -> list[Condition]:
    """Every condition of `match`, in the order of the contract, also those behind the first that does not hold."""
    submission = view.submission
    user = () if submission.peer.user is None else (submission.peer.user,)
    asked: list[tuple[str, tuple[Pattern, ...] | None, tuple[str, ...]]] = [
        ("from", match.from_, view.from_),
        ("envelope_from", match.envelope_from, (view.envelope_from,)),
        ("to", match.to, view.to),
        ("subject", match.subject, (view.subject,)),
        *[(f"header.{name}", patterns, view.values(name)) for name, patterns in match.header],
        ("listener", match.listener, (submission.listener,)),
        ("user", match.user, user),
    ]
    conditions = [
        Condition(
            name,
            tuple([pattern.source for pattern in patterns]),
            found,
            _from(match, patterns, view) if name == "from" else _any(patterns, found),
        )
        for name, patterns, found in asked
        if patterns is not None
    ]
    if match.client is not None:
        client = view.client
        held = client is not None and any(client in net for net in match.client)
        networks = tuple([str(net.network_address if net.num_addresses == 1 else net) for net in match.client])
        conditions.append(Condition("client", networks, (submission.peer.address,), held))
    if match.session_code is not None:
        held = match.session_code is view.session_code
        conditions.append(Condition("session_code", (_yaml(match.session_code),), (_yaml(view.session_code),), held))
    if match.max_size is not None:
        held = submission.size <= match.max_size
        conditions.append(Condition("max_size", (f"{match.max_size} octets",), (f"{submission.size} octets",), held))
    if match.recipients is not None:
        count = len(submission.envelope.recipients)
        conditions.append(Condition("recipients", (str(match.recipients),), (str(count),), count <= match.recipients))
    return conditions


def _yaml(value: bool) -> str:
    return "true" if value else "false"
