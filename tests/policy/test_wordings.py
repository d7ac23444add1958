"""What providers say of limits, in the words that they say it in: tables of it, with what only looks like it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from relay.config.preset import table
from relay.mail.outcome import Deferred, Failed, Refusal, Stage, Trouble
from relay.transport.replies import reply_of

TABLES = Path(__file__).with_name("wordings")


def rows() -> Iterator[Any]:
    """(class, stage, the line as it is sent)."""
    for file in sorted(TABLES.iterdir()):
        for line in file.read_text("utf-8").splitlines():
            if line and not line.startswith("#"):
                refusal, stage, said, _ = [column.strip() for column in line.split(" | ")]
                yield pytest.param(Refusal(refusal), Stage(stage), said.encode(), id=f"{stage}, {said}")


ROWS = list(rows())


@pytest.mark.parametrize(("refusal", "stage", "said"), ROWS)
def test_a_wording_has_its_class(refusal: Refusal, stage: Stage, said: bytes) -> None:
    assert table(None).tell(stage, reply_of(said)).refusal is refusal


@pytest.mark.parametrize(("refusal", "stage", "said"), ROWS)
def test_of_a_limit_nobody_bounces_and_of_all_else_as_the_code_says(
    refusal: Refusal, stage: Stage, said: bytes
) -> None:
    reply = reply_of(said)
    refused = Failed(stage, reply) if reply.code >= 500 else Deferred(stage, Trouble.TRANSIENT, reply.text, reply)
    waits = refusal in (Refusal.QUOTA, Refusal.THROTTLED, Refusal.AUTH, Refusal.TOO_MANY)
    assert isinstance(table(None).judge(refused), Deferred if waits else type(refused))


@pytest.mark.parametrize("code", [b"550", b"552", b"554"])
def test_where_one_alone_is_too_many_mail_waits(code: bytes) -> None:
    refused = Failed(Stage.RCPT, reply_of(code + b" 5.5.3 Too many recipients"))
    judged = table(None).judge(refused, split=False)
    assert isinstance(judged, Deferred)
    assert judged.refusal is Refusal.QUOTA
