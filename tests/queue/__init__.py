"""The queue. `conformance` has the promises of any store; what SQLite adds is tested beside it."""

import pytest

pytest.register_assert_rewrite("tests.queue.conformance")
