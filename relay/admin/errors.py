"""What can be wrong with what an operator asks for: one plain sentence each.

`problem` is the word for it in an error document (`documents.error`), `by_problem` the way back.
"""

from __future__ import annotations

from relay.errors import RelayError, StoreUnavailable


class Refused(RelayError):
    """What was asked for cannot be; nothing was done."""

    problem = "bad-input"


class NoSuchEntry(Refused):
    """No message in queue or history has this ID, or begins with it."""

    problem = "no-such-entry"


class AmbiguousId(Refused):
    """More than one message begins with it; the text names two."""

    problem = "ambiguous-id"


class NoSuchRoute(Refused):
    """There is no route of that name; the text says which was meant."""

    problem = "no-such-route"


class NotPossible(Refused):
    """It was tried and did not go: a backup file that exists, for one."""

    problem = "not-possible"


STORE_UNAVAILABLE = "store-unavailable"
_KINDS = {kind.problem: kind for kind in (Refused, NoSuchEntry, AmbiguousId, NoSuchRoute, NotPossible)}


def problem_of(error: RelayError) -> str:
    """The word for `error`."""
    if isinstance(error, Refused):
        return error.problem
    return STORE_UNAVAILABLE if isinstance(error, StoreUnavailable) else NotPossible.problem


def status_of(error: RelayError) -> int:
    """The HTTP status of the answer that tells of `error`."""
    match error:
        case NoSuchEntry():
            return 404
        case StoreUnavailable():
            return 503
        case Refused() if not isinstance(error, AmbiguousId | NotPossible):
            return 422
        case _:
            return 409


def by_problem(problem: object, text: str) -> RelayError:
    """The error that an error document tells of."""
    if problem == STORE_UNAVAILABLE:
        return StoreUnavailable("other", text)
    kind = _KINDS.get(problem) if isinstance(problem, str) else None
    return RelayError(text) if kind is None else kind(text)
