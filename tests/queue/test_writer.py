"""Group commit: what goes to the thread together, and what waits for company."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from relay.queue import writer
from relay.queue.operations.walk import Record, Settle
from relay.queue.writer import GroupCommit

pytestmark = pytest.mark.asyncio


class Commits:
    """A group commit whose thread only notes what it was given."""

    def __init__(self, *, more_to_come: bool, afterwards: Callable[[], None] = lambda: None) -> None:
        self.batches: list[list[str]] = []
        self.came = asyncio.Event()
        self.group: GroupCommit[str, None, list[str], None] = GroupCommit(
            commit=lambda items, _: items,
            prepare=lambda: None,
            apply=self._apply,
            afterwards=afterwards,
            noticed=lambda _: None,
            more_to_come=lambda: more_to_come,
        )

    def _apply(self, items: list[str]) -> None:
        self.batches.append(items)
        self.came.set()

    async def close(self) -> list[list[str]]:
        await self.group.close()
        return self.batches


async def test_a_settlement_and_the_message_that_comes_after_it_share_a_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "COMPANY", 60.0)  # three turns of the loop may take long on a busy machine
    commits = Commits(more_to_come=True)
    commits.group.submit("settle 1", patient=True)
    for _ in range(3):
        await asyncio.sleep(0)
    commits.group.submit("put 2")
    assert await commits.close() == [["settle 1", "put 2"]]


async def test_a_settlement_waits_for_nobody_when_nobody_is_likely_to_come() -> None:
    commits = Commits(more_to_come=False)
    commits.group.submit("settle 1", patient=True)
    await commits.came.wait()
    commits.group.submit("put 2")
    assert await commits.close() == [["settle 1"], ["put 2"]]


async def test_a_settlement_that_nobody_joins_is_committed_all_the_same() -> None:
    commits = Commits(more_to_come=True)
    commits.group.submit("settle 1", patient=True)
    await commits.came.wait()
    assert await commits.close() == [["settle 1"]]


async def test_a_message_waits_for_no_company() -> None:
    commits = Commits(more_to_come=True)
    commits.group.submit("put 1")
    await commits.came.wait()
    commits.group.submit("settle 1", patient=True)
    commits.group.submit("settle 2", patient=True)
    assert await commits.close() == [["put 1"], ["settle 1", "settle 2"]]


async def test_what_a_client_waits_for_that_has_its_answer_from_the_provider_waits_for_no_company() -> None:
    assert (Settle.patient, Record.patient) == (True, False)


async def test_closing_commits_what_still_waits_for_company() -> None:
    commits = Commits(more_to_come=True)
    commits.group.submit("settle 1", patient=True)
    assert await commits.close() == [["settle 1"]]


async def test_what_fails_behind_a_commit_is_reported_once_and_the_next_commits_are_answered() -> None:
    def fail() -> None:
        raise OSError("the disk is gone")

    reported: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(str(context["exception"])))
    commits = Commits(more_to_come=False, afterwards=fail)
    for item in ("put 1", "put 2", "put 3"):
        commits.came.clear()
        commits.group.submit(item)
        async with asyncio.timeout(60):
            await commits.came.wait()
    assert await commits.close() == [["put 1"], ["put 2"], ["put 3"]]
    assert reported == ["the disk is gone"]
