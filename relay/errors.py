"""The errors of the relay: what a caller can act on.

What happens to mail is an outcome, not an exception; exceptions are for configuration,
for failing machines and for bugs.
"""

from __future__ import annotations

from collections.abc import Iterable


class RelayError(Exception):
    """A problem with a plain sentence for the operator; never a traceback on the terminal."""


class ConfigError(RelayError):
    """One problem in the configuration: where it is, what is wrong, what to do.

    `where` is "config.yaml:14: routes.default.upstreams" or a prefix of that. No part ever
    holds the value of a secret, nor a line of the file.
    """

    def __init__(self, where: str, problem: str, hint: str = "") -> None:
        self.where = where
        self.problem = problem
        self.hint = hint
        super().__init__(f"{where}: {problem} ({hint})" if hint else f"{where}: {problem}")


class BadConfig(RelayError):
    """The configuration cannot be used: all problems at once; the text has one line for each."""

    def __init__(self, problems: Iterable[ConfigError]) -> None:
        self.problems: tuple[ConfigError, ...] = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class StoreUnavailable(RelayError):
    """The store could not keep or change anything; nothing of the operation is kept.

    `reason` is one of "full", "io", "busy", "corrupt", "moved" (a file of it was taken away or overwritten), "other".
    """

    def __init__(self, reason: str, detail: str) -> None:
        self.reason = reason
        super().__init__(detail)


class StoreInUse(RelayError):
    """Another process holds the store; the text names it."""


class OtherLayout(RelayError):
    """The database was written by a relay with another layout; the text says which."""
