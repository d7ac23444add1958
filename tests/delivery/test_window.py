"""How much a reader gets in an hour: twenty messages, then lines of a summary."""

from __future__ import annotations

from datetime import datetime, timedelta

from relay.delivery.window import MOST_LINES, MOST_MESSAGES, Window
from relay.mail.address import Address
from relay.queue.model import Reader, Told
from tests.queue.mail import NOON

JAN, PIET = Address.of("jan@example.nl"), Address.of("piet@example.nl")
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)


def sent(at: datetime, reader: Address = JAN) -> Told:
    return Told(reader, "7QK3AAAAAAAA", at)


def collected(at: datetime = NOON, reader: Address = JAN) -> Told:
    return Told(reader, "7QK3AAAAAAAA", at, "{}")


def crowded() -> Window:
    """Twenty messages to Jan, a minute after each other from noon on."""
    window = Window()
    for number in range(MOST_MESSAGES):
        assert window.full(NOON + number * MINUTE) == frozenset()
        window.note([sent(NOON + number * MINUTE)])
    return window


def test_after_twenty_messages_a_reader_is_full_until_the_first_is_an_hour_old() -> None:
    window = crowded()
    window.note([sent(NOON, PIET)])
    assert window.full(NOON + 20 * MINUTE) == {JAN}
    assert window.full(NOON + 59 * MINUTE) == {JAN}
    assert window.full(NOON + HOUR) == frozenset()
    window.note([sent(NOON + HOUR)])
    assert window.full(NOON + HOUR) == {JAN}
    assert window.full(NOON + HOUR + MINUTE) == frozenset()


def test_while_something_is_collected_all_that_follows_is_until_the_summary_is_written() -> None:
    window = crowded()
    window.note([collected()] * 3)
    assert window.due(NOON + 59 * MINUTE) == []
    assert window.due(NOON + HOUR) == [JAN]
    assert window.full(NOON + 2 * HOUR) == {JAN}
    window.summarised(JAN, 2, NOON + HOUR)  # one came while it was written
    assert window.due(NOON + HOUR) == []  # the summary took the room
    assert window.due(NOON + HOUR + MINUTE) == [JAN]
    window.summarised(JAN, 1, NOON + HOUR + MINUTE)
    assert window.due(NOON + 9 * HOUR) == []
    assert window.full(NOON + 9 * HOUR) == frozenset()


def test_five_hundred_lines_are_a_summary_by_themselves() -> None:
    window = crowded()
    window.note([collected()] * (MOST_LINES - 1))
    assert not window.is_due(JAN, NOON + 30 * MINUTE)
    window.note([collected()])
    assert window.is_due(JAN, NOON + 30 * MINUTE)
    window.summarised(JAN, MOST_LINES, NOON + 30 * MINUTE)
    assert not window.is_due(JAN, NOON + 30 * MINUTE)


def test_a_moment_of_a_wrong_clock_keeps_nobody_waiting() -> None:
    window = Window([Reader(JAN, (NOON + timedelta(days=365),) * MOST_MESSAGES, 0)])
    assert window.full(NOON) == frozenset()


def test_what_the_store_remembers_counts() -> None:
    window = Window([Reader(JAN, (NOON,) * MOST_MESSAGES, 0), Reader(PIET, (), 7)])
    assert window.full(NOON + MINUTE) == {JAN, PIET}
    assert window.due(NOON + MINUTE) == [PIET]


def test_readers_of_long_ago_are_forgotten_and_what_waits_for_them_is_not() -> None:
    window = crowded()
    window.note([collected(), sent(NOON, PIET)])
    assert window.prune(NOON + HOUR + MINUTE)  # Piet
    assert not window.prune(NOON + 2 * HOUR)
    assert window.prune(NOON + 2 * HOUR + MINUTE)  # Jan
    assert window.full(NOON + 2 * HOUR) == {JAN}
    assert window.due(NOON + 2 * HOUR) == [JAN]
    assert not window.prune(NOON + 4 * HOUR)


def test_the_store_is_asked_to_forget_at_the_start_and_while_anybody_is_written_to() -> None:
    window = Window()
    assert window.prune(NOON)
    assert not window.prune(NOON + HOUR)
    for hours in range(2, 5):
        window.note([sent(NOON + hours * HOUR)])
        assert window.prune(NOON + hours * HOUR)
