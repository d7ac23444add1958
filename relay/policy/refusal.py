"""What an upstream's reply speaks of: the sender, the pace, the login, the recipient, the content.

Providers say the same thing with other codes, and other things with the same code: "554 5.2.0" is a sender
refused, a quota, or a full mailbox. So replies are told apart by tables, which are data
(`config/presets/`): that of the provider is asked first, then the one for all. The first line that fits speaks.

What follows from a class, whatever the code:

    sender-refused                  the message may go with another sender (`when: refused`), else it fails
    throttled, quota, auth          the account's trouble, not the message's: mail waits, nothing bounces
    too-many-recipients             whoever was one too many goes at once in another transaction (`delivery.recipients`)
    all others                      as the code says: 4xx waits, 5xx fails the recipient
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import field, replace
from functools import cache

from relay.mail.outcome import BEFORE_A_TRANSACTION, Deferred, Delivered, Failed, Outcome, Refusal, Stage, Trouble
from relay.mail.reply import Reply
from relay.values import frozen

OF_THE_ACCOUNT = frozenset({Refusal.THROTTLED, Refusal.QUOTA, Refusal.AUTH})
"""Classes that say nothing about the message: who sends it is not to send now."""


_NAMES = re.compile(
    r'<[^<>]*+>|(?<!\\)"[^"\\]*+(?:\\.[^"\\]*+)*+"|(?<![^\s<>"])[^\s<>"@]*+@\S*+'
    r"|(?<![\w.-])(?:\w++://|(?:[\w-]++\.)++[a-z])\S*+"
)
"""Addresses, domains, links, names of files, and what is quoted: anybody can choose such words, so they tell nothing
about a reply. (A capital behind a dot begins a sentence, or goes on with the provider's own name of a fault.)"""

_LISTENED = 400  # characters of a reply in which words are looked for


@frozen
class Line:
    """A line of a table: all that is given must fit. `codes` "5" is any 5xx, `statuses` "7.60" is any x.7.60;
    `texts` are any of these in the text, in lower case, without addresses and what is quoted. None: not asked.
    Each of `says` names words of which the text says one, and `unless` those of which it says none (`Table.words`).

    `confirm`: known to come and go, so one refusal is not believed. `waits`: mail is to wait, though the code
    says that it failed.
    """

    refusal: Refusal
    codes: tuple[str, ...] | None = None
    statuses: tuple[str, ...] | None = None
    texts: tuple[str, ...] | None = None
    says: tuple[tuple[str, ...], ...] = ()
    unless: tuple[str, ...] = ()
    stages: frozenset[Stage] | None = None
    confirm: bool = False
    waits: bool = False

    def fits(self, stage: Stage, reply: Reply, text: str, says: Callable[[str], bool]) -> bool:
        """`text` is the reply's, in lower case; `says` tells whether it says the words of that name."""
        return (
            (self.stages is None or stage in self.stages)
            and (self.codes is None or any(str(reply.code).startswith(code) for code in self.codes))
            and (self.statuses is None or any(_is_status(reply.status, status) for status in self.statuses))
            and (self.texts is None or any(words in text for words in self.texts))
            and all(any(map(says, names)) for names in self.says)
            and not any(map(says, self.unless))
        )


@frozen
class Told:
    """What a reply speaks of; `confirm` and `waits` as in the line that fitted."""

    refusal: Refusal
    confirm: bool = False
    waits: bool = False


@frozen
class Table:
    """Lines in the order they are asked; without any, code and stage alone tell. `words` that they ask for, by name:
    a regular expression, made when it is needed."""

    lines: tuple[Line, ...] = ()
    words: Mapping[str, str] = field(default_factory=dict)

    def tell(self, stage: Stage, reply: Reply, *, split: bool = True) -> Told:
        """What `reply`, which is no success, speaks of. `split` False: not of too many recipients, since there are too
        few for that."""
        text = _NAMES.sub(" ", reply.text).lower()
        says = cache(lambda name: re.search(self.words[name], text[:_LISTENED]) is not None)
        for line in self.lines:
            if (split or line.refusal is not Refusal.TOO_MANY) and line.fits(stage, reply, text, says):
                return Told(line.refusal, line.confirm, line.waits)
        return Told(_by_code(stage, reply))

    def judge(self, outcome: Outcome, *, split: bool = True) -> Outcome:
        """`outcome` with its class, and as that class has it: what is the account's trouble defers, and who is one too
        many."""
        match outcome:
            case Delivered():
                return outcome
            case Deferred():
                if outcome.reply is None:
                    return outcome
                told = self.tell(outcome.stage, outcome.reply, split=split)
                sick = outcome.upstream_sick or _is_of_the_account(told, outcome.stage)
                return replace(outcome, refusal=told.refusal, upstream_sick=sick)
            case Failed():
                told = self.tell(outcome.stage, outcome.reply, split=split)
                if told.refusal in OF_THE_ACCOUNT or told.refusal is Refusal.TOO_MANY or told.waits:
                    reply = outcome.reply
                    return Deferred(
                        outcome.stage,
                        Trouble.PERMANENT,
                        reply.text,
                        reply,
                        upstream_sick=told.waits or _is_of_the_account(told, outcome.stage),
                        refusal=told.refusal,
                    )
                return replace(outcome, refusal=told.refusal)

    def before(self, other: Table) -> Table:
        """This table, and `other` where it says nothing."""
        return Table((*self.lines, *other.lines), {**other.words, **self.words})


def _is_of_the_account(told: Told, stage: Stage) -> bool:
    """For one recipient there may be too much mail, while others go on."""
    return told.refusal in OF_THE_ACCOUNT and not (told.refusal is Refusal.THROTTLED and stage is Stage.RCPT)


def speaks_of_connections(stage: Stage, reply: Reply) -> bool:
    """Whether a reply that asks for less wants fewer connections, not less mail."""
    text = reply.text.lower()
    return stage in BEFORE_A_TRANSACTION or reply.code == 432 or "connections" in text or "thread limit" in text


_FORM = re.compile(
    r"syntax|malform|pars(?:e|ing)|\brfc[ -]?(?:822|2822|5321|5322)\b|8[ -]?bit|non-ascii|illegal character"
    r"|(?:missing|no|empty|without) (?:a |the )?(?:valid )?(?:address|'?from\b|header)"
    r"|(?:header|from:?'?) (?:is )?(?:missing|empty|duplicated)"
    r"|(?:multiple|two|more than one|duplicate) (?:address|author|field|header|'?from\b)"
)


def speaks_of_form(reply: Reply) -> bool:
    """Whether a reply about a sender minds how a field is written, which says nothing about who may send."""
    return _FORM.search(_NAMES.sub(" ", reply.text).lower()) is not None


def _by_code(stage: Stage, reply: Reply) -> Refusal:
    if stage is Stage.AUTH:
        return Refusal.AUTH
    if reply.code < 500:
        return Refusal.TEMPORARY
    return Refusal.RECIPIENT if stage is Stage.RCPT else Refusal.PERMANENT


def _is_status(status: str, wanted: str) -> bool:
    return status == wanted or status.partition(".")[2] == wanted


HTTP = Table(
    (
        # What we say ourselves of a message that cannot be put into fields
        Line(Refusal.TOO_LARGE, statuses=("3.4",)),
        Line(Refusal.CONTENT, statuses=("6.0",)),
        Line(Refusal.AUTH, statuses=("0.401", "0.403")),
        Line(Refusal.THROTTLED, statuses=("0.429",)),
    )
)
"""How the answers of an HTTPS endpoint are to be read (`transport.answer` makes replies of them): not by their texts,
which follow no custom."""
