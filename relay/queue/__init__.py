"""Mail we answer for. `model` has the values, `store` the seam, `sqlite` the store we ship.

Start with `store`: what it promises is what "250 means kept" rests on. Then the way of an operation:
`grouped` (the event loop's side), `work` and `operations`, `writer` (group commit), `sqlite` (the transaction),
`books` (what the loop knows after the commit). What operators see and do: `listing` (values), `reading`, `acting`,
`backup`.
"""
