"""From samples of session-code mail to entries of `session_codes.match`: what the samples have in common.

What varies in a subject is told from what stays by its digits, and by holding the samples against each other; it
is replaced by a pattern, so that nothing proposed holds a code. Samples whose subjects have little in common are
different kinds of mail, and get entries of their own. A proposal is no more than that: whether it matches is for
`match` to say.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from relay.mail import encoding
from relay.mail.header import value
from relay.policy.match import View
from relay.values import frozen

MAILERS = ("X-Mailer", "User-Agent")
LONGEST_SUBJECT = 500  # of a subject that is worth a pattern
MOST_ADDRESSES = 5

_TOKEN = re.compile(r"[0-9]+(?:[-. ][0-9]+)+(?!\w)|\w+|\W")
_SPECIAL = re.compile(r"[\\.+*?()|\[\]{}^$]")
_KIB = 1024


@frozen
class Proposed:
    """A condition: its key as in the configuration ("header" with the field's name in `field`), and why it is there."""

    key: str
    value: str | int | tuple[str, ...]
    why: str
    field: str = ""


@frozen
class Kind:
    """An entry for `samples` (their places). `broad`: what else it would match, where that is much."""

    samples: tuple[int, ...]
    conditions: tuple[Proposed, ...]
    broad: tuple[str, ...]


def propose(views: Sequence[View]) -> tuple[Kind, ...]:
    """An entry for each kind of mail among the samples, in the order of the first sample of each."""
    kinds: list[list[int]] = []
    for place, view in enumerate(views):
        tokens = _tokens(view.subject)
        for kind in kinds:
            if _alike(_tokens(views[kind[0]].subject), tokens):
                kind.append(place)
                break
        else:
            kinds.append([place])
    return tuple([_kind(places, [views[place] for place in places]) for places in kinds])


def _kind(places: Sequence[int], views: Sequence[View]) -> Kind:
    conditions = (*_author(views), *_subject(views), *_mailer(views), *_bounds(views))
    return Kind(tuple(places), conditions, tuple(_broad(conditions, len(views))))


def _broad(conditions: Iterable[Proposed], samples: int) -> Iterable[str]:
    by_key = {condition.key: condition for condition in conditions}
    subject, author = by_key.get("subject"), by_key.get("from")
    if subject is None:
        yield "no condition on the subject: any small mail from that sender is taken for a session code"
    elif not re.search(r"[^\W\d_]{4}", re.sub(r"\\[dw]|\(\?i\)", "", str(subject.value))):
        yield "the subject has no word of its own: any small mail with such a subject is taken for a session code"
    if author is None:
        yield "no condition on the author: whoever writes such a subject is taken for the sender of session codes"
    elif isinstance(author.value, str) and author.value.startswith("*@"):
        yield "any author of that domain: name the addresses if you know them"
    if samples == 1:
        yield "one sample only: what varies in the subject is guessed; a second one would show it"


# The conditions


def _author(views: Sequence[View]) -> Iterable[Proposed]:
    if not all(view.from_ for view in views):
        return
    addresses = tuple(dict.fromkeys([address.casefold() for view in views for address in view.from_[:1]]))
    domains = {address.rpartition("@")[2] for address in addresses}
    if len(addresses) == 1:
        yield Proposed("from", _glob(addresses[0]), f"the author of {_all(views)}")
    elif len(addresses) <= MOST_ADDRESSES:
        yield Proposed("from", tuple(map(_glob, addresses)), "the authors of the samples")
    elif len(domains) == 1:
        yield Proposed("from", f"*@{domains.pop()}", f"{len(addresses)} authors, all of this domain")


def _subject(views: Sequence[View]) -> Iterable[Proposed]:
    subjects = [view.subject for view in views]
    if not all(0 < len(subject) <= LONGEST_SUBJECT for subject in subjects):
        return
    columns = list(zip(*[_tokens(subject) for subject in subjects], strict=True))
    parts = [_part(column) for column in columns]
    varies = any(part != _literal(column[0]) for part, column in zip(parts, columns, strict=True))
    why = "what the subject says around the code" if varies else f"the subject of {_all(views)}"
    yield Proposed("subject", f"/(?i)^{''.join(parts)}$/", why)


def _mailer(views: Sequence[View]) -> Iterable[Proposed]:
    for name in MAILERS:
        found = [field for view in views if (field := view.header.first(name.lower().encode())) is not None]
        texts = [encoding.text(value(field)) for field in found]
        stems = {re.split(r"[0-9]", text)[0].rstrip(" v./(-").casefold() for text in texts}
        if len(texts) < len(views) or len(stems) != 1:
            continue
        stem = re.split(r"[0-9]", texts[0])[0].rstrip(" v./(-")
        if len(stem) < 3 or not stem.isprintable() or re.search(r"[*?]|^/", stem):
            continue
        whole = all(text.casefold() == stem.casefold() for text in texts)
        why = "the software that writes them" if whole else "the software that writes them, in any version"
        yield Proposed("header", stem if whole else f"{stem}*", why, name)
        return


def _bounds(views: Sequence[View]) -> Iterable[Proposed]:
    most = max([len(view.submission.envelope.recipients) for view in views])
    if most:
        yield Proposed("recipients", most, "a code is for one person" if most == 1 else "the most that a sample has")
    largest = max([view.submission.size for view in views])
    room = 16 * _KIB
    while room < 2 * largest:
        room *= 2
    why = "several times the largest sample" if room >= 3 * largest else "twice the largest sample and more"
    yield Proposed("max_size", f"{room // _KIB}KiB", why)


def _all(views: Sequence[View]) -> str:
    return {1: "the sample", 2: "both samples"}.get(len(views), f"all {len(views)} samples")


def _glob(address: str) -> str:
    """A pattern for an address: itself, unless it would be read as something else."""
    if address.isprintable() and not re.search(r"[*?]|^/", address):
        return address
    return f"/(?i)^{_literal(address)}$/"


# Subjects


def _tokens(subject: str) -> list[str]:
    return _TOKEN.findall(subject)


def _alike(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether two subjects are of one kind: as many tokens, the same signs, and at most one word that differs."""
    if len(one) != len(other):
        return False
    same = differ = 0
    for left, right in zip(one, other, strict=True):
        if (_has_digit(left) or _has_digit(right)) and re.match(r"\w", left) and re.match(r"\w", right):
            continue
        if left.casefold() == right.casefold():
            same += left.isalpha()
        elif left.isalpha() and right.isalpha():
            differ += 1
        else:
            return False
    return differ == 0 or (differ == 1 and same > 0)


def _part(column: Sequence[str]) -> str:
    """The pattern for what stands in one place of all subjects."""
    first = column[0]
    shortest, longest = min(map(len, column)), max(map(len, column))
    if all(token.isascii() and token.isdigit() for token in column):
        return rf"\d{{{min(4, shortest)},{max(8, longest)}}}"
    if all(re.fullmatch(r"[0-9. -]+", token) and _has_digit(token) for token in column):
        if shortest < 3:
            return rf"\d[\d. -]{{{shortest - 1},{max(13, longest)}}}"
        return rf"\d[\d. -]{{1,{max(12, longest)}}}\d"
    varies = len({token.casefold() for token in column}) > 1 or any(map(_has_digit, column))
    if varies or (len(column) == 1 and _may_be_a_code(first)):
        # RE2's \w is ASCII.
        signs = r"\w" if all(map(str.isascii, column)) else r"\pL\pN_"
        if any(re.search(r"\W", token) for token in column):
            signs += ". -"
        one = signs if len(signs) == 2 else f"[{signs}]"
        return f"{one}{{{min(4, shortest)},{max(10, longest)}}}"
    return _literal(first)


def _has_digit(token: str) -> bool:
    return any(character.isdigit() for character in token)


def _may_be_a_code(word: str) -> bool:
    """With one sample nobody knows whether AKTWQZ is a code or a name: then it is not written down."""
    return len(word) >= 3 and word.isalpha() and not (word.islower() or word[1:].islower())


def _literal(text: str) -> str:
    return "".join([_SPECIAL.sub(r"\\\g<0>", c) if c.isprintable() else "." for c in text])
