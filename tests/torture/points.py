"""Where a relay can die: the moments of its life that have a name, as passages of its functions.

`POINTS` and `WAYS` are the tables: a moment in words, and the function of the relay at whose beginning or end it is.
`prepare` wraps that function, in the child that is to die there (`dying`). `WITHOUT` has what a child can be told to
leave out, for the tests that have to fail then.
"""

from __future__ import annotations

import functools
import inspect
import os
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from tests.torture.dying import Order

SQLITE, START = "relay.queue.sqlite.database", "relay.queue.sqlite.start"
GROUPED, SPOOL = "relay.queue.store_loop:GroupedStore", "relay.queue.spool"
DATABASE, CONNECTION, WORKER = (
    f"{SQLITE}:Database",
    "relay.transport.transaction:SmtpConnection",
    "relay.delivery.worker:Worker",
)
STORE, WRITER, SPOOLS = f"{START}:SqliteStore", f"{SPOOL}:SpoolWriter", f"{SPOOL}:Spool"
DIRECTORY = "relay.durable:Directory"


@dataclass(frozen=True, slots=True)
class Point:
    """Before or `after` `name` of `owner` ("module" or "module:class"), where its arguments are such (`only`).

    It is the moment of the `passage`th time.
    """

    owner: str
    name: str
    after: bool = False
    only: Callable[[Sequence[Any]], bool] = lambda _: True
    passage: int = 1


def has(kind: str) -> Callable[[Sequence[Any]], bool]:
    """The batch has an operation of this kind."""
    return lambda arguments: any(type(one).__name__ == kind for one in _batch(arguments))


def _batch(arguments: Sequence[Any]) -> list[Any]:
    return next((one for one in arguments if isinstance(one, list)), [])


def _with_bounce(arguments: Sequence[Any]) -> bool:
    """The batch has a settlement with a notification."""
    return any(type(one).__name__ == "Settle" and one.settlement.notifications for one in _batch(arguments))


def _bounce_leaves(arguments: Sequence[Any]) -> bool:
    return arguments[1].reverse_path is None


def _acknowledges(arguments: Sequence[Any]) -> bool:
    return b"OK: queued as" in arguments[1]


def _acknowledged_before(arguments: Sequence[Any]) -> bool:
    """A command comes from a client that has had a 250 for a message."""
    return arguments[0]._messages > 0 and arguments[0]._reader is None


def _past_dot(arguments: Sequence[Any]) -> bool:
    return bool(arguments[0].past_dot)


def _new_file(arguments: Sequence[Any]) -> bool:
    return str(arguments[0]).endswith(".part")


def _of_spool(arguments: Sequence[Any]) -> bool:
    return str(arguments[0].path).endswith(".spool")


def _ended_files(arguments: Sequence[Any]) -> bool:
    return isinstance(arguments[1], list) and bool(arguments[1])


def _orphans(arguments: Sequence[Any]) -> bool:
    return isinstance(arguments[1], set) and bool(arguments[1])


_DOOR = {
    "before its row is written": Point(GROUPED, "put", passage=5),
    "its row is written and not committed": Point(SQLITE, "run_all", True, has("Put"), 3),
    "its row is committed and the event loop does not know": Point(DATABASE, "commit", True, has("Put"), 3),
    "its row is committed and 250 is not said": Point(GROUPED, "put", True, passage=5),
    "250 is written": Point("relay.ingress.smtp:Wire", "_write", True, _acknowledges, 5),
    "250 was heard": Point("relay.ingress.session:Session", "data_received", False, _acknowledged_before, 2),
}
_SPOOL = {
    "before its spool file is made": Point(WRITER, "_append"),
    "its spool file is half written": Point(WRITER, "_append", True),
    "its spool file is written and not synced": Point(WRITER, "_settle"),
    "its spool file is synced and not renamed": Point("os", "rename", False, _new_file),
    "its spool file is renamed and the folder is not synced": Point("os", "rename", True, _new_file),
    "the folder is synced and its row is not written": Point(DIRECTORY, "sync", True, _of_spool),
    "its row is gone and its spool file is there": Point(SPOOLS, "remove_now", False, _ended_files),
    "its spool file is gone": Point(SPOOLS, "remove_now", True, _ended_files),
}
_DELIVERY = {
    "leased and not committed": Point(SQLITE, "run_all", True, has("Take")),
    "the lease is committed and the event loop does not know": Point(DATABASE, "commit", True, has("Take")),
    "leased": Point(GROUPED, "lease", True),
    "before MAIL": Point(CONNECTION, "deliver", passage=4),
    "the upstream wants the content": Point(CONNECTION, "_send", passage=4),
    "the content is written, dot and all": Point(CONNECTION, "_write_end", True, passage=4),
    "the upstream's answer is here and unread": Point(CONNECTION, "data_received", False, _past_dot, 4),
    "the upstream's answer is read and not judged": Point(WORKER, "judged", passage=4),
    "judged and not given to the store": Point(GROUPED, "settle", passage=4),
    "the settlement is written and not committed": Point(SQLITE, "run_all", True, has("Settle"), 3),
    "the settlement is committed and the event loop does not know": Point(DATABASE, "commit", True, has("Settle"), 3),
    "the settlement is committed and nobody was told": Point(WORKER, "told", passage=4),
}
_BOUNCE = {
    "before a bounce is written": Point("relay.mail.dsn", "build"),
    "a bounce is written": Point("relay.mail.dsn", "build", True),
    "a bounce is put and not committed": Point(SQLITE, "run_all", True, _with_bounce),
    "a bounce is committed and the event loop does not know": Point(DATABASE, "commit", True, _with_bounce),
    "before a bounce leaves": Point(CONNECTION, "deliver", False, _bounce_leaves),
}
VERBS = ("release", "cancel", "bounce", "reroute", "retry", "hold")
"""What the operator of a day does, in this order (`day`)."""
_OPERATOR = {
    name: Point(owner, what, True, only, passage)
    for passage, verb in enumerate(VERBS, 1)
    for name, owner, what, only in (
        (f"an operator's {verb} is written and not committed", SQLITE, "run_all", has("Act")),
        (f"an operator's {verb} is committed and not answered", DATABASE, "commit", has("Act")),
    )
}
_CHECKPOINT = {
    "before a checkpoint": Point(DATABASE, "afterwards", passage=6),
    "after a checkpoint": Point(DATABASE, "afterwards", True, passage=6),
    "before the log is wiped of a session code": Point(DATABASE, "_empty_log"),
    "the log is wiped of a session code": Point(DATABASE, "_empty_log", True),
}
_START = {
    "the lock is had": Point("relay.queue.sqlite.lock:Lock", "acquire", True),
    "the database is opened": Point(DATABASE, "open", True),
    "before leases are taken back": Point(START, "look_around"),
    "leases are taken back and not committed": Point(START, "look_around", True),
    "leases are taken back, orphans lie there": Point(SPOOLS, "remove_now", False, _orphans),
    "orphans are removed": Point(SPOOLS, "remove_now", True, _orphans),
    "the store is open and no door": Point(STORE, "open", True),
    "doors open": Point("relay.daemon.doors:Doors", "start", True),
}
_END = {
    "it stops, and the doors are closed": Point("relay.daemon.doors:Doors", "close", True),
    "all work has ended and the store is open": Point(DATABASE, "close"),
    "the log is copied to the database and gone": Point(DATABASE, "close", True),
}
POINTS: dict[str, Point] = {
    **_DOOR,
    **_SPOOL,
    **_DELIVERY,
    **_BOUNCE,
    **_OPERATOR,
    **_CHECKPOINT,
    **_START,
    **_END,
}


def _by_the_other_way(arguments: Sequence[Any]) -> bool:
    return bool(arguments[1] == "own")


CLAIMS = "relay.delivery.hedge:Claims"
WAYS: dict[str, Point] = {
    "the first way is asked": Point("relay.transport.exchange:HttpsConnection", "deliver"),
    "the first way has said no": Point("relay.transport.exchange:HttpsConnection", "deliver", True),
    "the other way is ready": Point(CLAIMS, "claim", False, _by_the_other_way),
    "the change of way is written and not committed": Point(SQLITE, "run_all", True, has("ChangeWay")),
    "the change of way is committed and the event loop does not know": Point(
        DATABASE, "commit", True, has("ChangeWay")
    ),
    "the change of way is committed and the gate is closed": Point(CLAIMS, "claim", True, _by_the_other_way),
    "the other way wants the content": Point(CONNECTION, "_send"),
    "the content is written to the other way, dot and all": Point(CONNECTION, "_write_end", True),
    "the other way's answer is here and unread": Point(CONNECTION, "data_received", False, _past_dot),
    "the other way's answer is read and not settled": Point(GROUPED, "settle"),
}
"""Of a session code that the first way, a vendor's endpoint, does not want now, and the second, "own", takes."""


def _normal_synchronous() -> None:
    """SQLite does not sync the log at each commit: a power cut takes what was committed last."""
    database = _owner(DATABASE)
    opened = database.open

    def open(self: Any) -> Any:
        connection = opened(self)
        connection.execute("PRAGMA synchronous = NORMAL")
        return connection

    database.open = open


def _no_folder_sync() -> None:
    """The folder of spool files is not synced after a rename."""
    _owner(DIRECTORY).sync = lambda _: None


def _no_file_sync() -> None:
    """A spool file is renamed unsynced."""

    class Os:
        def __getattr__(self, name: str) -> Any:
            return getattr(os, name)

        @staticmethod
        def fsync(descriptor: int) -> None:
            if not os.path.isdir(f"/proc/self/fd/{descriptor}"):
                return
            os.fsync(descriptor)

    setattr(import_module(SPOOL), "os", Os())  # noqa: B010


WITHOUT: dict[str, Callable[[], None]] = {
    "synchronous=FULL": _normal_synchronous,
    "the sync of the spool folder": _no_folder_sync,
    "the sync of spool files": _no_file_sync,
}


def prepare(order: Order) -> None:
    """In the child, before it serves."""
    if order.hasty:
        setattr(import_module(SQLITE), "LONGEST_LOG", 1)  # noqa: B010
        setattr(import_module("relay.queue.store_loop"), "WIPE_AFTER", 0.01)  # noqa: B010
        setattr(import_module("relay.delivery.worker"), "SWEEP", 0.02)  # noqa: B010
    if order.without:
        WITHOUT[order.without]()
    if order.point:
        point = (POINTS | WAYS)[order.point]
        _wrap(point, _Death(point.passage))


class _Death:
    """Comes at a passage, on whatever thread."""

    def __init__(self, passage: int) -> None:
        self._left = passage
        self._lock = threading.Lock()

    def pass_by(self) -> None:
        with self._lock:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


def _owner(name: str) -> Any:
    module, _, inside = name.partition(":")
    found = import_module(module)
    return getattr(found, inside) if inside else found


def _wrap(point: Point, death: _Death) -> None:
    owner = _owner(point.owner)
    plain = vars(owner)[point.name]
    of_class = isinstance(plain, classmethod)
    function = plain.__func__ if of_class else plain

    def pass_by(after: bool, arguments: Sequence[Any]) -> None:
        if after is point.after and point.only(arguments):
            death.pass_by()

    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def wrapped(*arguments: Any, **keywords: Any) -> Any:
            pass_by(False, arguments)
            result = await function(*arguments, **keywords)
            pass_by(True, arguments)
            return result
    else:

        @functools.wraps(function)
        def wrapped(*arguments: Any, **keywords: Any) -> Any:
            pass_by(False, arguments)
            result = function(*arguments, **keywords)
            pass_by(True, arguments)
            return result

    setattr(owner, point.name, classmethod(wrapped) if of_class else wrapped)
