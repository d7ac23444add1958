"""Why a submission goes where it goes, and as whose: the decision with everything that was asked on the way.

Made by the same functions that decide and render, so it cannot tell another story. Of a message
with a session code, the Subject and what repeats it is not shown.
"""

from __future__ import annotations

from relay.mail.header import Header
from relay.mail.reply import Reply
from relay.mail.submission import Submission
from relay.policy.decide import Accept, Policy, Reject, judge
from relay.policy.match import Condition, View
from relay.policy.rewriting import Rendered, render
from relay.policy.rules import SenderRule
from relay.policy.session_code import SessionCodes
from relay.values import frozen

NOT_SHOWN = "(not shown: session code)"
# Subject, and the fields in which some software says it again.
_TELLING = frozenset({b"subject", b"thread-topic", b"comments", b"keywords"})


@frozen
class EntryTried:
    """One entry of `session_codes.match`, and whether all of its conditions held."""

    name: str
    conditions: tuple[Condition, ...]
    held: bool


@frozen
class RuleTried:
    """One sender rule. `spoke`: it has an effect, as the first that matches, or behind one that only holds."""

    rule: SenderRule
    conditions: tuple[Condition, ...]
    held: bool
    spoke: bool


@frozen
class Explanation:
    """`rejected` is the reply of a rejection, and `route` and `rendered` are None then.

    `session_code` names the entry that matched, or is None. `upstreams` are in the order in which
    they are tried. `held_by` names the rule that holds it for a person, or is "". `repaired` is how it leaves where an
    upstream refuses the sender, None where no rule has another. `before` and `after` are the header as it came and as
    it leaves, without what must not be shown.
    """

    rejected: Reply | None
    because: tuple[str, ...]
    session_codes: tuple[EntryTried, ...]
    session_code: str | None
    rules: tuple[RuleTried, ...]
    route: str | None
    upstreams: tuple[str, ...]
    held_by: str
    rendered: Rendered | None
    repaired: Rendered | None
    before: Header
    after: Header


def explain(submission: Submission, policy: Policy) -> Explanation:
    """The decision about `submission`, with every entry and rule tried, also those behind the one that spoke."""
    view = View(submission)
    decision = judge(view, policy)
    match decision:
        case Reject(reply, because):
            header = _shown(view.header, secret=False)
            return Explanation(reply, because, (), None, (), None, (), "", None, None, header, header)
        case Accept():
            return _accepted(submission, policy, decision, view)


def entries_tried(session_codes: SessionCodes, view: View, *, secret: bool) -> tuple[EntryTried, ...]:
    """Every entry with its conditions. `secret`: what may tell the code is not shown."""
    entries = []
    for index, tried in enumerate(session_codes.matches.tried(view)):
        conditions = _discreet(tried, secret=secret)
        held = all(condition.held for condition in conditions)
        entries.append(EntryTried(f"session_codes.match[{index}]", conditions, held))
    return tuple(entries)


def _accepted(submission: Submission, policy: Policy, accept: Accept, view: View) -> Explanation:
    secret = accept.session_code
    rules = []
    for rule, tried in zip(policy.senders, policy.matches.tried(view), strict=True):
        conditions = _discreet(tried, secret=secret)
        held = all(condition.held for condition in conditions)
        rules.append(RuleTried(rule, conditions, held, rule.name in accept.because))
    rendered = render(submission, accept, policy, view.header)
    return Explanation(
        rejected=None,
        because=accept.because,
        session_codes=entries_tried(policy.session_codes, view, secret=secret) if policy.session_codes else (),
        session_code=accept.because[0] if secret else None,
        rules=tuple(rules),
        route=accept.route.name,
        upstreams=accept.route.upstreams,
        held_by=accept.held_by,
        rendered=rendered,
        repaired=render(submission, accept, policy, view.header, repaired=True) if _repairs(accept) else None,
        before=_shown(view.header, secret=secret),
        after=_shown(Header.parse(rendered.head), secret=secret),
    )


def _repairs(accept: Accept) -> bool:
    return accept.rule is not None and accept.rule.repairs


def _discreet(conditions: tuple[Condition, ...], *, secret: bool) -> tuple[Condition, ...]:
    if not secret:
        return conditions
    return tuple(
        [
            condition._replace(found=(NOT_SHOWN,))
            if condition.name.removeprefix("header.").encode() in _TELLING
            else condition
            for condition in conditions
        ]
    )


def _shown(header: Header, *, secret: bool) -> Header:
    if not secret:
        return header
    hidden = b": " + NOT_SHOWN.encode() + b"\r\n"
    fields = [(name, raw.partition(b":")[0] + hidden if name in _TELLING else raw) for name, raw in header.fields]
    return Header(tuple(fields), header.rest)
