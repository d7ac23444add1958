"""Quirks: deviations of clients from the standards that are tolerated.

A closed set: the values are labels of `relay_client_quirks_total` and words of `relay clients`. What each means
says the table `quirk` of `texts`.
"""

from __future__ import annotations

from enum import StrEnum


class Quirk(StrEnum):
    """What a client did that RFC 5321, 5322 or 1870 do not allow, and what was taken all the same."""

    # Commands
    NO_HELO = "no-helo"
    EMPTY_HELO = "empty-helo"
    SPACE_IN_PATH = "space-in-path"
    NO_BRACKETS = "no-brackets"
    NAME_IN_PATH = "name-in-path"
    SOURCE_ROUTE = "source-route"
    TRAILING_DOT = "trailing-dot"
    DOTS_IN_LOCAL_PART = "dots-in-local-part"
    EIGHT_BIT_PATH = "8bit-path"
    NO_DOMAIN = "no-domain"
    UNKNOWN_PARAMETER = "unknown-parameter"
    BINARYMIME = "binarymime"
    EARLY_PIPELINING = "early-pipelining"
    # Content
    BARE_LF = "bare-lf"
    BARE_CR = "bare-cr"
    LF_DOT = "lf-dot"
    LONG_LINE = "long-line"
    NO_FROM = "no-from"
    NO_DATE = "no-date"
    NO_MESSAGE_ID = "no-message-id"
    NO_HEADER = "no-header"
    DUPLICATE_FIELD = "duplicate-field"
    NUL = "nul"
    EIGHT_BIT_HEADER = "8bit-header"
    SIZE_TOO_SMALL = "size-too-small"
    # What is not offered
    WANTS_AUTH = "wants-auth"
    WANTS_STARTTLS = "wants-starttls"
    SPEAKS_TLS = "speaks-tls"
    # The end
    ONLY_EHLO = "only-ehlo"
    NO_QUIT = "no-quit"


HARMFUL = frozenset(
    {
        Quirk.DOTS_IN_LOCAL_PART,
        Quirk.EIGHT_BIT_PATH,
        Quirk.BARE_CR,
        Quirk.LONG_LINE,
        Quirk.NO_FROM,
        Quirk.NO_HEADER,
        Quirk.DUPLICATE_FIELD,
        Quirk.NUL,
        Quirk.EIGHT_BIT_HEADER,
        Quirk.WANTS_AUTH,
        Quirk.WANTS_STARTTLS,
        Quirk.SPEAKS_TLS,
    }
)
"""Those from which mail may suffer, here or further on."""
