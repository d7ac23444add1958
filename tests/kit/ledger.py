"""The ledger's equation, that holds at any moment."""

from __future__ import annotations

from relay.queue.model import Ledger


def balanced(ledger: Ledger) -> bool:
    """Whether as many recipients came in as went out or are in the queue."""
    ended = ledger.delivered + ledger.failed + ledger.expired + ledger.cancelled
    there = ledger.pending + ledger.deferred + ledger.active + ledger.held
    return ledger.found + ledger.accepted == ended + there
