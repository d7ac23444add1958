"""What a second database has to have beside its own: the statements by name, and rows with the columns of `rows`."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import apsw
import apsw.ext

import relay.queue
from relay.queue.rows import EntryRow, HistoryRow, RecipientRow
from relay.queue.sqlite.statements import STATEMENTS, named, read

HERE = Path(relay.queue.__file__).parent
ROWS: dict[str, Any] = {
    **dict.fromkeys(("select_due", "select_expired", "select_expired_codes", "select_to_bounce"), EntryRow),
    **dict.fromkeys(("select_held_codes", "list_entries", "latest_entries", "entry_named"), EntryRow),
    "select_recipients": RecipientRow,
    **dict.fromkeys(("find_history", "history_named"), HistoryRow),
}


def texts(file: Path) -> set[str]:
    """What stands in quotes in it."""
    nodes = ast.walk(ast.parse(file.read_text()))
    return {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def test_the_list_of_statements_has_what_operations_and_questions_name_and_nothing_else() -> None:
    shared, own = named("statements.sql").keys(), named("own.sql").keys()
    said = set[str]().union(*(texts(file) for file in (*HERE.glob("*.py"), *(HERE / "operations").glob("*.py"))))
    assert shared - said == set()
    assert own & said == set()
    assert own - set[str]().union(*(texts(file) for file in (HERE / "sqlite").glob("*.py"))) == set()


def test_a_row_has_the_columns_by_which_it_is_called() -> None:
    connection = apsw.Connection(":memory:")
    connection.execute(read("schema.sql"))
    for name, row in ROWS.items():
        found = apsw.ext.query_info(connection, STATEMENTS[name])
        assert tuple(column for column, _ in found.description) == row._fields, name
