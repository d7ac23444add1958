"""Stage × fault: `table` says what becomes of a message, `test_table` shows it, `page` makes `docs/faults.md`."""
