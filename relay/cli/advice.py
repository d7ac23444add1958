"""What to do about what upstreams said, as `relay queue show` tells it: one sentence for each thing they spoke of."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from relay.config import preset
from relay.mail.outcome import Refusal, Stage
from relay.mail.reply import Reply
from relay.texts.language import texts_in

if TYPE_CHECKING:
    from relay.config.model import Config

_REPLY = re.compile(r"([45]\d\d)(?: ([45]\.\d{1,3}\.\d{1,3}))?(?: (.*))?", re.DOTALL)
_ALSO_ELSEWHERE = {Refusal.SENDER: "remedy.sender", Refusal.THROTTLED: "remedy.throttled"}
_WAITS_OR_FAILED = frozenset({"pending", "deferred", "active", "held", "failed", "expired"})


def remedies(recipients: Iterable[dict[str, Any]], config: Config) -> Iterator[str]:
    """A sentence for each upstream and thing it spoke of, about those who did not get the message."""
    texts = texts_in(config.language)
    told: set[tuple[str, Refusal]] = set()
    for recipient in recipients:
        name, found = recipient["upstream"], _REPLY.fullmatch(recipient["reply"])
        if found is None or not name or recipient["state"] not in _WAITS_OR_FAILED:
            continue
        upstream = config.upstreams.get(name)
        # At which stage it was said is not kept; where a text says nothing, that would not say more.
        reply = Reply(int(found[1]), found[2] or "", " ".join((found[3] or "").split()))
        table = upstream.refusals if upstream is not None else preset.table(None)
        refusal = table.tell(Stage.DOT, reply).refusal
        if (name, refusal) not in told:
            told.add((name, refusal))
            yield texts(key_of(refusal), name=name)


def key_of(refusal: Refusal) -> str:
    """The sentence on what to do about a reply of that class."""
    return _ALSO_ELSEWHERE.get(refusal, f"refusal.{refusal}")
