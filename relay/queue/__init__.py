"""Mail we answer for. `model` has the values, `store` the seam, `sqlite` the database of the store we ship.

Start with `store`: what it promises is what "250 means kept" rests on. Then the way of an operation: `store_loop` (the
event loop's side), `operations`, `writer` (group commit), `disk` (what a database does, and promises), `ledger` (what
the loop knows after the commit). What operators see and do: `listing` (values), `questions`, `operations/operator`.
"""
