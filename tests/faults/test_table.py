"""Every cell of the table, against a real socket: what becomes of the message, and that it ends right
once the fault is gone.

One message goes through worker, upstream, transport, settlement and the real store. The upstream does wrong once;
after that it is well, and the message is there exactly once, or its bounce is. It may be there twice only where
the upstream had taken it and its answer was lost, and then with the same Message-ID.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from relay.events import (
    AttemptEnded,
    ExceptionCaught,
    NotificationQueued,
    RecipientDeferred,
    RecipientDelivered,
    RecipientFailed,
    UpstreamRestored,
    UpstreamSetAside,
)
from relay.mail.outcome import BEFORE_A_TRANSACTION, Stage, Trouble
from relay.queue.model import Ledger
from tests.faults.acts import act
from tests.faults.house import QUICK, SmtpHouse
from tests.faults.table import FAULTS, STAGES, TABLE, TABLE_AT_ONCE, Cell, End
from tests.kit.certificates import Certificates
from tests.kit.extent import kinds
from tests.kit.upstream import KEYWORDS, Received, ScriptedUpstream
from tests.queue.mail import memory
from tests.transport.parts import PATIENT, SOON

PIET, JAN = "piet@example.com", "jan@example.nl"
ONE_BY_ONE = tuple(word for word in KEYWORDS if word != "PIPELINING")
WAYS = {"pipelined": KEYWORDS, "one by one": ONE_BY_ONE, "over TLS": KEYWORDS}
AT_ONCE = "at once"
CHUNKING = (*KEYWORDS, "CHUNKING")
LONG = memory(b"0123456789abcde\r\n" * 350_000)  # more than the kernel takes from an upstream that does not read
_TIMEOUT = {
    Stage.CONNECT: "connect",
    Stage.MAIL: "command",
    Stage.RCPT: "command",
    Stage.DATA: "data",
    Stage.BODY: "progress",
    Stage.DOT: "final",
}


@dataclass(frozen=True)
class Case:
    stage: Stage
    fault: str
    way: str

    @property
    def cell(self) -> Cell:
        return (TABLE_AT_ONCE if self.way == AT_ONCE else TABLE)[self.stage, self.fault]

    @property
    def id(self) -> str:
        return f"{self.stage}-{self.fault}-{self.way}"


def cases() -> list[Case]:
    """The way makes a difference only within a transaction."""
    found = []
    for number, ((stage, fault), cell) in enumerate(TABLE.items()):
        ways = ["one by one"] if stage in BEFORE_A_TRANSACTION else list(WAYS)
        first = number % len(ways)  # each way has its turn to be the first of a cell
        if cell.end is not None:
            found += [Case(stage, fault, way) for way in ways[first:] + ways[:first]]
    return found + [Case(stage, fault, AT_ONCE) for stage, fault in TABLE_AT_ONCE]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


class Scene:
    """One upstream, one message."""

    def __init__(self, case: Case, upstream: ScriptedUpstream, house: SmtpHouse) -> None:
        self.case = case
        self.cell = case.cell
        self.upstream = upstream
        self.house = house

    async def begin(self) -> None:
        """The upstream does wrong once, and the message meets it."""
        stage, fault = self.case.stage, self.case.fault
        if stage is Stage.CONNECT:
            await (self.upstream.go_down() if fault == "drop" else self.upstream.let_nobody_in())
        else:
            self.upstream.script(stage, act(fault, stage))
        self.house.start()
        await self.house.put("M", PIET, content=LONG if stage is Stage.BODY else memory())

    async def settled(self) -> RecipientDelivered | RecipientDeferred | RecipientFailed:
        """What became of the recipient first."""
        kinds = (RecipientDelivered, RecipientDeferred, RecipientFailed)
        events = self.house.watch.events
        await self.house.watch.until(lambda: any(isinstance(event, kinds) for event in events))
        first = next(event for event in events if isinstance(event, kinds))
        assert first.recipient == PIET
        return first

    async def mend(self) -> None:
        """All is well, and time goes on."""
        self.house.be_patient()
        if self.case.stage is Stage.CONNECT:
            await self.upstream.come_back()
        self.house.time_passes()

    async def ended(self) -> None:
        """Nothing is left in the queue."""
        await self.house.watch.until(self._is_empty)

    def _is_empty(self) -> bool:
        ledger = self.house.store.ledger
        return ledger.accepted == ledger.delivered + ledger.failed


def recorded_stages(case: Case) -> tuple[Stage, ...]:
    """A reset may overtake the replies that were sent ahead of it in the same round trip."""
    before_the_end = case.stage in (Stage.RCPT, Stage.DATA) or (case.way == AT_ONCE and case.stage is Stage.DOT)
    if case.fault == "drop" and case.way != "one by one" and before_the_end:
        return STAGES[STAGES.index(Stage.MAIL) : STAGES.index(case.stage) + 1]
    return (case.stage,)


def message_id(received: Received) -> bytes:
    (found,) = re.findall(rb"(?im)^message-id: (.+)\r$", received.content)
    return bytes(found)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "case", kinds(cases(), key=lambda case: (case.stage, case.fault, case.way == AT_ONCE), name=lambda case: case.id)
)
async def test_a_message_that_meets_a_fault_ends_right(case: Case, tmp_path: Path, certificates: Certificates) -> None:
    secured = case.stage in (Stage.STARTTLS, Stage.TLS) or case.way == "over TLS"
    login = case.stage is Stage.AUTH
    timeouts = PATIENT
    if case.fault == "silence":
        timeouts = replace(PATIENT, **{_TIMEOUT.get(case.stage, "greeting"): SOON})
    async with ScriptedUpstream(
        tls="starttls" if secured else "none",
        certificate=certificates.good if secured else None,
        users={"relay": "open sesame"} if login else None,
        keywords=CHUNKING if case.way == AT_ONCE else WAYS[case.way],
    ) as upstream:
        house = await SmtpHouse.of(tmp_path, "own")
        house.lead_to(
            upstream,
            timeouts=timeouts,
            tls_ca=certificates.ca_path if secured else None,
            auth="auto" if login else "none",
            username="relay",
            password=lambda: "open sesame",
        )
        scene = Scene(case, upstream, house)
        try:
            await scene.begin()
            first = await scene.settled()
            taken = len(upstream.messages)
            assert case.way != AT_ONCE or case.cell.end is End.FAILED or "DATA" not in upstream.commands
            asides = house.watch.of(UpstreamSetAside)
            what_became_of_it(case, first, house)
            what_was_recorded(case, house)
            await scene.mend()
            await scene.ended()
            what_arrived(case, upstream.messages, taken)
            if asides:
                assert house.watch.of(UpstreamRestored)
            assert house.watch.of(ExceptionCaught) == []
            bounces = len(house.watch.of(NotificationQueued))
            failed = case.cell.end is End.FAILED
            assert house.store.ledger == Ledger(accepted=1 + bounces, delivered=1, failed=int(failed))
        finally:
            await house.demolish()


def what_became_of_it(
    case: Case, first: RecipientDelivered | RecipientDeferred | RecipientFailed, house: SmtpHouse
) -> None:
    cell = case.cell
    match cell.end:
        case End.DELIVERED:
            assert isinstance(first, RecipientDelivered)
        case End.FAILED:
            assert isinstance(first, RecipientFailed)
            assert (first.stage, first.code, first.in_doubt) == (case.stage, 502 if case.fault == "502" else 554, False)
            assert first.text.isprintable()
        case _:
            assert isinstance(first, RecipientDeferred)
            assert first.stage in recorded_stages(case)
            assert (first.trouble, first.in_doubt) == (cell.trouble, cell.in_doubt)
            assert first.text.isprintable()
            assert first.next_attempt_at is not None
            pause, interval = first.next_attempt_at - house.now, QUICK.intervals[0]
            if case.stage in BEFORE_A_TRANSACTION:
                assert pause <= 1.4 * interval  # the upstream that is set aside holds it back, and is tried by then
            else:
                least = 1.8 if cell.in_doubt else 0.9
                assert least * interval <= pause <= (least + 0.4) * interval
    # It speaks of the upstream only where that is to be left alone.
    asides = house.watch.of(UpstreamSetAside)
    assert bool(asides) is cell.aside
    if asides:
        aside = asides[0]
        assert isinstance(aside, UpstreamSetAside)
        assert (aside.stage, aside.trouble) == (case.stage, cell.trouble)


def what_was_recorded(case: Case, house: SmtpHouse) -> None:
    """The first attempt, as the metrics have it."""
    ended = house.watch.of(AttemptEnded)[0]
    assert isinstance(ended, AttemptEnded)
    assert ended.trouble is case.cell.trouble
    assert ended.stage in (recorded_stages(case) if case.cell.trouble else (None,))


def what_arrived(case: Case, messages: list[Received], taken: int) -> None:
    """`taken` of them before the fault was gone."""
    cell = case.cell
    if cell.end is End.FAILED:
        (bounce,) = messages
        assert (bounce.reverse_path, bounce.recipients) == ("", (JAN,))
        assert b"Action: failed" in bounce.content
        assert bounce.content.isascii()
        return
    assert taken == int(cell.end is End.DELIVERED) or cell.in_doubt
    assert len(messages) == (taken if cell.end is End.DELIVERED else taken + 1)
    assert {(one.reverse_path, one.recipients) for one in messages} == {(JAN, (PIET,))}
    assert len(set(map(message_id, messages))) == 1
    body = (LONG if case.stage is Stage.BODY else memory()).read(0, LONG.size).partition(b"\r\n\r\n")[2]
    assert all(one.content.endswith(b"\r\n\r\n" + body) for one in messages)


def test_every_fault_meets_every_stage() -> None:
    assert set(TABLE) == {(stage, fault) for stage in STAGES for fault in FAULTS}
    assert set(STAGES) == set(Stage) - {Stage.DNS, Stage.HTTP}


def test_what_leaves_at_once_fares_otherwise_only_where_an_answer_is_missing_or_speaks_of_bdat() -> None:
    assert {fault for _, fault in TABLE_AT_ONCE} == {*FAULTS, "502"}
    assert {stage for stage, _ in TABLE_AT_ONCE} == {Stage.MAIL, Stage.RCPT, Stage.DOT}
    for (stage, fault), cell in TABLE_AT_ONCE.items():
        like = TABLE[stage, "5xx" if fault == "502" else fault]
        if fault == "502" and stage is Stage.DOT:
            assert (cell.end, cell.trouble) == (End.DEFERRED, Trouble.TRANSIENT)
        elif cell.in_doubt:
            assert like.end in (End.DEFERRED, End.IN_DOUBT)
            assert cell.trouble is like.trouble
        else:
            assert cell == like


def test_a_fault_that_leaves_doubt_comes_after_the_dot_and_says_nothing() -> None:
    for (stage, fault), cell in TABLE.items():
        assert not cell.in_doubt or stage is Stage.DOT
        assert cell.end is not End.FAILED or (fault.startswith("5xx") and stage not in BEFORE_A_TRANSACTION)
        assert cell.trouble is not Trouble.PERMANENT or fault.startswith("5xx")
