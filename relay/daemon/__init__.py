"""The running house: one TaskGroup, start, reload, drain, signals. `house` is the place to start reading."""
