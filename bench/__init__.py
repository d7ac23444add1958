"""What measures the relay. `python -m bench` (`make bench`) is the comparison with Postfix; start reading there.

`scenes` has the tables, `workloads` what is done, `runner` the order of it; `postfix`, `naive` and `ours` lay out the
peers, `peer` runs them, `sink` is the upstream; `results`, `aims` and `page` make docs/benchmarks.md.
`hostile`, `scale` and `soak` are measurements of their own.
"""
