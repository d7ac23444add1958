"""A message as an upstream can take it: re-encoded where that has no 8BITMIME, no SMTPUTF8, or wants no long lines.

Where nothing but SMTPUTF8 is missing, only the header is looked at. What is small is done on the spot, anything else on
a thread, and what is large in pieces: first a survey, then, where something has to change, once to learn the size (for
SIZE, and the upstream's limit), and once more while it is sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace

from relay.mail.content import Content, MemoryContent
from relay.mail.narrow import header_in_ascii
from relay.mail.recode import Plan, Recoder, Survey, Terms
from relay.mail.reply import Reply
from relay.transport.commands import WHOLE
from relay.transport.letters import Fitting, fit_envelope
from relay.transport.offers import Offers
from relay.transport.port import DeliveryRequest, Reencoding

_ON_THE_SPOT = 32 * 1024  # octets; more, in lines made for it, would keep everybody else waiting


def goes_as_it_is(request: DeliveryRequest, offers: Offers) -> bool:
    """True for what is `acceptable` and sent as it is, as its header alone tells."""
    plain = offers.eightbit and not request.smtputf8 and not request.encode_long_lines
    return plain and (offers.smtputf8 or request.head.isascii())


async def acceptable(request: DeliveryRequest, offers: Offers) -> Fitting | Reply:
    """The request to send, and what was done to its message; or our refusal, where it cannot go here.

    Raises OSError where the content cannot be read.
    """
    fitting = fit_envelope(request, offers)
    if isinstance(fitting, Reply):
        return fitting
    if offers.eightbit and not request.encode_long_lines:
        if offers.smtputf8 or request.head.isascii():
            return fitting
        small = len(request.head) <= _ON_THE_SPOT
    elif request.content.in_memory and request.size <= WHOLE:
        # Most of it is ASCII, and that is seen at once.
        if not request.encode_long_lines and all(piece.isascii() for piece in request.pieces()):
            return fitting
        small = request.size <= _ON_THE_SPOT
    else:
        small = False
    if small:
        return _made_to_fit(fitting, offers, texts=request.smtputf8)
    return await asyncio.to_thread(_made_to_fit, fitting, offers, texts=request.smtputf8)


def _made_to_fit(fitting: Fitting, offers: Offers, *, texts: bool) -> Fitting | Reply:
    """With a header in ASCII for an upstream without SMTPUTF8: its `texts` only where the client asked for that."""
    request, done = fitting.request, list[Reencoding]()
    if offers.eightbit and not offers.smtputf8:
        head, removed = header_in_ascii(request.head, texts=texts)
        if head != request.head:
            request = replace(request, head=head)
            done.append(Reencoding("no SMTPUTF8", 0, removed))
    if not offers.eightbit or request.encode_long_lines:
        terms = Terms(
            bodies=not offers.eightbit,
            headers=not (offers.eightbit or offers.smtputf8),
            long_lines=request.encode_long_lines,
        )
        fitted = _fitted(request, terms)
        if isinstance(fitted, Reply):
            return fitted
        request, recoded = fitted
        done += [] if recoded is None else [recoded]
    if not done:
        return fitting
    why = " and ".join([one.why for one in done])
    parts, removed = sum([one.parts for one in done]), sum([one.signatures_removed for one in done])
    return replace(fitting, request=request, reencoding=Reencoding(why, parts, removed))


def _fitted(request: DeliveryRequest, terms: Terms) -> tuple[DeliveryRequest, Reencoding | None] | Reply:
    survey = Survey(terms)
    for piece in request.pieces():
        survey.feed(piece)
    plan = survey.end()
    if plan.refusal:
        what = "8-bit octets" if plan.wide else "lines over 998 octets"
        return Reply(
            554, "5.6.3", f"the upstream takes no {what}, and the message may not be converted: {plan.refusal}"
        )
    if not plan.changes:
        return request, None
    recoder = Recoder(plan)
    head = recoder.feed(request.head)
    body: Content
    if request.content.in_memory and request.size <= WHOLE:
        octets = recoder.feed(request.content.read(request.body_offset, request.content.size)) + recoder.end()
        body = MemoryContent(octets, 0)
    else:
        body = _Recoded(request, plan, sum(map(len, _recoded(request, plan))) - len(head))
    why = " and ".join(["no 8BITMIME"] * plan.wide + ["long lines"] * plan.long)
    done = Reencoding(why, plan.parts, recoder.signatures_removed)
    return replace(request, head=head, content=body, body_offset=0), done


def _recoded(request: DeliveryRequest, plan: Plan) -> Iterator[bytes]:
    recoder = Recoder(plan)
    for piece in request.pieces():
        yield recoder.feed(piece)
    yield recoder.end()


class _Recoded:
    """What follows the head of a re-encoded message, made while it is read (`Content`): once, from the beginning on."""

    head = b""
    in_memory = False

    def __init__(self, request: DeliveryRequest, plan: Plan, size: int) -> None:
        self.size = size
        self._source = _recoded(request, plan)
        next(self._source)  # the head
        self._ready = b""
        self._offset = 0

    def read(self, offset: int, length: int) -> bytes:
        if offset != self._offset:
            raise OSError("re-encoded content is read in order, once")
        while not self._ready:
            piece = next(self._source, None)
            if piece is None:
                return b""
            self._ready = piece
        piece, self._ready = self._ready[:length], self._ready[length:]
        self._offset += len(piece)
        return piece
