"""Rewriting: the header and the reverse-path with which a message leaves.

A rule that rewrites makes its address the one author. What the person who wrote put into From
stays in X-Original-From, raw; replies and receipts reach that person through Reply-To. Where From names no address,
Sender does, else the reverse-path. Where From already is the address of the rule, in a form that no reader takes for
another, and the template gives the name that stands there (no name stays no name), From is left as it came, and with it
signatures; a Sender with another address goes, and the reverse-path follows the rule.

On the way out, with or without a rule: Received goes on top, Date, Message-ID and From (the reverse-path, else the
author of our own notifications) where they are missing; Bcc, Resent-Bcc and Return-Path are removed, and, where the
listener says so, fields that stand twice and may not. All else leaves byte for byte.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from relay.mail import trace
from relay.mail.address import Address, lower
from relay.mail.author import LARGEST_FROM, Author, authors_of, parse, plain
from relay.mail.encoding import encode_phrase
from relay.mail.header import Field, Header, folded, unfold, value
from relay.mail.narrow import in_short_lines
from relay.mail.once import each_once
from relay.mail.signature import signed
from relay.mail.submission import Submission
from relay.policy.decide import Accept, Policy
from relay.policy.rules import Rewrite
from relay.values import frozen

_NEVER_LEAVE = frozenset({b"bcc", b"resent-bcc", b"return-path"})
_RECEIPTS = frozenset({b"disposition-notification-to", b"return-receipt-to"})
_PLACEHOLDER = re.compile(r"\{(name|address|local|domain)\}")
_CACHED = 2048


@frozen
class Rendered:
    """A message as it leaves: `head` (complete, with its empty line), then the content from `body_offset` on.

    `result` is "rewritten", "repaired", "unchanged" (a rule spoke and nothing had to change) or None (no rule
    spoke). `from_before` and `from_after` are values, unfolded (several From fields joined by
    commas). `reply_to` is the value of Reply-To as the message leaves, or None.
    `signatures_removed` counts the DKIM-Signature fields that this broke. `smtputf8`: the client asked for it, or an
    address is beyond ASCII. `repeated` names fields that stood more often than they may, and leave once. `author` is
    the first address of From as the message leaves, `message_id` the field of that name.
    """

    reverse_path: Address | None
    head: bytes
    body_offset: int
    smtputf8: bool
    result: str | None
    from_before: bytes
    from_after: bytes
    reply_to: bytes | None
    signatures_removed: int = 0
    repeated: tuple[str, ...] = ()
    author: str = ""
    message_id: bytes = b""


def render(
    submission: Submission, accept: Accept, policy: Policy, header: Header | None = None, *, repaired: bool = False
) -> Rendered:
    """The message as it leaves by `accept`. `header` is the parsed `submission.head`, where the caller has it.

    `repaired`: the original sender is refused, so a rule with `when: refused` rewrites as well.
    """
    if header is None:
        header = Header.parse(submission.head)
    fields, rest = header.fields, header.rest
    names = dict(fields)
    ours = [trace.received(submission, policy.hostname, short=submission.listener in policy.short_received)]
    if b"date" not in names:
        ours.append(b"Date: %b\r\n" % trace.date(submission.received_at))
    if b"message-id" in names:
        message_id = names[b"message-id"]
    else:
        message_id = b"Message-ID: %b\r\n" % trace.message_id(submission.queue_id, policy.hostname)
        ours.append(message_id)
    if fields and not fields[-1][1].endswith(b"\n"):
        name, raw = fields[-1]
        fields = (*fields[:-1], (name, raw + b"\r\n"))
    froms = tuple([field for field in fields if field[0] == b"from"]) if b"from" in names else ()
    before = tuple(map(value, froms))
    replies = tuple([value(field) for field in fields if field[0] == b"reply-to"]) if b"reply-to" in names else ()
    senders = tuple([field for field in fields if field[0] == b"sender"]) if b"sender" in names else ()
    rule = accept.rule
    rewrite = rule.rewrite if rule is not None and (repaired or not rule.when_refused) else None
    authorship = _UNCHANGED
    if rewrite is not None:
        authorship = _authorship(rewrite, before, replies, froms, senders)
        if authorship.anonymous and (person := _person(before, senders, submission.envelope.reverse_path)) is not None:
            authorship = _author(rewrite, before, replies, froms, senders, person)
    author, address = authorship.author, authorship.address
    if author is None and not any(before):
        fields = Header(fields).delete((b"from",)).fields
        address = str(submission.envelope.reverse_path or policy.bounces_from)
        author = folded(b"From", _list([Author("", address)]))
        ours.append(author)
    signatures = 0
    if authorship.changes:
        fields, signatures = _rewritten(fields, authorship)
    repeated: tuple[str, ...] = ()
    if len(names) < len(header.fields) and submission.listener in policy.repair_duplicates:
        fields, repeated, broken = each_once(fields)
        signatures += broken
    if not _NEVER_LEAVE.isdisjoint(names):
        fields = Header(fields).delete(_NEVER_LEAVE).fields
    # A body that begins without an empty line (no header, or a line that is no field) gets one before it.
    end = b"\r\n" if rest in (b"\r\n", b"\n") else b"\r\n" + rest
    ours += [raw for _, raw in fields]
    ours.append(end)

    reverse_path = submission.envelope.reverse_path
    if rewrite is not None and reverse_path is not None and rewrite.envelope != "keep":
        reverse_path = rewrite.envelope if isinstance(rewrite.envelope, Address) else rewrite.address
    result = None
    if rule is not None:
        changed = authorship.changes or reverse_path != submission.envelope.reverse_path
        result = ("repaired" if rule.when_refused else "rewritten") if changed else "unchanged"
    return Rendered(
        reverse_path=reverse_path,
        head=b"".join(ours),
        body_offset=len(submission.head),
        smtputf8=(
            submission.envelope.smtputf8
            or authorship.needs_smtputf8
            or (reverse_path is not None and not reverse_path.is_ascii)
        ),
        result=result,
        from_before=b", ".join(before),
        from_after=b", ".join(before) if author is None else unfold(author.partition(b":")[2]),
        reply_to=_reply_to_value(authorship, replies),
        signatures_removed=signatures,
        repeated=repeated,
        author=address or _as_it_stands(before),
        message_id=message_id,
    )


@frozen
class _Authorship:
    """What a rule makes of From and Reply-To.

    `author` and `reply_to` are new fields, None where the old ones stay; `originals` are the
    X-Original-From fields; `receipts` are the addresses that receipts shall reach. `sender_goes`: Sender names
    another than the rule. `anonymous`: no author has a usable address. `address`: the rule's, "" where
    none rewrites.
    """

    author: bytes | None = None
    originals: tuple[bytes, ...] = ()
    reply_to: bytes | None = None
    receipts: tuple[str, ...] = ()
    needs_smtputf8: bool = False
    sender_goes: bool = False
    anonymous: bool = False
    address: str = ""

    @property
    def changes(self) -> bool:
        return self.author is not None or self.reply_to is not None or self.sender_goes


_UNCHANGED = _Authorship()


def _reply_to_value(authorship: _Authorship, replies: tuple[bytes, ...]) -> bytes | None:
    if authorship.reply_to is not None:
        return unfold(authorship.reply_to.partition(b":")[2])
    return b", ".join(replies) if replies else None


def _rewritten(fields: tuple[Field, ...], authorship: _Authorship) -> tuple[tuple[Field, ...], int]:
    """`fields` with `authorship` in them, in the place of the first From (or on top), and how many signatures broke."""
    goes = set()
    if authorship.sender_goes:
        goes.add(b"sender")
    if authorship.reply_to is not None:
        goes.add(b"reply-to")
    kept: list[Field] = []
    place = -1
    signatures = 0
    for field in fields:
        name, raw = field
        if name == b"from":
            if place < 0:
                place = len(kept)
            if authorship.author is None:
                kept.append(field)
                place = len(kept)
        elif name in goes:
            continue
        elif name in _RECEIPTS and authorship.author is not None:
            kept.append((name, _receipt(field, authorship.receipts)))
        elif name == b"dkim-signature" and (authorship.author is not None or not goes.isdisjoint(signed(field))):
            signatures += 1
        else:
            kept.append((name, raw))
    place = max(place, 0)
    new = (authorship.author, *authorship.originals, authorship.reply_to)
    kept[place:place] = [(raw.partition(b":")[0].lower(), raw) for raw in new if raw is not None]
    return tuple(kept), signatures


def _receipt(field: Field, addresses: tuple[str, ...]) -> bytes:
    """The receipt field `field` for `addresses`; as it came where they are unknown or already there."""
    there = [author.address for author in authors_of([value(field)])]
    if not addresses or (there and all(address in addresses for address in there)):
        return field[1]
    name = field[1].partition(b":")[0].rstrip()
    return folded(name, _list([Author("", address) for address in addresses]))


def _authorship(
    rewrite: Rewrite,
    before: tuple[bytes, ...],
    replies: tuple[bytes, ...],
    froms: tuple[Field, ...],
    senders: tuple[Field, ...],
) -> _Authorship:
    small = sum(map(len, before)) + sum(map(len, replies)) <= _CACHED and not senders
    return (_remembered if small else _author)(rewrite, before, replies, froms, senders)


def _author(
    rewrite: Rewrite,
    before: tuple[bytes, ...],
    replies: tuple[bytes, ...],
    froms: tuple[Field, ...],
    senders: tuple[Field, ...],
    person: Author | None = None,
) -> _Authorship:
    """What `rewrite` makes of the From fields `froms` with the values `before`, the Reply-To values `replies` and the
    Sender fields `senders`. `person`: who wrote, where no author has a usable address. Pure."""
    written = (person,) if person is not None else authors_of(before)
    usable = _different([author for author in written if author.address])
    writer = usable[0] if usable else written[0] if written else Author("", None)
    new = Author(_display_name(rewrite.display_name or "{name}", writer), str(rewrite.address))
    stays = plain(froms) == 1 and _same(rewrite, writer, new)
    theirs = [field for field in senders if not (plain([field]) == 1 and _only(parse(value(field)), rewrite.address))]
    # A Reply-To that is larger than what is read of a From stays as it is.
    readable = sum(map(len, replies)) <= LARGEST_FROM
    answered = _different([author for raw in replies for author in parse(raw) if author.address]) if readable else []

    reply_to: list[Author] = []
    if isinstance(rewrite.reply_to, Address):
        answered = reply_to = [Author("", str(rewrite.reply_to))]
    elif rewrite.reply_to == "original" and readable and not answered and not _only(usable, rewrite.address):
        # A Reply-To that leads nowhere counts as none.
        answered = reply_to = usable
    author = None if stays else folded(b"From", _list([new]))
    field = folded(b"Reply-To", _list([Author(_without_at(a.name), a.address) for a in reply_to])) if reply_to else None
    return _Authorship(
        author=author,
        sender_goes=not stays or bool(theirs),
        anonymous=not usable,
        originals=() if stays else tuple([_original(raw) for raw in before]),
        reply_to=field,
        receipts=tuple([author.address for author in answered if author.address]),
        needs_smtputf8=not (author or b"").isascii() or not (field or b"").isascii(),
        address=str(rewrite.address),
    )


_remembered = lru_cache(maxsize=256)(_author)


def _as_it_stands(before: tuple[bytes, ...]) -> str:
    """The first address of From."""
    return _first_address(before) if sum(map(len, before)) <= _CACHED else _first_address.__wrapped__(before)


@lru_cache(maxsize=256)
def _first_address(before: tuple[bytes, ...]) -> str:
    return next((author.address for author in authors_of(before) if author.address), "")


def _person(before: tuple[bytes, ...], senders: tuple[Field, ...], reverse_path: Address | None) -> Author | None:
    """Who wrote a message whose From has no usable address: the name is that of From, if there is one, the address that
    of Sender, else the reverse-path. None where nobody is named."""
    named = [author.name for author in authors_of(before)]
    found = [author for author in authors_of([value(field) for field in senders]) if author.address]
    if reverse_path is not None:
        found.append(Author("", str(reverse_path)))
    return Author(named[0] if named else found[0].name, found[0].address) if found else None


def _different(authors: list[Author]) -> list[Author]:
    """Each address once."""
    return list({author.address: author for author in reversed(authors)}.values())[::-1]


def _only(authors: Sequence[Author], address: Address) -> bool:
    return len(authors) == 1 and lower(_in_ascii(authors[0].address)) == lower(_in_ascii(str(address)))


def _in_ascii(address: str | None) -> str:
    """An address as it was written, its domain as A-labels where that is beyond ASCII and can be said so."""
    if address is None or address.isascii():
        return address or ""
    return str(Address.of(address).in_ascii or address)


def _same(rewrite: Rewrite, writer: Author, new: Author) -> bool:
    """Whether the author already is as the rule wants it. Case does not count: no upstream minds it."""
    if not _only([writer], rewrite.address):
        return False
    if not writer.name:
        # A bare address needs no name, unless the template has words of its own.
        return not _PLACEHOLDER.sub("", rewrite.display_name or "").strip()
    return new.name == _tidy(writer.name)


def _tidy(name: str) -> str:
    return " ".join(name.split())


def _without_at(name: str) -> str:
    return " at ".join([part.strip() for part in name.split("@")])


def _display_name(template: str, writer: Author) -> str:
    """The template, filled in once: braces in a name are only braces."""
    local, _, domain = (writer.address or "").rpartition("@")
    if local.startswith('"'):
        local = re.sub(r"\\(.)", r"\1", local[1:-1])
    values = {
        "name": _without_at(_tidy(writer.name or local)),
        "address": writer.address or "",
        "local": local,
        "domain": domain.lower(),
    }
    return _tidy(_PLACEHOLDER.sub(lambda found: values[found[1]], template))


def _list(authors: list[Author]) -> list[bytes]:
    """The words of an address list: ASCII, but for addresses that only SMTPUTF8 can carry."""
    words: list[bytes] = []
    for author in authors:
        address = _in_ascii(author.address).encode()
        phrase = encode_phrase(author.name)
        words += [phrase, b"<" + address + b">"] if phrase else [address]
        words[-1] += b","
    words[-1] = words[-1][:-1]
    return words


def _original(raw: bytes) -> bytes:
    """X-Original-From: the value as it was, in one line; folded again only where no line could hold it."""
    return in_short_lines(b"X-Original-From: " + raw + b"\r\n")
