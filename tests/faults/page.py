"""The page `docs/faults.md`, made from the table of the tests.

`python -m tests.faults.page > docs/faults.md` writes it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

from relay.mail.outcome import BEFORE_A_TRANSACTION, Stage
from tests.faults.table import REASONS, STAGES, TABLE, TABLE_AT_ONCE, Cell, End

_HEAD = """\
# When an upstream does wrong

What becomes of a message when the upstream does something else than it should: how far the attempt had come, and what
the upstream did there. Each cell is a test against a real socket (`tests/faults/test_table.py`), and this page is made
from the table of those tests by `python -m tests.faults.page > docs/faults.md`.

- **delivered**: the upstream has taken it. Any 2xx is a yes, whatever the second and third digit.
- **deferred**: it waits for the schedule of its route (`routes.NAME.retry`), and is tried again. The upstream stays
  in use for others. Below stands when it does not.
- **deferred, set aside**: the same, and the upstream is set aside: nobody tries it for a growing
  pause of at most 5 minutes, then one connection tries, then all. The next upstream of the route is used meanwhile.
- **failed: bounce**: refused for good, and the sender is told.
- **in doubt**: the end of the message was sent and its answer is lost, so that it may have been taken. It waits twice
  as long and is tried again, with the same Message-ID; with `in_doubt: hold` on the route a person decides.

Below each stands the trouble that is recorded with the stage (label `class` of `relay_attempt_failures_total`). In
every cell the message ends right once the fault is gone: it arrives exactly once, or is bounced once. It may arrive
twice only where it was in doubt and the upstream had taken it.
"""

_FAULTS = {
    "drop": "resets the connection (refuses it, at connect)",
    "close": "closes the connection in good order",
    "421": "says 421",
    "4xx": "says any other 4xx",
    "5xx": "says a 5xx",
    "502": "says that it does not know the command",
    "5xx, 8-bit text": "says a 5xx with octets beyond ASCII",
    "other 2xx": "says yes with another code: 299 for 250; at DATA 250 for 354",
    "3xx": "says 354 where 2xx is due, 334 without end at AUTH; at DATA 399 for 354",
    "several lines": "says the right thing in several lines",
    "8-bit text": "says the right thing with octets beyond ASCII",
    "NUL": "says the right thing with a NUL in it",
    "mixed codes": "says several lines with different codes",
    "oversized": "says more than 32 KiB",
    "garbage": "says what is no SMTP reply",
    "half a line": "says half a line, then closes",
    "silence": "says nothing, or no longer reads (body)",
}
_AT_ONCE = """\
Where the upstream offers CHUNKING (and PIPELINING), a message of up to 256 KiB (16 KiB over TLS) goes in one write:
MAIL, RCPT, BDAT and the content. It costs one round trip instead of two. The price is that any answer that is missing
then leaves it in doubt, unless one that came rules out that it was taken: MAIL refused, all recipients refused, a 421.
EHLO goes behind the content, since no other reply is like the one to EHLO: where that does not come in its place, the
answer before it may have been that to something else, and a yes leaves the message in doubt as well.
So it is not done for session codes, on a route with `in_doubt: hold`, for more than 10 recipients, for what has been
in doubt before, nor on a connection that was silent for 5 seconds; and never with `chunking: false` at the upstream.
What is not listed here is as above.
"""
_AFTER_AT_ONCE = """\
An upstream that answers BDAT with a 50x does not know it after all; one that gives no answer to the first message that
it gets so, answers before it can have the message, says something else or goodbye in the place of the answer to EHLO,
or reads a message that it refused as commands, does not do it well. It gets all mail by DATA from then on, until a
reload, and the log says so (`chunking_given_up`).
"""
_WRITTEN = {Stage.STARTTLS: "STARTTLS", Stage.TLS: "TLS handshake", Stage.BODY: "content", Stage.DOT: "final dot"}
_NOTES = """\
In the TLS handshake all replies are alike: plain text, where none may be. What a test sends at *content* comes while
the message is being sent, so that the dot has not left. Where the upstream offers PIPELINING, a reset may overtake
replies that were sent ahead of it, and an earlier stage is recorded then.

One bad message is not a sick upstream. A 421 or a drop sets back the message that met it. Only when the next other
message meets it too is the upstream set aside: for a tenth of a second at first, and a twelfth more each time, up to
the 5 minutes above. Messages that met it are not asked to find out whether it is well again: the oldest of the others
is, and the first that goes through ends it (`message_blamed` in the log names those it was about). A batch of forty
such messages delays others by less than a minute (`tests/delivery/test_bad_batch.py`).

In a refusal, what speaks of the account (a quota, a login that is asked for) is no refusal of the message: that is
deferred, and once a second message hears it, the upstream is set aside. A limit of the account is known by words of a
limit with a period, a count or what is sent, at MAIL, RCPT, DATA and the dot, whatever the code says; those that were
found, and what only looks like them, are rows in `tests/policy/wordings`.

A limit of recipients in one transaction is no refusal of the recipients beyond it. Whatever code says it (452, 451,
550, 552, 554, 503, 421) and wherever, at the recipient that is one too many, at DATA or at the final dot: who was taken
gets the message, and the others go at once in further transactions (`tests/scenarios/test_recipients.py`). How many are
taken is known where it is said at RCPT, or with a number; otherwise half of them are tried, and half of that. It is
remembered for a day, over restarts (`recipients_limited` in the log, and in `relay status`). Whoever is refused for
other reasons fails alone. Where even the first recipient is one too many, it is a limit over time: mail waits.
"""
_OUT_OF_STEP = """\
A reply counts for the command that it answers. One that nobody asked for, before, behind or between the others, or that
comes before the last octet of the message has arrived over there, cannot be placed. Then nothing that was said in that
transaction holds, and the connection is not used again. The message is *deferred* where its end has not left, else *in
doubt*; never *delivered*. A 421 behind the answer is a goodbye, and takes back nothing. Each place and each kind of
reply is a row in `tests/transport/test_out_of_step.py`.
"""


def faults_page() -> str:
    """The text of `docs/faults.md`."""
    first = [stage for stage in STAGES if stage in BEFORE_A_TRANSACTION]
    rest = [stage for stage in STAGES if stage not in BEFORE_A_TRANSACTION]
    reasons = "".join(f"{_footnote(key)} {text}\n" for key, text in REASONS.items())
    at_once = list(dict.fromkeys(stage for stage, _ in TABLE_AT_ONCE))
    return (
        f"{_HEAD}\n## Before a transaction\n\n{_grid(first)}\n{reasons}"
        f"\n## In a transaction\n\n{_grid(rest)}\n{_NOTES}"
        f"\n## Replies out of step\n\n{_OUT_OF_STEP}"
        f"\n## In a transaction of one write\n\n{_AT_ONCE}\n{_grid(at_once, TABLE_AT_ONCE)}\n{_AFTER_AT_ONCE}"
        f"\n## The faults\n\n{_meanings()}"
    )


def _grid(stages: Sequence[Stage], table: Mapping[tuple[Stage, str], Cell] = TABLE) -> str:
    written = _WRITTEN if table is TABLE else {Stage.DOT: "BDAT"}
    head = ["the upstream's fault", *(written.get(stage, stage.upper()) for stage in stages)]
    rows = [head, ["---"] * len(head)]
    faults = dict.fromkeys(fault for _, fault in table)
    rows += [[fault, *(_words(table[stage, fault]) for stage in stages)] for fault in faults]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _words(cell: Cell) -> str:
    if cell.end is None:
        return f"– {_footnote(cell.impossible)}"
    if cell.end in (End.FAILED, End.IN_DOUBT):
        words = f"**{cell.end}**"
    else:
        words = str(cell.end)
    return words if cell.trouble is None else f"{words}<br>`{cell.trouble}`"


def _footnote(key: str) -> str:
    return f"({key.removeprefix('-')})"


def _meanings() -> str:
    return "".join(f"- **{fault}**: the upstream {_FAULTS[fault]}.\n" for fault in _FAULTS)


if __name__ == "__main__":
    sys.stdout.write(faults_page())
