"""Whether matches hold for a submission: all conditions of one, any pattern of each.

A `View` holds what conditions ask about, worked out when first asked, once for a submission.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cached_property, lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import chain
from typing import NamedTuple

from relay.mail import encoding
from relay.mail.address import lower
from relay.mail.author import authors_of, plain
from relay.mail.header import Field, Header, value
from relay.mail.submission import Submission
from relay.policy.pattern import LONGEST
from relay.policy.rules import Match, Pattern
from relay.policy.together import Together

_ALL_AUTHORS = "from, all"  # "from", where each author has to match
MOST_FIELDS = 100  # of one name that are looked at, from the top
# Letters that are letters of ASCII where case does not count: who is named by them is another author.
_FOLD_TO_ASCII = re.compile("[\u00df\u0130\u0149\u017f\u01f0\u1e96-\u1e9a\u1e9e\u212a\ufb00-\ufb06]")


class View:
    """A submission as conditions see it. `session_code` is set once that is decided, before sender rules are asked."""

    def __init__(self, submission: Submission) -> None:
        self.submission = submission
        self.session_code = False

    @cached_property
    def header(self) -> Header:
        return Header.parse(self.submission.head)

    @cached_property
    def from_(self) -> tuple[str, ...]:
        """The bare addresses of the authors in all From fields, in order, with the domain in lower case; none where
        From is larger than `authors_of` reads."""
        authors = authors_of([value(field) for field in self.header.all(b"from")])
        return tuple([_folded(author.address) for author in authors if author.address])

    @cached_property
    def is_plain(self) -> bool:
        """Whether nobody could find other authors in From than those of `from_`, of whom there is one at least."""
        return 0 < len(self.from_) == plain(self.header.all(b"from"))

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

    def asked(self, condition: str) -> tuple[str, ...]:
        """What the patterns of a condition are held against, by its name in the configuration ("header.x-mailer").

        Of a field in the header, the raw unfolded values of the first `MOST_FIELDS`.
        """
        match condition:
            case "from" | "from, all":
                return self.from_
            case "to":
                return self.to
            case "subject":
                return (self.subject,)
            case "envelope_from":
                return (self.envelope_from,)
            case "listener":
                return (self.submission.listener,)
            case "user":
                return () if self.submission.peer.user is None else (self.submission.peer.user,)
            case _:
                fields = self._fields.get(condition.removeprefix("header.").encode(), [])
                return tuple([encoding.text(value(field)) for field in fields[:MOST_FIELDS]])

    @cached_property
    def _fields(self) -> dict[bytes, list[Field]]:
        """The fields of the header by their names."""
        found: dict[bytes, list[Field]] = {}
        for field in self.header.fields:
            found.setdefault(field[0], []).append(field)
        return found


def _folded(address: str) -> str:
    local, _, domain = address.rpartition("@")
    return f"{local}@{lower(domain)}"


@lru_cache(maxsize=1024)
def _ip(address: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(address)
    except ValueError:
        return None  # a Unix socket


_Answers = dict[str, list[frozenset[str]]]


class Condition(NamedTuple):
    """One condition, tried: its name as in the configuration, what it asks for, what was there, whether it held."""

    name: str
    expected: tuple[str, ...]
    found: tuple[str, ...]
    held: bool


class Matches:
    """The matches of all sender rules, or of all session-code entries, asked together.

    Each value of a message is looked at once, whatever the number of rules. `weight` is what an octet of a message may
    cost at worst (`Together`).
    """

    __slots__ = ("_asked", "_matches", "_together", "weight")

    def __init__(self, matches: Iterable[Match]) -> None:
        self._matches = tuple(matches)
        by_kind: dict[str, list[Pattern]] = {}
        for kind, patterns in chain.from_iterable(map(_patterns, self._matches)):
            by_kind.setdefault(kind, []).extend(patterns)
        self._asked = tuple(map(_asked, self._matches))
        self._together = {kind: Together(patterns) for kind, patterns in by_kind.items()}
        self.weight = sum(together.weight for together in self._together.values())

    def first(self, view: View, start: int = 0) -> int | None:
        """The place of the first that holds, from `start` on: all of its conditions do, any pattern of each."""
        answers: _Answers = {}
        for place, (besides, asked) in enumerate(self._asked[start:] if start else self._asked, start):
            if besides is not None and not _holds_besides(besides, view):
                continue
            for kind, sources in asked:
                if not self._holds(kind, sources, view, answers):
                    break
            else:
                return place
        return None

    def tried(self, view: View) -> tuple[tuple[Condition, ...], ...]:
        """Every condition of each, in the order of the contract, also those behind the first that does not hold."""
        answers: _Answers = {}
        conditions = []
        for match in self._matches:
            asked = [
                Condition(
                    "from" if kind == _ALL_AUTHORS else kind,
                    _sources(patterns),
                    view.asked(kind),
                    self._holds(kind, _sources(patterns), view, answers),
                )
                for kind, patterns in _patterns(match)
            ]
            conditions.append((*asked, *_tried_besides(match, view)))
        return tuple(conditions)

    def cost(self, view: View) -> int:
        """The most that looking at the values of `view` may take, in instructions of an RE2 set."""
        return sum(
            together.weight * sum([min(len(value), LONGEST) for value in view.asked(kind)])
            for kind, together in self._together.items()
            if together.weight
        )

    def _holds(self, kind: str, sources: tuple[str, ...], view: View, answers: _Answers) -> bool:
        """Whether any pattern of `sources` matches a value of `kind`; or each of them, where all authors have to."""
        found = answers.get(kind)
        if found is None:
            values = view.asked(kind)
            if kind == _ALL_AUTHORS:
                values = tuple([_FOLD_TO_ASCII.sub("\ufffd", one) for one in values])
            found = list(map(self._together[kind].holding, values))
            if len(found) > 1 and kind != _ALL_AUTHORS:
                found = [frozenset().union(*found)]
            answers[kind] = found
        for held in found:
            if held.isdisjoint(sources):
                return False
        return bool(found) and (kind != _ALL_AUTHORS or view.is_plain)


def _patterns(match: Match) -> list[tuple[str, tuple[Pattern, ...]]]:
    """The conditions of `match` that are patterns, by their names, in the order of the contract."""
    asked = [
        (_ALL_AUTHORS if match.all_authors else "from", match.from_),
        ("envelope_from", match.envelope_from),
        ("to", match.to),
        ("subject", match.subject),
        *[(f"header.{name}", patterns) for name, patterns in match.header],
        ("listener", match.listener),
        ("user", match.user),
    ]
    return [(kind, patterns) for kind, patterns in asked if patterns is not None]


def _asked(match: Match) -> tuple[Match | None, tuple[tuple[str, tuple[str, ...]], ...]]:
    """`match` where it has conditions that are no patterns, and the others; what costs least stands last in `_patterns`
    and is asked first."""
    besides = (match.client, match.session_code, match.max_size, match.recipients)
    asked = tuple([(kind, _sources(patterns)) for kind, patterns in reversed(_patterns(match))])
    return None if besides == (None,) * len(besides) else match, asked


def _sources(patterns: Iterable[Pattern]) -> tuple[str, ...]:
    return tuple([pattern.source for pattern in patterns])


def _holds_besides(match: Match, view: View) -> bool:
    """Whether the conditions of `match` that are no patterns hold."""
    submission = view.submission
    return (
        (match.session_code is None or match.session_code is view.session_code)
        and (match.max_size is None or submission.size <= match.max_size)
        and (match.recipients is None or len(submission.envelope.recipients) <= match.recipients)
        and (match.client is None or (view.client is not None and any(view.client in net for net in match.client)))
    )


def _tried_besides(match: Match, view: View) -> Iterator[Condition]:
    submission = view.submission
    if match.client is not None:
        client = view.client
        held = client is not None and any(client in net for net in match.client)
        networks = tuple([str(net.network_address if net.num_addresses == 1 else net) for net in match.client])
        yield Condition("client", networks, (submission.peer.address,), held)
    if match.session_code is not None:
        held = match.session_code is view.session_code
        yield Condition("session_code", (_yaml(match.session_code),), (_yaml(view.session_code),), held)
    if match.max_size is not None:
        held = submission.size <= match.max_size
        yield Condition("max_size", (f"{match.max_size} octets",), (f"{submission.size} octets",), held)
    if match.recipients is not None:
        count = len(submission.envelope.recipients)
        yield Condition("recipients", (str(match.recipients),), (str(count),), count <= match.recipients)


def _yaml(value: bool) -> str:
    return "true" if value else "false"
