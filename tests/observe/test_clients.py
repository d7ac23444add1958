"""Who was here: what each client handed in, what it said of itself, and never more than a thousand of them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from relay import events
from relay.mail.quirk import Quirk
from relay.observe import clients
from relay.observe.clients import Clients, ClientSeen
from tests.observe.samples import CLIENT, DELIVERED, QUEUED

START = datetime(2026, 11, 23, 7, 0, tzinfo=UTC)


class Clock:
    """A second passes at each look."""

    def __init__(self) -> None:
        self.at = START.timestamp() - 1

    def __call__(self) -> float:
        self.at += 1
        return self.at


def seen(*told: events.Event) -> tuple[ClientSeen, ...]:
    made = Clients(now=Clock())
    for event in told:
        made.observe(event)
    return made.seen()


def refused(client: str = CLIENT) -> events.MessageRefused:
    return events.MessageRefused("legacy", client, None, "", (), "rejected_size", 552, "5.3.4", "too large")


def test_a_client_is_known_by_what_it_did_and_what_it_said_of_itself() -> None:
    (client,) = seen(
        events.ConnectionAccepted("legacy", CLIENT),
        events.QuirksTolerated("legacy", CLIENT, (Quirk.NO_HELO,)),
        events.ClientDescribed("legacy", CLIENT, "werkplek-7", "iMUIS 12"),
        QUEUED,
        events.QuirksTolerated("legacy", CLIENT, (Quirk.BARE_LF, Quirk.NO_DATE)),
        replace(QUEUED, listener="second"),
        events.QuirksTolerated("legacy", CLIENT, (Quirk.BARE_LF,)),
        refused(),
        DELIVERED,
    )
    assert client == ClientSeen(
        address=CLIENT,
        listeners=("legacy", "second"),
        first_seen=START,
        last_seen=START.replace(second=7),
        messages=2,
        refused=1,
        helo="werkplek-7",
        software="iMUIS 12",
        quirks={Quirk.NO_HELO: 1, Quirk.BARE_LF: 2, Quirk.NO_DATE: 1},
    )


def test_who_only_connects_is_seen_as_well() -> None:
    (client,) = seen(events.ConnectionAccepted("legacy", CLIENT))
    assert (client.messages, client.refused, client.helo) == (0, 0, "")


def test_the_latest_comes_first() -> None:
    found = seen(
        *(events.ConnectionAccepted("legacy", f"192.0.2.{number}") for number in (1, 2, 3)),
        replace(QUEUED, client="192.0.2.1"),
    )
    assert [client.address for client in found] == ["192.0.2.1", "192.0.2.3", "192.0.2.2"]


def test_who_was_seen_least_recently_makes_room() -> None:
    made = Clients(now=Clock())
    made.observe(replace(QUEUED, client="192.0.2.1"))
    made.observe(replace(QUEUED, client="192.0.2.2"))
    for number in range(clients.MOST - 2):
        made.observe(replace(QUEUED, client=f"2001:db8::{number:x}"))
    made.observe(refused("192.0.2.1"))
    made.observe(replace(QUEUED, client="198.51.100.9"))
    addresses = [client.address for client in made.seen()]
    assert len(addresses) == clients.MOST
    assert addresses[:2] == ["198.51.100.9", "192.0.2.1"]
    assert "192.0.2.2" not in addresses


def test_what_a_client_says_of_itself_is_cut() -> None:
    (client,) = seen(events.ClientDescribed("legacy", CLIENT, "h" * 1000, "s" * 1000))
    assert (len(client.helo), len(client.software)) == (255, 255)


def test_a_program_that_says_nothing_does_not_hide_what_another_on_the_same_machine_said() -> None:
    (client,) = seen(
        events.ClientDescribed("legacy", CLIENT, "werkplek-7", "iMUIS 12"),
        events.ClientDescribed("legacy", CLIENT, "scanner", ""),
    )
    assert (client.helo, client.software) == ("scanner", "iMUIS 12")


def test_what_was_seen_does_not_change_afterwards() -> None:
    made = Clients(now=Clock())
    made.observe(events.QuirksTolerated("legacy", CLIENT, (Quirk.BARE_LF,)))
    (before,) = made.seen()
    made.observe(events.QuirksTolerated("legacy", CLIENT, (Quirk.BARE_LF,)))
    assert before.quirks == {Quirk.BARE_LF: 1}
