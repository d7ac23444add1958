"""`relay queue …` on a clock that stands: two screens of it are of one moment.

python -m tests.scenarios.still MOMENT WORDS     MOMENT as ISO 8601 has it
"""

from __future__ import annotations

import datetime
import sys

from relay.cli import queue
from relay.cli.main import main

MOMENT = datetime.datetime.fromisoformat(sys.argv.pop(1))


class Still(datetime.datetime):
    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:  # type: ignore[override]
        return MOMENT.astimezone(tz)


queue.datetime = Still  # type: ignore[attr-defined]
main()
