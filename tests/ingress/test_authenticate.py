"""AUTH as a dialogue, in all the shapes that clients give it."""

from __future__ import annotations

import asyncio
import threading
from base64 import b64encode
from collections.abc import Callable

import pytest

from relay.ingress import replies
from relay.ingress.authenticate import Tried, authenticate

NAME, PASSWORD = "jan", "geheim: één"


def b64(text: str) -> bytes:
    return b64encode(text.encode())


def verify(user: str, password: str) -> bool:
    return (user, password) == (NAME, PASSWORD)


def dialogue(
    argument: bytes, *lines: bytes | None, check: Callable[[str, str], bool] | None = verify
) -> tuple[Tried, list[bytes]]:
    """What AUTH came to, and the challenges."""
    answers = iter(lines)
    challenges: list[bytes] = []

    async def ask(challenge: bytes) -> bytes | None:
        challenges.append(challenge)
        return next(answers)

    return asyncio.run(authenticate(argument, ask, check)), challenges


PLAIN = b64(f"\0{NAME}\0{PASSWORD}")
SHAPES = [
    (b"PLAIN " + PLAIN, [], []),
    (b"plain " + PLAIN, [], []),
    (b"PLAIN   " + PLAIN + b" ", [], []),
    (b"PLAIN", [PLAIN], [replies.ASK_RESPONSE]),
    (b"PLAIN", [b" " + PLAIN + b"\r"], [replies.ASK_RESPONSE]),
    (b"PLAIN " + b64(f"jan\0{NAME}\0{PASSWORD}"), [], []),
    (b"LOGIN", [b64(NAME), b64(PASSWORD)], [replies.ASK_USERNAME, replies.ASK_PASSWORD]),
    (b"login", [b64(NAME), b64(PASSWORD) + b"\r"], [replies.ASK_USERNAME, replies.ASK_PASSWORD]),
    (b"LOGIN " + b64(NAME), [b64(PASSWORD)], [replies.ASK_PASSWORD]),
    (b"Login\t" + b64(NAME), [b64(PASSWORD)], [replies.ASK_PASSWORD]),
    (b"LOGIN", [b64(NAME + "\0"), b64(PASSWORD + "\0")], [replies.ASK_USERNAME, replies.ASK_PASSWORD]),
]


@pytest.mark.parametrize(("argument", "lines", "challenges"), SHAPES)
def test_the_right_password_is_right_in_every_shape(
    argument: bytes, lines: list[bytes], challenges: list[bytes]
) -> None:
    tried, asked = dialogue(argument, *lines)
    assert (tried.reply, tried.result, tried.user) == (replies.AUTHENTICATED, "ok", NAME)
    assert tried.mechanism == argument[:5].decode().lower()
    assert asked == challenges


@pytest.mark.parametrize(
    ("argument", "lines", "user"),
    [
        (b"PLAIN " + b64(f"\0{NAME}\0wrong"), [], NAME),
        (b"PLAIN " + b64(f"\0piet\0{PASSWORD}"), [], "piet"),
        (b"PLAIN " + b64("\0\0"), [], ""),
        (b"LOGIN", [b64(NAME), b""], NAME),
        (b"LOGIN =", [b64(PASSWORD)], ""),
    ],
)
def test_a_wrong_password_is_bad_and_names_the_user(argument: bytes, lines: list[bytes], user: str) -> None:
    tried, _ = dialogue(argument, *lines)
    assert (tried.reply, tried.result, tried.user) == (replies.BAD_CREDENTIALS, "bad", user)


@pytest.mark.parametrize(
    ("argument", "lines", "reply"),
    [
        (b"", [], replies.UNKNOWN_MECHANISM),
        (b"CRAM-MD5", [], replies.UNKNOWN_MECHANISM),
        (b"XOAUTH2 abcd", [], replies.UNKNOWN_MECHANISM),
        (b"\xff\0", [], replies.UNKNOWN_MECHANISM),
        (b"PLAIN", [b"*"], replies.AUTH_CANCELLED),
        (b"LOGIN", [b"*\r"], replies.AUTH_CANCELLED),
        (b"LOGIN", [b64(NAME), b"*"], replies.AUTH_CANCELLED),
        (b"LOGIN", [None], replies.AUTH_CANCELLED),
        (b"PLAIN no-base64", [], replies.BAD_BASE64),
        (b"PLAIN YQ", [], replies.BAD_BASE64),
        (b"PLAIN \xff", [], replies.BAD_BASE64),
        (b"LOGIN", [b"jan"], replies.BAD_BASE64),
        (b"LOGIN", [b64(NAME), b"%%%%"], replies.BAD_BASE64),
        (b"PLAIN =", [], replies.BAD_SYNTAX),
        (b"PLAIN " + b64("jan"), [], replies.BAD_SYNTAX),
        (b"PLAIN " + b64("a\0b\0c\0d"), [], replies.BAD_SYNTAX),
    ],
)
def test_what_is_malformed_or_cancelled_is_an_error_and_no_try(
    argument: bytes, lines: list[bytes | None], reply: bytes
) -> None:
    def never(user: str, password: str) -> bool:
        raise AssertionError("nothing to verify")

    tried, _ = dialogue(argument, *lines, check=never)
    assert (tried.reply, tried.result, tried.user) == (reply, "error", "")


def test_where_any_password_is_right_the_name_is_told() -> None:
    tried, _ = dialogue(b"LOGIN", b64("Administratie"), b64("whatever"), check=None)
    assert (tried.result, tried.user, tried.mechanism) == ("ok", "Administratie", "login")


def test_a_password_is_verified_beside_the_loop() -> None:
    threads: list[int] = []

    def slow(user: str, password: str) -> bool:
        threads.append(threading.get_ident())
        return True

    dialogue(b"PLAIN " + PLAIN, check=slow)
    assert threads != [threading.get_ident()]


def test_the_password_is_in_no_representation() -> None:
    tried, _ = dialogue(b"PLAIN " + PLAIN)
    assert PASSWORD not in repr(tried)
