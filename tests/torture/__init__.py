"""The promise that 250 means kept, attacked.

Each test here names the promise that it attacks (`@pytest.mark.promise("...")`) and says what it saw (`figures`).
`make test` runs a short form of each; `make torture` the long form (`size(short, long)`), one test at a time, keeps
what was seen in `results.json` and writes `docs/reliability.md` from it (`page`).
"""
