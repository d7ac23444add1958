"""What can be wrong with what an operator asks for: one plain sentence each.

`problem` is the word for it in an error document (`documents.error`), `by_problem` the way back, `status` is HTTP's.
"""

from __future__ import annotations

from relay.errors import RelayError, StoreUnavailable


class Refused(RelayError):
    """What was asked for cannot be; nothing was done."""

    problem, status = "bad-input", 422


class NoSuchEntry(Refused):
    """No message in queue or history has this ID, or begins with it."""

    problem, status = "no-such-entry", 404


class AmbiguousId(Refused):
    """More than one message begins with it; the text names two."""

    problem, status = "ambiguous-id", 409


class NoSuchRoute(Refused):
    """There is no route of that name; the text says which was meant."""

    problem, status = "no-such-route", 422


class NotPossible(Refused):
    """It was tried and did not go: a backup file that exists, for one."""

    problem, status = "not-possible", 409


STORE_UNAVAILABLE = "store-unavailable"
_KINDS = {kind.problem: kind for kind in (Refused, NoSuchEntry, AmbiguousId, NoSuchRoute, NotPossible)}


def problem_of(error: RelayError) -> str:
    """The word for `error`."""
    if isinstance(error, Refused):
        return error.problem
    return STORE_UNAVAILABLE if isinstance(error, StoreUnavailable) else NotPossible.problem


def status_of(error: RelayError) -> int:
    """The HTTP status of an answer that reports `error`."""
    if isinstance(error, Refused):
        return error.status
    return 503 if isinstance(error, StoreUnavailable) else NotPossible.status


def by_problem(problem: object, text: str) -> RelayError:
    """The error that an error document tells of."""
    if problem == STORE_UNAVAILABLE:
        return StoreUnavailable("other", text)
    kind = _KINDS.get(problem) if isinstance(problem, str) else None
    return RelayError(text) if kind is None else kind(text)
