"""A pickup folder in which somebody else puts what they like: nothing outside it is touched, and it goes on.

What is in the way is put there by the test itself, or by a process of another user beside the relay.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay.durable import Directory
from relay.events import ExceptionCaught, MessageQueued, MessageRefused, Warned
from relay.ingress.folder import Claimed, Folder
from relay.ingress.pickup import AT_ONCE, READ_AT_ONCE
from relay.ingress.pickup_file import Bounds, PickupFile
from relay.mail.aliases import Aliases
from tests.ingress.house import PATIENCE, House, HouseOf, on_both_loops
from tests.ingress.test_pickup import AS_CONTENT, MESSAGE, a_pickup, at_work, files, put
from tests.kit.odd import ODD

STRANGER = 65534
NOBODY = b"From: jan@example.nl\n\nto nobody\n"
SECRET = MESSAGE.replace(b"Hallo", b"sesame")


class Outside:
    """A folder that nobody may touch, with a file in it that would do as a message."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(mode=0o711)
        self.file = folder / "precious.eml"
        self.file.write_bytes(SECRET)
        os.utime(self.file, (0, 0))
        self._was = self._now()

    def _now(self) -> tuple[object, ...]:
        seen = self.file.stat()
        return sorted(os.listdir(self.folder)), seen.st_mode, seen.st_uid, seen.st_mtime_ns, self.file.read_bytes()

    def check(self) -> None:
        assert self._now() == self._was


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "pickup"


@pytest.fixture
def outside(tmp_path: Path) -> Outside:
    return Outside(tmp_path / "outside")


PLACES = [
    "odd.eml",
    ".taken",
    "bad",
    ".taken/0K0000000000.odd.eml",
    "bad/bad.eml",
    "bad/bad.eml.reason.txt",
    "bad/bad.eml.reason.txt.partial",
]


def lay(kind: str, path: Path, outside: Outside) -> None:
    """Put it there, whatever was there."""
    if path.is_dir():
        path.rename(path.with_name("away"))
    if path.name in (".taken", "bad") and kind.startswith("a link"):
        path.symlink_to(outside.folder if kind == "a link" else outside.folder / "made")
    else:
        ODD[kind](path, outside.file)
    if kind != "a folder":
        os.utime(path, (0, 0), follow_symlinks=False)


async def good_and_bad(house: House, folder: Path) -> None:
    """The folder goes on: a good message is taken, a bad one refused, and the relay is not waiting for anything."""
    put(folder, "good.eml")
    await house.observed.until(MessageQueued)
    put(folder, "bad.eml", NOBODY)
    async with asyncio.timeout(PATIENCE):
        while not any("nobody is named" in one.text for one in house.observed.of(MessageRefused)):
            await asyncio.sleep(0)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", ODD)
@on_both_loops
async def test_nothing_outside_is_touched_and_other_files_go_on(
    house_of: HouseOf, folder: Path, outside: Outside, kind: str, place: str
) -> None:
    async with house_of() as house:
        pickup = a_pickup(house, folder)
        await pickup.open()
        lay(kind, folder / place, outside)
        async with at_work(a_pickup(house, folder)):  # at the start
            await good_and_bad(house, folder)
        assert await house.contents() == [AS_CONTENT]
        outside.check()
        there = [path for path in folder.rglob("bad*.eml") if path.is_file() and path.read_bytes() == NOBODY]
        assert [path.parent.name for path in there] == ["bad"]
        beside = [path for path in folder.glob("bad/bad*.reason*") if path.is_file() and not path.is_symlink()]
        assert any("nobody is named" in path.read_text() for path in beside)
        assert not house.observed.of(ExceptionCaught)


@on_both_loops
async def test_files_that_take_long_to_read_leave_threads_for_others(
    house_of: HouseOf, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, most, lock = 0, 0, threading.Lock()

    def read(descriptor: int, bounds: Bounds, aliases: Aliases | None) -> PickupFile:
        nonlocal reading, most
        with lock:
            reading += 1
            most = max(most, reading)
        try:
            return PickupFile(descriptor, bounds, aliases)
        finally:
            with lock:
                reading -= 1

    monkeypatch.setattr("relay.ingress.pickup.PickupFile", read)
    async with house_of() as house:
        pickup = a_pickup(house, folder)
        await pickup.open()
        for number in range(AT_ONCE):
            put(folder, f"{number}.eml", b"To: " + b";" * 20_000 + b"\n\n")
        await pickup._look()
        assert len(house.observed.of(MessageRefused)) == AT_ONCE
    assert most <= READ_AT_ONCE


@pytest.mark.parametrize("place", [".taken", "bad", "bad/bad.eml.reason.txt"])
@pytest.mark.parametrize("kind", ODD)
@on_both_loops
async def test_what_is_changed_while_the_relay_runs_makes_no_difference(
    house_of: HouseOf, folder: Path, outside: Outside, kind: str, place: str
) -> None:
    async with house_of() as house:
        pickup = a_pickup(house, folder)
        async with at_work(pickup):
            put(folder, "first.eml")
            await house.observed.until(MessageQueued)
            lay(kind, folder / place, outside)
            await good_and_bad(house, folder)
        outside.check()
        assert not house.observed.of(ExceptionCaught)


@pytest.mark.parametrize("kind", [kind for kind in ODD if kind != "a folder"])
@on_both_loops
async def test_what_is_no_message_of_the_folder_lies_in_bad_and_is_a_trouble_until_it_is_removed(
    house_of: HouseOf, folder: Path, outside: Outside, kind: str
) -> None:
    async with house_of() as house:
        pickup = a_pickup(house, folder)
        await pickup.open()
        lay(kind, folder / "odd.eml", outside)
        pickup._folder = Folder(folder, settled=0)  # a second name is new, whatever the file says
        await pickup._look()
        await pickup._look()
        assert pickup.lying == 1
        (refused,) = house.observed.of(MessageRefused)
        assert refused.text.startswith("odd.eml: cannot be read: ")
        assert sorted(os.listdir(folder / "bad")) == ["odd.eml", "odd.eml.reason.txt"]
        (folder / "bad" / "odd.eml").unlink()
        await pickup._look()
        assert pickup.lying == 0
        assert await house.entries() == []
        outside.check()


@on_both_loops
async def test_a_folder_with_the_name_of_a_message_is_a_trouble_and_stays(house_of: HouseOf, folder: Path) -> None:
    async with house_of() as house:
        pickup = a_pickup(house, folder)
        await pickup.open()
        (folder / "folder.eml").mkdir()
        await pickup._look()
        assert pickup.lying == 1
        (folder / "folder.eml").rmdir()
        await pickup._look()
        assert pickup.lying == 0


@on_both_loops
async def test_what_lies_where_a_folder_of_the_relay_belongs_is_put_beside_it(
    house_of: HouseOf, folder: Path, outside: Outside
) -> None:
    async with house_of() as house:
        pickup = a_pickup(house, folder)
        await pickup.open()
        for name in (".taken", "bad"):
            (folder / name).rmdir()
            (folder / name).symlink_to(outside.folder)
        await pickup._look()
        beside = [path for path in folder.iterdir() if path.is_symlink()]
        assert sorted(path.name.partition("-")[0] for path in beside) == [".taken", "bad"]
        await pickup._look()
        assert pickup.lying == 2
        for path in beside:
            path.unlink()
        await pickup._look()
        assert pickup.lying == 0
        outside.check()


@on_both_loops
async def test_a_reason_that_cannot_be_written_is_in_the_log(house_of: HouseOf, folder: Path) -> None:
    async with house_of() as house:
        pickup = a_pickup(house, folder)
        await pickup.open()
        for ending in ("reason.txt", *(f"reason-{number}.txt" for number in range(2, 10))):
            (folder / "bad" / f"bad.eml.{ending}").mkdir()
        put(folder, "bad.eml", NOBODY)
        await pickup._look()
        (warned,) = house.observed.of(Warned)
        assert warned.text.startswith("map: bad.eml: nobody is named in To, Cc or Bcc")
        assert files(folder) == ["bad/bad.eml"]


@on_both_loops
async def test_a_file_that_another_program_has_a_lease_on_keeps_no_other_waiting(
    house_of: HouseOf, folder: Path
) -> None:
    async with house_of() as house:
        pickup = a_pickup(house, folder)
        await pickup.open()
        with open(put(folder, "leased.eml", minutes=9), "rb+") as held:
            fcntl.fcntl(held, fcntl.F_SETLEASE, fcntl.F_WRLCK)
            fcntl.fcntl(held, fcntl.F_SETOWN, 0)  # nobody wants to be told that somebody opens it
            put(folder, "good.eml")
            assert await pickup._look() < 1
            assert [one.text for one in house.observed.of(Warned)] == [
                "map: leased.eml cannot be taken now: Resource temporarily unavailable"
            ]
            assert len(house.observed.of(MessageQueued)) == 1
            assert pickup.lying == 1
        async with at_work(pickup):
            await house.observed.until(MessageQueued, 2)
        assert files(folder) == []


@on_both_loops
async def test_a_file_with_a_second_name_for_a_moment_is_taken_and_not_refused(house_of: HouseOf, folder: Path) -> None:
    """Programs rename by link and unlink."""
    async with house_of() as house:
        pickup = a_pickup(house, folder)
        await pickup.open()
        other = put(folder, "making.tmp")
        (folder / "made.eml").hardlink_to(other)
        await pickup._look()
        assert house.observed.of(MessageRefused) == []
        other.unlink()
        await pickup._look()
        assert len(house.observed.of(MessageQueued)) == 1


@on_both_loops
async def test_a_crash_between_two_names_of_a_file_doubles_nothing(house_of: HouseOf, folder: Path) -> None:
    async with house_of() as house:
        await a_pickup(house, folder).open()
        put(folder, "factuur.eml")
        Folder(folder).claim([Claimed("0K0000000000", "factuur.eml")])
        (folder / "factuur.eml").hardlink_to(folder / ".taken" / "0K0000000000.factuur.eml")
        async with at_work(a_pickup(house, folder)):
            await house.observed.until(MessageQueued)
        assert files(folder) == []
        assert await house.contents() == [AS_CONTENT]


@on_both_loops
async def test_a_name_in_taken_that_begins_like_that_of_an_entry_is_not_its_file(
    house_of: HouseOf, folder: Path
) -> None:
    async with house_of() as house:
        async with at_work(a_pickup(house, folder)):
            put(folder, "een.eml")
            (queued,) = await house.observed.until(MessageQueued)
        put(folder, "twee.eml").rename(folder / ".taken" / f"{queued.queue_id[:4]}.twee.eml")
        async with at_work(a_pickup(house, folder)):
            await house.observed.until(MessageQueued, 2)
        assert files(folder) == []


# As another user


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder of the stranger's, which the relay may use; the one above it is nobody's."""
    if os.geteuid() != 0:
        pytest.skip("only root can let another user act")
    with tempfile.TemporaryDirectory() as made:
        above = Path(made)
        above.chmod(0o711)
        folder = above / "pickup"
        folder.mkdir()
        folder.chmod(0o770)
        os.chown(folder, STRANGER, 0)
        yield folder


def as_a_stranger(script: str, *arguments: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        ["/bin/sh", "-c", script, "sh", *map(str, arguments)], user=STRANGER, group=STRANGER, extra_groups=[]
    )


SWAP = """
cd "$1" || exit 1
printf 'From: a@example.nl\\nTo: b@example.nl\\n\\nswap\\n' > good.tmp
printf 'From: a@example.nl\\n\\nto nobody\\n' > bad.tmp
old() { touch -h -d '1 minute ago' "$1"; }
n=0
while [ $n -lt 60 ]; do
    n=$((n + 1))
    cp good.tmp g; old g; mv g x.eml
    ln -s "$2/precious.eml" l; old l; mv -T l x.eml
    mkfifo f; old f; mv f y.eml
    cp bad.tmp b; old b; mv b z$n.eml
    ln -s "$2/precious.eml" bad/z$n.eml.reason.txt
    mv -T bad bad.$n; ln -s "$2" bad
    mkfifo -m 666 bad.$n/z$n.eml.reason.txt
    mv -T .taken t.$n; ln -s "$2" .taken
    rm -f bad .taken 2> /dev/null; mkdir -m 777 bad .taken 2> /dev/null
done 2> /dev/null
exit 0
"""


@on_both_loops
async def test_names_that_change_between_look_and_use_lead_nowhere(house_of: HouseOf, shared: Path) -> None:
    outside = Outside(shared.with_name("outside"))
    async with house_of() as house:
        async with at_work(a_pickup(house, shared)):
            stranger = as_a_stranger(SWAP, shared, outside.folder)
            assert await asyncio.to_thread(stranger.wait, PATIENCE) == 0
            put(shared, "last.eml", MESSAGE.replace(b"Factuur", b"The last"))
            async with asyncio.timeout(PATIENCE):
                while not any(b"The last" in content for content in await house.contents()):
                    await asyncio.sleep(0)
        outside.check()
        assert not any(b"sesame" in content for content in await house.contents())
        assert not house.observed.of(ExceptionCaught)


@on_both_loops
async def test_where_nobody_but_the_owner_removes_files_nothing_is_claimed(house_of: HouseOf, shared: Path) -> None:
    script = 'cd "$1"; mkdir .taken bad; chmod 1777 .taken bad'
    assert as_a_stranger(script, shared).wait() == 0
    async with house_of() as house:
        async with at_work(a_pickup(house, shared)):
            await good_and_bad(house, shared)
        assert {(shared / name).stat().st_uid for name in (".taken", "bad")} == {os.geteuid()}
        assert len(files(shared / "bad")) == 2
        assert len(await house.contents()) == 1


def test_a_file_that_cannot_be_taken_out_of_taken_has_no_second_name(folder: Path) -> None:
    ours = Folder(folder)
    ours.make()
    put(folder, "stuk.eml")
    (one,), _ = ours.claim([Claimed("0K0000000000", "stuk.eml")])
    remove = Directory.remove

    def no_longer(directory: Directory, name: str) -> None:
        if name == one.kept_as:
            raise PermissionError(errno.EPERM, "no longer")
        remove(directory, name)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Directory, "remove", no_longer)
        with pytest.raises(PermissionError):
            ours.give_back(one)
    assert files(folder) == [".taken/0K0000000000.stuk.eml"]


def test_thousands_of_names_that_are_in_use_are_not_tried(folder: Path) -> None:
    ours = Folder(folder)
    ours.make()
    for name in ("stuk.eml", *(f"stuk-{number}.eml" for number in range(2, 10))):
        put(folder / "bad", name)
    put(folder, "stuk.eml")
    (one,), _ = ours.claim([Claimed("0K0000000000", "stuk.eml")])
    assert ours.set_aside(one, "why")
    assert len(list((folder / "bad").glob("stuk-????????.eml"))) == 1


@on_both_loops
async def test_what_a_stranger_owns_and_nobody_may_read_is_refused(house_of: HouseOf, shared: Path) -> None:
    async with house_of() as house:
        async with at_work(a_pickup(house, shared)):
            script = 'cd "$1"; printf x > t; chmod 0 t; touch -d "1 minute ago" t; mv t "$(printf "a\\033[2J\\nb.eml")"'
            assert as_a_stranger(script, shared).wait() == 0
            (refused,) = await house.observed.until(MessageRefused)
        assert refused.text.isprintable()
        assert len(os.listdir(shared / "bad")) == 2
