"""The pickup folder: files become mail once and durably, or lie in bad/ with the reason; nothing else is touched."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.errors import RelayError, StoreUnavailable
from relay.events import ExceptionCaught, MessageQueued, MessageRefused, QuirksTolerated, Warned
from relay.ingress import pickup_file
from relay.ingress.dots import Undoubling, doubled
from relay.ingress.folder import Claimed, Folder
from relay.ingress.pickup import Pickup
from relay.ingress.pickup_file import BadFile, Bounds, PickupFile
from relay.mail.address import Address
from relay.mail.addressees import BadAddressees, recipients
from relay.mail.aliases import Aliases
from relay.mail.content import normalise
from relay.mail.header import Header
from relay.mail.quirk import Quirk
from tests.ingress.house import PATIENCE, House, HouseOf, on_both_loops
from tests.kit import configured

MESSAGE = b"From: Jan <jan@example.nl>\nTo: piet@example.com\nSubject: Factuur\n\nHallo\n"
AS_CONTENT = MESSAGE.replace(b"\n", b"\r\n")
BOUNDS = Bounds(10 * 1024 * 1024, 256 * 1024, 2_000)


def put(folder: Path, name: str, content: bytes = MESSAGE, *, minutes: int = 5) -> Path:
    """A file as a program moves it in, last changed so many minutes ago."""
    made = folder.parent / "elsewhere"
    made.write_bytes(content)
    changed = 1_700_000_000 - minutes * 60
    os.utime(made, (changed, changed))
    return made.rename(folder / name)


def a_pickup(house: House, folder: Path, **settings: object) -> Pickup:
    door = house.door
    return Pickup(
        configured.pickup(folder, **{"name": "map", "max_message_size": 10 * 1024 * 1024, **settings}),
        acceptor=door.acceptor,
        store=house.store.real,
        queue_ids=door.queue_ids,
        spool=door.spool,
        space=door.space,
        observer=door.observer,
        now=door.now,
        every=0.01,
        again=0.01,
    )


@asynccontextmanager
async def at_work(pickup: Pickup) -> AsyncIterator[None]:
    """Open and running; at the end, what was begun is finished."""
    await pickup.open()
    running = asyncio.create_task(pickup.run())
    try:
        yield
    finally:
        pickup.stop()
        async with asyncio.timeout(PATIENCE):
            await running


def read(folder: Path, content: bytes) -> PickupFile:
    path = folder / "one.eml"
    path.write_bytes(content)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return PickupFile(descriptor, BOUNDS)
    finally:
        os.close(descriptor)


def whole(folder: Path, content: bytes, bounds: Bounds) -> bytes:
    """What a file gives, piece by piece."""
    path = folder / "one.eml"
    path.write_bytes(content)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        file = PickupFile(descriptor, bounds)
        return file.first + b"".join(iter(file.more, b""))
    finally:
        os.close(descriptor)


def files(folder: Path) -> list[str]:
    """All files below, as paths."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "pickup"


@on_both_loops
async def test_a_file_is_taken_kept_and_removed(house_of: HouseOf, folder: Path) -> None:
    async with house_of() as house:
        async with at_work(a_pickup(house, folder)):
            put(folder, "factuur.eml")
            (queued,) = await house.observed.until(MessageQueued)
        assert files(folder) == []
        assert await house.contents() == [AS_CONTENT]
        (entry,) = await house.entries()
        assert (queued.listener, queued.client, queued.user) == ("map", "pickup", None)
        assert queued.queue_id == entry.queue_id
        assert (queued.reverse_path, queued.recipients) == ("jan@example.nl", ("piet@example.com",))
        assert entry.submission.size == len(AS_CONTENT)
        assert entry.submission.head == AS_CONTENT[: AS_CONTENT.index(b"Hallo")]
        (tolerated,) = house.observed.of(QuirksTolerated)
        assert set(tolerated.quirks) == {Quirk.NO_DATE, Quirk.NO_MESSAGE_ID}


@on_both_loops
async def test_nul_octets_in_a_file_are_told_wherever_they_are(house_of: HouseOf, folder: Path) -> None:
    for text in (b"Hallo\0\n", b"Hallo\n" * 200_000 + b"\0\n"):
        async with house_of() as house:
            async with at_work(a_pickup(house, folder)):
                put(folder, "factuur.eml", AS_CONTENT + text)
                (tolerated,) = await house.observed.until(QuirksTolerated)
            assert Quirk.NUL in tolerated.quirks


@on_both_loops
async def test_files_in_the_making_are_left_alone(house_of: HouseOf, folder: Path) -> None:
    async with house_of() as house:
        pickup = a_pickup(house, folder)
        await pickup.open()
        put(folder, "half.tmp")
        put(folder, ".half.eml")
        put(folder, "eml")
        (folder / "folder.eml").mkdir()
        (folder / "now.eml").write_bytes(MESSAGE[:20])  # a program writes where it should rename
        before = files(folder)
        async with at_work(pickup):
            put(folder, "WHOLE.EML")
            await house.observed.until(MessageQueued)
        assert files(folder) == before
        assert len(house.observed.of(MessageQueued)) == 1
        assert house.observed.of(MessageRefused) == []


@on_both_loops
async def test_many_files_are_taken_the_oldest_first(
    house_of: HouseOf, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.ingress.pickup.LISTED", 40)
    async with house_of() as house:
        pickup = a_pickup(house, folder)
        await pickup.open()
        for number in range(100):
            put(folder, f"{number * 37 % 100}.eml", MESSAGE + b"%d\n" % number, minutes=1_000 - number)
        async with at_work(pickup):
            await house.observed.until(MessageQueued, 100)
        assert files(folder) == []
        by_id = sorted(await house.entries(), key=lambda entry: entry.queue_id)
        bodies = [entry.content.read(0, 10_000).split()[-1] for entry in by_id]
        assert bodies == [b"%d" % number for number in range(100)]


@on_both_loops
async def test_a_large_file_goes_to_a_spool_file(house_of: HouseOf, folder: Path) -> None:
    async with house_of() as house:
        body = b"".join(b"regel %d\n" % number for number in range(100_000)) + b"." * 700_000 + b"\r\n.\r\nslot"
        async with at_work(a_pickup(house, folder)):
            put(folder, "groot.eml", MESSAGE + body)
            await house.observed.until(MessageQueued)
        (entry,) = await house.entries()
        assert not entry.content.in_memory
        assert await house.contents() == [normalise(MESSAGE + body, header_first=True) + b"\r\n"]


@pytest.mark.parametrize(
    ("content", "code", "reason"),
    [
        (b"From: jan@example.nl\nTo: undisclosed-recipients:;\n\nx\n", 554, "nobody is named in To, Cc or Bcc"),
        (b"From: jan@example.nl\nTo: Piet <piet@>\n\nx\n", 554, "To: no usable address: Piet"),
        (b"From: jan@example.nl\nTo: a@example.com, piet@@example.com\n\nx\n", 554, "To: no usable address"),
        (b"X-Receiver: piet\nTo: piet@example.com\n\nx\n", 554, "X-Sender or X-Receiver: not one address"),
        (b"To: Jan Jansen, piet@example.com\n\nx\n", 554, "To: no usable address: Jan Jansen"),
        (b"Beste Piet,\nTo: piet@example.com\n", 554, "nobody is named"),
        (b"", 554, "the file is empty"),
        (MESSAGE + b"x" * 3_000, 552, "larger than max_message_size"),
        (b"X:\n" * 200 + MESSAGE, 552, "its header has more than 200 fields"),
        (b"X: " + b"y" * 1_500 + b"\n" + MESSAGE, 552, "its header is larger than 1024 octets"),
    ],
)
@on_both_loops
async def test_a_broken_file_lies_in_bad_with_the_reason(
    house_of: HouseOf, folder: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, code: int, reason: str
) -> None:
    monkeypatch.setattr(pickup_file, "PIECE", 512)
    async with house_of() as house:
        async with at_work(a_pickup(house, folder, max_message_size=3_000, header_size=1_024, header_fields=200)):
            put(folder, "stuk.eml", content)
            (refused,) = await house.observed.until(MessageRefused)
        assert files(folder) == ["bad/stuk.eml", "bad/stuk.eml.reason.txt"]
        assert (folder / "bad/stuk.eml").read_bytes() == content
        assert reason in (folder / "bad/stuk.eml.reason.txt").read_text()
        assert (refused.listener, refused.client, refused.code) == ("map", "pickup", code)
        assert refused.text.startswith(f"stuk.eml: {reason}")
        assert await house.entries() == []


@on_both_loops
async def test_what_is_no_regular_file_is_never_read(house_of: HouseOf, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(MESSAGE)
    async with house_of() as house:
        pickup = a_pickup(house, folder)
        await pickup.open()
        (folder / "link.eml").symlink_to(tmp_path / "secret")
        os.mkfifo(folder / "fifo.eml")
        os.utime(folder / "link.eml", (0, 0), follow_symlinks=False)
        os.utime(folder / "fifo.eml", (0, 0))
        async with at_work(pickup):
            await house.observed.until(MessageRefused, 2)
        assert (tmp_path / "secret").exists()
        assert files(folder) == [
            "bad/fifo.eml",
            "bad/fifo.eml.reason.txt",
            "bad/link.eml",
            "bad/link.eml.reason.txt",
        ]
        assert await house.entries() == []


@on_both_loops
async def test_what_the_policy_rejects_lies_in_bad(house_of: HouseOf, folder: Path) -> None:
    async with house_of() as house:
        async with at_work(a_pickup(house, folder)):
            put(folder, "kring.eml", b"Received: from a by b\n" * 50 + MESSAGE)
            (refused,) = await house.observed.until(MessageRefused)
        assert refused.status == "5.4.6"
        assert "554 5.4.6 Routing loop" in (folder / "bad/kring.eml.reason.txt").read_text()


@on_both_loops
async def test_a_broken_file_never_takes_the_place_of_another(house_of: HouseOf, folder: Path) -> None:
    async with house_of() as house:
        async with at_work(a_pickup(house, folder)):
            put(folder, "stuk.eml", b"een")
            await house.observed.until(MessageRefused)
            put(folder, "stuk.eml", b"twee")
            await house.observed.until(MessageRefused, 2)
        assert (folder / "bad/stuk.eml").read_bytes() == b"een"
        assert (folder / "bad/stuk-2.eml").read_bytes() == b"twee"
        assert (folder / "bad/stuk-2.eml.reason.txt").exists()


@on_both_loops
async def test_a_link_where_the_reason_belongs_leads_nowhere(house_of: HouseOf, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"mine")
    async with house_of() as house:
        pickup = a_pickup(house, folder)
        await pickup.open()
        (folder / "bad/stuk.eml.reason.txt").symlink_to(tmp_path / "precious")
        (folder / "bad/stuk.eml.reason.txt.partial").symlink_to(tmp_path / "precious")
        async with at_work(pickup):
            put(folder, "stuk.eml", b"een")
            await house.observed.until(MessageRefused)
    assert (tmp_path / "precious").read_bytes() == b"mine"
    assert files(folder) == ["bad/stuk.eml", "bad/stuk.eml.reason.txt"]
    assert "was not taken" in (folder / "bad/stuk.eml.reason.txt").read_text()


@pytest.mark.parametrize("size", [0, 600_000])
@on_both_loops
async def test_a_file_that_the_store_cannot_keep_stays_and_is_tried_again(
    house_of: HouseOf, folder: Path, size: int
) -> None:
    async with house_of() as house:
        house.store.troubles += [StoreUnavailable("full", "disk full"), StoreUnavailable("io", "I/O error")]
        async with at_work(a_pickup(house, folder)):
            put(folder, "factuur.eml", MESSAGE + b"x" * size)
            await house.observed.until(MessageQueued)
        assert files(folder) == []
        assert [event.result for event in house.observed.of(MessageRefused)] == ["store_failed"] * 2
        assert [event.code for event in house.observed.of(MessageRefused)] == [452, 451]
        assert len(await house.entries()) == 1
        names = house.door.spool.names()
        assert len([name for name in names if not name.endswith(".part")]) == (1 if size else 0)


@on_both_loops
async def test_nothing_is_taken_while_the_store_is_nearly_full(house_of: HouseOf, folder: Path) -> None:
    async with house_of() as house:
        pickup = a_pickup(house, folder)
        await pickup.open()
        put(folder, "factuur.eml")
        house.space = False
        assert await pickup._look() > 0
        assert files(folder) == ["factuur.eml"]
        house.space = True
        assert await pickup._look() > 0
        assert files(folder) == []


@on_both_loops
async def test_a_crash_before_the_message_was_kept_loses_nothing(house_of: HouseOf, folder: Path) -> None:
    async with house_of() as house:
        pickup = a_pickup(house, folder)
        await pickup.open()
        put(folder, "factuur.eml")
        Folder(folder).claim([Claimed("0K0000000000", "factuur.eml")])
        assert files(folder) == [".taken/0K0000000000.factuur.eml"]
        async with at_work(a_pickup(house, folder)):
            await house.observed.until(MessageQueued)
        assert files(folder) == []
        assert await house.contents() == [AS_CONTENT]


@on_both_loops
async def test_a_crash_after_the_message_was_kept_doubles_nothing(house_of: HouseOf, folder: Path) -> None:
    async with house_of() as house:
        async with at_work(a_pickup(house, folder)):
            put(folder, "factuur.eml")
            (queued,) = await house.observed.until(MessageQueued)
        put(folder, "factuur.eml")
        Folder(folder).claim([Claimed(queued.queue_id, "factuur.eml")])  # as if it had never been removed
        async with at_work(a_pickup(house, folder)):
            assert files(folder) == []
        assert len(await house.entries()) == 1


@on_both_loops
async def test_a_bug_stops_neither_the_folder_nor_other_files(house_of: HouseOf, folder: Path) -> None:
    async with house_of() as house:
        house.store.troubles.append(ValueError("a bug"))
        async with at_work(a_pickup(house, folder)):
            put(folder, "een.eml")
            (caught,) = await house.observed.until(ExceptionCaught)
            put(folder, "twee.eml")
            await house.observed.until(MessageQueued)
        assert caught.component == "accept"
        (left,) = files(folder)
        assert left.startswith(".taken/")
        assert left.endswith(".een.eml")
        async with at_work(a_pickup(house, folder)):  # the next start
            await house.observed.until(MessageQueued, 2)
        assert files(folder) == []


@on_both_loops
async def test_a_folder_that_goes_away_is_told_once_and_taken_from_again(house_of: HouseOf, folder: Path) -> None:
    async with house_of() as house:
        async with at_work(a_pickup(house, folder)):
            folder.rename(folder.with_name("away"))
            (warned,) = await house.observed.until(Warned)
            folder.with_name("away").rename(folder)
            put(folder, "factuur.eml")
            await house.observed.until(MessageQueued)
        assert warned.text.startswith(f"map: {folder}: No such file or directory")
        assert len(house.observed.of(Warned)) == 1


@on_both_loops
async def test_names_of_any_octets_and_any_length_are_fine(house_of: HouseOf, folder: Path) -> None:
    async with house_of() as house:
        pickup = a_pickup(house, folder)
        await pickup.open()
        odd = [b"caf\xe9.eml", b"a\nb.eml", "naïef.eml".encode(), b"x" * 251 + b".eml", b"..eml.eml.eml", b"%s {}.eml"]
        for name in odd:
            put(folder, os.fsdecode(name))
            put(folder, os.fsdecode(b"bad " + name[-240:]), b"stuk")
        async with at_work(pickup):
            await house.observed.until(MessageQueued, len(odd) - 1)
            await house.observed.until(MessageRefused, len(odd))
        assert [name for name in os.listdir(folder) if name not in (".taken", "bad")] == ["..eml.eml.eml"]  # hidden
        assert all(event.text.isprintable() for event in house.observed.of(MessageRefused))


@on_both_loops
async def test_a_folder_is_made_for_its_owner_and_its_group(house_of: HouseOf, folder: Path) -> None:
    async with house_of() as house:
        before = os.umask(0o077)
        try:
            await a_pickup(house, folder).open()
        finally:
            os.umask(before)
        modes = [path.stat().st_mode & 0o777 for path in (folder, folder / "bad", folder / ".taken")]
        assert modes == [0o770, 0o770, 0o700]
        folder.with_name("file").touch()
        with pytest.raises(RelayError, match="file: Not a directory"):
            await a_pickup(house, folder.with_name("file")).open()


@pytest.mark.parametrize(
    ("header", "reverse_path", "recipients"),
    [
        (b'From: jan@a.nl\nTo: p@b.nl, "Q, R" <q@b.nl>\nCc: team: r@b.nl, s@b.nl;\nBcc: t@b.nl', "jan@a.nl", "pqrst"),
        (b"From: jan@a.nl\nTo: p@b.nl\nTo: q@b.nl\nCc: P@b.nl, p@B.NL", "jan@a.nl", "pqP"),
        (b"Sender: admin@a.nl\nFrom: jan@a.nl, piet@a.nl\nTo: p@b.nl", "admin@a.nl", "p"),
        (b"From: jan@a.nl, piet@a.nl\nTo: p@b.nl", "jan@a.nl", "p"),
        (b"Return-Path: <bounce@a.nl>\nSender: admin@a.nl\nFrom: jan@a.nl\nTo: p@b.nl", "bounce@a.nl", "p"),
        (b"Return-Path: <>\nFrom: jan@a.nl\nTo: p@b.nl", None, "p"),
        (b"To: p@b.nl", None, "p"),
        (b"From: Jan\nTo: undisclosed-recipients:;\nBcc: p@b.nl", None, "p"),
        (b"From: jan@a.nl\nTo: undisclosed recipients\nBcc: p@b.nl", "jan@a.nl", "p"),
        (b"Resent-From: x@a.nl\nResent-To: p@b.nl\nResent-Bcc: q@b.nl\nFrom: jan@a.nl\nTo: z@b.nl", "x@a.nl", "pq"),
        (b"Resent-To: p@b.nl\nSender: admin@a.nl\nFrom: jan@a.nl\nTo: z@b.nl", "admin@a.nl", "p"),
        (b"Resent-To: p@b.nl\nResent-From: Jan\nReturn-Path: <r@a.nl>\nFrom: jan@a.nl\nTo: z@b.nl", "r@a.nl", "p"),
        (b"Resent-To: p@b.nl\nReturn-Path: <>\nFrom: jan@a.nl\nTo: z@b.nl", None, "p"),
        (b"X-Sender: app@a.nl\nX-Receiver: p@b.nl\nX-Receiver: <q@b.nl>\nFrom: jan@a.nl\nTo: z@b.nl", "app@a.nl", "pq"),
        (b"x-sender: <>\nx-receiver: p@b.nl\nFrom: jan@a.nl", None, "p"),
        (b"X-Sender: app@a.nl\nFrom: jan@a.nl\nTo: p@b.nl", "app@a.nl", "p"),
        (b"From: jan@a.nl\nX-Receiver: z@b.nl\nTo: p@b.nl\nX-Sender: <>", None, "z"),  # wherever they stand
        (b"From: Bakker, Jan <jan@a.nl>\nTo: Bakker, Piet <p@b.nl>; Q, q <q@b.nl>", "jan@a.nl", "pq"),
        (b"From: jan@a.nl\nTo: 'p@b.nl'; mailto:q@b.nl", "jan@a.nl", "pq"),
        (b"From: jan@a.nl\nTo: =?utf-8?q?z=40b=2Enl?= <p@b.nl>", "jan@a.nl", "p"),
    ],
)
def test_the_envelope_comes_from_the_header(
    tmp_path: Path, header: bytes, reverse_path: str | None, recipients: str
) -> None:
    envelope = read(tmp_path, header + b"\n\nHallo\n").envelope
    assert (str(envelope.reverse_path) if envelope.reverse_path else None) == reverse_path
    assert [str(one.address) for one in envelope.recipients] == [f"{letter}@b.nl" for letter in recipients]


def test_words_that_hide_recipients_are_looked_for_in_linear_time() -> None:
    header = Header.parse(b"To: " + b"recipient" * 200_000 + b" @\r\n\r\n")
    with pytest.raises(BadAddressees, match="To: no usable address"):
        recipients(header)


def test_fields_for_the_folder_are_no_part_of_the_message(tmp_path: Path) -> None:
    one = read(tmp_path, b"\xef\xbb\xbfX-Sender: a@a.nl\r\nX-Receiver:\r\n p@b.nl\r\nFrom: jan@a.nl\r\n\r\nHallo")
    assert one.whole
    assert one.head == b"From: jan@a.nl\r\n\r\n"
    assert one.first == b"From: jan@a.nl\r\n\r\nHallo\r\n"
    assert not one.envelope.smtputf8
    assert read(tmp_path, "To: jürgen@b.nl\n\n".encode()).envelope.smtputf8


CASES = Path(__file__).parent.parent / "cases"


def test_fields_for_the_folder_count_below_the_top_and_never_leave(tmp_path: Path) -> None:
    one = read(tmp_path, (CASES / "x-receiver-below-the-top/message.eml").read_bytes())
    assert str(one.envelope.reverse_path) == "bounce@example.nl"
    assert [str(to.address) for to in one.envelope.recipients] == ["klant@example.org", "directie@example.nl"]
    assert b"X-" not in one.first
    assert one.first.startswith(one.head)
    assert one.head.startswith(b"MIME-Version: 1.0\r\nFrom: Jan de Vries")


def test_a_file_in_utf_16_is_set_aside_with_that_as_the_reason(tmp_path: Path) -> None:
    for content in (
        (CASES / "pickup-in-utf16/utf16.eml").read_bytes(),
        MESSAGE.decode().encode("utf-16-le"),
        MESSAGE.decode().encode("utf-16-be"),
    ):
        with pytest.raises(BadFile, match=r"the file is UTF-16; save it as UTF-8 or ASCII \(Out-File -Encoding utf8\)"):
            read(tmp_path, content)


@pytest.mark.parametrize("before", [b"\r\n", b"\n\n \t\r\n", b"\xef\xbb\xbf\r\n", b" "])
def test_empty_lines_at_the_top_are_skipped(tmp_path: Path, before: bytes) -> None:
    assert read(tmp_path, before + MESSAGE).first == AS_CONTENT
    one = read(tmp_path, (CASES / "pickup-in-utf16/blank-first.eml").read_bytes())
    assert [str(to.address) for to in one.envelope.recipients] == ["klant@example.org"]


@pytest.mark.parametrize(
    ("body", "auto", "undoubled"),
    [
        (b"a\r\n..nl\r\n..\r\n... en\r\n", b"a\r\n.nl\r\n.\r\n.. en\r\n", b"a\r\n.nl\r\n.\r\n.. en\r\n"),
        (b"Dit is een proef.\r\n.\r\n", b"Dit is een proef.\r\n", b"Dit is een proef.\r\n"),
        (b"..a\n.", b".a\r\n", b".a\r\n"),
        (b"..\r\n.\r\n", b".\r\n", b".\r\n"),
        (b"..a\r\n.b\r\n", b"..a\r\n.b\r\n", b".a\r\n.b\r\n"),
        (b".b\r\n.\r\n", b".b\r\n.\r\n", b".b\r\n"),
        (b"a\n.\n.\n", b"a\r\n.\r\n.\r\n", b"a\r\n.\r\n"),
        (b"a..\r\n b.\r\n", b"a..\r\n b.\r\n", b"a..\r\n b.\r\n"),
    ],
)
@pytest.mark.parametrize("before", [b"", b"x\r\n" * 200_000], ids=["small", "large"])
def test_dots_that_were_doubled_at_the_beginning_of_a_line_are_single_again(
    tmp_path: Path, before: bytes, body: bytes, auto: bytes, undoubled: bytes
) -> None:
    plain = body.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n").removesuffix(b"\r\n") + b"\r\n"
    head = AS_CONTENT.removesuffix(b"Hallo\r\n")
    for dots, expected in (("auto", auto), ("doubled", undoubled), ("plain", plain)):
        assert whole(tmp_path, head + before + body, replace(BOUNDS, dots=dots)) == head + before + expected


def test_the_case_of_dotnet_framework_has_its_links_again(tmp_path: Path) -> None:
    content = whole(tmp_path, (CASES / "pickup-with-doubled-dots/message.eml").read_bytes(), BOUNDS)
    assert content.endswith(b"https://www.example=\r\n.nl/factuur\r\n.\r\n.. en verder\r\n")
    content = whole(tmp_path, (CASES / "pickup-with-doubled-dots/iis.eml").read_bytes(), BOUNDS)
    assert content.endswith(b"\r\n\r\nDit is een proef.\r\n")


@given(st.lists(st.sampled_from([b".", b"\r\n", b"\n", b"a", b".."]), max_size=12).map(b"".join), st.integers(1, 5))
def test_dots_are_undone_alike_however_the_content_is_cut(text: bytes, length: int) -> None:
    content = normalise(text, header_first=False)
    lines = content.split(b"\r\n")
    cut = [content[at : at + length] for at in range(0, len(content), length)]
    cut = [piece for piece in cut if piece] or [b""]
    undoubling = Undoubling()
    # The conversion gives no half line end.
    pieces = b"\0".join(cut).replace(b"\r\0\n", b"\r\n\0").split(b"\0")
    given_back = b"".join([undoubling.undouble(piece, last=False) for piece in pieces])
    given_back += undoubling.undouble(b"", last=True)
    if lines[-1] == b".":
        del lines[-1]
        lines.append(b"")
    elif lines[-2:] == [b".", b""]:
        del lines[-2]
    assert given_back == b"\r\n".join([line[1:] if line.startswith(b"..") else line for line in lines])
    dotted = [line for line in content.removesuffix(b"\r\n").removesuffix(b"\r\n.").split(b"\r\n") if line[:1] == b"."]
    if dotted != [b"."] and not content.endswith(b"\r\n.\r\n.\r\n"):
        assert doubled(cut) == all(line.startswith(b"..") for line in dotted)


@given(st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b"\r\r\n", b".", b"regel", b"x" * 50, b"\n.\n"]), max_size=60))
def test_where_a_file_is_cut_makes_no_difference(tmp_path_factory: pytest.TempPathFactory, parts: list[bytes]) -> None:
    raw = b"To: p@b.nl\n\n" + b"".join(parts)
    path = tmp_path_factory.getbasetemp() / "cut.eml"
    path.write_bytes(raw)
    descriptor = os.open(path, os.O_RDONLY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pickup_file, "PIECE", 16)
        try:
            one = PickupFile(descriptor, Bounds(100_000, 16, 10, "plain"))
            content = one.first
            while piece := one.more():
                content += piece
        finally:
            os.close(descriptor)
    whole = normalise(raw, header_first=True)
    assert content == whole + (b"" if whole.endswith(b"\r\n") else b"\r\n")


def test_names_that_are_aliases_need_no_domain_in_a_file(tmp_path: Path) -> None:
    aliases = Aliases("relay.example.nl", {"root": (Address("admin", "example.nl"),)})

    def recipients(to: bytes) -> list[tuple[str, str | None]]:
        file = tmp_path / "one.eml"
        file.write_bytes(b"From: jan@example.nl\r\n" + to + b"\r\n\r\nHallo\r\n")
        with file.open("rb") as opened:
            envelope = PickupFile(opened.fileno(), BOUNDS, aliases).envelope
        return [(str(one.address), one.orcpt) for one in envelope.recipients]

    admin = ("admin@example.nl", "rfc822;root@relay.example.nl")
    assert recipients(b"To: root, piet@example.org") == [admin, ("piet@example.org", None)]
    assert recipients(b"To: root@relay.example.nl") == [admin]
    assert recipients(b"X-Receiver: root\r\nTo: piet@example.org") == [admin]
    with pytest.raises(BadFile, match="no usable address: klaas"):
        recipients(b"To: klaas")
