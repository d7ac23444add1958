"""Who writes a pattern that can match nothing is told so, and what to write; other patterns are left alone."""

from __future__ import annotations

import json

import pytest

from relay.config import advice
from relay.config.load import parse


def warned(key: str, pattern: str) -> list[str]:
    text = (
        "hostname: relay.example.nl\nupstreams:\n  own: {host: a.nl}\nsenders:\n"
        f"  - match: {{{key}: {json.dumps(pattern)}}}\n    address: relay@example.nl\n"
    )
    return [str(warning) for warning in advice.warnings(parse(text))]


@pytest.mark.parametrize(
    ("key", "pattern", "hint"),
    [
        ("from", "@example.nl", "did you mean *@example.nl?"),
        ("to", "@example.nl", "did you mean *@example.nl?"),
        ("from", "example.nl", "did you mean *@example.nl?"),
        ("envelope_from", "example.nl", "did you mean *@example.nl?"),
        ("from", "jan", "write an address, or one with * in it"),
        ("from", "jan@", "did you mean jan@*?"),
        ("from", "*@", "did you mean *@*?"),
        ("from", "jan@example.nl,piet@example.nl", 'write a list: ["jan@example.nl", "piet@example.nl"]'),
        ("to", "jan@example.nl; piet@example.nl", 'write a list: ["jan@example.nl", "piet@example.nl"]'),
        ("from", "jan@example.nl piet@example.nl", 'write a list: ["jan@example.nl", "piet@example.nl"]'),
        ("from", "Jan <jan@example.nl>", "did you mean jan@example.nl?"),
        ("envelope_from", "<jan@example.nl>", "did you mean jan@example.nl?"),
        ("from", "jan@example.nl ", "did you mean jan@example.nl?"),
        ("from", "jan@example.nl.", "did you mean jan@example.nl?"),
        ("subject", "=?utf-8?*", "write the words as a reader sees them"),
        ("subject", "*=?iso-8859-1?Q?caf=E9?=*", "write the words as a reader sees them"),
        ("subject", " Factuur*", 'did you mean "Factuur*"?'),
    ],
)
def test_what_can_match_nothing_is_warned_of(key: str, pattern: str, hint: str) -> None:
    (warning,) = warned(key, pattern)
    assert warning.startswith(f'config.yaml:5: senders[0].match.{key}: "{pattern}" matches nothing: ')
    assert warning.endswith(f"({hint})")


@pytest.mark.parametrize(
    ("key", "pattern"),
    [
        ("from", "jan@example.nl"),
        ("from", "*@example.nl"),
        ("from", "*example.nl"),
        ("from", "*"),
        ("from", "?an@example.nl"),
        ("from", '"jan, de"@example.nl'),
        ("from", "/@example[.]nl$/"),
        ("from", "/jan@a.nl, piet@b.nl/"),
        ("envelope_from", "<>"),
        ("envelope_from", "root"),
        ("to", "postmaster"),
        ("to", "jan@*"),
        ("subject", "*factuur*"),
        ("subject", "wat = wat?"),
        ("subject", "/=[?]utf-8/"),
        ("user", "jan"),
    ],
)
def test_what_may_match_is_not(key: str, pattern: str) -> None:
    assert warned(key, pattern) == []


def test_entries_of_session_codes_and_fields_of_the_header_are_looked_at_as_well() -> None:
    text = (
        "hostname: relay.example.nl\nupstreams:\n  own: {host: a.nl}\n"
        "session_codes: {enabled: true, via_own_smtp: true, fallback: false, "
        "match: [{from: '@example.nl'}, {subject: '*code*'}]}\n"
        "senders:\n  - {match: {header: {X-Mailer: ' iMUIS'}}, address: relay@example.nl}\n"
    )
    first, second = [str(warning) for warning in advice.warnings(parse(text))]
    assert first.startswith("config.yaml:4: session_codes.match[0].from: ")
    assert second.startswith("config.yaml:6: senders[0].match.header.x-mailer: ")
