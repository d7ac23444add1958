"""Quirks: deviations of clients from the standards that are tolerated, each with what it means.

A closed set: the values are labels of `relay_client_quirks_total` and words of `relay clients`.
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
    # The end
    NO_QUIT = "no-quit"


MEANING: dict[Quirk, tuple[str, bool]] = {
    Quirk.NO_HELO: ("MAIL came without HELO or EHLO before it.", False),
    Quirk.EMPTY_HELO: ("HELO or EHLO came without a name behind it.", False),
    Quirk.SPACE_IN_PATH: ("Blanks stood around the colon or inside the brackets of an address.", False),
    Quirk.NO_BRACKETS: ("An address of MAIL or RCPT stood without its angle brackets.", False),
    Quirk.NAME_IN_PATH: ("A display name stood before an address of MAIL or RCPT; it was dropped.", False),
    Quirk.SOURCE_ROUTE: ("An address came with a source route (@a,@b:c@d); the route was dropped.", False),
    Quirk.TRAILING_DOT: ("The domain of an address ended with a dot; the dot was dropped.", False),
    Quirk.DOTS_IN_LOCAL_PART: (
        "A local part has a dot at its edge, or two in a row; the provider may refuse the address.",
        True,
    ),
    Quirk.EIGHT_BIT_PATH: (
        "An address beyond ASCII came without SMTPUTF8; with such letters before the @ it can only be delivered where "
        "the provider offers SMTPUTF8.",
        True,
    ),
    Quirk.NO_DOMAIN: ("An address came without a domain; the hostname was added (complete_addresses).", False),
    Quirk.UNKNOWN_PARAMETER: ("MAIL or RCPT had a parameter that was not offered; it was ignored.", False),
    Quirk.BINARYMIME: ("BODY=BINARYMIME was asked for though not offered; it was taken as 8BITMIME.", False),
    Quirk.EARLY_PIPELINING: ("Commands were sent ahead before EHLO had offered PIPELINING.", False),
    Quirk.BARE_LF: ("Lines ended with a bare LF; they were made CRLF.", False),
    Quirk.BARE_CR: ("A CR stood alone; it became a line end, in the header a blank.", True),
    Quirk.LF_DOT: ("The message ended with LF.LF instead of CRLF.CRLF (accept-lf-dot).", False),
    Quirk.LONG_LINE: ("A line is longer than 998 octets; some providers cut or refuse such mail.", True),
    Quirk.NO_FROM: ("The message has no From; a sender rule or the reverse-path has to give one.", True),
    Quirk.NO_DATE: ("The message has no Date; one was added.", False),
    Quirk.NO_MESSAGE_ID: ("The message has no Message-ID; one was added.", False),
    Quirk.NO_HEADER: ("The message begins with something that is no header field; a header was put before it.", True),
    Quirk.DUPLICATE_FIELD: (
        "A field that may stand only once stands twice; Gmail, Yahoo and others refuse such mail (repair_duplicates).",
        True,
    ),
    Quirk.NUL: ("The message has NUL octets; some providers cut or refuse such mail.", True),
    Quirk.EIGHT_BIT_HEADER: (
        "The header has 8-bit octets without SMTPUTF8; readers may show the wrong letters.",
        True,
    ),
    Quirk.SIZE_TOO_SMALL: ("The message was larger than its SIZE parameter said.", False),
    Quirk.NO_QUIT: ("The connection was closed without QUIT.", False),
}
"""One sentence each, and whether it is worth caring about: True means that mail may suffer from it further on."""
