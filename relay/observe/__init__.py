"""Those who watch: `fan_out` tells everybody, `log` writes lines, `metrics` counts, `recent` and `clients` remember.

Start with `table` (what each event says in the log, and what it counts) and `needs_a_person`.
"""
