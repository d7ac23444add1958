"""A request without SMTPUTF8 (RFC 6531): for an upstream that does not offer it, or where nothing needs it.

Domains beyond ASCII go as A-labels then. A recipient whose local part is beyond ASCII cannot be asked for, and is left
out; where that of the reverse-path is, nobody can.
"""

from __future__ import annotations

from dataclasses import replace

from relay.mail.address import Address
from relay.mail.outcome import Failed, Outcome, Stage
from relay.mail.reply import Reply
from relay.transport.offers import Offers
from relay.transport.port import Delivery, DeliveryRequest, Reencoding
from relay.values import frozen

NEEDS_SMTPUTF8 = Reply(550, "5.6.7", "an address needs SMTPUTF8, which the upstream does not offer")


@frozen
class Fitting:
    """A request as its upstream can take it: for whom (places among the recipients there were, of `count`), and what
    was done to the message."""

    request: DeliveryRequest
    places: tuple[int, ...]
    count: int
    reencoding: Reencoding | None = None

    def whole(self, delivery: Delivery) -> Delivery:
        """What became of all recipients, by the `delivery` of the request."""
        if len(self.places) < self.count:
            outcomes: list[Outcome] = [Failed(Stage.MAIL, NEEDS_SMTPUTF8, unasked=True)] * self.count
            for place, outcome in zip(self.places, delivery.outcomes, strict=True):
                outcomes[place] = outcome
            delivery = replace(delivery, outcomes=tuple(outcomes))
        return delivery if self.reencoding is None else replace(delivery, reencoding=self.reencoding)


def fit_envelope(request: DeliveryRequest, offers: Offers) -> Fitting | Reply:
    """`request` with SMTPUTF8 only where it is offered and needed; our refusal where nobody can be asked for."""
    recipients = request.recipients
    everybody = Fitting(request, tuple(range(len(recipients))), len(recipients))
    if not request.smtputf8:
        return everybody
    reverse_path = _in_ascii(request.reverse_path)
    addresses = [recipient.address.in_ascii for recipient in recipients]
    unsayable = reverse_path is None and request.reverse_path is not None
    if offers.smtputf8 and (unsayable or None in addresses or not request.head.isascii()):
        return everybody
    there = {place: address for place, address in enumerate(addresses) if address is not None}
    if unsayable or not there:
        return NEEDS_SMTPUTF8
    request = replace(
        request,
        smtputf8=False,
        reverse_path=reverse_path,
        recipients=tuple([replace(recipients[place], address=address) for place, address in there.items()]),
        places=tuple([request.places[place] for place in there if request.places]),
    )
    return Fitting(request, tuple(there), len(recipients))


def _in_ascii(path: Address | None) -> Address | None:
    return None if path is None else path.in_ascii
