from __future__ import annotations

import json
import os
import stat
from pathlib import Path

from relay.durable import Directory
from relay.mail.outcome import Deferred, Delivered, Stage
from relay.queue.content import FileContent
from relay.transport.capture import CaptureTransport
from relay.transport.port import CALLED_OFF, Delivery
from tests.transport.conftest import Run
from tests.transport.parts import MESSAGE, request


def test_a_captured_message_lies_byte_for_byte_beside_its_envelope(run: Run, folder: Path) -> None:
    async def scene() -> None:
        connection = await CaptureTransport("catch", folder).connect()
        assert isinstance(connection, CaptureTransport)
        delivery = await connection.deliver(request("piet@example.org", "kees@example.org"))
        assert [type(outcome) for outcome in delivery.outcomes] == [Delivered, Delivered]

    run(scene())
    assert sorted(os.listdir(folder)) == ["7QK3Z0M5X2A1.eml", "7QK3Z0M5X2A1.json"]
    assert (folder / "7QK3Z0M5X2A1.eml").read_bytes() == MESSAGE
    envelope = json.loads((folder / "7QK3Z0M5X2A1.json").read_text())
    assert envelope["reverse_path"] == "jan@example.nl"
    assert envelope["recipients"] == ["piet@example.org", "kees@example.org"]
    for file in folder.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_second_transaction_of_an_entry_overwrites_nothing(run: Run, folder: Path) -> None:
    async def scene() -> None:
        connection = await CaptureTransport("catch", folder).connect()
        assert isinstance(connection, CaptureTransport)
        await connection.deliver(request("piet@example.org"))
        await connection.deliver(request("kees@example.org", message=b"\r\nsecond"))

    run(scene())
    assert (folder / "7QK3Z0M5X2A1.eml").read_bytes() == MESSAGE
    assert (folder / "7QK3Z0M5X2A1-2.eml").read_bytes() == b"\r\nsecond"


def test_a_queue_id_cannot_lead_out_of_the_folder(run: Run, folder: Path) -> None:
    async def scene() -> None:
        connection = await CaptureTransport("catch", folder).connect()
        assert isinstance(connection, CaptureTransport)
        await connection.deliver(request(queue_id="../../etc/x"))

    run(scene())
    assert sorted(os.listdir(folder)) == ["______etc_x.eml", "______etc_x.json"]


def test_a_folder_that_cannot_be_made_sets_the_upstream_aside(run: Run, tmp_path: Path) -> None:
    async def scene() -> None:
        (tmp_path / "file").write_bytes(b"")
        outcome = await CaptureTransport("catch", tmp_path / "file" / "folder").connect()
        assert isinstance(outcome, Deferred)
        assert outcome.upstream_sick
        assert outcome.stage is Stage.CONNECT

    run(scene())


def test_a_message_that_cannot_be_written_whole_is_deferred_and_leaves_nothing(run: Run, folder: Path) -> None:
    async def scene() -> None:
        connection = await CaptureTransport("catch", folder).connect()
        assert isinstance(connection, CaptureTransport)
        missing = FileContent(Directory(folder), "gone", 10_000, b"A: b\r\n\r\n")
        delivery = await connection.deliver(request("a@example.org", "b@example.org", content=missing))
        assert delivery.sick is not None
        assert delivery.outcomes == (delivery.sick, delivery.sick)
        assert os.listdir(folder) == []

    run(scene())


def test_nothing_is_captured_of_a_message_that_goes_another_way(run: Run, folder: Path) -> None:
    async def scene() -> None:
        connection = await CaptureTransport("catch", folder).connect()
        assert isinstance(connection, CaptureTransport)
        gate = Closed()
        assert await connection.deliver(request("piet@example.org", gate=gate)) == Delivery((CALLED_OFF,))

    run(scene())
    assert os.listdir(folder) == []


class Closed:
    contested = True

    async def __call__(self) -> bool:
        return False
