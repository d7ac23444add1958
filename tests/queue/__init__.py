"""The queue. `conformance` and `operators` have the promises of any store; what SQLite adds is tested beside it."""

import pytest

pytest.register_assert_rewrite("tests.queue.conformance", "tests.queue.operators")
