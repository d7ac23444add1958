"""The types of the configuration's values, for pydantic: how each is read, and how the JSON schema tells it."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import date, timedelta
from typing import Annotated, Any, TypeVar, cast
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, PlainSerializer, PlainValidator, ValidationInfo, WithJsonSchema
from pydantic_core import PydanticCustomError

from relay.config import password, preset, values
from relay.config.document import Oddity
from relay.config.secrets import Secret, secret
from relay.errors import RelayError
from relay.mail.address import Address
from relay.policy import client, fields
from relay.policy.pattern import code_pattern, pattern
from relay.policy.rate import Rate as PolicyRate
from relay.policy.rules import Pattern
from relay.values import frozen

T = TypeVar("T")

PLACEHOLDERS = ("name", "address", "local", "domain")
_DURATION = r"^(?=.)([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?$"
_SIZE = "^[0-9]+(B|[kKMGT]B|[KMGT]iB)$"
_RATE = "^[0-9]+/(s|min|h|d)$"
_NAME = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"


@frozen
class Kind:
    """What a type is called in the reference of all keys: "duration", "size"; and a value that is one of its kind."""

    word: str
    sample: str = "sample"


def setting(default: Any, description: str, **more: Any) -> Any:
    """A key with its default, written as people write it (or a function that makes it), and its one sentence."""
    if callable(default):
        return Field(default_factory=default, description=description, **more)
    return Field(default, description=description, **more)


def _written(parse: Callable[[str], T]) -> PlainValidator:
    """Validation by a function of the text; anything but text has the wrong type."""

    def validate(value: object) -> T:
        if isinstance(value, str):
            return parse(value)
        raise PydanticCustomError("string_type", "not text")

    return PlainValidator(validate)


def _with_unit(parse: Callable[[str], T], how: str) -> PlainValidator:
    """The same for values that want a unit: a bare number is told so."""

    def validate(value: object) -> T:
        if isinstance(value, tuple | dict):
            raise values.BadValue("one text, not a list or a mapping", how)
        if isinstance(value, str):
            return parse(value)
        return parse("1" if type(value) in (int, float) else "")

    return PlainValidator(validate)


def _one_or_many(value: object) -> object:
    return value if isinstance(value, tuple) else (value,)


def _text(**more: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", **more})


def _many(items: str, *, least: int = 0) -> WithJsonSchema:
    one = {"type": "string", "description": items}
    several = {"type": "array", "items": one, **({"minItems": least} if least else {})}
    return WithJsonSchema({"anyOf": [one, several]})


def _path(value: object, info: ValidationInfo) -> pathlib.Path:
    if not isinstance(value, str):
        raise PydanticCustomError("string_type", "not text")
    if not value or "\0" in value:
        raise values.BadValue("not a path")
    folder = (info.context or {}).get("folder", pathlib.Path())
    return pathlib.Path(folder, value)


def _socket(value: object, info: ValidationInfo) -> pathlib.Path:
    path = _path(value, info)
    if len(os.fsencode(path)) > 107:
        raise values.BadValue("the path of a socket has at most 107 octets")
    return path


def _place(value: object) -> values.ListenAddress:
    """An address to listen on as it is written; a port alone, which YAML reads as a number, is none."""
    text = str(value) if type(value) is int else value
    if not isinstance(text, str):
        raise PydanticCustomError("string_type", "not text")
    return values.listen_address(text)


def _listen(value: object, info: ValidationInfo) -> values.ListenAddress:
    """An address to listen on; a path counts from the folder of the file."""
    found = _place(value)
    return replace(found, host=str(_socket(found.host, info))) if found.kind == "unix" else found


def _page(value: object) -> values.ListenAddress:
    """The address of the metrics page: a port, and nothing else."""
    found = _place(value)
    if found.kind != "tcp":
        raise values.BadValue("not an address of this page", 'write "127.0.0.1:9125" or "[::1]:9125"')
    return found


def _store(value: object, info: ValidationInfo) -> values.SqliteUrl:
    if not isinstance(value, str):
        raise PydanticCustomError("string_type", "not text")
    scheme, colon, path = value.partition(":")
    if not colon:
        raise values.BadValue("a path alone is not a store", "write sqlite:/path")
    if scheme == "postgresql":
        raise values.BadValue("PostgreSQL is not supported by this version", "write sqlite:/path")
    if scheme != "sqlite":
        raise values.BadValue("not a store", "write it like sqlite:/var/lib/relay/queue.db")
    return values.SqliteUrl(_path(path, info))


def _secret(value: object, info: ValidationInfo) -> Secret:
    found = secret(value)
    if found.kind == "plain" and found.reference.startswith(password.PREFIX):
        try:
            password.parse(found.reference)
        except RelayError as error:
            raise values.BadValue(str(error)) from None
    return found.below((info.context or {}).get("folder", pathlib.Path()))


def _template(text: str) -> str:
    """A display name with placeholders; anything else in braces is a mistake."""
    rest = text
    for word in PLACEHOLDERS:
        rest = rest.replace("{" + word + "}", "")
    if "{" in rest or "}" in rest:
        known = " ".join("{" + word + "}" for word in PLACEHOLDERS)
        raise values.BadValue("a placeholder that does not exist", f"known: {known}")
    if not text.isprintable():
        raise values.BadValue("a display name is one line of printable characters")
    return text


def _json_template(value: object) -> fields.Template:
    """The body of a JSON request: a mapping of whatever JSON has, with placeholders in its texts."""
    if not isinstance(value, dict) or not value:
        raise values.BadValue("must be a mapping", 'as in {to: "{recipient}", code: "{code}"}')
    return _json_value(value)


def _json_value(value: object) -> fields.Template:
    match value:
        case None | bool() | int() | float():
            return value
        case str():
            if not fields.is_template(value):
                known = " ".join("{" + word + "}" for word in fields.PLACEHOLDERS)
                raise values.BadValue("a placeholder that does not exist", f"known: {known}")
            return value
        case tuple() | list():
            return tuple(map(_json_value, value))
        case dict():
            return {key: _json_value(below) for key, below in value.items()}
    raise values.BadValue(
        "a value that YAML does not read as it stands", "quote numbers and dates that are meant as text"
    )


# What we say ourselves, and what decides how the request is read.
_OUR_HEADERS = ("host", "connection", "transfer-encoding", "te", "trailer", "upgrade", "expect", "idempotency-key")


def _headers(value: object) -> Mapping[str, str]:
    """Header fields that go with each request."""
    if not isinstance(value, dict):
        raise values.BadValue("must be a mapping", 'as in {X-Customer: "12"}')
    lower = [name.lower() for name in value]
    for name, text in zip(lower, value.values(), strict=True):
        _http_name(name)
        if lower.count(name) > 1:
            raise values.BadValue("a header field stands here twice")
        if name in ("authorization", "cookie"):
            raise values.BadValue(
                "a secret has no place among headers", "write auth: header, with auth_header and token"
            )
        if not isinstance(text, str) or not text.isascii() or not text.isprintable():
            raise values.BadValue("the value of a header field is one line of ASCII", "quote numbers")
    return cast("Mapping[str, str]", value)


def _http_name(text: str) -> str:
    if (
        not text.isascii()
        or not text
        or not all(character.isalnum() or character in "!#$%&'*+-.^_`|~" for character in text)
    ):
        raise values.BadValue("not the name of a header field")
    if text.lower() in _OUR_HEADERS or text.lower().startswith(("content-", "x-relay-", "proxy-")):
        raise values.BadValue("a header field that is the relay's own, or the connection's")
    return text


def _word_or_address(*words: str) -> Callable[[str], str | Address]:
    def parse(text: str) -> str | Address:
        if text in words:
            return text
        if "@" not in text:
            raise values.BadValue(f"must be {', '.join(words)} or an address")
        return values.plain_address(text)

    return parse


def _header_name(text: str) -> str:
    if not text or not all("!" <= character <= "~" and character != ":" for character in text):
        raise values.BadValue("not the name of a header field")
    return text.lower()


def _name(text: str) -> str:
    good = text.isascii() and text.replace(".", "").replace("_", "").replace("-", "").isalnum() and text[0].isalnum()
    if not good or len(text) > 64:
        raise values.BadValue("not a good name", "letters, digits, '.', '_' and '-'; at most 64")
    return text


def _rule_name(text: str) -> str:
    if not text.strip() or not text.isprintable() or len(text) > 64:
        raise values.BadValue("not a good name", "printable characters, at most 64")
    return text


def _preset(text: str) -> str:
    preset.preset(text)
    return text


def _day(value: object) -> date:
    """A date; YAML 1.1 knows dates as well, and one that is not quoted is what it looks like."""
    text = value.text if isinstance(value, Oddity) else value
    if not isinstance(text, str):
        raise PydanticCustomError("string_type", "not text")
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise values.BadValue("not a date", "write it like 2027-11-30") from None


def _https(text: str) -> str:
    """An https URL, without a slash at its end."""
    try:
        parts = urlsplit(text)
        good = parts.scheme == "https" and parts.hostname and parts.port != 0 and text.isascii() and text.isprintable()
    except ValueError:
        good = False
    if not good or parts.username is not None or parts.fragment or " " in text:
        raise values.BadValue("not an https URL", "write it like https://login.example.com/token")
    return text.rstrip("/")


PresetName = Annotated[
    str, _written(_preset), WithJsonSchema({"type": "string", "enum": list(preset.names())}), Kind("preset")
]
Name = Annotated[str, _written(_name), _text(pattern=_NAME), Kind("name")]
RuleName = Annotated[str, _written(_rule_name), _text()]
Duration = Annotated[
    timedelta, _with_unit(values.duration, "write it like 5m"), _text(pattern=_DURATION), Kind("duration")
]
Size = Annotated[int, _with_unit(values.size, "write it like 50MiB"), _text(pattern=_SIZE), Kind("size")]
PositiveSize = Annotated[
    int, _with_unit(values.positive_size, "write it like 50MiB"), _text(pattern=_SIZE), Kind("size")
]
Rate = Annotated[PolicyRate, _with_unit(values.rate, "write it like 30/min"), _text(pattern=_RATE), Kind("rate")]
Rates = Annotated[
    tuple[Annotated[PolicyRate, _with_unit(values.rate, "write it like 30/min"), _text(pattern=_RATE)], ...],
    BeforeValidator(_one_or_many),
    _many("A rate, as in 30/min."),
    Kind("rate, or a list"),
]
Retry = Annotated[
    tuple[timedelta, ...], _with_unit(values.retry, 'write it like "1m, 5m*2, 15m"'), _text(), Kind("retry list")
]
HostName = Annotated[str, _written(values.host_name), _text(), Kind("host name")]
UpstreamHost = Annotated[
    str, _written(values.upstream_host), _text(), Kind("host name or IP address", "sample.invalid")
]
Url = Annotated[
    values.Url,
    _written(values.url),
    _text(pattern="^https://[^@#]+$"),
    Kind("`https://HOST/PATH`", "https://sample.invalid/"),
]
FilePath = Annotated[pathlib.Path, PlainValidator(_path), _text(), Kind("path")]
SocketPath = Annotated[pathlib.Path, PlainValidator(_socket), _text(), Kind("path")]
Store = Annotated[values.SqliteUrl, PlainValidator(_store), _text(pattern="^sqlite:."), Kind("`sqlite:PATH`")]
MailAddress = Annotated[Address, _written(values.plain_address), _text(pattern="^[^<>]+@[^<>@]+$"), Kind("address")]
MailAddresses = Annotated[
    tuple[MailAddress, ...],
    BeforeValidator(_one_or_many),
    _many("A bare address."),
    Kind("address, or a list"),
]
Listen = Annotated[values.ListenAddress, PlainValidator(_listen), _text()]
Page = Annotated[values.ListenAddress, PlainValidator(_page), _text(), Kind("`HOST:PORT`")]
Network = Annotated[client.Network, _written(values.network), _text()]
Listens = Annotated[
    tuple[Listen, ...],
    BeforeValidator(_one_or_many),
    Field(min_length=1),
    _many("host:port, [v6]:port, unix:/path or systemd:NAME", least=1),
    Kind("place to listen, or a list"),
]
Networks = Annotated[
    tuple[Network, ...],
    BeforeValidator(_one_or_many),
    _many("An address or a network."),
    Kind("network, or a list"),
]
Patterns = Annotated[
    tuple[Annotated[Pattern, _written(pattern)], ...],
    BeforeValidator(_one_or_many),
    Field(min_length=1),
    _many("A glob (* and ?), or /…/, an RE2 expression.", least=1),
    Kind("pattern, or a list"),
]
Template = Annotated[str, _written(_template), _text(), Kind("template")]
JsonTemplate = Annotated[
    Any, PlainValidator(_json_template), WithJsonSchema({"type": "object", "minProperties": 1}), Kind("JSON template")
]
HttpHeaders = Annotated[
    Any,
    PlainValidator(_headers),
    WithJsonSchema({"type": "object", "additionalProperties": {"type": "string"}}),
    Kind("header fields"),
]
HttpHeader = Annotated[str, _written(_http_name), _text()]
Expression = Annotated[Any, _written(code_pattern), _text(pattern="^/.+/$"), Kind("`/EXPRESSION/`")]
Pins = Annotated[
    tuple[Annotated[str, _written(values.pin)], ...],
    BeforeValidator(_one_or_many),
    _many("The SHA-256 of a public key, in base64."),
    Kind("key pin, or a list"),
]
ReplyTo = Annotated[
    str | Address, _written(_word_or_address("original", "keep")), _text(), Kind("`original`, `keep` or an address")
]
EnvelopeSender = Annotated[
    str | Address, _written(_word_or_address("address", "keep")), _text(), Kind("`address`, `keep` or an address")
]
Day = Annotated[date, PlainValidator(_day), _text(format="date"), Kind("date")]
Https = Annotated[str, _written(_https), _text(pattern="^https://"), Kind("https URL", "https://sample.invalid")]
HeaderName = Annotated[str, _written(_header_name)]
Password = Annotated[
    Secret,
    PlainValidator(_secret),
    PlainSerializer(repr),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "description": "The password itself (unwise), or a hash where that will do."},
                *(
                    {
                        "type": "object",
                        "properties": {kind: {"type": "string", "description": sentence}},
                        "required": [kind],
                        "additionalProperties": False,
                    }
                    for kind, sentence in (
                        ("credential", "The name of a systemd credential (LoadCredential=)."),
                        ("file", "The path of a file that holds it."),
                        ("env", "The name of an environment variable."),
                    )
                ),
            ]
        }
    ),
    Kind("secret"),
]
Count = Annotated[int, Field(ge=1, le=1_000_000), Kind("number")]
